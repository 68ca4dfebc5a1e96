"""Grammars are made ready before their requests queue: compiling takes up to a second, in which the others go on."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from ..engines.protocol import Engine, Grammar
from ..errors import DeviceLost, InpageError, QueueFull, Timeout, only_faults
from ..requests.request import Request
from .scheduler import Scheduler

_KNOWN = 16  # grammars that are taken to be ready; an engine's grammar workers keep more


class GrammarQueue:
    """Requests whose grammar is being compiled, before they enter the scheduler's queue."""

    def __init__(self) -> None:
        self._tasks: dict[Request, tuple[asyncio.Task[None], Scheduler]] = {}
        self._ready: OrderedDict[tuple[Engine, Grammar], None] = OrderedDict()

    @property
    def requests(self) -> list[Request]:
        return list(self._tasks)

    def submit(self, request: Request, scheduler: Scheduler) -> None:
        """As `Scheduler.submit`, once its grammar is ready; what fails then comes by its ``events``."""
        grammar = request.grammar
        if grammar is None or scheduler.lost or request.cancelled or self._known(scheduler.engine, grammar):
            scheduler.submit(request)
            return
        if len(self._tasks) + len(scheduler.waiting) >= scheduler.settings.scheduler.queue_size:
            scheduler.metrics.refused.add()
            raise QueueFull(f"{len(self._tasks)} grammars are waiting to be compiled already; try again later")
        request.submitted = time.perf_counter()
        task = asyncio.get_running_loop().create_task(self._prepare(request, grammar, scheduler))
        self._tasks[request] = task, scheduler

    def cancel(self, request: Request) -> bool:
        """End it as "cancelled", if it is here. What is being compiled is compiled to its end."""
        task, scheduler = self._tasks.pop(request, (None, None))
        if task is None or scheduler is None:
            return False
        task.cancel()
        request.cancelled = True
        _submit(request, scheduler)  # which ends it
        return True

    async def close(self, reason: InpageError) -> None:
        """End all with ``reason``."""
        schedulers = {request: scheduler for request, (_, scheduler) in self._tasks.items()}
        for request in await self.hand_over():
            _fail(request, schedulers[request], reason)

    async def hand_over(self) -> list[Request]:
        """Give all away."""
        tasks, self._tasks = self._tasks, {}
        for task, _ in tasks.values():
            task.cancel()
        if tasks:
            await asyncio.wait([task for task, _ in tasks.values()])
        return list(tasks)

    async def _prepare(self, request: Request, grammar: Grammar, scheduler: Scheduler) -> None:
        engine, metrics, began = scheduler.engine, scheduler.metrics, time.perf_counter()
        failure: BaseException | None = None
        try:
            async with asyncio.timeout(_patience(request, scheduler)):
                await engine.prepare(grammar)
            self._keep(engine, grammar)
        except TimeoutError:
            failure = Timeout("the grammar was not compiled in time: allow more, or ask for less")
        except InpageError as error:
            # An engine that is gone is missed by the first step, and the one that takes over compiles it then.
            if not isinstance(error, DeviceLost) and scheduler.engine is engine and not scheduler.lost:
                failure = error
        except BaseException as error:  # a bug here must reach the caller
            only_faults(error)
            failure = error
        del self._tasks[request]
        ended = time.perf_counter()
        metrics.grammar.observe(ended - began)
        metrics.trace.span_of(request.serial, "grammar", began, ended)
        if failure is None:
            _submit(request, scheduler)
        else:
            _fail(request, scheduler, failure)

    def _known(self, engine: Engine, grammar: Grammar) -> bool:
        if (engine, grammar) not in self._ready:
            return False
        self._keep(engine, grammar)
        return True

    def _keep(self, engine: Engine, grammar: Grammar) -> None:
        self._ready[engine, grammar] = None
        self._ready.move_to_end((engine, grammar))
        if len(self._ready) > _KNOWN:
            self._ready.popitem(last=False)


def _patience(request: Request, scheduler: Scheduler) -> float | None:
    """Seconds that it may wait; None: any."""
    limits = [scheduler.settings.scheduler.timeout]
    if request.deadline is not None:
        limits.append(request.deadline - time.perf_counter())
    return min((limit for limit in limits if limit is not None), default=None)


def _submit(request: Request, scheduler: Scheduler) -> None:
    try:
        scheduler.submit(request)
    except InpageError as error:
        _fail(request, scheduler, error)


def _fail(request: Request, scheduler: Scheduler, error: BaseException) -> None:
    request.done = True
    scheduler.metrics.ended(request, error.code if isinstance(error, InpageError) else "error", error)
    request.events.put_nowait(error)
