"""What an answer may be held to: a JSON schema, a regular expression or an EBNF grammar, checked before anybody waits.

The engine worker follows grammars with XGrammar, which leaves out some keywords of JSON Schema without a word, and
lets some patterns break out of their string. Whatever would not hold is refused here by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..engines.protocol import EngineInfo, Grammar
from ..errors import InvalidRequest, Unsupported
from ..format import bounded

SOURCE_BYTES = 64 << 10
FIELDS = {"schema": "schema", "regex": "regex", "ebnf": "grammar", "tag": "tools"}  # by kind: what a caller calls it

_DEPTH = 64
_REPEATS = 1000  # of one bound; compiling takes milliseconds for each repetition
_ALL_REPEATS = 2000
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_ANNOTATIONS = frozenset((
    "title", "description", "default", "examples", "$schema", "$id", "$comment", "deprecated", "readOnly", "writeOnly",
    "$defs", "definitions",
))  # fmt: skip
_WHOLE = frozenset(("$ref", "const", "enum", "anyOf", "oneOf", "allOf"))  # each says all that there is to say
_KEYWORDS = frozenset((
    "type", "properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties",
    "maxProperties", "items", "prefixItems", "minItems", "maxItems", "minLength", "maxLength", "pattern", "format",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "unevaluatedProperties", "unevaluatedItems",
))  # fmt: skip
_MAPS = ("properties", "patternProperties", "$defs", "definitions")  # of schemas
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_ONES = ("items", "additionalProperties", "propertyNames", "unevaluatedProperties", "unevaluatedItems")
_BOUND = re.compile(r"\{(\d+)?,?(\d+)?\}")
# Stands for characters that a JSON string cannot hold as they are: the quote, the backslash, control characters.
_OPEN = re.compile(r'(?<!\\)(?:\\\\)*(?:\.|\[\^|\\[SDWsnrtfvbxu\\"]|")')


def asked_grammar(given: Mapping[str, Any]) -> Grammar | None:
    """From the parameters ``schema`` (a mapping, or JSON text), ``regex`` and ``grammar``, of which one may be given.
    Raises `InvalidRequest`."""
    named = [name for name in ("schema", "regex", "grammar") if given.get(name) is not None]
    if len(named) > 1:
        raise InvalidRequest(f"{named[0]} and {named[1]} cannot both be followed: give one", field=named[1])
    if not named:
        return None
    if named == ["schema"]:
        return schema_grammar(given["schema"])
    text = given[named[0]]
    if not isinstance(text, str) or not text:
        raise InvalidRequest(f"{named[0]} must be a text that is not empty", field=named[0])
    _check_size(text, named[0])
    _check_repeats([(int(n), named[0]) for pair in _BOUND.findall(text) for n in pair if n])
    return Grammar("regex" if named == ["regex"] else "ebnf", text)


def one_grammar(grammar: Grammar | None, calls: Grammar | None) -> Grammar | None:
    """What was asked for, or the form of ``calls``. Raises `InvalidRequest` for both."""
    if grammar is not None and calls is not None:
        field = FIELDS[grammar.kind]
        raise InvalidRequest(f"{field} does not go with tools that must be called, or are strict", field=field)
    return grammar or calls


def unmet_need(
    grammar: Grammar | None, top: int | None, info: EngineInfo, can: Callable[[str], bool] | None = None
) -> Unsupported | None:
    """What a request needs that this engine has not; it names the caller's parameter. ``can``: whether the engine or
    another that could take its place has a flag."""
    can = can or info.has
    if grammar is not None and not can("grammars"):
        field = FIELDS[grammar.kind]
        return Unsupported(f"{field} cannot be followed by the {info.backend} engine; ask in the page", field=field)
    if top is not None and not can("logprobs"):
        return Unsupported(f"logprobs are not told by the {info.backend} engine: leave them out", field="logprobs")
    return None


def schema_grammar(schema: Any, field: str = "schema") -> Grammar:
    """A checked JSON schema; the answer will be one line of JSON. An object has the properties that are named and no
    others, unless ``additionalProperties`` allows them."""
    if isinstance(schema, str):
        try:
            schema = bounded.read(schema, SOURCE_BYTES)
        except ValueError as error:
            raise InvalidRequest(f"{field} is not JSON: {error}", field=field) from error
    bounded.check(schema, field)
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{field} cannot be written as JSON: {error}", field=field) from error
    _check_size(text, field)
    plain = bounded.read(text)
    _check_repeats(list(_check(plain, plain, field, 0)))
    return Grammar("schema", text)


def _check(schema: Any, root: Any, field: str, depth: int) -> Iterator[tuple[int, str]]:
    """Gives the repetitions that it asks for."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise InvalidRequest(f"{field} must be an object or a boolean, not {schema!r:.60}", field=field)
    if depth > _DEPTH:
        raise InvalidRequest(f"{field} is nested more than {_DEPTH} deep", field=field)
    said = set(schema) - _ANNOTATIONS
    for keyword in said - _KEYWORDS - _WHOLE:
        raise InvalidRequest(
            f"{field}: {keyword!r:.60} cannot be followed; leave it out", field=f"{field}.{keyword}"[:200]
        )
    whole = sorted(said & _WHOLE)
    others = said - _WHOLE - ({"type"} if whole in (["const"], ["enum"]) else set())
    if len(whole) > 1 or (whole and others):
        other = whole[1] if len(whole) > 1 else min(others)
        raise InvalidRequest(f"{field}: {other!r} beside {whole[0]!r} cannot be followed", field=f"{field}.{other}")
    _check_values(schema, root, field)
    for name in ("minLength", "maxLength"):
        if name in schema:
            yield _count(schema[name], f"{field}.{name}"), f"{field}.{name}"
    patterns = [schema["pattern"]] if "pattern" in schema else []
    for pattern in [*patterns, *schema.get("patternProperties", {})]:
        yield from _check_pattern(pattern, f"{field}.pattern")
    for name in (n for n in _MAPS if n in schema):
        if not isinstance(schema[name], dict):
            raise InvalidRequest(f"{field}.{name} must be an object", field=f"{field}.{name}")
        for key, inner in schema[name].items():
            yield from _check(inner, root, f"{field}.{name}.{key}"[:200], depth + 1)
    for name in (n for n in _LISTS if n in schema):
        if not isinstance(schema[name], list) or not schema[name]:
            raise InvalidRequest(f"{field}.{name} must be a list that is not empty", field=f"{field}.{name}")
        for i, inner in enumerate(schema[name]):
            yield from _check(inner, root, f"{field}.{name}[{i}]", depth + 1)
    for name in (n for n in _ONES if n in schema):
        yield from _check(schema[name], root, f"{field}.{name}", depth + 1)


def _check_values(schema: dict[str, Any], root: Any, field: str) -> None:
    """What XGrammar would pass over, or end with an abort."""
    types = schema.get("type", [])
    for kind in types if isinstance(types, list) else [types]:
        if kind not in _TYPES:
            raise InvalidRequest(
                f"{field}.type is {kind!r:.60}; it must be one of {', '.join(_TYPES)}", field=f"{field}.type"
            )
    if len(schema.get("allOf") or [0]) > 1:
        raise InvalidRequest(f"{field}.allOf can hold one schema only: merge them", field=f"{field}.allOf")
    if "enum" in schema and (not isinstance(schema["enum"], list) or not schema["enum"]):
        raise InvalidRequest(f"{field}.enum must be a list that is not empty", field=f"{field}.enum")
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise InvalidRequest(f"{field}.required must be a list of names", field=f"{field}.required")
    if "$ref" in schema:
        _resolve(schema["$ref"], root, f"{field}.$ref")


def _resolve(ref: Any, root: Any, field: str) -> None:
    place = root
    steps = ref.split("/") if isinstance(ref, str) else [""]
    for step in steps[1:] if steps[0] == "#" else ["?"]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(place, dict) or name not in place:
            raise InvalidRequest(f"{field}: {ref!r:.60} leads nowhere in this schema", field=field)
        place = place[name]


def _check_pattern(pattern: Any, field: str) -> Iterator[tuple[int, str]]:
    if not isinstance(pattern, str):
        raise InvalidRequest(f"{field} must be a string", field=field)
    found = _OPEN.search(pattern)
    if found:
        raise InvalidRequest(
            f"{field}: {found[0]!r} also means characters that a JSON string cannot hold; name those that are meant, "
            "as in [A-Za-z ]",
            field=field,
        )
    yield from ((int(n), field) for pair in _BOUND.findall(pattern) for n in pair if n)


def _count(value: Any, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidRequest(f"{field} must be a whole number of at least 0", field=field)
    return value


def _check_repeats(repeats: list[tuple[int, str]]) -> None:
    total = 0
    for count, field in repeats:
        total += min(count, 200)  # beyond that a longer one costs no more
        if count > _REPEATS:
            raise InvalidRequest(f"{field}: {count} repetitions, at most {_REPEATS}", field=field)
        if total > _ALL_REPEATS:
            raise InvalidRequest(
                f"{field}: the bounds on lengths would take too long to prepare: have fewer", field=field
            )


def _check_size(text: str, field: str) -> None:
    if len(text.encode("utf-8", "replace")) > SOURCE_BYTES:
        raise InvalidRequest(f"{field} is larger than {SOURCE_BYTES} bytes", field=field)
