"""Answers of OpenAI's Responses API: the response object, and the events in which it comes about."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from ..errors import InpageError
from ..requests.tool_calls import Argued, Called, CallReader, Event, Said
from ..responses.stream import Completion, Delta, usage
from . import responses
from .response_requests import ResponseRequest, renamed


class ResponseEvents:
    """One response. Its items' ids follow from its own, so that another router can go on with it."""

    def __init__(self, id: str, created: int, model: str, asked: ResponseRequest) -> None:
        self._id, self._created, self._model, self._repeated = id, created, model, asked.repeated
        self._reader = CallReader() if asked.calls else None
        self._items: list[dict[str, Any]] = []
        self._count = 0  # events so far
        self._answer: Completion | None = None

    def delta(self, index: int, delta: Delta) -> list[str]:
        events = [] if self._count else [self._state("response.created"), self._state("response.in_progress")]
        for event in self._read(delta):
            events += self._event(event)
        if delta.result is not None:
            if not self._items:
                events += self._open(self._message())
            self._answer = delta.result
            events += self._close()
            events.append(self._state(f"response.{self._status}"))
        return events

    def replay(self, earlier: str, tokens: Sequence[int], events: int) -> None:
        self.delta(0, Delta(earlier, list(tokens)))
        self._count = events

    def end(self) -> list[str]:
        return []

    def failed(self, error: InpageError) -> list[str]:
        said = responses.error_body(renamed(error))["error"]
        return [self._tell("error", code=said["code"] or said["type"], message=said["message"], param=said["param"])]

    def whole(self, answer: Completion) -> dict[str, Any]:
        """The response to a request that is no stream."""
        self.delta(0, Delta(answer.text, answer.token_ids, answer))
        return self._response()

    @property
    def _status(self) -> str:
        if self._answer is None:
            return "in_progress"
        return "completed" if self._answer.finish_reason == "stop" else "incomplete"

    def _read(self, delta: Delta) -> list[Event]:
        if self._reader is None:
            return [Said(delta.text)] if delta.text else []
        return self._reader.push(delta.text) + (self._reader.flush() if delta.result is not None else [])

    def _event(self, event: Event) -> list[str]:
        if isinstance(event, Called):
            call = {"arguments": "", "call_id": f"call_{self._suffix}", "name": event.name}
            return [*self._close(), *self._open(self._item("function_call", "fc", **call))]
        item = self._items[-1] if self._items and self._items[-1]["status"] == "in_progress" else None
        if isinstance(event, Argued):
            assert item is not None and item["type"] == "function_call"
            item["arguments"] += event.text
            return [self._tell("response.function_call_arguments.delta", **self._place, delta=event.text)]
        events = []
        if item is None or item["type"] != "message":
            events = [*self._close(), *self._open(self._message())]
        self._items[-1]["content"][0]["text"] += event.text
        delta = self._tell("response.output_text.delta", **self._place, content_index=0, delta=event.text, logprobs=[])
        return [*events, delta]

    def _open(self, item: dict[str, Any]) -> list[str]:
        part = item.get("content", [None])[0]
        bare = item | ({"content": []} if part is not None else {})
        self._items.append(item)
        events = [self._tell("response.output_item.added", output_index=len(self._items) - 1, item=bare)]
        if part is not None:
            events.append(self._tell("response.content_part.added", **self._place, content_index=0, part=part))
        return events

    def _close(self) -> list[str]:
        """End the item that is under way, if any is."""
        if not self._items or self._items[-1]["status"] != "in_progress":
            return []
        item = self._items[-1]
        cut = self._status == "incomplete"
        item["status"] = "incomplete" if cut else "completed"
        if item["type"] == "message":
            part = item["content"][0]
            place = self._place | {"content_index": 0}
            events = [self._tell("response.output_text.done", **place, text=part["text"], logprobs=[]),
                      self._tell("response.content_part.done", **place, part=part)]  # fmt: skip
        else:
            done = {"name": item["name"], "arguments": item["arguments"]}
            events = [self._tell("response.function_call_arguments.done", **self._place, **done)]
        return [*events, self._tell("response.output_item.done", output_index=len(self._items) - 1, item=item)]

    def _message(self) -> dict[str, Any]:
        part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return self._item("message", "msg", role="assistant", content=[part])

    def _item(self, kind: str, prefix: str, **more: Any) -> dict[str, Any]:
        return {"id": f"{prefix}_{self._suffix}", "type": kind, "status": "in_progress", **more}

    @property
    def _suffix(self) -> str:
        return f"{self._id.partition('_')[2]}{len(self._items):02x}"

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}

    def _state(self, kind: str) -> str:
        return self._tell(kind, response=self._response())

    def _tell(self, kind: str, **data: Any) -> str:
        event = {"type": kind, "sequence_number": self._count, **data}
        self._count += 1
        return f"event: {kind}\ndata: {json.dumps(event, ensure_ascii=False, separators=(',', ':'))}\n\n"

    def _response(self) -> dict[str, Any]:
        answer = self._answer
        cut = {"reason": "max_output_tokens"} if self._status == "incomplete" else None
        response: dict[str, Any] = {
            "id": self._id, "object": "response", "created_at": self._created, "status": self._status,
            "completed_at": int(time.time()) if self._status == "completed" else None, "background": False,
            "error": None, "incomplete_details": cut, "instructions": None, "max_output_tokens": None, "metadata": {},
            "model": self._model, "output": self._items if answer else [], "parallel_tool_calls": True,
            "previous_response_id": None, "store": False, "temperature": None, "tool_choice": "auto", "tools": [],
            "top_p": None, "truncation": "disabled", "usage": None if answer is None else _usage(answer),
        }  # fmt: skip
        if answer is not None and answer.ended:
            response["inpage"] = {"ended": answer.ended}
        return response | self._repeated | {"text": {"format": {"type": "text"}, **self._repeated.get("text", {})}}


def _usage(answer: Completion) -> dict[str, Any]:
    counted = usage([answer])
    return {
        "input_tokens": counted["prompt_tokens"],
        "input_tokens_details": {**counted["prompt_tokens_details"], "cache_write_tokens": 0},
        "output_tokens": counted["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": counted["total_tokens"],
    }
