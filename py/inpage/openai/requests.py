"""Request bodies of OpenAI's chat completions and completions: each of their parameters works or is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..engines.guided_decoding import MAX_TOP
from ..errors import InvalidRequest, brief, quoted
from ..requests.openai_names import HINTS, ONLY, format_schema, logprobs, max_tokens, only, stream_options

_CHOICES = 16  # answers to one request at most
_STOPS = 4
_COMPLETION_TOP = 5  # likeliest tokens reported of each, for completions

# Passed on to the router as they are; it checks their values.
_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "logit_bias")
# Not OpenAI's, but common among servers of open models.
_MORE_SAMPLING = ("top_k", "min_p", "repetition_penalty")
_OURS = ("max_repeats",)


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """One request. ``prompts`` are conversations for chat, texts or ids for completions; ``params`` the router's."""

    model: str | None
    prompts: list[Any]
    params: dict[str, Any]
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    echo: bool = False

    @property
    def calls(self) -> bool:
        """Whether the model may call functions."""
        return "tools" in self.params and self.params.get("tool_choice") != "none"

    @property
    def named_call(self) -> bool:
        """Whether it is said which function it must call."""
        return isinstance(self.params.get("tool_choice"), dict)


def chat_request(body: Any) -> ParsedRequest:
    """Check a body of ``POST /v1/chat/completions``. Raises `InvalidRequest` whose field is OpenAI's ``param``."""
    b = Body(body, _CHAT_REFUSED)
    messages = b.take("messages")
    if messages is None:
        raise InvalidRequest("messages is missing: send at least one", field="messages")
    tokens = max_tokens(b.take("max_completion_tokens"), b.take("max_tokens"))
    if tokens is not None:
        b.params["max_tokens"] = tokens
    b.only("modalities", ["text"])
    form = format_schema(b.take("response_format"))
    if form is not None:
        b.params["schema"] = form
    top = logprobs(b.flag("logprobs"), b.count("top_logprobs", MAX_TOP))
    if top is not None:
        b.params["logprobs"] = top
    tools = b.typed("tools", list, "a list")
    for name in ("tool_choice", "parallel_tool_calls"):
        value = b.take(name)
        if value is not None:
            b.params[name] = value
    if tools:
        b.params["tools"] = tools
    for name in ("functions", "function_call"):
        b.only(name, *ONLY[name])
    return b.asked([messages])


def completion_request(body: Any) -> ParsedRequest:
    """Check a body of ``POST /v1/completions``; a list of prompts is answered prompt by prompt."""
    b = Body(body, {})
    prompt = b.take("prompt")
    if prompt is None:
        raise InvalidRequest("prompt is missing: send a text or token ids", field="prompt")
    tokens = b.take("max_tokens")
    b.params["max_tokens"] = 16 if tokens is None else tokens  # OpenAI's default here
    top = b.count("logprobs", _COMPLETION_TOP)
    if top is not None:
        b.params["logprobs"] = top
    b.only("suffix", "")
    best_of, n = b.take("best_of"), b.body.get("n") or 1
    if best_of not in (None, n):
        raise InvalidRequest("best_of is not supported beyond n: leave it out", field="best_of")
    echo = b.flag("echo")
    if isinstance(prompt, list) and not prompt:
        raise InvalidRequest("prompt is empty", field="prompt")
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    return b.asked(prompt if several else [prompt], echo=echo)


class Body:
    """Takes parameters out of a body one by one; what is left at the end is unknown."""

    def __init__(self, body: Any, refused: Mapping[str, str]) -> None:
        if not isinstance(body, dict):
            raise InvalidRequest("the body must be a JSON object", field=None)
        self.body = dict(body)
        self.params: dict[str, Any] = {}
        for name, why in refused.items():
            if self.take(name) is not None:
                raise InvalidRequest(f"{name} is not supported: {why}", field=name)

    def take(self, name: str) -> Any:
        return self.body.pop(name, None)

    def only(self, name: str, *allowed: Any) -> None:
        """A parameter that may be sent as long as it asks for nothing."""
        only(self.body, name, *allowed)

    def flag(self, name: str) -> bool:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise InvalidRequest(f"{name} must be true or false, not {quoted(value)}", field=name)
        return bool(value)

    def count(self, name: str, most: int) -> int | None:
        value: int | None = self.typed(name, int, "a whole number")
        if value is not None and not 0 <= value <= most:
            raise InvalidRequest(f"{name} is {quoted(value)}; it must be 0 to {most}", field=name)
        return value

    def typed(self, name: str, kind: type, what: str) -> Any:
        value = self.take(name)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise InvalidRequest(f"{name} must be {what}, not {quoted(value)}", field=name)
        return value

    def asked(self, prompts: list[Any], *, echo: bool = False) -> ParsedRequest:
        for name in (*_SAMPLING, *_MORE_SAMPLING, *_OURS):
            value = self.take(name)
            if value is not None:
                self.params[name] = value
        stop = self.take("stop")
        if isinstance(stop, list) and len(stop) > _STOPS:
            raise InvalidRequest(f"stop has {len(stop)} strings; at most {_STOPS} can be given", field="stop")
        if stop is not None:
            self.params["stop"] = stop
        n = self.typed("n", int, "a whole number")
        if n is not None and not 1 <= n <= _CHOICES:
            raise InvalidRequest(f"n is {n}; it must be 1 to {_CHOICES}", field="n")
        stream = self.flag("stream")
        options = self.typed("stream_options", dict, "an object") or {}
        if options and not stream:
            raise InvalidRequest("stream_options is for streams: set stream to true", field="stream_options")
        usage = stream_options(options)
        # Who asks: requests of one user share their turn, so that a crowd of one's own does not hold others up.
        user = self.typed("safety_identifier", str, "a string") or self.typed("user", str, "a string")
        if user:
            self.params["client"] = user
        model = self.typed("model", str, "a string")
        for name in HINTS:
            self.take(name)
        for name in ("service_tier", "store"):
            self.only(name, *ONLY[name])
        if self.body:
            name = next(iter(self.body))
            raise InvalidRequest(f"unknown parameter {quoted(name)}", field=brief(name))
        return ParsedRequest(model, prompts, self.params, n or 1, stream, usage, echo)


_CHAT_REFUSED = {
    "audio": "the answers are text",
    "moderation": "nothing is sent anywhere",
    "prediction": "nothing is predicted",
    "reasoning_effort": "the model does not reason apart from its answer",
    "verbosity": "say in the prompt how long the answer should be",
    "web_search_options": "nothing here uses the network",
}
