"""The router as the page's worker runs it: requests come as JSON messages, answers go back as JSON messages.

    {"id": 1, "op": "load", "artifact": URL, "model": name, "backend", "threads", "pinned", "settings", "device_memory",
     "models": [{"artifact", "model", …}]}   {"id": 1, "progress": {…}}…, {"id": 1, "value": info}
    {"id": 2, "op": "chat", "messages": […], "params": {…}}           {"id": 2, "begun": {"seed"}},
                                                                      {"id": 2, "piece": {…}}…, {"id": 2, "value": {…}}
    {"id": 3, "op": "complete", "prompt": text or ids, "params": {…}} as chat
    {"id": 4, "op": "score", "ids": text or ids, "window": 512}       {"id": 4, "value": {"perplexity", "nll", …}}
    {"id": 5, "op": "info" | "explain" | "counters" | "measure" | "report" | "health" | "metrics"}
                                                                      {"id": 5, "value": …}
    {"id": 6, "op": "add", "artifact", "model", …}                    {"id": 6, "value": name}
    {"id": 7, "op": "preload"}                                        as load
    {"id": 8, "op": "loaded"}                                         {"id": 8, "value": [{"name", "state", …}]}
    {"id": 8, "op": "pin", "model", "pinned"}                         {"id": 8, "value": null}
    {"id": 8, "op": "target_memory", "bytes": number or null}         {"id": 8, "value": null}
    {"id": 9, "op": "unload"}            one model, or all where none is named: {"id": 9, "value": null}
    {"id": 10, "op": "prefetch", "prompts": […]}                      {"id": 10, "value": [tokens of each]}
    {"id": 11, "op": "export_prefix" | "import_prefix", "prompt": …}  {"id": 11, "value": tokens}
    {"id": 12, "op": "warm_up"}                                       {"id": 12, "value": {"imported", "read"}}
    {"id": 13, "op": "forget", "tag": text or null}                   {"id": 13, "value": kept answers that went}
    {"id": 14, "op": "trace", "on": true or false}                    {"id": 14, "value": null, or the trace's JSON}
    {"id": 15, "op": "visibility", "hidden", "frozen"}                {"id": 15, "value": null}
    {"id": 16, "op": "http", "method", "path", "body": text}          see http.py: {"id": 16, "begun": {"status", …}},
                                                           {"id": 16, "chunk": text}…, {"id": 16, "value": null}
    {"id": 17, "op": "count", "messages": […]}                        {"id": 17, "value": tokens of the prompt}
    {"id": 18, "op": "embed", "texts": […], "params": {…}}            {"id": 18, "progress": {"done", "total"}}…,
                                {"id": 18, "value": {"vectors": base64 of float32, "width", "prompt_tokens"}}
    {"id": 19, "op": "rerank", "query", "documents": […], "params": {…}}
                                as embed: {"id": 19, "value": {"results": [{"index", "score"}], "prompt_tokens"}}
    {"op": "cancel", "id": 2}                                         none of its own: 2 ends, as "cancelled"

Before work that nothing can interrupt comes ``{"job": {"name", "id", "characters"}}``, after it ``{"job": null}``.
On the right the answers; what fails answers ``{"id", "error": {"code", "message", "field"}}``. A message a burst,
never one a token. "load" makes its model the default and loads it; "models" are others, loaded when a message's "model"
names them. By themselves come ``{"changed": info, "model": name, "default"}`` when another engine runs or something was
measured, ``{"progress": {…}, "model": name}`` when a request had to load its model, ``{"leak": report}`` when memory
grows without end.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from ..errors import Cancelled, InpageError, InvalidRequest, Unsupported, only_faults, quoted, typed
from ..format import bounded
from ..host.capability import tell_memory
from ..host.jobs import announce_to, for_request
from ..models import Models, default_name
from ..responses.stream import NOTHING, Completion, Stream
from ..router import Router
from ..router.embedding import check_one_message
from .bug_report import report
from .http import http
from .kept_memory import KeptMemory
from .shape import check_message

Message = dict[str, Any]
_ID = re.compile(r'"id"\s*+:\s*+(\d{1,15})\b')
_OPERATIONS = (
    *("load", "add", "preload", "pin", "target_memory", "loaded", "unload", "chat", "complete", "score"),
    *("visibility", "prefetch", "warm_up", "export_prefix", "import_prefix", "forget", "trace"),
    *("count", "http", "embed", "rerank"),
    *("info", "explain", "counters", "measure", "report", "health", "metrics"),
)
_TELL_S = 0.1  # between two words of progress
_ANSWERED = ("chat", "complete", "http", "embed", "rerank")


class RouterWorker:
    """``post`` sends one JSON text to the page. ``memory``: Python's."""

    def __init__(self, post: Callable[[str], None], memory: KeptMemory | None = None, how: str = "") -> None:
        self._send = post
        self._how = how
        self._memory = memory or KeptMemory()
        self._models: Models | None = None
        self._streams: dict[int, Stream] = {}
        self._waiting: dict[int, asyncio.Task[Any] | None] = {}  # requests whose model is not there yet
        self._gone: set[int] = set()  # requests that were cancelled before they had a stream
        self._tasks: set[asyncio.Task[None]] = set()
        self._infos: dict[str, Message] = {}  # of models that were loaded once
        self._failure = ""  # of the last load
        self._settled = True  # whether what it left was looked through
        self._hiding: asyncio.Task[None] | None = None

    def handle(self, text: str) -> None:
        """Take one message; what it asks runs on as a task, beside all others."""
        message = self._message(text)
        if message is None:
            return
        if message["op"] == "cancel":
            self._cancel(message["id"])
            return
        task = asyncio.get_running_loop().create_task(self._run(message))
        if message["op"] in _ANSWERED:
            self._waiting[message["id"]] = None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _message(self, text: str) -> Message | None:
        """None for what is refused, and for what names no id to answer to."""
        try:
            message = bounded.read(text)
        except bounded.Excessive as error:
            found = _ID.search(text, 0, 1000)
            if found:
                field = error.field or "message"
                self._fail(int(found[1]), InvalidRequest(f"{field} cannot be taken: {error}", field=field))
            return None
        except ValueError:
            return None
        if isinstance(message, dict) and isinstance(message.get("id"), int) and isinstance(message.get("op"), str):
            return message
        return None

    def _cancel(self, number: int) -> None:
        if number in self._streams:
            self._streams[number].cancel()
        elif number in self._waiting and number not in self._gone:
            self._gone.add(number)
            task = self._waiting[number]
            if task is not None:
                task.cancel()

    async def _run(self, message: Message) -> None:
        number, op = message["id"], message["op"]
        for_request(number)
        try:
            if op not in _OPERATIONS:
                raise InvalidRequest(f"unknown operation {quoted(op)}", field="op")
            check_message(message)
            value = await getattr(self, f"_{op}")(message)
        except BaseException as error:
            only_faults(error)
            self._fail(number, error)
        else:
            self._post({"id": number, "value": value})
        finally:
            for kept in (self._streams, self._waiting):
                kept.pop(number, None)
            self._gone.discard(number)
        if op in _ANSWERED and not self._streams and not self._waiting:
            self._memory.idle()
            self._settle()

    def _settle(self) -> None:
        """Once after a load, when nobody waits: what is there to stay need not be looked through again. A whole
        collection takes 40 ms."""
        if not self._settled:
            self._settled = True
            gc.collect()
            gc.freeze()

    # -- models ------------------------------------------------------------------------------------------------

    async def _load(self, message: Message) -> Message:
        await self._unload({})
        tell_memory(message.get("device_memory"))
        self._failure = ""
        try:
            self._models = Models(message.get("settings"))
            for each in (message, *(message.get("models") or ())):
                await self._add(each)
            loaded = await self._preload({"id": message["id"]})
        except InpageError as error:
            self._failure = f"{error.code}: {error}"
            raise
        finally:
            self._memory.loaded()
        self._settled = False
        return loaded

    async def _add(self, message: Message) -> str:
        models, name = self._known(), message.get("model") or default_name(message["artifact"])
        return models.add(
            message["artifact"],
            name=name,
            pinned=bool(message.get("pinned")),
            backend=message.get("backend"),
            threads=message.get("threads"),
            replicas=message.get("replicas"),
            on_change=lambda: self._changed(name),
        )

    async def _preload(self, message: Message) -> Message:
        def tell(event: Message) -> None:
            self._post({"id": message["id"], "progress": event})
            self._memory.progress(event)

        async with self._known().use(message.get("model"), on_progress=tell) as router:
            return self._noted(message, router)

    @asynccontextmanager
    async def _using(self, message: Message) -> AsyncIterator[Router]:
        """The model that the message names."""
        models = self._known()
        name = message.get("model") or models.default

        def tell(event: Message) -> None:
            self._post({"progress": event, "model": name})

        async with models.use(name, on_progress=tell) as router:
            self._noted(message, router)
            yield router

    async def _pin(self, message: Message) -> None:
        self._known().pin(message["model"], bool(message.get("pinned", True)))

    async def _target_memory(self, message: Message) -> None:
        await self._known().set_target_memory(message.get("bytes"))

    async def _loaded(self, message: Message) -> list[Message]:
        return [asdict(state) for state in self._known().loaded()]

    async def _unload(self, message: Message) -> None:
        if message.get("model") is not None:
            await self._known().unload(message["model"])
            return
        models, self._models = self._models, None
        if models is not None:
            await models.close()

    def _known(self) -> Models:
        if self._models is None:
            raise Unsupported("no model is loaded: load one first")
        return self._models

    def _router(self, message: Message) -> Router | None:
        """The one of the model that the message names, where it is loaded."""
        if self._models is None or not self._models.names:
            return None
        return self._models.routers().get(message.get("model") or self._models.default)

    def _noted(self, message: Message, router: Router) -> Message:
        name = message.get("model") or self._known().default
        self._infos[name] = router.info
        return self._infos[name]

    # -- requests ----------------------------------------------------------------------------------------------

    async def _chat(self, message: Message) -> Message:
        return await self._ask(message, "messages")

    async def _complete(self, message: Message) -> Message:
        return await self._ask(message, "prompt")

    async def _ask(self, message: Message, field: str) -> Message:
        number, params = message["id"], _named(message.get("params") or {})
        asked: Any = message.get(field)  # the router refuses a missing one
        task = self._waiting[number] = asyncio.current_task()
        try:
            async with self._using(message) as router:
                stream = (router.chat if field == "messages" else router.complete)(asked, **params)
                self._streams[number] = stream
                if number in self._gone:
                    stream.cancel()
                self._post({"id": number, "begun": {"seed": stream.seed}})
                return await self._stream(number, stream)
        except asyncio.CancelledError:
            if number not in self._gone or task is None:
                raise
            task.uncancel()
            return _completed(NOTHING)

    async def _stream(self, number: int, stream: Stream) -> Message:
        async for delta in stream:
            if delta.token_ids or delta.text:
                piece = {"text": delta.text, "token_ids": delta.token_ids}
                piece |= {"logprobs": [asdict(one) for one in delta.logprobs]} if delta.logprobs else {}
                self._post({"id": number, "piece": piece | ({"failovers": delta.failovers} if delta.failovers else {})})
            if delta.result is not None:
                return _completed(delta.result)
        raise AssertionError("a stream ends with a result or an error")

    async def _http(self, message: Message) -> None:
        number = message["id"]
        task = self._waiting[number] = asyncio.current_task()
        if number in self._gone:
            return
        try:
            await http(message, self._known(), self._using, lambda told: self._post({"id": number, **told}))
        except asyncio.CancelledError:
            if number not in self._gone or task is None:
                raise
            task.uncancel()

    async def _embed(self, message: Message) -> Message:
        texts: Any = message.get("texts")

        async def ask(router: Router, params: Message) -> Message:
            check_one_message(texts, params.get("dimensions"), router.manifest.width, "texts")
            found = await router.embed(texts, **params)
            data = b"".join(map(bytes, found.vectors))
            width = len(found.vectors[0])
            return {"vectors": b64encode(data).decode(), "width": width, "prompt_tokens": found.prompt_tokens}

        return await self._vectors(message, ask)

    async def _rerank(self, message: Message) -> Message:
        query: Any = message.get("query")
        documents: Any = message.get("documents")

        async def ask(router: Router, params: Message) -> Message:
            return asdict(await router.rerank(query, documents, **params))

        return await self._vectors(message, ask)

    async def _vectors(self, message: Message, ask: Callable[[Router, Message], Awaitable[Message]]) -> Message:
        """What a cancel ends as its task."""
        number, params = message["id"], _named(message.get("params") or {})
        task = self._waiting[number] = asyncio.current_task()
        told = 0.0

        def tell(done: int, total: int) -> None:
            nonlocal told
            if done == total or time.monotonic() - told >= _TELL_S:
                told = time.monotonic()
                self._post({"id": number, "progress": {"done": done, "total": total}})

        try:
            if number in self._gone:
                raise Cancelled("it was cancelled")
            async with self._using(message) as router:
                return await ask(router, params | {"on_progress": tell})
        except asyncio.CancelledError:
            if number not in self._gone or task is None:
                raise
            task.uncancel()
            raise Cancelled("it was cancelled") from None

    async def _score(self, message: Message) -> Message:
        ids: Any = message.get("ids")
        async with self._using(message) as router:
            score = await router.score(ids, message.get("window"))
        return {**asdict(score), "perplexity": score.perplexity}

    async def _count(self, message: Message) -> int:
        messages: Any = message.get("messages")
        async with self._using(message) as router:
            return await router.count_tokens(messages)

    async def _prefetch(self, message: Message) -> list[int]:
        prompts = message.get("prompts")
        if not isinstance(prompts, list):
            raise InvalidRequest("prompts must be a list", field="prompts")
        async with self._using(message) as router:
            return await router.prefetch(prompts)

    async def _warm_up(self, message: Message) -> dict[str, int]:
        async with self._using(message) as router:
            return await router.warm_up()

    async def _export_prefix(self, message: Message) -> int:
        prompt: Any = message.get("prompt")
        async with self._using(message) as router:
            return await router.export_prefix(prompt)

    async def _import_prefix(self, message: Message) -> int:
        prompt: Any = message.get("prompt")
        async with self._using(message) as router:
            return await router.import_prefix(prompt)

    async def _forget(self, message: Message) -> int:
        async with self._using(message) as router:
            return await router.forget(message.get("tag"))

    async def _trace(self, message: Message) -> str | None:
        async with self._using(message) as router:
            if message.get("on"):
                router.trace.start()
                return None
            router.trace.stop()
            return router.trace.to_json()

    async def _visibility(self, message: Message) -> None:
        """A page that is frozen now does nothing later."""
        if self._hiding is not None:
            self._hiding.cancel()
            self._hiding = None
        models = self._models
        if models is None:
            return
        seconds = models.settings.kv.hidden_seconds
        if not message.get("hidden"):
            await models.hide(False)
        elif message.get("frozen") and seconds is not None:
            await self._hide(models, 0)
        elif seconds is not None:
            self._hiding = asyncio.get_running_loop().create_task(self._hide(models, seconds))

    async def _hide(self, models: Models, seconds: float) -> None:
        await asyncio.sleep(seconds)
        for router in models.routers().values():
            router.hide(True)
        self._infos |= {name: router.info for name, router in models.routers().items()}
        await models.hide(True)

    # -- what there is -----------------------------------------------------------------------------------------

    async def _info(self, message: Message) -> Message:
        router = self._router(message)
        known = self._infos.get(message.get("model") or self._known().default)
        if router is None and known is not None:
            return known  # as it was when it was unloaded
        async with self._using(message) as loaded:
            return loaded.info

    async def _explain(self, message: Message) -> str:
        router = self._router(message)
        told = self._known().explain() if router is None else router.explain()
        return f"{told}\nPython: {self._how}" if self._how else told

    async def _counters(self, message: Message) -> Message:
        async with self._using(message) as router:
            return await router.counters()

    async def _measure(self, message: Message) -> list[Message]:
        async with self._using(message) as router:
            return await router.measure()

    async def _report(self, message: Message) -> str:
        router = self._router(message)
        lesser = "" if router is None else self._known().lesser(message.get("model"))
        return await report(router, self._failure, lesser, self._how)

    async def _health(self, message: Message) -> Message:
        return self._known().health().to_json()

    async def _metrics(self, message: Message) -> str:
        return self._known().metrics()

    def _changed(self, name: str) -> None:
        router = self._router({"model": name})
        if router is not None and self._models is not None:
            self._post({"changed": router.info, "model": name, "default": name == self._models.default})

    def _post(self, message: Message) -> None:
        self._send(json.dumps(message, default=str))

    def _fail(self, number: int, error: BaseException) -> None:
        self._post({"id": number, "error": typed(error).to_wire()})


def _completed(result: Completion) -> Message:
    return {**asdict(result), "usage": result.usage}


def _named(params: Any) -> Message:
    if not isinstance(params, dict):
        raise InvalidRequest("params must be an object", field="params")
    for name in ("prompt", "messages", "texts", "query", "documents", "field", "on_progress", "self"):
        if name in params:
            raise InvalidRequest(f"{name} is no parameter: it stands beside params", field=name)
    return params


def start(
    post: Callable[[str], None], keep: Callable[[], None], renew: Callable[[], None], how: str
) -> Callable[[str], None]:
    """Called by web/router/worker.js, which says ``how`` Python was started. ``keep``, ``renew``: see `KeptMemory`.
    Returns the function that takes messages."""
    page = RouterWorker(post, KeptMemory(keep, renew), how)
    announce_to(page._post)
    return page.handle
