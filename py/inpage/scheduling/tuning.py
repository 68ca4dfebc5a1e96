"""Finds the fastest variant while nobody waits: measures those that were never measured here, and returns to one that
failed once its rest is over.

Another engine is loaded beside the one that runs, where its weights are already stored, so it costs memory for a
moment and no download of weights. A request that arrives ends the search at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

from ..backends.device_profile import DeviceProfile
from ..backends.failover import Backends
from ..backends.kernel_choice import choose_kernels
from ..backends.measurement import Measurement, measure, pages_needed
from ..backends.selection import Candidate
from ..engines.protocol import Engine, Tunable, is_paged
from ..errors import InpageError
from .scheduler import Scheduler

_PATIENCE_S = 2.0  # idle for this long, a caller is not about to ask again
_BUDGETS = (1, 2, 4)  # times the usual budget for timing kernels, after which the verdict stands
_WORTH_IT = 0.9  # of the time that the present engine takes: for less, nothing is changed


class Tuner:
    """``room``: whether an engine of a variant fits into memory, beside the one that runs. ``on_change`` is called when
    something was learnt."""

    def __init__(self, scheduler: Scheduler, backends: Backends, profile: DeviceProfile, *,
                 room: Callable[[Candidate], bool], on_change: Callable[[], None]) -> None:  # fmt: skip
        self._scheduler = scheduler
        self._backends = backends
        self._profile = profile
        self._room = room
        self._on_change = on_change
        self._search: asyncio.Task[None] | None = None

    def idle(self) -> None:
        """Nobody waits: look for something better, if nobody comes."""
        self.busy()
        if self._unsettled() is not None or self._open_questions():
            self._search = asyncio.get_running_loop().create_task(self._wait_and_search())

    def busy(self) -> None:
        """Somebody came."""
        if self._search is not None:
            self._search.cancel()
            self._search = None

    async def close(self) -> None:
        search = self._search
        self.busy()
        if search is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await search

    async def measure_current(self) -> None:
        """With pages of its own from the pool, so that requests may run meanwhile."""
        name, engine, kv = self._backends.current.name, self._scheduler.engine, self._scheduler.kv
        pages = await kv.obtain(pages_needed(engine.info))
        if pages is None:
            return
        try:
            await self._learn(name, await measure(engine, pages))
        finally:
            kv.pool.give(pages)

    async def measure_all(self) -> None:
        """Choose kernels and measure what was never measured here, now. One that fails is noted and left."""
        self.busy()
        await self._settle_now()
        if self._backends.current.name not in self._profile.measurements:
            await self.measure_current()
        for candidate in self._backends.ranked:
            if candidate is not self._backends.current and candidate.name not in self._profile.measurements:
                await self._try(candidate)
        await self._settle_now()

    async def _settle_now(self) -> None:
        """Choose the kernels of the engine that runs, unless a request ends that, and measure it with them."""
        if self._unsettled() is None or not self._scheduler.idle:
            return
        self._search = settling = asyncio.get_running_loop().create_task(self._settle_kernels())
        await asyncio.wait({settling})
        if not settling.cancelled():
            settling.result()
            await self.measure_current()

    async def _wait_and_search(self) -> None:
        await asyncio.sleep(_PATIENCE_S)
        await self._settle_kernels()
        current, questions = self._backends.current, self._open_questions()
        if current.name not in self._profile.measurements and (questions or self._room(current)):
            await self.measure_current()
        for candidate in questions:
            if candidate in self._open_questions() and await self._backends.stored(candidate):
                await self._try(candidate)

    def _unsettled(self) -> Tunable | None:
        """The engine that runs, where its kernels were chosen before the browser had compiled all of them well."""
        engine, choice = self._scheduler.engine, self._profile.choices.get(self._backends.current.name)
        return engine if choice and not choice.settled and isinstance(engine, Tunable) else None

    async def _settle_kernels(self) -> None:
        """Choose the kernels once more: the first round is for the browser to compile them. On a busy device, or for a
        large model, one round does not reach all of them."""
        engine, name = self._unsettled(), self._backends.current.name
        if engine is None:
            return
        chosen = self._profile.choices[name]
        try:
            for budget in _BUDGETS:
                found = await choose_kernels(engine, budget)
                chosen = replace(chosen, kernels=found.kernels)
            chosen = replace(chosen, settled=True)
        finally:
            with contextlib.suppress(InpageError):
                await engine.choose_kernels(chosen.kernels)
        self._profile.choices[name] = chosen
        await self._profile.save()
        self._on_change()

    def _open_questions(self) -> list[Candidate]:
        """Those that are not resting, have room, and are faster or were never measured."""
        backends, measurements = self._backends, self._profile.measurements
        return [
            c
            for c in backends.ranked
            if c is not backends.current
            and not backends.log.resting(c.name)
            and (c.name not in measurements or self._faster(measurements[c.name]))
            and self._room(c)
        ]

    def _faster(self, measurement: Measurement) -> bool:
        present = self._profile.measurements.get(self._backends.current.name)
        return present is not None and measurement.typical_s < _WORTH_IT * present.typical_s

    async def _confirmed(self, measurement: Measurement) -> bool:
        """Whether it is faster than the present engine is now: a number from a moment when the device was at something
        else would be believed at every visit."""
        present = self._profile.measurements.get(self._backends.current.name)
        if not self._faster(measurement) or not self._scheduler.idle:
            return False
        try:
            await self.measure_current()
        except InpageError:
            return False  # which is no fault of the other's: the next request will find it
        again = self._profile.measurements[self._backends.current.name]
        if present is not None and present.typical_s < again.typical_s:
            await self._learn(self._backends.current.name, present)
        return self._faster(measurement)

    async def _try(self, candidate: Candidate) -> None:
        engine: Engine | None = None
        try:
            engine = await self._backends.open(candidate)
            if candidate.name not in self._profile.measurements:
                count = pages_needed(engine.info)
                if is_paged(engine):
                    await engine.reserve_pages(count)
                await self._learn(candidate.name, await measure(engine, range(count)))
            if await self._confirmed(self._profile.measurements[candidate.name]) and self._scheduler.idle:
                previous = self._scheduler.engine
                self._scheduler.adopt(engine)
                self._backends.adopt(candidate)
                engine = previous
                self._on_change()
        except InpageError as error:
            self._backends.log.note(candidate.name, error)
            self._backends.log.rest(candidate.name)  # whatever it was: it is not loaded again at every pause
            await self._profile.save()
        finally:
            if engine is not None:
                await engine.unload()

    async def _learn(self, name: str, measurement: Measurement) -> None:
        self._profile.measurements[name] = measurement
        await self._profile.save()
        self._on_change()
