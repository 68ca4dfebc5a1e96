"""Typed access to untrusted JSON: each getter checks one value and names its full path when it is wrong."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import bounded
from .errors import ArtifactInvalid

LIMIT = 1 << 40  # bytes: nothing here is larger, and every sum below stays exact in JavaScript's numbers
HASH = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
# Every segment starts with a letter or digit: no absolute path, no "..", no hidden file, no drive or URL.
PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99}){0,7}")
LINE = 500  # characters of a text that is shown in one line
# Control characters, line and paragraph separators, what turns the direction of a text, lone surrogates: with one of
# these a name could begin a line of its own in NOTICES.txt, in a terminal or in a log, or show something else there.
_NOT_IN_A_LINE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


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
        raise ArtifactInvalid(f"{subject} not JSON: {error}", field=field) from error


class Reader:
    """A JSON object or list together with its path in the document."""

    __slots__ = ("path", "value")

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, Mapping | list):
            raise ArtifactInvalid(f"{path or 'manifest'}: must be an object", field=path or None)
        self.value: Any = value
        self.path = path

    def at(self, key: str | int) -> str:
        """The path of one member."""
        if isinstance(key, int):
            return f"{self.path}[{key}]"
        return f"{self.path}.{key}" if self.path else key

    def wrong(self, key: str | int, why: str) -> ArtifactInvalid:
        """The error to raise for one member."""
        return ArtifactInvalid(f"{self.at(key)}: {why}", field=self.at(key))

    def get(self, key: str | int) -> Any:
        """The member itself, unchecked; raises where it is missing."""
        if isinstance(key, str) and (not isinstance(self.value, Mapping) or key not in self.value):
            raise self.wrong(key, "is missing")
        return self.value[key]

    def child(self, key: str | int) -> Reader:
        if not isinstance(self.get(key), Mapping):
            raise self.wrong(key, "must be an object")
        return Reader(self.get(key), self.at(key))

    def items(self, key: str | int) -> Reader:
        if not isinstance(self.get(key), list):
            raise self.wrong(key, "must be a list")
        return Reader(self.get(key), self.at(key))

    def indices(self) -> range:
        return range(len(self.value))

    def names(self, pattern: re.Pattern[str] | None = None) -> Iterable[str]:
        """The keys of an object, all strings that match ``pattern``."""
        for key in self.value:
            if not isinstance(key, str) or (pattern and not pattern.fullmatch(key)):
                raise ArtifactInvalid(f"{self.path}: {key!r} is not a valid name", field=self.path)
        return list(self.value)

    def integer(self, key: str | int, low: int = 0, high: int = (1 << 53) - 1) -> int:
        v = self.get(key)
        if not isinstance(v, int) or isinstance(v, bool):
            raise self.wrong(key, "must be a whole number")
        if not low <= v <= high:
            raise self.wrong(key, f"{v} is outside {low}..{high}")
        return v

    def number(self, key: str | int) -> float:
        v = self.get(key)
        try:
            if isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v) or v <= 0:
                raise self.wrong(key, "must be a positive number")
            return float(v)
        except OverflowError:  # a whole number beyond what a float holds
            raise self.wrong(key, "must be a number that a float can hold") from None

    def flag(self, key: str | int) -> bool:
        v = self.get(key)
        if not isinstance(v, bool):
            raise self.wrong(key, "must be true or false")
        return v

    def text(self, key: str | int, pattern: re.Pattern[str] | None = None) -> str:
        v = self.get(key)
        if not isinstance(v, str):
            raise self.wrong(key, "must be a string")
        if pattern and not pattern.fullmatch(v):
            raise self.wrong(key, f"{v[:80]!r} is not allowed here")
        return v

    def line(self, key: str | int) -> str:
        """A text that stands in one line wherever it is shown."""
        v = self.text(key)
        if len(v) > LINE:
            raise self.wrong(key, f"has {len(v)} characters, at most {LINE} are allowed")
        if found := _NOT_IN_A_LINE.search(v):
            raise self.wrong(key, f"must be one line of text; it has the character U+{ord(found[0]):04X}")
        return v

    def optional_text(self, key: str) -> str | None:
        """A string, or None where the member is null or absent."""
        return None if self.value.get(key) is None else self.text(key)

    def choice(self, key: str | int, allowed: Sequence[str]) -> str:
        v = self.text(key)
        if v not in allowed:
            raise self.wrong(key, f"{v[:80]!r} is not one of {', '.join(allowed)}")
        return v
