"""The ASGI application: who may ask, what a request's body may be, and answers that end when their client goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from ...errors import only_faults, quoted
from ...observe.health import Health
from ...openai import Api
from ...openai.api import health_reply, metrics_reply
from ...openai.responses import error_body, event
from ..http_request import Hosts, Refused
from .body import read_body

_COMPRESS_BYTES = 1024  # smaller answers go as they are


class Status(Protocol):
    """What ``/metrics`` and ``/health`` say, where that is more than this process."""

    async def metrics(self) -> str: ...
    async def health(self) -> Health: ...


@dataclass(frozen=True)
class Access:
    """``hosts``: by which names the server may be called. ``origins``: sites whose pages may ask, besides its own."""

    hosts: Hosts
    origins: Collection[str] = field(default_factory=tuple)

    def check(self, headers: Headers) -> None:
        """Raises `Refused`: another site's page must not use what runs here, be it by a name that points here or by a
        request whose answer it cannot read."""
        host = headers.get("host", "")
        self.hosts.check(host)
        origin = headers.get("origin")
        if origin is None:
            if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
                raise Refused(403, "pages of other sites get nothing here (inpage serve --api --origin)")
        elif origin not in self.origins and _named(origin) != host.lower():
            raise Refused(
                403, f"pages of {quoted(origin)} get nothing here (inpage serve --api --origin {origin[:80]})"
            )


def _named(origin: str) -> str | None:
    """Host and port of an origin."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # a bracket without the other
        return None


def application(
    api: Callable[[], Api],
    access: Access,
    *,
    status: Callable[[], Status | None] = lambda: None,
    lifespan: Callable[[], AbstractAsyncContextManager[None]] | None = None,
) -> ASGIApp:
    """``lifespan`` is entered before the first request, which is when ``api`` and ``status`` are first asked for."""

    @asynccontextmanager
    async def alive(_: Starlette) -> AsyncIterator[None]:
        if lifespan is None:
            yield
            return
        async with lifespan():
            yield

    layers = [
        Middleware(_Guard, access=access),
        Middleware(
            CORSMiddleware,
            allow_origins=list(access.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            allow_private_network=True,
        ),
        Middleware(GZipMiddleware, minimum_size=_COMPRESS_BYTES, compresslevel=6),
    ]
    # An error of ours is logged by the server, and answered in the shape that clients read.
    return Starlette(
        routes=[Mount("", app=_Endpoint(api, status))],
        middleware=layers,
        exception_handlers={Exception: _broken},
        lifespan=alive,
    )


class _Guard:
    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._access.check(Headers(scope=scope))
            except Refused as refused:
                await _refusal(refused)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Endpoint:
    def __init__(self, api: Callable[[], Api], status: Callable[[], Status | None]) -> None:
        self._api, self._status = api, status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        try:
            body = await read_body(Request(scope, receive))
        except ClientDisconnect:
            return
        except Refused as refused:
            await _refusal(refused)(scope, receive, send)
            return
        await _while_heard(self._answer(scope, receive, send, body), receive)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        method, path = scope["method"], scope["path"].rstrip("/")
        status = self._status()
        asked = "GET" if method == "HEAD" else method
        if status is not None and (asked, path) == ("GET", "/metrics"):
            reply = metrics_reply(await status.metrics())
        elif status is not None and (asked, path) == ("GET", "/health"):
            reply = health_reply(await status.health())
        else:
            reply = await self._api().handle(asked, path, body)
        if isinstance(reply.body, str):
            whole = b"" if method == "HEAD" else reply.body.encode()
            await Response(whole, reply.status, dict(reply.headers))(scope, receive, send)
            return
        async with aclosing(reply.body) as chunks:
            headers = [(name.lower().encode(), value.encode()) for name, value in reply.headers.items()]
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            try:
                async for chunk in chunks:
                    await send({"type": "http.response.body", "body": chunk.encode(), "more_body": True})
            except BaseException as error:  # the status is sent: the stream itself must say it
                only_faults(error)
                last = event(error_body(error)).encode()
                await send({"type": "http.response.body", "body": last, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


async def _while_heard(answer: Awaitable[None], receive: Receive) -> None:
    """Await an answer as long as its client is there; one that leaves cancels it, read to its end or not."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    work, left = asyncio.ensure_future(answer), asyncio.ensure_future(gone())
    try:
        await asyncio.wait([work, left], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    finally:
        for task in (work, left):
            task.cancel()
        await asyncio.wait([work, left])


def _refusal(refused: Refused) -> Response:
    error = {"message": str(refused), "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, refused.status)


async def _broken(_: Request, error: Exception) -> Response:
    return JSONResponse(error_body(error), 500)
