"""OpenAI's Python client without a server: an ``http_client`` for it, in CPython and in Pyodide.

    client = AsyncOpenAI(api_key="-", base_url="http://inpage/v1", http_client=http_client(router))

Needs httpx, which the client itself depends on; nothing else of this package imports this module.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import httpx

from .api import Api, Reply
from .backend import Answers, Backend

# What a browser sets itself, and what it has undone when the body arrives.
_BROWSERS_OWN = {"accept-encoding", "connection", "content-length", "host", "user-agent"}
_UNDONE = {"content-encoding", "content-length"}


def http_client(to: Api | Answers | Backend | Callable[..., Any] | None = None) -> httpx.AsyncClient:
    """``to``: what answers. A `Router` or `Models` of this process, an `Api` of them; or, in Pyodide, JavaScript's
    ``fetch`` of an `InPage`, or nothing for the page's own ``fetch``, which its service worker answers."""
    return httpx.AsyncClient(transport=_transport(to), trust_env=False)


def _transport(to: Any) -> httpx.AsyncBaseTransport:
    if to is None:
        from js import fetch

        return FetchTransport(fetch)
    if isinstance(to, Api):
        return ApiTransport(to)
    if hasattr(to, "metrics") and hasattr(to, "health"):
        return ApiTransport(Api(cast("Answers | Backend", to)))
    return FetchTransport(to)


class ApiTransport(httpx.AsyncBaseTransport):
    """Hands requests to an `Api`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        seconds = _patience(request)
        body = await request.aread()
        with _in_time(request):
            async with asyncio.timeout(seconds):
                reply = await self._api.handle(request.method, request.url.path, body)
        if isinstance(reply.body, str):
            return httpx.Response(reply.status, headers=dict(reply.headers), content=reply.body.encode())
        return httpx.Response(reply.status, headers=dict(reply.headers), stream=_Events(reply, request, seconds))


class _Events(httpx.AsyncByteStream):
    def __init__(self, reply: Reply, request: httpx.Request, seconds: float | None) -> None:
        self._body: Any = reply.body
        self._request, self._seconds = request, seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            with _in_time(self._request):
                try:
                    async with asyncio.timeout(self._seconds):
                        event = await anext(self._body)
                except StopAsyncIteration:
                    return
            yield event.encode()

    async def aclose(self) -> None:
        await self._body.aclose()


class FetchTransport(httpx.AsyncBaseTransport):
    """Hands requests to JavaScript's ``fetch``, or to a function that does as it does. In Pyodide only."""

    def __init__(self, fetch: Callable[..., Any]) -> None:
        self._fetch = fetch

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        from js import AbortController, Object
        from pyodide.ffi import to_js

        stop, seconds, body = AbortController.new(), _patience(request), await request.aread()
        headers = [[name, value] for name, value in request.headers.items() if name not in _BROWSERS_OWN]
        how: dict[str, Any] = {"method": request.method, "headers": headers, "signal": stop.signal}
        if body:
            how["body"] = body
        try:
            with _in_time(request), _from_javascript(httpx.ConnectError, request):
                async with asyncio.timeout(seconds):
                    found = await self._fetch(str(request.url), to_js(how, dict_converter=Object.fromEntries))
        except BaseException:
            stop.abort()
            raise
        received = [(str(pair[0]), str(pair[1])) for pair in found.headers.entries() if str(pair[0]) not in _UNDONE]
        stream = None if found.body is None else _Body(found.body.getReader(), request, seconds)
        return httpx.Response(int(found.status), headers=received, stream=stream)


class _Body(httpx.AsyncByteStream):
    def __init__(self, reader: Any, request: httpx.Request, seconds: float | None) -> None:
        self._reader, self._request, self._seconds = reader, request, seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            with _in_time(self._request), _from_javascript(httpx.ReadError, self._request):
                async with asyncio.timeout(self._seconds):
                    piece = await self._reader.read()
            if piece.done:
                return
            yield piece.value.to_bytes()

    async def aclose(self) -> None:
        with _from_javascript(httpx.CloseError, self._request):
            await self._reader.cancel()  # of a body that is read to its end this does nothing


def _patience(request: httpx.Request) -> float | None:
    """Seconds to wait for the answer, and for each piece of it."""
    found: float | None = request.extensions.get("timeout", {}).get("read")
    return found


@contextmanager
def _in_time(request: httpx.Request) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise httpx.ReadTimeout("no answer in time", request=request) from error


@contextmanager
def _from_javascript(kind: type[httpx.TransportError], request: httpx.Request) -> Iterator[None]:
    from pyodide.ffi import JsException

    try:
        yield
    except JsException as error:
        raise kind(str(error), request=request) from error
