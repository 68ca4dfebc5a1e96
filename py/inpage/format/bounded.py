"""The one reader of JSON from outside: requests, settings, manifests, kept answers, what a model wrote.

A parser recurses with its input, and in Pyodide a stack that overflows takes the whole interpreter with it. So depth
and size are counted before anything is parsed, by code that does not recurse, and values that come as Python objects
are walked the same way before they are printed, copied or encoded.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import accumulate
from typing import Any

from ..errors import InvalidRequest, brief

DEPTH = 100  # Pyodide's stack takes some hundred levels of json.loads; a schema may have 64 levels
ITEMS = 1 << 20  # values of one text; a tokenizer.json may have more
# Different keys of one text. Python in the page may be restored from a public snapshot, whose strings hash with a seed
# that everybody knows (docs/security.md): keys that are made to collide cost the square of their number.
KEYS = 10_000
REQUEST_BYTES = 64 << 20

# Possessive, so that a text without its last quote costs one pass too.
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NO_BRACKET = re.compile(r"[^\[\]{}]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_PLAIN = (str, bytes, int, float)
_HOLDERS = (Mapping, Sequence, Set)
_STEP = {ord(c): 1 if c in "[{" else -1 for c in "[]{}"}
_KEY = re.compile(r'("(?:[^"\\]++|\\.)*+"?)\s*+(:)?', re.DOTALL)
_TOKEN = re.compile(r'("(?:[^"\\]++|\\.)*+")\s*+(:)?|[\[\]{}]', re.DOTALL)


class Excessive(ValueError):
    """``field``: the member in which it is, as far as it could be told."""

    def __init__(self, why: str, field: str | None = None) -> None:
        super().__init__(why)
        self.field = field


def read(
    text: str | bytes,
    limit: int = REQUEST_BYTES,
    *,
    items: int = ITEMS,
    depth: int = DEPTH,
    keys: int = KEYS,
    strict: bool = True,
    unique: bool = False,
) -> Any:
    """Parse JSON of at most ``limit`` bytes or characters, ``items`` values, ``depth`` levels and ``keys`` different
    keys. ``strict``: no control characters in strings. ``unique``: no key twice in an object. Raises `ValueError`, as
    `Excessive` where it is too large or too deep."""
    if len(text) > limit:
        raise Excessive(f"it is larger than {limit} bytes")
    if not isinstance(text, str):
        text = bytes(text).decode(json.detect_encoding(bytes(text)), "surrogatepass").removeprefix("\ufeff")
    if text.count("[") + text.count("{") > depth or text.count(",") > items // 2:
        _measure(text, items, depth)
    if text.count(":") > keys:
        _count_keys(text, keys)
    hook = _once if unique else None
    return json.loads(text, strict=strict, parse_constant=_constant, object_pairs_hook=hook)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{brief(name)} stands twice")
        found[name] = value
    return found


def check(value: Any, field: str, *, depth: int = DEPTH, items: int = ITEMS) -> None:
    """The same for a value that is in memory already. Raises `InvalidRequest` that names ``field``."""
    level: list[Any] = [value]
    count = 0
    for _ in range(depth + 1):
        level = [each for each in level if not isinstance(each, _PLAIN) and isinstance(each, _HOLDERS)]
        if not level:
            return
        level = [inner for outer in level for inner in _parts(outer)]
        count += len(level)
        if count > items:
            raise InvalidRequest(f"{field} holds more than {items} values", field=field)
    raise InvalidRequest(f"{field} is nested more than {depth} deep", field=field)


def finite(value: Any) -> bool:
    """Whether it is a number that a float can hold; `math.isfinite` raises for whole numbers that are too large."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def whole(digits: Any) -> int | None:
    """The number that a text of ASCII digits alone says, None for any other; the text may be of any length. Beyond 18
    digits all numbers are the same one, larger than all that is counted here: `int` refuses thousands of digits."""
    if not isinstance(digits, str) or not (digits.isascii() and digits.isdecimal()):
        return None
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= 18 else 10**18


def encodable(text: str) -> bool:
    """Whether it has no lone surrogates, which JSON's escapes can spell."""
    return text.isascii() or not _SURROGATE.search(text)


def _parts(value: Any) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, Mapping) else value)


def _measure(text: str, items: int, depth: int) -> None:
    bare = _STRING.sub("", text)
    count = bare.count(",") + bare.count("[") + bare.count("{")
    if count > items:
        raise Excessive(f"it holds more than {items} values")
    marks = _NO_BRACKET.sub("", bare).encode()
    if max(accumulate(map(_STEP.__getitem__, marks)), default=0) > depth:
        raise Excessive(f"it is nested more than {depth} deep", _deep_member(text, depth))


def _count_keys(text: str, most: int) -> None:
    """Behind a text that nobody can guess they hash as if the seed were not known; the parser's own table, and objects,
    have them without."""
    salt = secrets.token_hex(8)
    seen: set[str] = set()
    for match in _KEY.finditer(text):
        if match[2]:
            seen.add(salt + match[1])
            if len(seen) > most:
                raise Excessive(f"it has more than {most} different keys")


def _deep_member(text: str, depth: int) -> str | None:
    """The key in the outermost object under which ``text`` is too deep; within ``params`` the key there."""
    keys: dict[int, str] = {}
    level = 0
    for match in _TOKEN.finditer(text, 0, 1 << 20):
        if match[1]:
            if match[2] and level < 3:
                keys = {at: key for at, key in keys.items() if at < level} | {level: match[1][1:-1]}
            continue
        level += _STEP[ord(match[0])]
        if level > depth:
            found = keys.get(2, "params") if keys.get(1) == "params" else keys.get(1)
            return None if found is None else brief(found)
    return None


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
