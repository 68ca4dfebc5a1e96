"""Memory that grows without end: how it is noticed, and what a report of it says.

Noticed is what the engine, KV pages and swap hold, and with a trace also what Python holds. A report names what grew
most, Python's objects by their type, and with a trace the lines that allocated what is held.
"""

from __future__ import annotations

import gc
import itertools
from collections import Counter, deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tracemalloc

_MOST = 20  # lines and types in a report


class LeakDetector:
    """Samples of held bytes, one a minute; a window that ends half as large again as it began is suspicious, unless it
    merely jumped once: the growth must go on through the window."""

    def __init__(self, samples: int = 100, growth: float = 0.5) -> None:
        self._samples: deque[tuple[float, dict[str, int]]] = deque(maxlen=samples)
        self._growth = growth

    def sample(self, at: float, held: Mapping[str, int]) -> None:
        """``at``: seconds; ``held``: bytes by what holds them."""
        self._samples.append((at, dict(held)))

    @property
    def full(self) -> bool:
        return len(self._samples) == self._samples.maxlen

    def suspicion(self) -> str:
        """A sentence that names what grew, or nothing."""
        if not self.full:
            return ""
        quarters = [self._mean(i) for i in range(4)]
        first, last = (sum(quarter.values()) for quarter in (quarters[0], quarters[-1]))
        rising = all(sum(a.values()) < sum(b.values()) for a, b in itertools.pairwise(quarters))
        if not rising or last <= first * (1 + self._growth):
            return ""
        most = self.growers()[0]
        minutes = (self._samples[-1][0] - self._samples[0][0]) / 60
        return (
            f"memory grew from {first / 1e6:.0f} to {last / 1e6:.0f} MB in {minutes:.0f} minutes, most of it "
            f"{most['what']} ({most['before'] / 1e6:.0f} to {most['now'] / 1e6:.0f} MB)"
        )

    def growers(self) -> list[dict[str, Any]]:
        """What holds memory, with its bytes at the window's begin and at its end (means of a quarter each), by how much
        it grew; what did not is left out."""
        if not self.full:
            return []
        first, last = self._mean(0), self._mean(3)
        grown = sorted((first.get(name, 0) - now, name) for name, now in last.items() if now > first.get(name, 0))
        return [{"what": name, "before": int(first.get(name, 0)), "now": int(last[name])} for _, name in grown]

    def report(self) -> list[dict[str, Any]]:
        """All samples, for a bug report."""
        return [{"at": at, **held} for at, held in self._samples]

    def _mean(self, quarter: int) -> dict[str, float]:
        size = len(self._samples) // 4
        part = list(self._samples)[quarter * size : (quarter + 1) * size]
        names = {name for _, held in part for name in held}
        return {name: sum(held.get(name, 0) for _, held in part) / len(part) for name in names}


class Trace:
    """What Python's lines hold, by `tracemalloc`, against what they held when the trace began. There is one a process:
    it is started here unless it runs already."""

    def __init__(self) -> None:
        import tracemalloc  # which no page needs

        self._library = tracemalloc
        if not tracemalloc.is_tracing():
            tracemalloc.start()
        self._before = self._snapshot()

    @property
    def held(self) -> int:
        """Bytes now."""
        return self._library.get_traced_memory()[0]

    def lines(self) -> list[dict[str, Any]]:
        """Those that hold more than before, by how much more."""
        found = self._snapshot().compare_to(self._before, "lineno")[: 2 * _MOST]
        return [
            {"line": str(each.traceback), "grew": each.size_diff, "bytes": each.size, "count": each.count}
            for each in sorted(found, key=lambda each: -each.size_diff)[:_MOST]
            if each.size_diff > 0
        ]

    def _snapshot(self) -> tracemalloc.Snapshot:
        library = self._library
        taken: tracemalloc.Snapshot = library.take_snapshot()
        return taken.filter_traces([library.Filter(False, library.__file__)])


def objects() -> list[dict[str, Any]]:
    """Python's objects by type, the most frequent first: those that may hold others, and came after the load."""
    counts = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
    return [{"type": name, "count": count} for name, count in counts.most_common(_MOST)]
