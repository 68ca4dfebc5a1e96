"""Conversations as callers give them, checked and made plain for templates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidRequest, brief, quoted, said
from ..format import bounded
from .params import checked_text

ROLES = ("system", "user", "assistant", "tool")
_CALLS = 1024  # of functions, in one message


def checked_messages(messages: Any, most: int | None = None) -> list[dict[str, Any]]:
    """A conversation as ``[{"role": "user", "content": "…"}, …]``; a plain string is one user message. All of OpenAI's
    shapes of text are taken: content in parts, the role "developer", names, calls of functions and what they gave;
    arguments of calls become objects, as templates want them. ``most``: messages; more are refused before they are
    looked at."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    bounded.check(messages, "messages")
    if not isinstance(messages, Sequence) or isinstance(messages, bytes):
        raise InvalidRequest('messages must be a list of {"role", "content"}', field="messages")
    if not messages:
        raise InvalidRequest("messages is empty: send at least one", field="messages")
    if most is not None and len(messages) > most:
        raise InvalidRequest(
            f"messages has {len(messages)} messages; at most {most} fit with an answer: leave out the oldest",
            field="messages",
        )
    return [_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


_MORE_KEYS = {"assistant": ("tool_calls", "function_call", "refusal"), "tool": ("tool_call_id",)}
_UNSAID = ("function_call", "audio", "refusal")  # taken where they say nothing
_BESIDE = ("annotations", "parsed")  # what clients have of an answer beside its text, and may send back


def _message(message: Any, field: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise InvalidRequest(f'{field} must be an object with "role" and "content"', field=field)
    role, content = message.get("role"), message.get("content")
    role = "system" if role == "developer" else role  # what newer models call it
    if role not in ROLES:
        raise InvalidRequest(
            f"{field}.role is {quoted(role)}; it must be one of {', '.join(ROLES)}", field=f"{field}.role"
        )
    more = _MORE_KEYS.get(role, ())
    for name in _UNSAID:
        if message.get(name) and name not in more:
            raise InvalidRequest(f"{field}.{name} is not supported by this model", field=f"{field}.{name}")
    unknown = sorted(
        str(key) for key, value in message.items()
        if key not in ("role", "content", "name", *more, *_UNSAID, *_BESIDE) and value is not None
    )  # fmt: skip
    if unknown:
        raise InvalidRequest(f"{field} has an unknown key {quoted(unknown[0])}", field=f"{field}.{brief(unknown[0])}")
    checked: dict[str, Any] = {"role": role}
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        content = "".join(_part(part, f"{field}.content[{i}]") for i, part in enumerate(content))
    calls = message.get("tool_calls") or ()
    if role == "assistant":
        calls = _with_older(calls, message.get("function_call"), field)
        content = message.get("refusal") or "" if content is None else content
    if calls:
        checked["tool_calls"] = _calls(calls, f"{field}.tool_calls")
    checked["content"] = checked_text(content, f"{field}.content", empty=True)
    for key in ("tool_call_id", "name"):
        if message.get(key) is not None:
            said = checked_text(message[key], f"{field}.{key}")
            if role == "tool":  # who else speaks is no part of any template
                checked[key] = said
    return checked


def _with_older(calls: Any, older: Any, field: str) -> Any:
    """With a call as it was written before there were several: ``function_call``."""
    if not older:
        return calls
    if not isinstance(older, Mapping):
        raise InvalidRequest(f"{field}.function_call must be an object", field=f"{field}.function_call")
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        return calls  # which `_calls` refuses
    return [*calls, {"type": "function", "function": older}]


def _part(part: Any, field: str) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else part
    if not isinstance(part, Mapping) or kind not in ("text", "refusal"):
        raise InvalidRequest(f"{field}: this model reads text only, not {quoted(kind)}", field=f"{field}.type")
    text = part.get(kind)
    if not isinstance(text, str):
        raise InvalidRequest(f"{field}.{kind} must be a string", field=f"{field}.{kind}")
    return text


def _calls(calls: Any, field: str) -> list[dict[str, Any]]:
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise InvalidRequest(f"{field} must be a list", field=field)
    if len(calls) > _CALLS:
        raise InvalidRequest(f"{field} has {len(calls)} calls; at most {_CALLS} can be given", field=field)
    checked = []
    for i, call in enumerate(calls):
        where = f"{field}[{i}]"
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            raise InvalidRequest(
                f"{where}.function must be an object with name and arguments", field=f"{where}.function"
            )
        name = checked_text(function.get("name"), f"{where}.function.name")
        arguments = function.get("arguments")
        if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
            arguments = {}  # a function without parameters was called so
        try:
            arguments = bounded.read(arguments) if isinstance(arguments, str) else arguments
            json.dumps(arguments).encode()
        except (ValueError, TypeError) as error:
            bad = f"{where}.function.arguments"
            raise InvalidRequest(f"{bad} is not JSON: {said(error)}", field=bad) from error
        called: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": arguments}}
        if call.get("id") is not None:
            called["id"] = checked_text(call["id"], f"{where}.id", empty=True)
        checked.append(called)
    return checked
