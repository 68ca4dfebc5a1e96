"""How much memory each kind of operation brought with it: what to look at when it grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True)
class Usage:
    """``grew``: bytes that were held after an operation and not before, all of a kind together; ``peak``: the most
    that was held after one."""

    count: int = 0
    grew: int = 0
    peak: int = 0


class MemoryProfile:
    """``held``: the bytes that are held now; nothing is noted before it is set."""

    def __init__(self) -> None:
        self.held: Callable[[], int] | None = None
        self._usage: dict[str, Usage] = {}

    @contextmanager
    def operation(self, name: str) -> Iterator[None]:
        """What happens within is one operation of this kind. Work that goes on beside it is counted too."""
        if self.held is None:
            yield
            return
        before = self.held()
        try:
            yield
        finally:
            after = self.held()
            usage = self._usage.setdefault(name, Usage())
            usage.count += 1
            usage.grew += after - before
            usage.peak = max(usage.peak, after)

    def report(self) -> dict[str, dict[str, Any]]:
        """By operation, the one that grew most first."""
        ranked = sorted(self._usage.items(), key=lambda item: -item[1].grew)
        return {name: asdict(usage) for name, usage in ranked}
