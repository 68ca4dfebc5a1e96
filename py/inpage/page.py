"""The router as the page's worker runs it: requests come as JSON messages, answers go back as JSON messages.

    {"id": 1, "op": "load", "artifact": URL, "backend", "threads",
     "settings"}                              {"id": 1, "progress": {…}}…, {"id": 1, "value": …}
    {"id": 2, "op": "chat", "messages": […], "params": {…}}           {"id": 2, "begun": {"seed"}},
                                                                      {"id": 2, "piece": {…}}…, {"id": 2, "value": {…}}
    {"id": 3, "op": "complete", "prompt": text or ids, "params": {…}} as chat
    {"id": 4, "op": "score", "ids": text or ids, "window": 512}       {"id": 4, "value": {"perplexity", "nll", …}}
    {"id": 5, "op": "info" | "explain" | "counters" | "measure" | "report" | "unload"}   {"id": 5, "value": …}
    {"op": "cancel", "id": 2}                                         none of its own: 2 ends as "cancelled"

On the right the answers; what fails answers ``{"id", "error": {"code", "message", "field"}}``. A message a burst,
never one a token. ``{"changed": info}`` comes by itself when another engine runs or something was measured.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from .errors import InpageError, InvalidRequest, Unsupported
from .report import report
from .router import Router
from .stream import Stream

Message = dict[str, Any]


class Page:
    """``post`` sends one JSON text to the page."""

    def __init__(self, post: Callable[[str], None]) -> None:
        self._send = post
        self._router: Router | None = None
        self._streams: dict[int, Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure = ""  # of the last load

    def handle(self, text: str) -> None:
        """Take one message; what it asks runs on as a task, beside all others."""
        message = json.loads(text)
        if message["op"] == "cancel":
            stream = self._streams.get(message["id"])
            if stream is not None:
                stream.cancel()
            return
        try:
            work = self._begin(message)
        except Exception as error:
            self._fail(message["id"], error)
            return
        task = asyncio.get_running_loop().create_task(self._run(message["id"], work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin(self, message: Message) -> Any:
        """The awaitable that answers a message. A stream is made at once, so that a cancel right behind finds it."""
        number, op = message["id"], message["op"]
        if op == "load":
            return self._load(message)
        if op in ("chat", "complete"):
            router, params = self._loaded(), message.get("params") or {}
            asked: Any = message.get("messages" if op == "chat" else "prompt")  # the router refuses a missing one
            make = router.chat if op == "chat" else router.complete
            stream = make(asked, **_named(params))
            self._post({"id": number, "begun": {"seed": stream.seed}})
            self._streams[number] = stream
            return self._stream(number, stream)
        if op == "score":
            return self._score(message)
        if op in ("info", "explain", "counters", "measure", "report", "unload"):
            return getattr(self, f"_{op}")()
        raise InvalidRequest(f"unknown operation {op!r}", field="op")

    async def _run(self, number: int, work: Any) -> None:
        try:
            value = await work
        except Exception as error:
            self._fail(number, error)
        else:
            self._post({"id": number, "value": value})
        finally:
            self._streams.pop(number, None)

    async def _load(self, message: Message) -> Message:
        await self._unload()
        self._failure = ""
        try:
            self._router = await self._open(message)
        except InpageError as error:
            self._failure = f"{error.code}: {error}"
            raise
        return self._router.info

    async def _open(self, message: Message) -> Router:
        return await Router.load(
            message["artifact"],
            backend=message.get("backend"),
            threads=message.get("threads"),
            on_progress=lambda event: self._post({"id": message["id"], "progress": event}),
            on_change=self._changed,
            settings=message.get("settings"),
        )

    async def _stream(self, number: int, stream: Stream) -> Message:
        async for delta in stream:
            if delta.token_ids or delta.text:
                piece = {"text": delta.text, "token_ids": delta.token_ids}
                piece |= {"logprobs": [asdict(one) for one in delta.logprobs]} if delta.logprobs else {}
                self._post({"id": number, "piece": piece | ({"failovers": delta.failovers} if delta.failovers else {})})
            if delta.result is not None:
                return {**asdict(delta.result), "usage": delta.result.usage}
        raise AssertionError("a stream ends with a result or an error")

    async def _score(self, message: Message) -> Message:
        ids: Any = message.get("ids")
        score = await self._loaded().score(ids, message.get("window", 512))
        return {**asdict(score), "perplexity": score.perplexity}

    async def _info(self) -> Message:
        return self._loaded().info

    async def _explain(self) -> str:
        return self._loaded().explain()

    async def _counters(self) -> Message:
        return await self._loaded().counters()

    async def _measure(self) -> list[Message]:
        return await self._loaded().measure()

    async def _report(self) -> str:
        return await report(self._router, self._failure)

    def _changed(self) -> None:
        if self._router is not None:
            self._post({"changed": self._router.info})

    async def _unload(self) -> None:
        router, self._router = self._router, None
        if router is not None:
            await router.unload()

    def _loaded(self) -> Router:
        if self._router is None:
            raise Unsupported("no model is loaded: load one first")
        return self._router

    def _post(self, message: Message) -> None:
        self._send(json.dumps(message, default=str))

    def _fail(self, number: int, error: Exception) -> None:
        if not isinstance(error, InpageError):  # a bug here, or a browser's own error
            error = InpageError(f"{type(error).__name__}: {error}")
        self._post({"id": number, "error": error.to_wire()})


def _named(params: Any) -> Message:
    if not isinstance(params, dict):
        raise InvalidRequest("params must be an object", field="params")
    return params


def start(post: Callable[[str], None]) -> Callable[[str], None]:
    """Called by web/router/worker.js. Returns the function that takes messages."""
    return Page(post).handle
