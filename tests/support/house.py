"""Engines by variant, on the strict double, that die as a test wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from inpage.backends.failover import Backends
from inpage.backends.faults import FaultLog
from inpage.backends.selection import Candidate
from inpage.engines.protocol import SequenceInput
from inpage.errors import DeviceLost, InpageError
from inpage.format.schema import Variant
from inpage.scheduling.scheduler import Scheduler

from .mortal import Fate, Mortal
from .paged_double import PagedDouble

POISON = 999


class House:
    """Engines by variant, each load a fresh one. ``fates`` decides for each variant how its engines die; ``refuse``
    what its loads fail with."""

    def __init__(self, *variants: str, fate: Fate = lambda kind, feeds: None, **sizes: int) -> None:
        self.loads: list[str] = []
        self.engines: list[Mortal] = []
        self.fates: dict[str, Fate] = {}
        self.refuse: dict[str, InpageError] = {}
        self.sizes: dict[str, dict[str, int]] = {}
        self.now = 1e9
        self.log = FaultLog(lambda: self.now)
        ranked = [Candidate(Variant(name, name.partition("-")[0], (), {}), True, "made for tests") for name in variants]
        self.backends = Backends(ranked, self._load, self.log)
        self._fate, self._sizes = fate, sizes
        self.hold: asyncio.Event | None = None

    async def _load(self, candidate: Candidate) -> Mortal:
        self.loads.append(candidate.name)
        if self.hold is not None:
            await self.hold.wait()
        await asyncio.sleep(0)
        if candidate.name in self.refuse:
            raise self.refuse[candidate.name]
        double = PagedDouble(**{**self._sizes, **self.sizes.get(candidate.name, {})})  # type: ignore[arg-type]
        engine = Mortal(double, self.fates.get(candidate.name, self._fate), variant=candidate.name, late=True)
        self.engines.append(engine)
        return engine

    async def scheduler(self) -> Scheduler:
        return Scheduler(await self.backends.first(), backends=self.backends)


def dies_at(*calls: int, error: Callable[[], InpageError] = lambda: DeviceLost("gone")) -> Fate:
    """At the calls with these numbers, counted over all engines that share this fate."""
    count = 0

    def fate(kind: str, feeds: Sequence[SequenceInput]) -> InpageError | None:
        nonlocal count
        count += 1
        return error() if count in calls else None

    return fate


def poisoned(kind: str, feeds: Sequence[SequenceInput]) -> InpageError | None:
    return DeviceLost("poisoned") if any(POISON in feed.tokens for feed in feeds) else None
