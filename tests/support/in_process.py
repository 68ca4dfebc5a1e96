"""OpenAI's real client talking to `inpage.openai.Api` without a socket: an httpx transport hands the messages over."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import openai

from inpage.openai import Api


class _Events(httpx.AsyncByteStream):
    def __init__(self, events: AsyncIterator[str]) -> None:
        self._events = events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for event in self._events:
            yield event.encode()

    async def aclose(self) -> None:
        await self._events.aclose()  # type: ignore[attr-defined]  # an async generator


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, api: Api) -> None:
        self._api = api

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        reply = await self._api.handle(request.method, request.url.path, await request.aread())
        body = reply.body.encode() if isinstance(reply.body, str) else None
        stream = None if isinstance(reply.body, str) else _Events(reply.body)
        return httpx.Response(reply.status, headers=dict(reply.headers), content=body, stream=stream)


def openai_client(api: Api) -> openai.AsyncOpenAI:
    http = httpx.AsyncClient(transport=_Transport(api))
    return openai.AsyncOpenAI(api_key="none", base_url="http://inpage.local/v1", http_client=http, max_retries=0)
