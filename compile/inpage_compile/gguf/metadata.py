"""A GGUF's metadata, typed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gguf import GGUFReader

from inpage.errors import SourceInvalid, quoted
from inpage.format import bounded


class Metadata:
    """Typed access to a GGUF's keys; a missing or mistyped key is a `SourceInvalid` naming it."""

    def __init__(self, reader: GGUFReader) -> None:
        self._fields = reader.fields

    def names(self) -> list[str]:
        """Of all keys."""
        return list(self._fields)

    def get(self, key: str) -> Any:
        """The value, or None where the key is absent."""
        f = self._fields.get(key)
        try:
            return None if f is None else f.contents()
        except (UnicodeDecodeError, IndexError) as e:
            raise SourceInvalid(f"{key}: cannot be decoded", field=key) from e

    def _typed(self, key: str, kinds: type | tuple[type, ...], what: str, default: Any) -> Any:
        v = self.get(key)
        if v is None:
            if default is not None:
                return default
            raise SourceInvalid(f"metadata key {key} is missing", field=key)
        if not isinstance(v, kinds) or (isinstance(v, bool) and kinds is not bool):
            raise SourceInvalid(f"{key}: must be {what}, is {str(v)[:60]!r}", field=key)
        return v

    def text(self, key: str, default: str | None = None) -> str:
        return str(self._typed(key, str, "a string", default))

    def integer(self, key: str, default: int | None = None) -> int:
        return int(self._typed(key, int, "an integer", default))

    def real(self, key: str, default: float | None = None) -> float:
        # float32 in the file: its shortest decimal form is what the author wrote (1e-5, not 9.99999974e-6)
        found = self._typed(key, (int, float), "a number", default)
        v = float(str(np.float32(found))) if bounded.finite(found) else math.inf
        if not math.isfinite(v):
            raise SourceInvalid(f"{key}: must be a finite number, is {quoted(found)}", field=key)
        return v

    def number(self, key: str, default: float | None = None) -> float:
        v = self.real(key, default)
        if v <= 0:
            raise SourceInvalid(f"{key}: must be a positive number, is {v}", field=key)
        return v

    def flag(self, key: str, default: bool) -> bool:
        return bool(self._typed(key, bool, "true or false", default))

    def items(self, key: str, kind: type) -> list[Any]:
        """A required array whose members are all of ``kind``."""
        v = self._typed(key, list, "an array", None)
        if not all(isinstance(x, kind) for x in v):
            raise SourceInvalid(f"{key}: must be an array of {kind.__name__}", field=key)
        return list(v)
