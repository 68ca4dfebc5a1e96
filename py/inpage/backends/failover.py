"""Which engine runs next when one is gone: the same variant once more, then the others, the fastest first.

A worker that died is started again as it was: the same engine gives the same tokens. A device that was lost twice
within a minute, or that has no memory left, rests (`faults`), and the next variant takes over. A GPU whose kernels take
long to compile is not waited for in mid-answer: another backend takes over, and it is tried again when nobody asks.
Engines of ours share the weights that are stored; one with weights or code of its own (`EngineKind.apart`) may have to
download them, and where that fails the others are tried.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ..engines.protocol import Engine
from ..engines.registry import engine_kind
from ..errors import (
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
# No other variant mends these: the caller, the network or the files are at fault,
_NOT_THE_ENGINES = (ArtifactInvalid, Cancelled, InvalidRequest, NetworkError, Untrusted)
# but these may be of files that the other variants do not need.
_THE_FILES = (ArtifactInvalid, NetworkError)
_LONG_MS = 3000  # what someone in mid-answer is not kept waiting for


async def _all_stored(_: Candidate) -> bool:
    return True


class Backends:
    """The variants that may run here, and the one that does. ``ranked``: those that can run, the fastest first;
    ``stored``: whether a variant's weights lie here, so that loading it downloads none."""

    def __init__(
        self,
        ranked: Sequence[Candidate],
        load: Load,
        log: FaultLog | None = None,
        stored: Callable[[Candidate], Awaitable[bool]] = _all_stored,
    ) -> None:
        self.ranked = list(ranked)
        self.current = self.ranked[0]
        self.log = log or FaultLog()
        self.took_over = ""  # why the current one is not the first, for people
        self.stored = stored
        self._load = load

    @property
    def count(self) -> int:
        return len(self.ranked)

    def beside(self, ranked: Sequence[Candidate]) -> Backends:
        """Of another engine of the model, with the same memory of faults."""
        return Backends(ranked, self._load, self.log, self.stored)

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
            except InpageError as error:
                alone = candidate.kind.apart and isinstance(error, _THE_FILES)
                if isinstance(error, _NOT_THE_ENGINES) and not alone:
                    raise
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
        # Of one kind all of them: the network, where that is down.
        if len(failures) == 1 or all(isinstance(error, _THE_FILES) for _, error in failures):
            raise failures[0][1]
        text = "; ".join(_failure(*failed) for failed in failures)
        raise DeviceLost(f"every backend failed: {text}") from failures[0][1]

    def _rested_first(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """In their order, those that rest last: the soonest rested first."""
        return sorted(candidates, key=lambda c: self.log.resting(c.name))


def _failure(candidate: Candidate, error: InpageError) -> str:
    return f"{candidate.name} failed ({error.code}: {error})"
