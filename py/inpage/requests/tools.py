"""Functions that a model may call: what a caller offers, checked, and the grammar that holds the model to them.

For chat templates that take ``tools`` and write calls as Hermes and Qwen do: ``<tool_call>``, a line of JSON with
``name`` and ``arguments``, ``</tool_call>``. `inpage.requests.tool_calls` reads them out of an answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..engines.protocol import Grammar
from ..errors import InvalidRequest, Unsupported, brief, quoted, said
from ..format import bounded
from .grammar import schema_grammar
from .tool_calls import CLOSE, OPEN

_TOOLS = 128
_FORM_CHARS = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TAKEN = re.compile(r"\btools\b")


@dataclass(frozen=True, slots=True)
class ToolUse:
    """``tools``: what the template is told, empty where the model is to call none."""

    tools: Sequence[Mapping[str, Any]] = ()
    grammar: Grammar | None = None


def asked_tools(tools: Any, choice: Any, parallel: Any, template: str | None, grammars: bool) -> ToolUse:
    """``tools``, ``choice`` and ``parallel``: OpenAI's ``tools``, ``tool_choice`` and ``parallel_tool_calls``;
    ``grammars``: whether the engine can hold an answer to one. A function that says ``strict`` is called as its
    parameters say or not at all; so is every one that must be called. Raises `InvalidRequest`, `Unsupported`."""
    if parallel is not None and not isinstance(parallel, bool):
        raise InvalidRequest("parallel_tool_calls must be true or false", field="parallel_tool_calls")
    bounded.check(tools, "tools")
    bounded.check(choice, "tool_choice")
    functions = _functions(tools)
    wanted = _wanted(choice, functions)
    if not functions or wanted == "none":
        return ToolUse()
    if template is None or not _TAKEN.search(template):
        raise Unsupported(
            "tools: this model's chat template knows none; take a model that was made for them", field="tools"
        )
    if OPEN not in template:
        raise Unsupported("tools: this model writes calls in a form that is not known here", field="tools")
    offered = [{"type": "function", "function": function} for function in functions]
    strict = any(function.get("strict") for function in functions)
    if wanted == "auto" and not strict:
        return ToolUse(offered)
    if not grammars:
        field = "tools" if wanted == "auto" else "tool_choice"
        raise Unsupported(
            f"{field}: this engine cannot hold answers to a form; ask in the page, or leave it out", field=field
        )
    held = [_tag(f, i, wanted) for i, f in enumerate(functions) if wanted in ("auto", "required", f["name"])]
    source = json.dumps(_format(wanted, held, parallel is not False))
    if len(source) > _FORM_CHARS:
        raise InvalidRequest(
            "tools: the grammar of their parameters would be too large: offer fewer functions", field="tools"
        )
    return ToolUse(offered, Grammar("tag", source))


def _functions(tools: Any) -> list[dict[str, Any]]:
    if tools is None:
        return []
    if not isinstance(tools, Sequence) or isinstance(tools, str) or len(tools) > _TOOLS:
        raise InvalidRequest(f"tools must be a list of at most {_TOOLS} functions", field="tools")
    functions: list[dict[str, Any]] = []
    for i, tool in enumerate(tools):
        where = f"tools[{i}]"
        if not isinstance(tool, Mapping) or tool.get("type") != "function":
            raise InvalidRequest(f'{where}.type must be "function"', field=f"{where}.type")
        function = tool.get("function")
        if not isinstance(function, Mapping):
            raise InvalidRequest(f"{where}.function must be an object with a name", field=f"{where}.function")
        unknown = sorted(str(key) for key in function if key not in ("name", "description", "parameters", "strict"))
        if unknown:
            bad = f"{where}.function.{brief(unknown[0])}"
            raise InvalidRequest(f"{where}.function has an unknown key {quoted(unknown[0])}", field=bad)
        name = function.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name) or any(name == other["name"] for other in functions):
            raise InvalidRequest(
                f"{where}.function.name must be 1 to 64 letters, digits, _ . or -, and no other's",
                field=f"{where}.function.name",
            )
        if not isinstance(function.get("description", ""), str):
            raise InvalidRequest(
                f"{where}.function.description must be a string", field=f"{where}.function.description"
            )
        parameters = function.get("parameters")
        if parameters is not None and not isinstance(parameters, Mapping):
            raise InvalidRequest(f"{where}.function.parameters must be an object", field=f"{where}.function.parameters")
        plain = bounded.read(_json(function, where))
        functions.append({key: value for key, value in plain.items() if value is not None})
    return functions


def _json(function: Mapping[str, Any], where: str) -> str:
    try:
        return json.dumps(dict(function), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{where}.function is not JSON: {said(error)}", field=f"{where}.function") from error


def _wanted(choice: Any, functions: Sequence[Mapping[str, Any]]) -> str:
    """ "none", "auto", "required", or the name of the function that is to be called."""
    if choice is None:
        return "auto"
    if isinstance(choice, Mapping) and choice.get("type") == "function" and isinstance(choice.get("function"), Mapping):
        name = choice["function"].get("name")
        if not any(name == function["name"] for function in functions):
            raise InvalidRequest(f"tool_choice: no tool is called {quoted(name)}", field="tool_choice")
        return str(name)
    if choice not in ("none", "auto", "required"):
        raise InvalidRequest("tool_choice must be none, auto, required or a function of tools", field="tool_choice")
    if choice != "none" and not functions:
        raise InvalidRequest("tool_choice is for tools: send them", field="tool_choice")
    return str(choice)


def _tag(function: Mapping[str, Any], i: int, wanted: str) -> dict[str, Any]:
    """One function's call as XGrammar takes it. One that is not strict may have any arguments where it need not be
    called."""
    held = "parameters" in function and (function.get("strict") or wanted != "auto")
    schema = function["parameters"] if held else {"type": "object"}
    grammar = schema_grammar(schema, f"tools[{i}].function.parameters")
    begin = f'{OPEN}\n{{"name": {json.dumps(function["name"])}, "arguments": '
    return {
        "type": "tag",
        "begin": begin,
        "content": {"type": "grammar", "grammar": grammar.source},
        "end": "}\n" + CLOSE,
    }


def _format(wanted: str, tags: list[dict[str, Any]], parallel: bool) -> dict[str, Any]:
    if wanted == "auto":
        return {"type": "triggered_tags", "triggers": [OPEN], "tags": tags, "stop_after_first": not parallel}
    if wanted == "required" and parallel:
        return {"type": "tags_with_separator", "separator": "\n", "tags": tags, "at_least_one": True}
    return {"type": "or", "elements": tags} if len(tags) > 1 else tags[0]
