"""OpenAI's interface over the router worker's messages, and streams that another router goes on with."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from inpage.text.tokenizer import Tokenizer
from inpage.worker.messages import RouterWorker
from support.calling import LOOK, BrokenStream
from support.shelf import Shelf

HELLO: Any = [{"role": "user", "content": "hello"}]


class Worker:
    """A router worker, what it was asked and what it said."""

    def __init__(self, shelf: Shelf) -> None:
        self.sent: list[dict[str, Any]] = []
        self._worker = RouterWorker(lambda text: self.sent.append(json.loads(text)))
        self._worker._models = shelf.models

    def handle(self, message: dict[str, Any]) -> None:
        self._worker.handle(json.dumps(message))

    def ask(self, number: int, path: str, body: Any = None, **more: Any) -> None:
        text = "" if body is None else json.dumps(body)
        self.handle({"id": number, "op": "http", "method": "GET" if body is None else "POST", "path": path,
                     "body": text, **more})  # fmt: skip

    def told(self, number: int) -> list[dict[str, Any]]:
        return [one for one in self.sent if one.get("id") == number]

    async def ended(self, number: int) -> list[dict[str, Any]]:
        while not any("value" in one or "error" in one for one in self.told(number)):
            await asyncio.sleep(0)
        return self.told(number)


async def test_requests_are_answered_as_messages(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, {"a": (1,), "b": (1,)})
    worker = Worker(shelf)
    worker.ask(1, "/v1/models")
    worker.ask(2, "/v1/chat/completions", {"model": "c", "messages": HELLO})
    worker.ask(3, "/v1/chat/completions", {"model": "b", "messages": HELLO, "max_tokens": 9, "stream": True})
    worker.ask(4, "/v1/embeddings", {"model": "a", "input": "x"})
    worker.ask(5, "/health")
    worker.handle({"id": 6, "op": "http", "method": "GET", "path": 5})
    worker.ask(7, "/v1/chat/completions", {"messages": HELLO, "stream": True}, resume={"seed": "x"})
    begun, value = await worker.ended(1)
    assert (begun["begun"]["status"], value) == (200, {"id": 1, "value": None})
    assert [model["id"] for model in json.loads(begun["begun"]["body"])["data"]] == ["a", "b"]
    begun, _ = await worker.ended(2)
    error = json.loads(begun["begun"]["body"])["error"]
    assert (begun["begun"]["status"], error["code"]) == (404, "model_not_found")
    begun, *chunks, value = await worker.ended(3)
    assert begun["begun"]["headers"]["Content-Type"].startswith("text/event-stream")
    assert "".join(one["chunk"] for one in chunks).endswith("data: [DONE]\n\n") and begun["begun"]["body"] is None
    assert sum(len(one["token_ids"]) for one in chunks) == 9
    assert {one["model"] for one in worker.sent if "progress" in one} <= {"b"}
    begun, _ = await worker.ended(4)
    error = json.loads(begun["begun"]["body"])["error"]
    assert (begun["begun"]["status"], error["type"], error["param"]) == (404, "invalid_request_error", "model")
    begun, _ = await worker.ended(5)
    assert json.loads(begun["begun"]["body"])["status"] == "healthy"
    assert (await worker.ended(6))[0]["error"]["field"] == "path"
    begun, _ = await worker.ended(7)
    assert (begun["begun"]["status"], json.loads(begun["begun"]["body"])["error"]["param"]) == (400, "resume")
    await shelf.close()


@pytest.mark.parametrize("when", ["at once", "after the head"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_cancelled_request_gives_its_model_back(small_tokenizer: Tokenizer, stream: bool, when: str) -> None:
    shelf = Shelf(small_tokenizer, {"a": (1,)})
    await shelf.models.preload("a")
    worker = Worker(shelf)
    worker.ask(1, "/v1/chat/completions", {"messages": HELLO, "max_tokens": 100, "stream": stream})
    scheduler = shelf.models.routers()["a"].scheduler
    while when != "at once" and not (worker.told(1) if stream else scheduler.active):
        await asyncio.sleep(0)
    worker.handle({"op": "cancel", "id": 1})
    worker.handle({"op": "cancel", "id": 1})
    assert (await worker.ended(1))[-1] == {"id": 1, "value": None}
    while scheduler.active or scheduler.waiting:
        await asyncio.sleep(0)
    (state,) = shelf.models.loaded()
    assert state.requests == 0
    await shelf.close()


@pytest.mark.parametrize("tools", [False, True])
async def test_a_stream_goes_on_at_another_router_wherever_it_broke(small_tokenizer: Tokenizer, tools: bool) -> None:
    """Every cut, and each once more in what the second router gave: the events together are those of one router."""
    body = {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}, "stop": "}}\n</tool_call>x"}
    stream = BrokenStream(small_tokenizer, "/v1/chat/completions", body | ({"tools": LOOK} if tools else {}))
    whole, _ = await stream.run()
    cuts = whole.count("\n\n")
    for cut in range(1, cuts):
        first, position = await stream.run(cut)
        if first.endswith("[DONE]\n\n"):
            break
        assert position["events"] == first.count("\n\n")
        second, position = await stream.run(1, position)
        third = "" if second.endswith("[DONE]\n\n") else (await stream.run(-1, position))[0]
        assert _content(first + second + third) == _content(whole), cut


def _content(events: str) -> Any:
    """What a client makes of them, without what no two answers have alike."""
    chunks = [json.loads(event[6:]) for event in events.split("\n\n") if event and event[6:] != "[DONE]"]
    assert events.endswith("data: [DONE]\n\n") and len({chunk["id"] for chunk in chunks}) == 1
    text = ""
    calls: dict[int, list[str]] = {}
    roles = finishes = 0
    for choice in [choice for chunk in chunks for choice in chunk["choices"]]:
        text += choice["delta"].get("content") or ""
        roles += "role" in choice["delta"]
        finishes += choice["finish_reason"] is not None
        for call in choice["delta"].get("tool_calls", ()):
            calls.setdefault(call["index"], ["", ""])
            calls[call["index"]][0] += call["function"].get("name") or ""
            calls[call["index"]][1] += call["function"]["arguments"]
    return text, calls, roles, finishes, chunks[-1]["usage"]["completion_tokens"]
