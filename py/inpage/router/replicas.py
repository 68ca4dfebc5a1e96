"""Several engines of one model behind one face: each has a scheduler and pages, and is restarted when it dies.

All are of one variant, so they answer alike. A request goes to the least loaded, or to one that is a little more loaded
and holds its prompt's pages; one that needs what they cannot do goes to an engine that can (`specialists`). On the host
they share the weights; in the page each worker has its own.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

from ..backends.failover import Backends
from ..backends.selection import Candidate
from ..engines.protocol import Engine, EngineInfo
from ..engines.registry import engine_kind
from ..errors import InpageError, OutOfMemory
from ..kv import Blocks
from ..observe.prometheus import merged
from ..requests.request import Request
from ..scheduling.batching import MOST_STEPS
from ..scheduling.grammar_queue import GrammarQueue
from ..scheduling.scheduler import Scheduler
from ..settings import Settings
from .handover import Handover
from .specialists import Specialists
from .status import add_gauges, held_bytes

_PREFIX_WORTH = 4  # a whole prompt's pages make up for so many requests that are there already


class Replicas:
    """``schedulers``: the first is the router's own."""

    def __init__(self, first: Scheduler) -> None:
        self.schedulers = [first]
        self.why_fewer = ""
        self.room: Callable[[Candidate], bool] = lambda _: False  # for another engine
        self._grammar_queue = GrammarQueue()
        self._specialists: Specialists | None = None
        self.successor: Handover | None = None  # takes what is asked from now on
        self.step_down: Callable[[OutOfMemory], Awaitable[bool]] = _stays  # see `Scheduler`
        first.reroute = self.submit
        first.step_down = lambda error: self.step_down(error)

    def submit(self, request: Request) -> None:
        """As `Scheduler.submit`, to the one that suits best."""
        if self.successor is not None:
            self.successor.submit(request)
            return
        able = [s for s in self._regular if request.unmet(s.info) is None]
        special = self._specialists
        if not able and special is not None:
            able = [s for s in special.schedulers if request.unmet(s.info) is None]
            if not able and request.needs and special.candidates(request.needs):
                special.open_for(request)
                return
        able = able or self._regular  # which refuses it
        alive = [s for s in able if not s.lost]
        resting = [s for s in able if s.recovery is not None and s.recovery.may_revive]
        self._grammar_queue.submit(request, _best(request, alive or resting or able))

    def can(self, flag: str) -> bool:
        """Whether one of them can do it, or another engine that could be loaded for it."""
        special = self._specialists
        running = any(s.info.has(flag) for s in self.schedulers)
        return running or (special is not None and bool(special.candidates([flag])))

    @property
    def _regular(self) -> list[Scheduler]:
        special = self._specialists.schedulers if self._specialists is not None else ()
        return [s for s in self.schedulers if s not in special]

    def cancel(self, request: Request) -> None:
        """Wherever it is."""
        if self.successor is not None:
            self.successor.cancel(request)
            return
        if self._grammar_queue.cancel(request):
            return
        if self._specialists is not None and self._specialists.cancel(request):
            return
        for scheduler in self.schedulers:
            scheduler.cancel(request)

    @property
    def lost(self) -> str:
        """Why none of them runs; empty while one does."""
        return self.schedulers[0].lost if all(s.lost for s in self.schedulers) else ""

    @property
    def trouble(self) -> str:
        """What is wrong with some of them."""
        lost = [s.lost for s in self.schedulers if s.lost]
        return f"{len(lost)} of {len(self.schedulers)} replicas are gone: {lost[0]}" if lost and not self.lost else ""

    @property
    def held(self) -> dict[str, int]:
        """Bytes by kind; weights that engines share count once."""
        each = [held_bytes(s) for s in self.schedulers]
        total = {kind: sum(held[kind] for held in each) for kind in each[0]}
        if engine_kind(self.schedulers[0].info.backend).maps_weights:
            total["weights"] = each[0]["weights"]
        return total

    def metrics(self) -> str:
        """As Prometheus text, with the label "replica" where there are several."""
        registries = [s.metrics.registry for s in self.schedulers]
        if len(registries) == 1:
            return registries[0].text()
        return merged([({"replica": str(i)}, registry) for i, registry in enumerate(registries)])

    async def fill(self, count: int, backends: Backends, settings: Settings, on_change: Callable[[str], None]) -> None:
        """Load until there are ``count``, or no memory is left."""
        first = self.schedulers[0]

        def start(engine: Engine, own: Backends) -> Scheduler:
            scheduler = Scheduler(engine, settings=settings, backends=own, on_change=on_change)
            scheduler.metrics.health = first.metrics.health
            scheduler.reroute = self.submit
            scheduler.step_down = lambda error: self.step_down(error)
            add_gauges(scheduler, None)
            self.schedulers.append(scheduler)
            return scheduler

        self._specialists = Specialists(backends, lambda candidate: self.room(candidate), start, self.submit)
        ranked = [backends.current, *(c for c in backends.ranked if c is not backends.current)]
        while len(self.schedulers) < count:
            own = backends.beside(ranked)
            try:
                engine = await own.first()
            except OutOfMemory as error:
                self.why_fewer = str(error)
                return
            start(engine, own)

    async def close(self, reason: InpageError) -> None:
        """End all requests."""
        await self._grammar_queue.close(reason)
        if self._specialists is not None:
            await self._specialists.close(reason)
        await asyncio.gather(*(s.close(reason) for s in self.schedulers))

    @property
    def longest(self) -> int:
        """Tokens for which an engine must have room that goes on with what is asked here (`hand_over`), where it may
        get some more until then."""
        requests = self._grammar_queue.requests
        if self._specialists is not None:
            requests += self._specialists.requests
        requests += [request for s in self.schedulers for request in s.slots.requests() if not request.done]
        longest = max((request.room(MOST_STEPS) for request in requests), default=0)
        return min(longest, max(s.capacity for s in self.schedulers))

    async def hand_over(self, handover: Handover) -> None:
        """As `close`, but what can go on is given to the handover."""
        special = self._specialists
        taken = await self._grammar_queue.hand_over()
        if special is not None:
            taken += await special.hand_over()
        for requests in await asyncio.gather(*(s.hand_over(handover.gap.error) for s in self.schedulers)):
            taken += requests
        handover.take(taken)

    async def unload(self) -> None:
        await asyncio.gather(*(s.engine.unload() for s in self.schedulers))


def affordable(wanted: int, info: EngineInfo, settings: Settings, memory: int | None) -> tuple[int, Settings]:
    """How many engines like this one there is memory for, and the settings of each. ``memory``: of the device; a limit
    for KV pages has to do for what further engines take as well, and for a whole context in each."""
    extra = info.arena_bytes + (0 if engine_kind(info.backend).maps_weights else info.weight_bytes)
    if memory is not None:
        wanted = max(1, min(wanted, memory // 2 // max(1, info.weight_bytes + info.arena_bytes)))
    limit = settings.kv.memory_bytes
    if limit is None:
        return wanted, settings
    whole = Blocks(info.page_tokens, info.groups).need(info.context, info.max_rows) * info.page_bytes
    while wanted > 1 and limit - (wanted - 1) * extra < wanted * whole:
        wanted -= 1
    each = dataclasses.replace(settings.kv, memory_bytes=(limit - (wanted - 1) * extra) // wanted)
    return wanted, dataclasses.replace(settings, kv=each)


async def _stays(_: OutOfMemory) -> bool:
    return False


def _best(request: Request, schedulers: list[Scheduler]) -> Scheduler:
    if len(schedulers) == 1:
        return schedulers[0]
    ids = request.ids()

    def cost(scheduler: Scheduler) -> float:
        held = scheduler.kv.prefix.peek(ids) / len(ids)
        return len(scheduler.active) + len(scheduler.waiting) - _PREFIX_WORTH * held

    return min(schedulers, key=cost)
