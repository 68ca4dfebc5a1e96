"""The operation "http": OpenAI's interface (`inpage.openai.Api`) over the messages of the router worker."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

from ..errors import InvalidRequest
from ..models import Models
from ..observe.health import Health
from ..openai import Api
from ..router import Router

Message = dict[str, Any]


class _Loading:
    """The registry, whose loads are told to the page."""

    def __init__(self, models: Models, using: Callable[[Message], AbstractAsyncContextManager[Router]]) -> None:
        self._models, self._using = models, using

    @property
    def names(self) -> list[str]:
        return self._models.names

    def use(self, name: str | None = None) -> AbstractAsyncContextManager[Router]:
        return self._using({} if name is None else {"model": name})

    async def embeds(self, name: str | None = None) -> bool:
        return await self._models.embeds(name)

    def metrics(self) -> str:
        return self._models.metrics()

    def health(self) -> Health:
        return self._models.health()


async def http(
    message: Message,
    models: Models,
    using: Callable[[Message], AbstractAsyncContextManager[Router]],
    post: Callable[[Message], None],
) -> None:
    """Answer one request. ``post``: "begun" with the head and the body, or of a stream "chunk" after "chunk" later.

    Where a chunk has ``token_ids`` and ``events``, the stream can be gone on with elsewhere: these added to "begun"'s
    ``resume`` make the `Position` after it. Cancelling the task ends the answer."""
    method, path, body = (_text(message, name) for name in ("method", "path", "body"))
    reply = await Api(_Loading(models, using)).handle(method, path, body, message.get("resume"))
    position = reply.position
    resume = None if position is None else {"id": position.id, "created": position.created, "seed": position.seed}
    whole = reply.body if isinstance(reply.body, str) else None
    post({"begun": {"status": reply.status, "headers": dict(reply.headers), "body": whole, "resume": resume}})
    if isinstance(reply.body, str):
        return
    sent = len((message.get("resume") or {}).get("token_ids", ()))
    async with aclosing(reply.body) as chunks:
        async for chunk in chunks:
            if position is None:
                post({"chunk": chunk})
                continue
            post({"chunk": chunk, "token_ids": position.token_ids[sent:], "events": position.events})
            sent = len(position.token_ids)


def _text(message: Message, name: str) -> str:
    value = message.get(name, "")
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a text", field=name)
    return value
