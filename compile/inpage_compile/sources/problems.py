"""Collects every reason against a model, so that one error reports them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from inpage.errors import SourceInvalid

T = TypeVar("T")


class Problems:
    """``what``: the file or folder, as an error calls it."""

    def __init__(self, what: str = "this file") -> None:
        self._what = what
        self.found: list[SourceInvalid] = []

    def of(self, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except SourceInvalid as error:
            self.found.append(error)
            return None

    def check(self) -> None:
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            listed = "; ".join(f"({i}) {error}" for i, error in enumerate(self.found, 1))
            raise SourceInvalid(
                f"{len(self.found)} things stand against {self._what}: {listed}", field=self.found[0].field
            )
