"""The endpoints: a method, a path and a body in, a reply out; streams as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any, cast

from ..errors import InpageError, InvalidRequest
from ..format import bounded
from ..format.limits import REQUEST_CHARS
from ..requests.tool_calls import CallReader, Event, Said
from ..responses.stream import Completion, Delta, Stream, together
from . import responses
from .backend import Answers, Backend, OneModel
from .logprobs import Written
from .requests import ParsedRequest, chat_request, completion_request
from .responses import ResponseWriter

BODY_BYTES = REQUEST_CHARS  # a larger request is refused unread


@dataclass(frozen=True, slots=True)
class Reply:
    """``body``: JSON text, or for a stream the events as they come. Closing the iterator cancels the answer."""

    status: int
    body: str | AsyncGenerator[str]
    headers: Mapping[str, str] = field(default_factory=dict)


class Api:
    """``/v1/models``, ``/v1/chat/completions``, ``/v1/completions``, ``/health`` and ``/metrics`` of one router, or of
    the models of a registry (`inpage.models.Models`), which loads the one that a request names."""

    def __init__(self, models: Answers | Backend) -> None:
        self._models = cast("Backend", models) if hasattr(models, "use") else OneModel(models)

    async def handle(self, method: str, path: str, body: str | bytes = b"") -> Reply:
        """Answer one HTTP request. Never raises: what goes wrong is a reply in OpenAI's error shape."""
        try:
            return await self._route(method, path.partition("?")[0].rstrip("/"), body)
        except Exception as error:
            return _failed(error)

    async def _route(self, method: str, path: str, body: str | bytes) -> Reply:
        names = self._models.names
        if path == "/v1/models":
            listed = {"object": "list", "data": [_model(name) for name in names]}
            return _allowed(method, "GET") or _json(listed)
        if path.startswith("/v1/models/"):
            name = path.removeprefix("/v1/models/")
            found = (
                _json(_model(name)) if name in names else _json(responses.no_such_model(name, ", ".join(names)), 404)
            )
            return _allowed(method, "GET") or found
        if path in ("/metrics", "/health"):
            return _allowed(method, "GET") or self._status(path)
        checks = {"/v1/chat/completions": chat_request, "/v1/completions": completion_request}
        if path not in checks:
            return _json(responses.error_body(InvalidRequest(f"unknown path {path[:80]!r}", field=None)), 404)
        refused = _allowed(method, "POST")
        if refused:
            return refused
        asked = checks[path](_parsed(body))
        if asked.model is not None and asked.model not in names:
            return _json(responses.no_such_model(asked.model, ", ".join(names)), 404)
        async with AsyncExitStack() as using:
            router = await using.enter_async_context(self._models.use(asked.model))
            written = Written(router.tokenizer) if "logprobs" in asked.params else None
            chat = path == "/v1/chat/completions"
            answer = ResponseWriter(asked.model or names[0], chat, written, asked.calls, asked.named_call)
            return await self._answer(router, asked, answer, using)

    async def _answer(
        self, router: Answers, asked: ParsedRequest, answer: ResponseWriter, using: AsyncExitStack
    ) -> Reply:
        """``using`` keeps the model: a stream takes it over."""
        streams = self._streams(router, asked, answer.chat)
        echoes = [router.tokenizer.decode(stream.prompt_ids) if asked.echo else "" for stream in streams]
        if not asked.stream:
            done = await together(streams)
            return _json(answer.whole(done, [echo + one.text for echo, one in zip(echoes, done, strict=True)]))
        events = await using.enter_async_context(aclosing(_events(answer, asked, streams, echoes)))
        # The first event is awaited here, so that a request that fails at once has a status that says so.
        first = await anext(events)
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        return Reply(200, _Begun(first, events, using.pop_all()), headers)

    def _streams(self, router: Answers, asked: ParsedRequest, chat: bool) -> list[Stream]:
        """One for each prompt and choice; choices of one prompt differ by seed."""
        ask = router.chat if chat else router.complete
        seed = asked.params.get("seed")
        streams = []
        for prompt in asked.prompts:
            for i in range(asked.n):
                params = dict(asked.params)
                if isinstance(seed, int) and i:
                    params["seed"] = seed + i
                streams.append(ask(prompt, **params))
        return streams

    def _status(self, path: str) -> Reply:
        if path == "/metrics":
            return Reply(200, self._models.metrics(), {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
        health = self._models.health()
        return _json(health.to_json(), 503 if health.status == "unhealthy" else 200)


async def _events(
    answer: ResponseWriter, asked: ParsedRequest, streams: list[Stream], echoes: list[str]
) -> AsyncGenerator[str]:
    done: dict[int, Completion] = {}
    begun: set[int] = set()
    said = [len(echo) for echo in echoes]  # characters of each choice
    readers = [CallReader() if answer.calls else None for _ in streams]
    try:
        async with aclosing(_merged(streams)) as pieces:
            async for index, delta in pieces:
                if index not in begun:
                    begun.add(index)
                    if answer.chat:
                        yield responses.event(answer.first(index))
                    elif echoes[index]:
                        yield responses.event(answer.piece(index, echoes[index]))
                reader, text = readers[index], delta.text
                calls: list[Event] = []
                if reader is not None:
                    calls = reader.push(text) + (reader.flush() if delta.result is not None else [])
                    text = "".join(event.text for event in calls if isinstance(event, Said))
                if text or delta.logprobs:
                    yield responses.event(answer.piece(index, text, delta.logprobs, said[index]))
                    said[index] += len(text)
                for event in calls:
                    if not isinstance(event, Said):
                        yield responses.event(answer.call(index, event))
                if delta.result is not None:
                    done[index] = delta.result
                    yield responses.event(answer.last(index, delta.result, reader.calls if reader else 0))
    except InpageError as error:
        if not begun:
            raise
        yield responses.event(responses.error_body(error))  # the status is sent already: the stream itself must say it
        return
    if asked.include_usage:
        yield responses.event(answer.totals([done[i] for i in sorted(done)]))
    yield responses.event("[DONE]")


async def _merged(streams: list[Stream]) -> AsyncGenerator[tuple[int, Delta]]:
    """The pieces of all streams as they come. Ends with the first error; leaving it cancels what runs."""
    pieces: asyncio.Queue[tuple[int, Delta | BaseException | None]] = asyncio.Queue()

    async def pump(index: int, stream: Stream) -> None:
        try:
            async with aclosing(stream.__aiter__()) as deltas:
                async for delta in deltas:
                    pieces.put_nowait((index, delta))
        except Exception as error:
            pieces.put_nowait((index, error))
        else:
            pieces.put_nowait((index, None))

    tasks = [asyncio.ensure_future(pump(i, stream)) for i, stream in enumerate(streams)]
    left = len(tasks)
    try:
        while left:
            index, piece = await pieces.get()
            if isinstance(piece, BaseException):
                raise piece
            if piece is None:
                left -= 1
            else:
                yield index, piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Begun(AsyncGenerator[str]):
    """Events, the first of which is known. Closing it, read or not, ends the answer and lets the model go."""

    def __init__(self, first: str, rest: AsyncGenerator[str], using: AsyncExitStack) -> None:
        self._first: str | None = first
        self._rest, self._using = rest, using

    async def asend(self, value: None) -> str:
        first, self._first = self._first, None
        if first is not None:
            return first
        try:
            return await anext(self._rest)
        except BaseException:
            await self._using.aclose()
            raise

    async def athrow(self, *thrown: Any) -> str:
        await self._using.aclose()
        return await super().athrow(*thrown)


def _parsed(body: str | bytes) -> Any:
    try:
        return bounded.read(body, BODY_BYTES)
    except bounded.Excessive as error:
        raise InvalidRequest(f"the body cannot be taken: {error}", field=error.field) from error
    except ValueError as error:
        raise InvalidRequest(f"the body is not JSON: {error}", field=None) from error


def _allowed(method: str, only: str) -> Reply | None:
    if method.upper() == only:
        return None
    error = InvalidRequest(f"{method[:20]} is not allowed here: use {only}", field=None)
    return Reply(405, json.dumps(responses.error_body(error)), {"Content-Type": "application/json", "Allow": only})


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "inpage"}


def _json(body: Mapping[str, Any], status: int = 200) -> Reply:
    return Reply(status, json.dumps(body, ensure_ascii=False), {"Content-Type": "application/json"})


def _failed(error: Exception) -> Reply:
    status = responses.error_status(error)
    headers = {"Content-Type": "application/json"}
    if status == 429:
        headers["Retry-After"] = str(responses.RETRY_SECONDS)
    return Reply(status, json.dumps(responses.error_body(error)), headers)
