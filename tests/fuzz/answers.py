"""Readers behind a router: OpenAI's endpoints, an answer's own tool calls in them, and the page's messages."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from typing import Any

from inpage.openai import Api, Reply
from inpage.text.tokenizer import Tokenizer, load_tokenizer
from inpage.worker.messages import RouterWorker
from support.scripted import Scripted
from support.shelf import Shelf
from support.small import small_router, small_tokenizer_json
from support.tiny import TEMPLATE

from .harness import Fault, Reader
from .mutate import TEXTS, Mutator
from .requests import CALLS, MESSAGES, TOOLS

_SHORT: dict[str, Any] = {"max_tokens": 4, "temperature": 0}
_HELLO = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "small", "messages": MESSAGES[:4], "max_completion_tokens": 4, "temperature": 0.5, "top_p": 0.9,
        "seed": 3, "stop": ["x"], "n": 2, "stream": True, "stream_options": {"include_usage": True},
        "logprobs": True, "top_logprobs": 2, "logit_bias": {"5": 1}, "presence_penalty": 0.1, "user": "u",
        "metadata": {"a": "b"},
        "response_format": {"type": "text"}, "parallel_tool_calls": True,
    },
    "/v1/completions": {"model": "small", "prompt": ["hello", [5, 6]], "max_tokens": 2, "temperature": 0, "echo": True,
                        "logprobs": 1, "n": 1, "best_of": 1, "stream": False, "suffix": None, "stop": "z"},
    "/v1/responses": {
        "model": "small", "instructions": "be", "max_output_tokens": 3, "temperature": 0, "stream": True,
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                  {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                  {"type": "function_call_output", "call_id": "c", "output": "5"}],
        "text": {"format": {"type": "text"}}, "metadata": {"a": "b"}, "truncation": "disabled",
    },
    "/v1/embeddings": {"model": "small", "input": "x"},
    "/v1/models/small": {},
}  # fmt: skip
_RESUME = {"id": "x", "created": 1, "seed": 3, "token_ids": [5, 6], "events": 2}
_TOOL_BODY = {"messages": _HELLO, "tools": TOOLS[1:], "stream": True, **_SHORT, "max_tokens": 200}
MESSAGES_TO_PAGE: list[dict[str, Any]] = [
    {"id": 1, "op": "chat", "messages": _HELLO, "params": _SHORT},
    {"id": 2, "op": "complete", "prompt": "hello", "params": {**_SHORT, "stop": ["a"]}, "model": "small"},
    {"id": 3, "op": "score", "ids": [5, 6, 7], "window": 64},
    {"id": 4, "op": "prefetch", "prompts": ["hello", [5, 6]]},
    {"id": 5, "op": "forget", "tag": "t"},
    {"id": 15, "op": "count", "messages": _HELLO},
    {"id": 6, "op": "http", "method": "POST", "path": "/v1/completions",
     "body": json.dumps({"prompt": "hi", "stream": True, **_SHORT}), "resume": _RESUME},
    {"id": 7, "op": "pin", "model": "small", "pinned": True},
    {"id": 8, "op": "export_prefix", "prompt": "hello"},
    {"id": 9, "op": "import_prefix", "prompt": _HELLO},
    {"id": 10, "op": "add", "artifact": "nowhere", "model": "b", "threads": 2, "replicas": 1, "backend": "native"},
    *({"id": 11, "op": op, "model": "small"} for op in ("info", "explain", "counters", "health", "metrics", "unload")),
    {"id": 12, "op": "visibility", "hidden": True, "frozen": False},
    {"id": 13, "op": "trace", "on": True},
    {"id": 14, "op": "load", "artifact": "nowhere", "settings": {"scheduler": {"queue_size": 4}}, "device_memory": 4},
    {"op": "cancel", "id": 1},
]  # fmt: skip


@cache
def _tokenizer() -> Tokenizer:
    return load_tokenizer(small_tokenizer_json(), {})


def _make_request(m: Mutator) -> tuple[str, str, str | bytes, Any]:
    path = m.rng.choice((*BODIES, "/v1/chat/completions", "/v1/completions", "/v1/responses"))
    body: str | bytes = m.json(BODIES[path], list(BODIES.values()))
    if m.rng.random() < 0.05:
        body = m.bytes(body.encode("utf-8", "surrogatepass"))
    resume = m.value(_RESUME) if m.rng.random() < 0.1 else None
    if m.rng.random() < 0.05:
        path = m.text(path)
    return m.rng.choice(("POST",) * 9 + (*TEXTS[:20], "GET")), path, body, resume


async def _request(given: tuple[str, str, str | bytes, Any]) -> None:
    router = small_router(_tokenizer())
    try:
        await _read(await Api(router).handle(*given))
    finally:
        await router.unload()


async def _read(reply: Reply) -> None:
    """A reply has an error of ours, or none; all of it can be sent."""
    for name, value in reply.headers.items():
        f"{name}: {value}".encode("latin-1")
    if isinstance(reply.body, str):
        reply.body.encode()
        if reply.headers["Content-Type"] == "application/json":
            _told(json.loads(reply.body))
        return
    async for chunk in reply.body:
        chunk.encode()
        for line in chunk.split("\n"):
            if line.startswith("data: {"):
                _told(json.loads(line[6:]))


def _told(data: Any) -> None:
    error = data.get("error") if isinstance(data, dict) else None
    if error and error.get("type") == "server_error" and error.get("code") in (None, "error"):
        raise Fault(f"untyped in a reply: {error}")


async def _said(text: str) -> None:
    """The model says it: calls of functions, damaged."""
    engine = Scripted(_tokenizer(), text)
    template = TEMPLATE + "{% if tools %}<tool_call>{% endif %}"
    router = small_router(_tokenizer(), engine=engine, manifest={"chat_template": template})
    try:
        for path in ("/v1/chat/completions", "/v1/responses"):
            body = dict(_TOOL_BODY)
            if path == "/v1/responses":
                function = {"type": "function", **TOOLS[1]["function"]}
                body = {"input": "hi", "tools": [function], "stream": True, "temperature": 0, "max_output_tokens": 200}
            await _read(await Api(router).handle("POST", path, json.dumps(body)))
    finally:
        await router.unload()


def _make_said(m: Mutator) -> str:
    text = m.text(m.rng.choice(CALLS)).encode("utf-8", "replace").decode()
    return text[:150]


async def _page(texts: list[str]) -> None:
    """Every message that names an id ends, with a value or an error of ours."""
    sent: list[dict[str, Any]] = []
    shelf = Shelf(_tokenizer(), {"small": (1,)})
    worker = RouterWorker(lambda text: sent.append(json.loads(text)))
    worker._models = shelf.models
    shelf.closing = True  # it may be unloaded at any time
    try:
        for text in texts:
            worker.handle(text)
        while worker._tasks:
            await asyncio.sleep(0)
    finally:
        await worker._unload({})
        if worker._hiding is not None:
            worker._hiding.cancel()
        await shelf.models.close()
    for one in sent:
        error = one.get("error")
        if error and error["code"] == "error":
            raise Fault(f"untyped in a message: {error}")


def _make_page(m: Mutator) -> list[str]:
    return [m.json(m.rng.choice(MESSAGES_TO_PAGE), MESSAGES_TO_PAGE) for _ in range(m.rng.choice((1, 1, 3)))]


READERS = [
    Reader("openai", _make_request, _request, share=1.5),
    Reader("said", _make_said, _said, share=0.4),
    Reader("page", _make_page, _page, share=0.6),
]
