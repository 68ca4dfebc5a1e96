"""Mutations of good documents: of JSON as values, of texts and bytes as such. All of it follows from the seed."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

_DIGITS = "9" * 5000  # Python's `int` refuses more than 4,300

NUMBERS: tuple[Any, ...] = (
    *(0, -1, 1, 2, 255, 256, 2**31 - 1, 2**31, 2**32, 2**53, 2**53 + 1, 2**63, 2**64, -(2**63)),
    *(10**400, -(10**400), 0.5, -0.0, 1e308, -1e308, 5e-324, 1.0, 1e15),
)
NOT_JSON: tuple[Any, ...] = (math.inf, -math.inf, math.nan, 10**5000)
TEXTS: tuple[str, ...] = (
    *("", " ", "\x00", "\n", "a", "é", "😀", "\ud800", "\udfff x", "\u2028", "\ufeff", "\U0010ffff", "null", "NaN"),
    *("Infinity", "1e999", "-0", _DIGITS, "-" + _DIGITS, "1." + _DIGITS, "٣", "²", "𝟗" * 5000, "x" * 5000),
    *("<|im_end|>", "<|im_start|>", "<tool_call>", "</tool_call>", "{{ x }}", "{% for %}", "{%", "%s%n", "{0}", "\\"),
    *("../../etc/passwd", "/", "__class__", "__proto__", "$ref", "#/$defs/a", "#", "[" * 200, '{"a":' * 200, "(" * 200),
    *("(a|b)*+", "[z-a]", "^$", "\\p{L}", "(?=x)", "a{1,99999}", "a{2,1}", "\\ud800", "[^", "*", "root ::= root"),
)
PLAIN: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": None}, {"a": {"b": {}}})


_Change: TypeAlias = Callable[[Any, Any, Sequence[Any]], None]


def nested(depth: int, kind: str) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


def copied(value: Any) -> Any:
    """As `copy.deepcopy`, of any depth."""
    root = [value]
    left: list[Any] = [root]
    while left:
        holder = left.pop()
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            inner = holder[key]
            if isinstance(inner, dict | list):
                holder[key] = inner = inner.copy()
                left.append(inner)
    return root[0]


class Mutator:
    """``wild``: values that no JSON text can hold come too, for readers that take Python objects."""

    def __init__(self, rng: random.Random, wild: bool = False) -> None:
        self.rng = rng
        self._wild = wild

    def value(self, document: Any, others: Sequence[Any] = ()) -> Any:
        """A copy with some changes. ``others``: documents of the same kind, whose parts may be put in."""
        holder = [copied(document)]
        for _ in range(self.rng.choice((1, 1, 1, 2, 2, 3, 6))):
            self._change(holder, others)
        return holder[0]

    def json(self, document: Any, others: Sequence[Any] = ()) -> str:
        """JSON text of a changed document; some texts are changed once more, as text."""
        text = json.dumps(self.value(document, others), ensure_ascii=self.rng.random() < 0.7)
        return self.text(text) if self.rng.random() < 0.25 else text

    def text(self, text: str) -> str:
        for _ in range(self.rng.choice((1, 1, 2, 4, 8))):
            a, b = self._span(len(text))
            text = self._text_change(text, a, b)
        return text

    def _text_change(self, text: str, a: int, b: int) -> str:
        head, middle, tail = text[:a], text[a:b], text[b:]
        change = self.rng.randrange(7)
        if change == 0:
            return head + tail
        if change == 1:
            return head + self.rng.choice(TEXTS) + self.rng.choice((middle, "")) + tail
        if change == 2:
            return head + middle * self.rng.choice((2, 3, 30)) + tail
        if change == 3:
            return head + chr(self.rng.choice((0, 9, 34, 92, 123, 125, 0xD800, 0x1F600))) + middle + tail
        if change == 4:
            return head
        if change == 5:
            return head + self.rng.choice("0123456789") * self.rng.choice((1, 20, 5000)) + middle + tail
        return head + tail[: len(tail) // 2]

    def bytes(self, data: bytes) -> bytes:
        out = bytearray(data)
        for _ in range(self.rng.choice((1, 1, 2, 4, 16))):
            a, b = self._span(len(out))
            change = self.rng.randrange(8)
            if change == 0:
                del out[a:b]
            elif change == 1:
                out[a:a] = bytes(self.rng.randrange(256) for _ in range(self.rng.choice((1, 2, 8))))
            elif change == 2:
                del out[a:]
            elif change == 3:
                width = self.rng.choice((1, 2, 4, 8))
                whole = self.rng.choice((0, 1, 0x7F, 0x80, 0xFF, (1 << 8 * width) - 1, 1 << (8 * width - 1)))
                out[a : a + width] = (whole % (1 << 8 * width)).to_bytes(width, self.rng.choice(("little", "big")))
            elif change == 4:
                out[b:b] = out[a:b]
            elif out:
                out[min(a, len(out) - 1)] ^= 1 << self.rng.randrange(8)
        return bytes(out)

    def _span(self, length: int) -> tuple[int, int]:
        a = self.rng.randint(0, length)
        return a, min(length, a + self.rng.choice((0, 1, 1, 2, 4, 8, 40)))

    def _change(self, root: list[Any], others: Sequence[Any]) -> None:
        places = list(_places(root))
        holder, key = places[0] if self.rng.random() < 0.02 else self.rng.choice(places)
        changes: list[Callable[[Any, Any, Sequence[Any]], None]] = [
            self._replace,
            self._replace,
            self._near,
            self._graft,
        ]
        if holder is not root:
            changes += [self._drop, self._twice, self._renamed]
        self.rng.choice(changes)(holder, key, others)

    def _atom(self) -> Any:
        kind = self.rng.randrange(12)
        if kind < 4:
            return self.rng.choice(NUMBERS)
        if kind < 8:
            return self.rng.choice(TEXTS)
        if kind == 8:
            return nested(
                self.rng.choice((20, 70, 101, 3000 if self._wild else 150)), self.rng.choice(("list", "dict"))
            )
        if kind == 9 and self._wild:
            return self.rng.choice((*NOT_JSON, b"x", {1, 2}, object(), {None: 1, 2: 3}, (1, "a")))
        return copied(self.rng.choice(PLAIN))

    def _replace(self, holder: Any, key: Any, _: Sequence[Any]) -> None:
        holder[key] = self._atom()

    def _near(self, holder: Any, key: Any, _: Sequence[Any]) -> None:
        """A value of the same kind."""
        old = holder[key]
        if isinstance(old, bool) or old is None:
            holder[key] = not old
        elif isinstance(old, int | float):
            holder[key] = self.rng.choice((old + 1, old - 1, -old, float(old) if abs(old) < 1e300 else 0, *NUMBERS))
        elif isinstance(old, str):
            holder[key] = self.text(old)
        elif isinstance(old, list):
            holder[key] = old * self.rng.choice((0, 2, 20)) if len(old) < 100 else old[:1]
        elif isinstance(old, dict):
            old[self.rng.choice((*TEXTS, "type", "id", "name"))] = self._atom()
        else:
            holder[key] = self._atom()

    def _graft(self, holder: Any, key: Any, others: Sequence[Any]) -> None:
        """A part of a document, in another's place."""
        source = [copied(self.rng.choice(others))] if others else [copied(holder)]
        where, at = self.rng.choice(list(_places(source)))
        holder[key] = where[at]

    def _drop(self, holder: Any, key: Any, _: Sequence[Any]) -> None:
        del holder[key]

    def _twice(self, holder: Any, key: Any, _: Sequence[Any]) -> None:
        if isinstance(holder, list):
            holder.insert(key, copied(holder[key]))
        else:
            holder[self.rng.choice(TEXTS)] = copied(holder[key])

    def _renamed(self, holder: Any, key: Any, _: Sequence[Any]) -> None:
        if isinstance(holder, dict):
            holder[self.text(key) if isinstance(key, str) else "x"] = holder.pop(key)


def _places(root: list[Any]) -> list[tuple[Any, Any]]:
    """Every place of a document: what holds it, and its key there."""
    found: list[tuple[Any, Any]] = []
    left: list[Any] = [root]
    while left and len(found) < 20_000:
        holder = left.pop()
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            found.append((holder, key))
            if isinstance(holder[key], dict | list):
                left.append(holder[key])
    return found
