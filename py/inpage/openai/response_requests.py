"""Request bodies of OpenAI's Responses API. Nothing is stored here: a conversation comes whole as ``input``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InpageError, InvalidRequest, brief, quoted
from ..requests.openai_names import format_schema
from .requests import Body, ParsedRequest

_REFUSED = {
    "context_management": "the context is what is sent",
    "conversation": "nothing is stored: send the whole conversation as input",
    "max_tool_calls": "no tool runs here: each call is answered by the caller",
    "moderation": "nothing is sent anywhere",
    "previous_response_id": "nothing is stored: send the whole conversation as input",
    "prompt": "nothing is stored: send the text as input",
    "reasoning": "the model does not reason apart from its answer",
}
# What the router calls by another name than this API does, the longest first.
_PARAMS = {
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "schema": "text.format",
    "messages": "input",
    "max_tokens": "max_output_tokens",
}
_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}  # where each has it


@dataclass(frozen=True, slots=True)
class ResponseRequest(ParsedRequest):
    """``repeated``: parameters that the response repeats."""

    repeated: dict[str, Any] = field(default_factory=dict)


def response_request(body: Any) -> ResponseRequest:
    """Check a body of ``POST /v1/responses``. Raises `InvalidRequest`, whose field `renamed` makes OpenAI's."""
    b = Body(body, _REFUSED)
    names = ("instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "temperature", "text",
             "tool_choice", "tools", "top_p", "user")  # fmt: skip
    repeated = {name: b.body[name] for name in names if b.body.get(name) is not None}
    given, instructions = b.take("input"), b.typed("instructions", str, "a string")
    if given is None:
        raise InvalidRequest("input is missing: send a text or a list of items", field="input")
    messages = [{"role": "system", "content": instructions}] if instructions else []
    messages += _messages(given)
    tokens = b.take("max_output_tokens")
    if tokens == 0:
        raise InvalidRequest("max_output_tokens must be at least 1", field="max_output_tokens")
    if tokens is not None:
        b.params["max_tokens"] = tokens
    b.only("background", False)
    b.only("include", [])
    b.only("top_logprobs", 0)
    b.only("truncation", "disabled")
    b.only("n", 1)
    text = b.typed("text", dict, "an object") or {}
    schema = format_schema(_format(text))
    if schema is not None:
        b.params["schema"] = schema
    tools = b.typed("tools", list, "a list") or []
    if tools:
        b.params["tools"] = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(tools)]
    choice, parallel = b.take("tool_choice"), b.take("parallel_tool_calls")
    if choice is not None:
        b.params["tool_choice"] = _choice(choice)
    if parallel is not None:
        b.params["parallel_tool_calls"] = parallel
    asked = b.asked([messages])
    return ResponseRequest(asked.model, asked.prompts, asked.params, stream=asked.stream, repeated=repeated)


def renamed(error: BaseException) -> BaseException:
    """With the field as this API calls it."""
    if not isinstance(error, InpageError) or not error.field:
        return error
    for ours, theirs in _PARAMS.items():
        if error.field == ours or error.field.startswith((f"{ours}.", f"{ours}[")):
            error.field = theirs + error.field[len(ours) :]
            break
    return error


def _messages(given: Any) -> list[dict[str, Any]]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise InvalidRequest(f"input must be a text or a list of items, not {type(given).__name__}", field="input")
    messages: list[dict[str, Any]] = []
    for i, item in enumerate(given):
        where = f"input[{i}]"
        if not isinstance(item, dict):
            raise InvalidRequest(f"{where} must be an object", field=where)
        kind = item.get("type", "message")
        if kind == "message":
            if item.get("role") not in _ROLES:
                raise InvalidRequest(f"{where}.role must be one of {', '.join(_ROLES)}", field=f"{where}.role")
            role = "system" if item["role"] == "developer" else item["role"]
            messages.append({"role": role, "content": _text(item.get("content"), f"{where}.content")})
        elif kind == "function_call":
            call_id, name, arguments = (_string(item, key, where) for key in ("call_id", "name", "arguments"))
            call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": ""})
            messages[-1].setdefault("tool_calls", []).append(call)
        elif kind == "function_call_output":
            output = _text(item.get("output"), f"{where}.output")
            messages.append({"role": "tool", "tool_call_id": _string(item, "call_id", where), "content": output})
        else:
            raise InvalidRequest(
                f"{where}.type is {quoted(kind)}; this model takes message, function_call and function_call_output",
                field=f"{where}.type",
            )
    return messages


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest(f"{where} must be a text or a list of parts", field=where)
    text = ""
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else part
        if not isinstance(part, dict) or not isinstance(kind, str) or kind not in _TEXTS:
            raise InvalidRequest(
                f"{where}[{i}]: this model reads text only, not {quoted(kind)}", field=f"{where}[{i}].type"
            )
        text += _string(part, _TEXTS[kind], f"{where}[{i}]")
    return text


def _string(item: Mapping[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"{where}.{name} must be a string", field=f"{where}.{name}")
    return value


def _format(text: Mapping[str, Any]) -> Any:
    """As chat completions' ``response_format``."""
    for name in text:
        if name != "format":
            raise InvalidRequest(f"text.{brief(name)} is not supported by this model", field=f"text.{brief(name)}")
    form = text.get("format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        return {"type": "json_schema", "json_schema": {key: value for key, value in form.items() if key != "type"}}
    return form


def _tool(tool: Any, where: str) -> dict[str, Any]:
    kind = tool.get("type") if isinstance(tool, dict) else tool
    if kind != "function" or not isinstance(tool, dict):
        raise InvalidRequest(f"{where}: only functions can be called, not {quoted(kind)}", field=f"{where}.type")
    names = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in names if tool.get(name) is not None}}


def _choice(choice: Any) -> Any:
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return choice
