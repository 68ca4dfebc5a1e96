"""What a loaded model holds, and the gauges that tell of it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

from ..observe.health import LeakDetector
from ..responses import AnswerCache
from ..scheduling.scheduler import Scheduler

_log = logging.getLogger("inpage")
_STATES = ("closed", "half-open", "open")


def held_bytes(scheduler: Scheduler) -> dict[str, int]:
    """By kind."""
    info, kv = scheduler.engine.info, scheduler.kv
    pages = kv.pool.reserved * info.page_bytes
    return {"weights": info.weight_bytes, "arena": info.arena_bytes, "kv": pages, "swap": kv.swap.held}


def kv_pages(scheduler: Scheduler) -> dict[str, int]:
    """By use: ``used`` by requests, ``kept`` for those to come; ``reserved`` in the engine, ``limit`` of the device."""
    pool, idle = scheduler.kv.pool, scheduler.kv.prefix.idle
    return {"used": pool.used - idle, "kept": idle, "reserved": pool.reserved, "limit": pool.limit}


def add_gauges(scheduler: Scheduler, answers: AnswerCache | None) -> None:
    """To the scheduler's registry."""
    memory = scheduler.metrics.memory
    memory.held = lambda: sum(held_bytes(scheduler).values())
    gauge = scheduler.metrics.gauge
    gauge("inpage_requests_running", "Requests at the engine", lambda: len(scheduler.active))
    gauge("inpage_requests_waiting", "Requests in the queue", lambda: len(scheduler.waiting))
    gauge("inpage_bytes", "Bytes held, by kind", lambda: held_bytes(scheduler), "kind")
    gauge("inpage_swap_file_bytes", "KV pages swapped to a file", lambda: scheduler.kv.swap.stored)
    grew = "Bytes that operations left behind, by kind"
    gauge("inpage_operation_bytes", grew, lambda: {k: u["grew"] for k, u in memory.report().items()}, "operation")
    gauge("inpage_kv_pages", "KV pages, by use", lambda: kv_pages(scheduler), "use")
    recovery = scheduler.recovery
    if recovery is not None:
        breaker, log = recovery.breaker, recovery.backends.log
        gauge("inpage_circuit_state", "0 closed, 1 half-open, 2 open", lambda: _STATES.index(breaker.state))
        gauge("inpage_circuit_openings", "How often the circuit opened", lambda: breaker.opened)
        names = [candidate.name for candidate in recovery.backends.ranked]

        def resting() -> dict[str, float]:
            return {name: log.resting(name) for name in names}

        gauge("inpage_variant_rest_seconds", "Until a variant that failed is tried again", resting, "variant")
    if answers is not None:
        gauge("inpage_answer_hits", "Answers from the cache, by tier", lambda: dict(answers.hits), "tier")
        gauge("inpage_answer_misses", "Answers that were not there", lambda: answers.misses)


class MemoryWatch:
    """Looks once a minute at what is held, for as long as the model is loaded. What grows without end is logged once,
    with a report."""

    def __init__(self, scheduler: Scheduler, seconds: float = 60.0) -> None:
        self.leaks = LeakDetector()
        self._scheduler, self._seconds = scheduler, seconds
        self._task: asyncio.Task[None] | None = None
        self._warned = False

    def report(self) -> dict[str, Any]:
        """Bytes now by kind, by operation (see `inpage.observe.memory_profile`), and the samples of the last
        minutes."""
        held, profile = held_bytes(self._scheduler), self._scheduler.metrics.memory.report()
        return {"held": held, "operations": profile, "samples": self.leaks.report()}

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _watch(self) -> None:
        while True:
            self.leaks.sample(time.monotonic(), held_bytes(self._scheduler))
            suspicion = self.leaks.suspicion()
            if suspicion and not self._warned:
                _log.warning("%s\n%s", suspicion, json.dumps(self.report()))
            self._warned = bool(suspicion)
            await asyncio.sleep(self._seconds)
