"""Which engine runs next when one is gone: the same variant once more, then the others, the fastest first.

A worker that died is started again as it was: the same engine gives the same tokens. A device that was lost twice
within a minute, or that has no memory left, rests (`faults`), and the next variant takes over. A GPU whose kernels take
long to compile is not waited for in mid-answer: another backend takes over, and it is tried again when nobody asks.
Weights are stored once for all variants, so nothing is downloaded again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ..engines.protocol import Engine
from ..engines.registry import engine_kind
from ..errors import (
    ArtifactDamaged,
    ArtifactInvalid,
    Cancelled,
    DeviceLost,
    InpageError,
    InvalidRequest,
    NetworkError,
    Untrusted,
)
from .faults import FaultLog
from .selection import Candidate

Load = Callable[[Candidate], Awaitable[Engine]]
Other = TypeVar("Other")
# No other variant mends these: the caller, the network or the files are at fault.
_NOT_THE_ENGINES = (ArtifactInvalid, Cancelled, InvalidRequest, NetworkError, Untrusted)
_LONG_MS = 3000  # what someone in mid-answer is not kept waiting for


class Backends:
    """The variants that may run here, and the one that does. ``ranked``: those that can run, the fastest first."""

    def __init__(self, ranked: Sequence[Candidate], load: Load, log: FaultLog | None = None) -> None:
        self.ranked = list(ranked)
        self.current = self.ranked[0]
        self.log = log or FaultLog()
        self.took_over = ""  # why the current one is not the first, for people
        self._load = load

    @property
    def count(self) -> int:
        return len(self.ranked)

    def beside(self, ranked: Sequence[Candidate]) -> Backends:
        """Of another engine of the model, with the same memory of faults."""
        return Backends(ranked, self._load, self.log)

    async def first(self) -> Engine:
        """Load the fastest that works. Raises what the only one, or the first, failed with."""
        return await self._try(self._rested_first(self.ranked))

    async def first_beside(self, work: Awaitable[Other]) -> tuple[Engine, Other]:
        """`first`, and what else is needed meanwhile. Where that fails, the engine is given back."""
        opening = asyncio.ensure_future(self.first())
        try:
            other = await work
        except BaseException:
            opening.cancel()
            with contextlib.suppress(asyncio.CancelledError, InpageError):
                await (await opening).unload()
            raise
        return await opening, other

    async def replace(self, old: Engine, error: InpageError, *, innocent: Sequence[str] = ()) -> Engine:
        """``old`` failed with ``error``: an engine that takes over. ``innocent``: variants for whose failures
        a request was to blame. Raises `DeviceLost` when every variant failed."""
        failed, slow = self.current, engine_kind(old.info.backend).gpu and old.info.load_ms > _LONG_MS
        name = failed.name
        with contextlib.suppress(InpageError):
            await old.unload()
        if isinstance(error, ArtifactDamaged):  # the variant did nothing wrong
            return await self._try([failed, *self._rested_first([c for c in self.ranked if c is not failed])])
        self.log.note(name, error)
        if innocent:
            for each in innocent:
                self.log.forgive(each)
            return await self._try(self._rested_first(self.ranked))
        others = [c for c in self.ranked if c is not failed]
        if not isinstance(error, DeviceLost) or self.log.lost_again(name):
            self.log.rest(name)
            order = [*self._rested_first(others), failed]
        elif slow:
            order = [*self._rested_first(others), failed]
            order.sort(key=lambda c: (self.log.resting(c.name) > 0, c.kind.gpu))
        else:
            order = [failed, *self._rested_first(others)]
        return await self._try(order, _failure(failed, error))

    def adopt(self, candidate: Candidate) -> None:
        """A faster one was found and runs now."""
        self.current, self.took_over = candidate, ""

    async def open(self, candidate: Candidate) -> Engine:
        """An engine beside the one that runs."""
        return await self._load(candidate)

    async def _try(self, order: Sequence[Candidate], why: str = "") -> Engine:
        failures: list[tuple[Candidate, InpageError]] = []
        for candidate in order:
            try:
                engine = await self._load(candidate)
            except _NOT_THE_ENGINES:
                raise
            except InpageError as error:
                self.log.note(candidate.name, error)
                self.log.rest(candidate.name)
                failures.append((candidate, error))
                continue
            if candidate is self.ranked[0]:
                self.took_over = ""
            elif failures or candidate is not self.current:
                self.took_over = "; ".join([why] * bool(why) + [_failure(*failed) for failed in failures])
            self.current = candidate
            return engine
        if len(failures) == 1:
            raise failures[0][1]
        text = "; ".join(_failure(*failed) for failed in failures)
        raise DeviceLost(f"every backend failed: {text}") from failures[0][1]

    def _rested_first(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """In their order, those that rest last: the soonest rested first."""
        return sorted(candidates, key=lambda c: self.log.resting(c.name))


def _failure(candidate: Candidate, error: InpageError) -> str:
    return f"{candidate.name} failed ({error.code}: {error})"
