"""The endpoints: a method, a path and a body in, a reply out; streams as server-sent events."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from typing import Any, cast

from ..errors import InvalidRequest, only_faults, quoted, said
from ..format import bounded
from ..format.limits import REQUEST_CHARS
from ..observe.health import Health
from ..responses.stream import Stream, together
from . import responses
from .backend import Answers, Backend, OneModel
from .embeddings import PATHS, VectorRequest, vector_request
from .logprobs import Written
from .requests import ParsedRequest, chat_request, completion_request
from .response_events import ResponseEvents
from .response_requests import ResponseRequest, renamed, response_request
from .responses import Echo, ResponseWriter
from .streams import Begun, ChoiceEvents, Position, Writes, events

BODY_BYTES = REQUEST_CHARS  # a larger request is refused unread


@dataclass(frozen=True, slots=True)
class Reply:
    """``body``: JSON text, or for a stream the events as they come. Closing the iterator cancels the answer."""

    status: int
    body: str | AsyncGenerator[str]
    headers: Mapping[str, str] = field(default_factory=dict)
    position: Position | None = None  # of a stream that another router can go on with


class Api:
    """``/v1/models``, ``/v1/chat/completions``, ``/v1/completions``, ``/v1/responses``, ``/v1/embeddings``,
    ``/v1/rerank``, ``/health`` and ``/metrics`` of one router, or of the models of a registry
    (`inpage.models.Models`), which loads the one that a request names."""

    def __init__(self, models: Answers | Backend) -> None:
        self._models = cast("Backend", models) if hasattr(models, "use") else OneModel(models)

    async def handle(self, method: str, path: str, body: str | bytes = b"", resume: Any = None) -> Reply:
        """Answer one HTTP request. Never raises: what goes wrong is a reply in OpenAI's error shape.

        ``resume``: a `Position`, as JSON, of the same request's stream at a router that is no more. The reply's events
        are then those that are missing."""
        try:
            position = None if resume is None else Position.of(resume)
            return await self._route(method, path.partition("?")[0].rstrip("/"), body, position)
        except BaseException as error:
            only_faults(error)
            return _failed(renamed(error) if path.startswith("/v1/responses") else error)

    async def _route(self, method: str, path: str, body: str | bytes, position: Position | None) -> Reply:
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
        if path in PATHS:
            return _allowed(method, "POST") or await self._vectors(vector_request(path, _parsed(body)))
        checks: dict[str, Callable[[Any], ParsedRequest]] = {
            "/v1/chat/completions": chat_request,
            "/v1/completions": completion_request,
            "/v1/responses": response_request,
        }
        if path not in checks:
            return _json(responses.error_body(InvalidRequest(f"unknown path {quoted(path)}", field=None)), 404)
        refused = _allowed(method, "POST")
        if refused:
            return refused
        asked = checks[path](_parsed(body))
        if asked.model is not None and asked.model not in names:
            return _json(responses.no_such_model(asked.model, ", ".join(names)), 404)
        async with AsyncExitStack() as using:
            router = await using.enter_async_context(self._models.use(asked.model))
            model, streams = asked.model or names[0], self._streams(router, asked, path, position)
            if isinstance(asked, ResponseRequest):
                return await self._response(model, asked, streams, using, position)
            written = Written(router.tokenizer) if "logprobs" in asked.params else None
            answer = ResponseWriter(
                model, path == "/v1/chat/completions", written, asked.calls, asked.named_call, asked.n
            )
            if position is not None:
                answer = replace(answer, id=position.id, created=position.created)
            echoes = await self._echoes(router, asked, streams, written if position is None else None)
            if not asked.stream:
                return _json(answer.whole(await together(streams), echoes))
            if position is None and len(streams) == 1:
                position = Position(answer.id, answer.created, streams[0].seed)
            writer = ChoiceEvents(answer, echoes, asked.include_usage, bool(asked.params.get("stop")))
            return await _begun(writer, streams, using, position)

    async def _vectors(self, asked: VectorRequest) -> Reply:
        names = self._models.names
        if asked.model is not None and asked.model not in names:
            return _json(responses.no_such_model(asked.model, ", ".join(names)), 404)
        if not await self._models.embeds(asked.model):
            return _json(responses.no_embeddings(asked.model or names[0]), 404)
        async with self._models.use(asked.model) as router:
            return _json(await asked.answer(router, asked.model or names[0]))

    async def _echoes(
        self, router: Answers, asked: ParsedRequest, streams: list[Stream], written: Written | None
    ) -> list[Echo]:
        """What each choice begins with; with ``written``, the logprobs of a prompt that is repeated."""
        if not asked.echo:
            return [Echo(inner=stream.inner) if written else Echo() for stream in streams]
        echoes: list[Echo] = []
        for i, stream in enumerate(streams):
            if i % asked.n:
                echoes.append(echoes[-1])
                continue
            ids = stream.prompt_ids
            found = await router.prompt_logprobs(ids, asked.params["logprobs"]) if written else []
            placed = written.prompt(ids, found) if written else ()
            echoes.append(Echo(router.tokenizer.decode(ids), placed, stream.inner))
        return echoes

    async def _response(
        self,
        model: str,
        asked: ResponseRequest,
        streams: list[Stream],
        using: AsyncExitStack,
        position: Position | None,
    ) -> Reply:
        (stream,) = streams
        at = position or Position(f"resp_{secrets.token_hex(16)}", int(time.time()), stream.seed)
        response = ResponseEvents(at.id, at.created, model, asked)
        if asked.stream:
            return await _begun(response, streams, using, at)
        return _json(response.whole(await stream))

    def _streams(self, router: Answers, asked: ParsedRequest, path: str, position: Position | None) -> list[Stream]:
        """One for each prompt and choice; choices of one prompt differ by seed."""
        if position is not None:
            if not asked.stream or asked.n * len(asked.prompts) != 1:
                raise InvalidRequest("resume is for a stream of one answer", field="resume")
            asked.params.update(seed=position.seed, resume=position.token_ids)
        ask = router.complete if path == "/v1/completions" else router.chat
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
        return metrics_reply(self._models.metrics()) if path == "/metrics" else health_reply(self._models.health())


def metrics_reply(metrics: str) -> Reply:
    """Prometheus text."""
    return Reply(200, metrics, {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def health_reply(health: Health) -> Reply:
    return _json(health.to_json(), 503 if health.status == "unhealthy" else 200)


async def _begun(writer: Writes, streams: list[Stream], using: AsyncExitStack, position: Position | None) -> Reply:
    """The reply that is a stream; it keeps what ``using`` does. Its first events are awaited here, so that a request
    that fails at once has a status that says so."""
    pieces = await using.enter_async_context(aclosing(events(writer, streams, position)))
    first = await anext(pieces)
    headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
    return Reply(200, Begun(first, pieces, using.pop_all()), headers, position)


def _parsed(body: str | bytes) -> Any:
    try:
        return bounded.read(body, BODY_BYTES)
    except bounded.Excessive as error:
        raise InvalidRequest(f"the body cannot be taken: {said(error)}", field=error.field) from error
    except ValueError as error:
        raise InvalidRequest(f"the body is not JSON: {said(error)}", field=None) from error


def _allowed(method: str, only: str) -> Reply | None:
    if method.upper() == only:
        return None
    error = InvalidRequest(f"{method[:20]} is not allowed here: use {only}", field=None)
    return Reply(405, json.dumps(responses.error_body(error)), {"Content-Type": "application/json", "Allow": only})


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "inpage"}


def _json(body: Mapping[str, Any], status: int = 200) -> Reply:
    return Reply(status, json.dumps(body, ensure_ascii=False), {"Content-Type": "application/json"})


def _failed(error: BaseException) -> Reply:
    status = responses.error_status(error)
    headers = {"Content-Type": "application/json"}
    if status == 429:
        headers["Retry-After"] = str(responses.RETRY_SECONDS)
    return Reply(status, json.dumps(responses.error_body(error)), headers)
