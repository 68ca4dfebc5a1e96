"""Response bodies of OpenAI's interface: whole answers, stream chunks, errors."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InpageError, quoted, typed
from ..requests.tool_calls import Argued, Called, CallReader, Said
from ..responses.stream import Completion, usage
from .logprobs import Placed, Written

# HTTP status and OpenAI's error type by our error code; anything else is the server's own fault.
_STATUS = {
    "invalid_request": (400, "invalid_request_error"),
    "unsupported": (400, "invalid_request_error"),
    "queue_full": (429, "rate_limit_error"),
    "timeout": (408, "timeout_error"),
    "out_of_memory": (503, "service_unavailable_error"),
    "device_lost": (503, "service_unavailable_error"),
    "network": (503, "service_unavailable_error"),
    "cancelled": (499, "cancelled_error"),
}
RETRY_SECONDS = 1
_PARAMS = {"schema": "response_format"}  # what OpenAI calls a parameter of ours


@dataclass(frozen=True, slots=True)
class Echo:
    """What a choice begins with. ``inner``: the answer goes on with a text before it."""

    text: str = ""
    logprobs: Sequence[Placed] = ()
    inner: bool = False


@dataclass(frozen=True)
class ResponseWriter:
    """What all parts of one answer share. ``chat``: chat completions, else completions."""

    model: str
    chat: bool
    written: Written | None = None  # writes logprobs, where they were asked for
    calls: bool = False  # whether functions may be called
    named_call: bool = False  # it was said which one: then an answer ends as any other
    choices: int = 1  # of each prompt
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        kind = "chatcmpl" if self.chat else "cmpl"
        object.__setattr__(self, "id", self.id or f"{kind}-{secrets.token_hex(12)}")

    def whole(self, answers: Sequence[Completion], echoes: Sequence[Echo]) -> dict[str, Any]:
        choices = [self._choice(i, echo, answer) for i, (answer, echo) in enumerate(zip(answers, echoes, strict=True))]
        return {**self._head("chat.completion" if self.chat else "text_completion"), "choices": choices,
                "usage": usage(answers, self.choices)}  # fmt: skip

    def first(self, index: int) -> dict[str, Any]:
        """The chunk that says who speaks. Only chat has it."""
        return self._chunk([{"index": index, "delta": {"role": "assistant", "content": ""}, **_ENDLESS}])

    def piece(self, index: int, text: str, logprobs: Sequence[Placed] = ()) -> dict[str, Any]:
        said = {"delta": {"content": text}} if self.chat else {"text": text}
        written = self._logprobs(logprobs)
        return self._chunk([{"index": index, **said, "logprobs": written, "finish_reason": None}])

    def call(self, index: int, event: Called | Argued) -> dict[str, Any]:
        """The chunk in which a call begins, or goes on."""
        if isinstance(event, Called):
            call = {"index": event.index, **_called(event.name, "")}
        else:
            call = {"index": event.index, "function": {"arguments": event.text}}
        return self._chunk([{"index": index, "delta": {"tool_calls": [call]}, **_ENDLESS}])

    def last(self, index: int, answer: Completion, calls: int = 0) -> dict[str, Any]:
        said: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        end = {"finish_reason": self._end(answer, calls), **_more(answer)}
        return self._chunk([{"index": index, **said, "logprobs": None, **end}])

    def totals(self, answers: Sequence[Completion]) -> dict[str, Any]:
        """The chunk after all others, where the caller asked for usage."""
        return {**self._chunk([]), "usage": usage(answers, self.choices)}

    def _choice(self, index: int, echo: Echo, answer: Completion) -> dict[str, Any]:
        text = echo.text + answer.text
        written = None
        if self.written is not None:
            start, inner = len(echo.text), echo.inner
            written = self._logprobs([*echo.logprobs, *self.written.answer(answer.logprobs, start, inner, len(text))])
        said: dict[str, Any] = {"text": text}
        calls: list[dict[str, Any]] = []
        if self.chat:
            if self.calls:
                text, calls = _read(text)
            message = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
            said = {"message": message | ({"tool_calls": calls} if calls else {})}
        end = {"finish_reason": self._end(answer, len(calls)), **_more(answer)}
        return {"index": index, **said, "logprobs": written, **end}

    def _end(self, answer: Completion, calls: int) -> str:
        called = calls and answer.finish_reason == "stop" and not self.named_call
        return "tool_calls" if called else answer.finish_reason

    def _logprobs(self, logprobs: Sequence[Placed]) -> dict[str, Any] | None:
        if self.written is None or not logprobs:
            return None
        return self.written.chat(logprobs) if self.chat else self.written.completion(logprobs)

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head("chat.completion.chunk" if self.chat else "text_completion"), "choices": choices}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def _more(answer: Completion) -> dict[str, Any]:
    """What OpenAI's interface has no word for."""
    return {"inpage": {"ended": answer.ended}} if answer.ended else {}


def _called(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def _read(text: str) -> tuple[str, list[dict[str, Any]]]:
    """What an answer says, and the calls in it."""
    reader, said, calls = CallReader(), "", []
    for event in [*reader.push(text), *reader.flush()]:
        if isinstance(event, Said):
            said += event.text
        elif isinstance(event, Called):
            calls.append(_called(event.name, ""))
        else:
            calls[event.index]["function"]["arguments"] += event.text
    return said, calls


_ENDLESS: dict[str, Any] = {"logprobs": None, "finish_reason": None}


def error_status(error: BaseException) -> int:
    return _STATUS.get(error.code, (500, ""))[0] if isinstance(error, InpageError) else 500


def error_body(error: BaseException) -> dict[str, Any]:
    """OpenAI's error shape; ``param`` is the field at fault."""
    if not isinstance(error, InpageError):
        return _error(str(typed(error)), "server_error", None, None)
    kind = _STATUS.get(error.code, (500, "server_error"))[1]
    param = _PARAMS.get(error.field or "", error.field)
    return _error(str(error), kind, param, None if error.code == "invalid_request" else error.code)


def no_such_model(name: str, known: str) -> dict[str, Any]:
    message = f"there is no model {quoted(name)} here; there is {known}"
    return _error(message, "invalid_request_error", "model", "model_not_found")


def no_embeddings(name: str) -> dict[str, Any]:
    message = f"{quoted(name)} makes no embeddings or ranks: it answers with text; name a model that is made for them"
    return _error(message, "invalid_request_error", "model", "model_not_found")


def _error(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def event(data: Mapping[str, Any] | str) -> str:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n"
