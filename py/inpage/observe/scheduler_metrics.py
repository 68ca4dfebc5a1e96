"""What a router counts and times: the scheduler tells it what happened, Prometheus, health and traces read it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from ..errors import Cancelled, InvalidRequest
from ..requests.request import Request
from .health import HealthWatch
from .memory_profile import MemoryProfile
from .prometheus import Counter, Gauge, Histogram, Registry
from .tracing import Tracer

_STEP = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # seconds


class SchedulerMetrics:
    """One router's. Times are in seconds."""

    def __init__(self) -> None:
        self.health = HealthWatch()
        self.trace = Tracer()
        self.memory = MemoryProfile()
        self._mark = (0.0, 0.0)  # of the last lap: `time.perf_counter`, the engine's busy seconds
        self.registry = r = Registry()
        self.requests = r.add(Counter("inpage_requests_total", "Requests that ended, by how", ["finish"]))
        self.tokens = r.add(Counter("inpage_tokens_total", "Tokens: prompt, cached of it, answer", ["kind"]))
        self.refused = r.add(Counter("inpage_refused_total", "Requests that the queue had no room for"))
        robbed = "Times that a request gave its pages up for want of memory: they were swapped out, or dropped"
        self.preemptions = r.add(Counter("inpage_preemptions_total", robbed, ["way"]))
        copied = "KV pages saved, and loaded again or lost, by where they were"
        self.swapped = r.add(Counter("inpage_swapped_pages_total", copied, ["tier", "way"]))
        self.prefix_hits = r.add(Counter("inpage_prefix_hits_total", "Requests that began like an earlier one"))
        self.failovers = r.add(Counter("inpage_failovers_total", "Engines that died or ran out of memory", ["engine"]))
        self.busy = r.add(Counter("inpage_engine_seconds_total", "Time in the engine, by call", ["call"]))
        self.computing = r.add(Counter("inpage_engine_busy_seconds_total", "What the engine says it computed"))
        self.working = r.add(Counter("inpage_working_seconds_total", "While some request was not over"))
        r.add(Gauge("inpage_engine_idle_share", "1 - engine busy / working", self.idle_share))
        self.rows = r.add(Counter("inpage_engine_rows_total", "Tokens computed, by call", ["call"]))
        self.queue_wait = r.add(Histogram("inpage_queue_wait_seconds", "From arrival to the first prompt token fed"))
        self.grammar = r.add(Histogram("inpage_grammar_seconds", "From arrival until the answer's grammar is compiled"))
        self.first_token = r.add(Histogram("inpage_time_to_first_token_seconds", "From arrival to the first token"))
        self.whole = r.add(Histogram("inpage_request_seconds", "From arrival to the last token"))
        self.between = r.add(Histogram("inpage_inter_token_seconds", "Between an answer's tokens, on average", _STEP))

    def gauge(
        self, name: str, help: str, read: Callable[[], float | Mapping[str, float]], label: str | None = None
    ) -> None:
        """A value that others keep: bytes held, requests waiting, hits."""
        self.registry.add(Gauge(name, help, read, [label] if label else ()))

    @contextmanager
    def call(self, name: str, requests: int) -> Iterator[None]:
        """The engine works meanwhile."""
        began = time.perf_counter()
        with self.trace.span(name, requests=requests), self.memory.operation(name):
            try:
                yield
            finally:
                self.busy.add(time.perf_counter() - began, call=name)

    @contextmanager
    def work(self, name: str, **facts: int) -> Iterator[None]:
        """The router does something itself."""
        with self.trace.span(name, "router", **facts), self.memory.operation(name):
            yield

    def delivered(self, request: Request, before: float | None, tokens: int) -> None:
        """A burst brought a request tokens; those before came at ``before``, None for the first."""
        if self.trace.on and before is not None and request.last is not None:
            self.trace.span_of(request.serial, "burst", before, request.last, tokens=tokens)

    def resume(self, busy_s: float) -> None:
        """Work begins, or goes on with another engine, which has been computing for ``busy_s``."""
        self._mark = (time.perf_counter(), busy_s)

    def lap(self, busy_s: float) -> None:
        """Work goes on: what passed since the last lap was working time."""
        now, (before, busy_before) = time.perf_counter(), self._mark
        self.working.add(now - before)
        self.computing.add(max(0.0, busy_s - busy_before))
        self._mark = (now, busy_s)

    def idle_share(self) -> float:
        """Of the time in which some request was open, what the engine did not compute, 0 to 1: the router's cost."""
        working = self.working.total
        return max(0.0, 1 - self.computing.total / working) if working else 0.0

    def failed_over(self, engine: str) -> None:
        self.failovers.add(engine=engine)
        self.trace.mark("failover", engine=engine)

    def ended(self, request: Request, finish: str, error: BaseException | None = None) -> None:
        """A request is over; ``finish`` as OpenAI says it, or the error's code."""
        self.requests.add(finish=finish)
        self.health.ended(None if isinstance(error, Cancelled | InvalidRequest) else error)
        self.tokens.add(len(request.prompt) if request.started else 0, kind="prompt")
        self.tokens.add(request.cached, kind="cached")
        self.prefix_hits.add(bool(request.cached))
        self.tokens.add(request.produced, kind="answer")
        began, started, first, last = request.submitted, request.started, request.first, request.last
        if began is None or started is None:
            return
        self.queue_wait.observe(started - began)
        self.trace.span_of(request.serial, "waiting", began, started)
        if first is None or last is None:
            return
        self.trace.span_of(request.serial, "request", began, last, finish=finish)
        self.first_token.observe(first - began)
        self.whole.observe(last - began)
        self.trace.span_of(request.serial, "reading", started, first, tokens=len(request.prompt), cached=request.cached)
        self.trace.span_of(request.serial, "answering", first, last, tokens=request.produced, finish=finish)
        if request.produced > 1:
            self.between.observe((last - first) / (request.produced - 1), request.produced - 1)
