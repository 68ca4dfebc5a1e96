"""Parameters by OpenAI's names, where a router has others or none: `chat` takes what the HTTP interface takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidRequest, brief, quoted
from .grammar import schema_grammar

# Taken as long as they ask for nothing.
ONLY: Mapping[str, tuple[Any, ...]] = {
    "function_call": ("none",),
    "functions": ([],),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "store": (False,),
}
HINTS = ("metadata", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options")  # that change no answer
NAMES = frozenset((
    *ONLY, *HINTS, "max_completion_tokens", "n", "response_format", "safety_identifier", "stream", "stream_options",
    "top_logprobs", "user",
))  # fmt: skip


def translated(params: Mapping[str, Any]) -> dict[str, Any]:
    """The same by a router's own names. Raises `InvalidRequest`."""
    left = {name: value for name, value in params.items() if value is not None}
    if NAMES.isdisjoint(left) and not isinstance(left.get("logprobs"), bool):
        return left
    for name in HINTS:
        left.pop(name, None)
    for name, allowed in (*ONLY.items(), ("n", (1,)), ("stream", (True, False))):
        only(left, name, *allowed)
    stream_options(left.pop("stream_options", None))
    tokens = max_tokens(left.pop("max_completion_tokens", None), left.pop("max_tokens", None))
    if tokens is not None:
        left["max_tokens"] = tokens
    schema = format_schema(left.pop("response_format", None))
    if schema is not None and left.setdefault("schema", schema) is not schema:
        raise InvalidRequest("schema and response_format cannot both be followed: give one", field="response_format")
    users = [left.pop(name, None) for name in ("safety_identifier", "user")]
    user = next((user for user in users if user), None)
    if user is not None:
        left.setdefault("client", user)
    top = logprobs(left.pop("logprobs", None), left.pop("top_logprobs", None))
    if top is not None:
        left["logprobs"] = top
    return left


def max_tokens(newer: Any, older: Any) -> Any:
    """From ``max_completion_tokens`` and ``max_tokens``."""
    if newer is not None and older is not None and newer != older:
        raise InvalidRequest("max_tokens and max_completion_tokens differ: send one of them", field="max_tokens")
    return older if newer is None else newer


def logprobs(wanted: Any, top: Any) -> Any:
    """``logprobs`` as a router takes it, how many of the likeliest tokens to report; None for no logprobs. ``top``:
    ``top_logprobs``."""
    if top and not wanted:
        raise InvalidRequest("top_logprobs is for logprobs: set logprobs to true", field="top_logprobs")
    if wanted is True:
        return top or 0
    return None if wanted is False else wanted


def only(given: dict[str, Any], name: str, *allowed: Any) -> None:
    """Take a parameter that may be there as long as it asks for nothing."""
    value = given.pop(name, None)
    if value is not None and value not in allowed:
        raise InvalidRequest(f"{name} is not supported by this model yet: leave it out", field=name)


def format_schema(form: Any) -> Any:
    """The JSON schema that a ``response_format`` asks for; None for text."""
    where = "response_format"
    if form is None:
        return None
    kind = form.get("type") if isinstance(form, Mapping) else form
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if kind != "json_schema" or not isinstance(form, Mapping):
        raise InvalidRequest(
            f"{where}.type is {quoted(kind)}; it must be text, json_object or json_schema", field=f"{where}.type"
        )
    given, where = form.get("json_schema"), f"{where}.json_schema"
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise InvalidRequest(f"{where} must be an object with a name and a schema", field=where)
    unknown = sorted(set(map(str, given)) - {"name", "description", "schema", "strict"})
    if unknown:
        raise InvalidRequest(f"{where} has an unknown key {quoted(unknown[0])}", field=f"{where}.{brief(unknown[0])}")
    schema = given.get("schema", {"type": "object"})  # ``strict`` or not: the schema is always followed
    schema_grammar(schema, f"{where}.schema")
    return schema


def stream_options(options: Any) -> bool:
    """Whether the last chunk of a stream reports usage."""
    if options is None:
        return False
    if not isinstance(options, Mapping):
        raise InvalidRequest(f"stream_options must be an object, not {quoted(options)}", field="stream_options")
    for name, value in options.items():
        if name not in ("include_usage", "include_obfuscation"):
            raise InvalidRequest(f"unknown option {quoted(name)}", field=f"stream_options.{brief(name)}")
        if not isinstance(value, bool):
            raise InvalidRequest(f"stream_options.{name} must be true or false", field=f"stream_options.{brief(name)}")
    return bool(options.get("include_usage"))
