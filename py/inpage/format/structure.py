"""Untrusted JSON against the structure that it must have. `inpage.format.schemas` declares it for this and for
structure.js.

What comes back is a copy with the declared fields alone: whole numbers are ints (1.0 is 1, as JavaScript reads it), and
an optional field that is missing is None. What must hold *between* fields is for those who read the copy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from ..errors import ArtifactInvalid, brief, quoted, said
from . import bounded
from .limits import LINE

Rule: TypeAlias = "dict[str, Any]"
Schema: TypeAlias = "dict[str, dict[str, Rule]]"
# The path of the object that a value stands in, and the key there: only an error makes a text of it.
Path: TypeAlias = "str | tuple[Path, str | int]"

# Control characters, line and paragraph separators, what turns the direction of a text, lone surrogates: with one of
# these a name could begin a line of its own in NOTICES.txt, in a terminal or in a log, or show something else there.
_NOT_IN_A_LINE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_TEXTS = {
    "any": re.compile(r".*", re.DOTALL),
    "hash": re.compile(r"[0-9a-f]{64}"),
    "name": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"),
    # Every segment starts with a letter or digit: no absolute path, no "..", no hidden file, no drive or URL.
    "path": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99}){0,7}"),
    "label": re.compile(r"[A-Za-z0-9][A-Za-z0-9@._-]{0,199}"),  # of a buffer: a tensor's name, or a slice of it
    "access": re.compile(r"[rwx]*"),
}
_OPERATORS = ("*", "+", "ceildiv")


def canonical_json(value: Any) -> bytes:
    """One byte string for one value: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def one_line(text: str) -> str:
    """The text as it may stand in one line, shortened where it is too long."""
    return " ".join(_NOT_IN_A_LINE.sub(" ", text).split())[:LINE]


def read_json(text: bytes | str, limit: int, subject: str, field: str) -> Any:
    """Untrusted JSON of at most ``limit`` bytes. ``subject`` begins the sentence of an error: "plan.json is"."""
    if len(text) > limit:
        raise ArtifactInvalid(f"{subject} larger than {limit} bytes", field=field)
    try:
        return bounded.read(text, limit)
    except ValueError as error:
        raise ArtifactInvalid(f"{subject} not JSON: {said(error)}", field=field) from error


def wrong(path: Path, why: str) -> ArtifactInvalid:
    """The error to raise for the field at ``path``."""
    field = _said(path)
    return ArtifactInvalid(f"{field or 'the document'}: {why}", field=field or None)


def _said(path: Path) -> str:
    if isinstance(path, str):
        return path
    before, key = _said(path[0]), path[1]
    if isinstance(key, int):
        return f"{before}[{key}]"
    return f"{before}.{brief(key)}" if before else brief(key)


def read(value: Any, schema: Schema, name: str, path: Path = "") -> dict[str, Any]:
    """A checked copy of an object of the kind ``name``. Raises `ArtifactInvalid` naming the field
    (``plan.functions[0].launches[3].buffers[1]``)."""
    if not isinstance(value, Mapping):
        raise wrong(path, "must be an object")
    rules = schema[name]
    for field, rule in rules.items():
        if rule.get("kind"):
            kind = _value(_get(value, field, path), rule, schema, (path, field))
            rules = schema[f"{name}.{kind}"]
    out: dict[str, Any] = {}
    for field, rule in rules.items():
        if field == "*":
            others = {k: v for k, v in value.items() if k not in rules}
            out[field] = {k: _value(v, rule, schema, (path, k)) for k, v in others.items()}
        elif rule.get("optional") and field not in value:
            out[field] = None
        else:
            out[field] = _value(_get(value, field, path), rule, schema, (path, field))
    return out


def _get(value: Mapping[str, Any], field: str, path: Path) -> Any:
    if field not in value:
        raise wrong((path, field), "is missing")
    return value[field]


def _value(value: Any, rule: Rule, schema: Schema, path: Path) -> Any:
    if value is None and rule.get("null"):
        return None
    if "or" in rule and isinstance(value, str):
        return _choice(value, rule["or"], path)
    match rule["is"]:
        case "int":
            return value if type(value) is int and rule["low"] <= value <= rule["high"] else _whole(value, rule, path)
        case "text":
            return _text(value, rule["of"], path)
        case "object":
            return read(value, schema, rule["of"], path)
        case "list":
            return [_value(v, rule["of"], schema, (path, i)) for i, v in enumerate(_list(value, rule, path))]
        case "choice":
            return _choice(value, rule["of"], path)
        case "flag":
            if not isinstance(value, bool):
                raise wrong(path, "must be true or false")
            return value
        case "number":
            return _positive(value, path)
        case "map":
            if not isinstance(value, Mapping):
                raise wrong(path, "must be an object")
            for key in value:
                if not isinstance(key, str) or not _TEXTS[rule["keys"]].fullmatch(key):
                    raise wrong(path, f"{quoted(key)} is not a valid name")
            return {k: _value(v, rule["of"], schema, (path, k)) for k, v in value.items()}
        case "exactly":
            if value != rule["of"]:
                raise wrong(path, f"must be {', '.join(rule['of'])}")
            return value
    return _extent(value, rule, path, 0)


def _whole(value: Any, rule: Rule, path: Path) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong(path, "must be a whole number")
    if not rule["low"] <= value <= rule["high"]:
        if rule["low"] == rule["high"]:
            raise wrong(path, f"{quoted(value)} is not the supported {rule['low']}: {rule['why']}")
        raise wrong(path, f"{quoted(value)} is outside {rule['low']}..{rule['high']}")
    return value


def _positive(value: Any, path: Path) -> float:
    if not bounded.finite(value) or value <= 0:
        raise wrong(path, "must be a positive number that a float can hold")
    return float(value)


def _text(value: Any, kind: str, path: Path) -> str:
    if not isinstance(value, str):
        raise wrong(path, "must be a string")
    if kind == "line":
        if len(value) > LINE:
            raise wrong(path, f"has {len(value)} characters, at most {LINE} are allowed")
        if found := _NOT_IN_A_LINE.search(value):
            raise wrong(path, f"must be one line of text; it has the character U+{ord(found[0]):04X}")
    elif kind != "any" and (len(value) > 8 * LINE or not _TEXTS[kind].fullmatch(value)):
        raise wrong(path, f"{quoted(value)} is not allowed here")
    return value


def _choice(value: Any, allowed: list[str], path: Path) -> str:
    if not isinstance(value, str):
        raise wrong(path, "must be a string")
    if value not in allowed:
        raise wrong(path, f"{quoted(value)} is not one of {', '.join(allowed)}")
    return value


def _list(value: Any, rule: Rule, path: Path) -> list[Any]:
    if not isinstance(value, list):
        raise wrong(path, "must be a list")
    low, high = rule["low"], rule["high"]
    if not low <= len(value) <= high:
        raise wrong(path, f"has {len(value)} items; there must be {low if low == high else f'{low} to {high}'}")
    return value


def _extent(value: Any, rule: Rule, path: Path, depth: int) -> Any:
    """A number, a variable's name, or an operator and two of these: how many workgroups there are along one axis."""
    if isinstance(value, str):
        return _choice(value, rule["or"], path)
    if not isinstance(value, list):
        return _whole(value, {"low": 1 if depth else 0, "high": rule["high"]}, path)
    if len(value) != 3 or depth > rule["depth"]:
        raise wrong(path, "must be an operator and two extents")
    operator = _choice(value[0], list(_OPERATORS), (path, 0))
    if operator == "ceildiv" and isinstance(value[2], str | list):
        raise wrong((path, 2), "must be a whole number")
    return (operator, *(_extent(value[i], rule, (path, i), depth + 1) for i in (1, 2)))
