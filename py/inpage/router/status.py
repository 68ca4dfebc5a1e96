"""What a loaded model holds, and the gauges that tell of it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from ..host.browser import IN_PAGE
from ..host.jobs import tell_page
from ..observe.leaks import LeakDetector, Trace, objects
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
    """Looks once a minute at what is held, for as long as the model is loaded. Of what grows without end a report is
    made once: it is given to the page (web/client/leak.js), or logged, and written where the settings say."""

    def __init__(self, scheduler: Scheduler, seconds: float = 60.0) -> None:
        self.leaks = LeakDetector()
        self.suspected: dict[str, Any] | None = None  # the last report of it
        self._scheduler, self._seconds = scheduler, seconds
        self._settings = scheduler.settings.memory
        self._trace = Trace() if self._settings.trace and not IN_PAGE else None
        self._task: asyncio.Task[None] | None = None
        self._warned = False

    def report(self) -> dict[str, Any]:
        """Bytes now by kind, by operation (see `inpage.observe.memory_profile`), the samples of the last minutes, what
        grew in them, Python's objects by type, and with a trace the lines that hold most more than before."""
        report = {
            "held": self._held(),
            "operations": self._scheduler.metrics.memory.report(),
            "growers": self.leaks.growers(),
            "objects": objects(),
            "samples": self.leaks.report(),
        }
        return report if self._trace is None else report | {"lines": self._trace.lines()}

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _watch(self) -> None:
        while True:
            self.leaks.sample(time.monotonic(), self._held())
            suspicion = self.leaks.suspicion()
            if suspicion and not self._warned:
                self._suspect(suspicion)
            self._warned = bool(suspicion)
            await asyncio.sleep(self._seconds)

    def _held(self) -> dict[str, int]:
        held = held_bytes(self._scheduler)
        return held if self._trace is None else held | {"python": self._trace.held}

    def _suspect(self, suspicion: str) -> None:
        self.suspected = {"suspicion": suspicion, **self.report()}
        text = json.dumps(self.suspected)
        if not tell_page({"leak": self.suspected}):
            _log.warning("%s\n%s", suspicion, text)
        if self._settings.report_path is not None and not IN_PAGE:
            path = Path(self._settings.report_path) / f"inpage-memory-{os.getpid()}-{time.time_ns()}.json"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
            except OSError as error:
                _log.warning("memory.report_path: %s cannot be written: %s", path, error.strerror)
