"""A config.json as typed metadata. Keys are those of the file behind ``config.json``, objects within by dots:
``config.json.rope_scaling.factor``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..gguf.metadata import Metadata

PREFIX = "config.json"


class Config(Metadata):
    """``values``: the file's. null counts as not there."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = {f"{PREFIX}.{key}": value for key, value in _flat(values) if value is not None}

    def names(self) -> list[str]:
        return list(self._values)

    def get(self, key: str) -> Any:
        return self._values.get(key)


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The reader has bounded their depth."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", v) for inner, v in _flat(value))
        else:
            yield key, value
