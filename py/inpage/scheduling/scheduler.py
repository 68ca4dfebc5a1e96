"""Several requests on one engine: a bounded fair queue, prefill in chunks, decoding together in bursts.

Each round feeds one prefill step, its rows shared evenly between the sequences that still have prompt to read,
and then decodes one burst of all the others. A request is admitted when its prompt's pages can be had, and asks
for more as it grows; where none are left, the youngest sequence gives its pages up. They are saved or computed again
later, whichever measures cheaper, and by the engine's determinism neither changes its answer. The oldest is never
robbed, so one always gets on: no deadlock.

When the engine dies or runs out of memory, all go back to the queue with what they have, another engine takes over
(`failover`), and prompt and tokens so far are read again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from ..backends.failover import Backends
from ..backends.faults import Suspects, poisoned, too_late
from ..backends.recovery import Gap, Recovery
from ..engines.protocol import Engine, RunOutput
from ..errors import DeviceLost, InpageError, InvalidRequest, OutOfMemory, QueueFull, only_faults
from ..kv import open_kv
from ..kv.swap_file import open_swap_file
from ..observe.scheduler_metrics import SchedulerMetrics
from ..requests.request import Burst, Request
from ..settings import Settings
from .batch_window import BatchWindow
from .batching import burst_steps, prefill_batch
from .engine_calls import Calls
from .fair_queue import FairQueue
from .prefill_chunk import PrefillChunk
from .slots import Slots

_LOOK = 1.0  # seconds that nothing runs at most, before deadlines are looked at again


class Scheduler:
    """Owns the engine: nothing else may call it while requests are in flight. Without ``backends`` nothing takes over
    when it dies. ``on_change`` is called with "busy" when a request came, with "idle", and with "engine" when another
    took over."""

    def __init__(
        self,
        engine: Engine,
        *,
        settings: Settings | None = None,
        backends: Backends | None = None,
        on_change: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.settings = settings or Settings()
        self.slots = Slots()
        self.metrics = SchedulerMetrics()
        self._hidden = False
        self._swap_file = open_swap_file(self.settings.kv)
        self._calls = Calls(self.metrics, fatal=self._fatal, fail=self._fail)
        limits = self.settings.scheduler
        self._window = BatchWindow(limits.batch_timeout, limits.batch_size)
        self.adopt(engine)
        self.recovery = Recovery(backends) if backends is not None else None
        self._on_change = on_change
        self.reroute: Callable[[Request], None] | None = None  # takes what the engine that took over cannot do
        # Memory ran out: whether everything here will be taken to a smaller model (`hand_over`).
        self.step_down: Callable[[OutOfMemory], Awaitable[bool]] | None = None
        self._handing_over = False
        self._suspects = Suspects()
        self._arrived = False  # since the last admission
        self._idle_rounds = 0
        self._task: asyncio.Task[None] | None = None
        self._lost: BaseException | None = None

    def adopt(self, engine: Engine) -> None:
        """Run on this engine from now on, with pages of its own. Only while nothing is active."""
        self.engine = self._calls.engine = engine
        self.info = engine.info
        self._chunk = PrefillChunk()
        self.kv = open_kv(engine, self.settings.kv, self.metrics, self._swap_file, hidden=self._hidden)
        self.kv.on_return = self._window.notify
        limits = self.settings.scheduler
        self.slots.reset(self.kv, min(engine.info.max_sequences, limits.batch_size, limits.max_concurrent))

    @property
    def waiting(self) -> FairQueue:
        return self.slots.queue

    @property
    def active(self) -> list[Request]:
        """Those that run, in order of arrival."""
        return self.slots.active

    @property
    def lost(self) -> str:
        """Why there is no engine now; empty while there is one."""
        if self._lost is None:
            return ""
        recovery = self.recovery
        return str(self._lost) if recovery is None or recovery.given_up else recovery.breaker.sentence

    @property
    def idle(self) -> bool:
        return not self.slots and (self._task is None or self._task.done())

    @property
    def capacity(self) -> int:
        """The most tokens, prompt and answer together, that one request can have."""
        return min(self.info.context, self.kv.capacity)

    # -- callers ---------------------------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Queue it; its ``events`` then bring bursts, the last with ``finish`` set, or end with an exception.

        Raises `InvalidRequest` for one that could never fit, `Unsupported` for one that needs what the engine cannot
        do, `QueueFull`, `DeviceLost` when the engine is gone.
        """
        if self._lost is not None and not (self.recovery is not None and self.recovery.may_revive):
            mend = "" if self.recovery is not None and self.recovery.breaker.rest else "; load the model again"
            raise DeviceLost(f"the engine is gone: {self.lost}{mend}") from self._lost
        unmet = request.unmet(self.info)
        if unmet is not None:
            raise unmet
        if not request.prompt:  # no step would ever take it
            raise InvalidRequest("the prompt has no tokens", field="prompt")
        if request.end > self.capacity:
            raise InvalidRequest(
                f"prompt and answer need {request.end} tokens and there is room for {self.capacity}; "
                "ask for fewer max_tokens or shorten the prompt",
                field="max_tokens",
            )
        if len(self.waiting) >= self.settings.scheduler.queue_size:
            self.metrics.refused.add()
            raise QueueFull(f"{len(self.waiting)} requests are waiting already; try again later")
        request.submitted = request.submitted or time.perf_counter()  # or when its grammar was
        end = "cancelled" if request.cancelled else request.ending
        if end is not None:
            self._finish(request, end)
            return
        self.slots.wait(request)
        self._arrived = True
        self._window.notify()
        self._calls.ring()
        self._on_change("busy")
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    def cancel(self, request: Request) -> None:
        """End it as "cancelled": at once where it waits, after the current step where it runs."""
        if request.done:
            return
        request.cancelled = True
        if request in self.waiting:
            self._finish(request, "cancelled")
            self._window.notify()
        else:
            self._calls.ring()

    async def close(self, reason: InpageError) -> None:
        """Fail everything in flight with ``reason`` and wait until the engine is no longer being called."""
        self._lost = reason
        self._window.notify()
        self._calls.ring()
        if self.recovery is not None:
            self.recovery.give_up()
        if self._task is not None:
            await asyncio.wait([self._task])
        if self._swap_file is not None:
            await self._swap_file.close()

    async def hand_over(self, reason: InpageError) -> list[Request]:
        """As `close`, for an engine that makes room for another: what can go on there from its tokens is not failed
        but given, in order of arrival. Scores and vectors are of one engine: those fail with ``reason``."""
        self._handing_over = True
        await self.close(reason)
        taken = []
        for request in self.slots.requests():
            if request.done:
                self.slots.leave(request)
            elif request.goes_elsewhere:
                self.slots.leave(request)
                taken.append(request)
            else:
                self._fail(request, reason)
        return sorted(taken, key=lambda request: request.serial)

    def hide(self, hidden: bool) -> None:
        """Nobody sees the page: keep no pages for prompts to come until somebody does. What runs keeps its own."""
        self._hidden = hidden
        self.kv.keep_bytes(0 if hidden else self.settings.kv.prefix_bytes)

    # -- the loop --------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        self.metrics.resume(self.engine.busy_s)
        try:
            if self._lost is not None and self.recovery is not None:
                await self._go_on(self.recovery.revive())
            while self.slots and self._lost is None:
                try:
                    if not self.active and await self._window.gather(self.waiting):
                        self.metrics.resume(self.engine.busy_s)
                        continue
                    self._reap()
                    await self._admit()
                    await self._prefill()
                    await self._decode()
                    self.metrics.lap(self.engine.busy_s)
                except (DeviceLost, OutOfMemory) as error:
                    await self._fail_over(error)
                    self.metrics.resume(self.engine.busy_s)
        except BaseException as error:  # a bug here must fail every request instead of leaving it waiting
            only_faults(error)
            self._fail_all(error)
        if self._lost is not None and not self._handing_over:
            self._fail_all(self._lost)
        self.waiting.settle()
        self._on_change("idle")

    async def _fail_over(self, error: InpageError) -> None:
        """Another engine takes over; where none can, there is none until the circuit lets one be tried."""
        if self.recovery is None:
            self._lost = error
            await self._step_down(error)
            return
        gap = Gap(self.info.variant, error, time.perf_counter())
        self.metrics.failed_over(gap.before)
        self._reap()
        if self._handing_over:
            return
        count = self.recovery.backends.count
        suspects = [r for r in self._calls.requests if not r.done]
        blamed = self._suspects.died(suspects, gap.before, count)
        for request in list(self.active):
            self.slots.preempt(request)
        if blamed is not None:
            self._fail(blamed, poisoned(blamed, error))
        innocent = blamed.killed if blamed else ()
        await self._go_on(self.recovery.replace(self.engine, error, innocent=innocent), gap)

    async def _go_on(self, coming: Awaitable[Engine | None], gap: Gap | None = None) -> None:
        """On the engine that comes. ``gap``: where one died before it."""
        assert self.recovery is not None
        try:
            engine = await coming
        except Exception as failed:
            self._lost = self._lost if self.recovery.given_up else failed
            if gap is not None and not self.recovery.given_up:
                await self._step_down(gap.error)
            return
        if engine is None:
            return
        if gap is not None:
            gap.interrupts(self.waiting, engine)
        self._lost = self._lost if self.recovery.given_up else None
        self.adopt(engine)
        for request in list(self.waiting):
            self._refit(request)
        self._on_change("engine")

    def _refit(self, request: Request) -> None:
        """A smaller engine may have taken over: the answer ends where its room does. Another may do what it cannot."""
        unmet = request.unmet(self.info)
        if unmet is not None:
            self._send_on(request, unmet)
            return
        try:
            self.shorten(request)
        except OutOfMemory as error:
            self._fail(request, error)

    def shorten(self, request: Request) -> None:
        """Let the answer end where this engine's room does. Raises `OutOfMemory` where there is none left."""
        if request.end > self.capacity:
            request.max_tokens = self.capacity - len(request.prompt) if request.targets is None else 0
            if request.length >= self.capacity:
                raise self.slots.no_memory(request)

    async def _step_down(self, error: InpageError) -> bool:
        """Memory ran out, and no engine of this model helps: whether a smaller one takes all over."""
        if isinstance(error, OutOfMemory) and not self._handing_over and self.step_down is not None:
            self._handing_over = await self.step_down(error) or self._handing_over
            self._lost = error if self._handing_over else self._lost
        return self._handing_over

    async def _no_memory(self, request: Request) -> None:
        """It does not fit, though it is alone. Raises `OutOfMemory` where another backend or a smaller model takes
        over."""
        error = self.slots.no_memory(request)
        if self._elsewhere(request) or await self._step_down(error):
            raise error
        self._fail(request, error)

    def _send_on(self, request: Request, unmet: InpageError) -> None:
        if self.reroute is None:
            self._fail(request, unmet)
            return
        self.slots.leave(request)
        try:
            self.reroute(request)
        except InpageError as error:
            self._fail(request, error)

    def _reap(self) -> None:
        """End what was cancelled, and what has run out of time."""
        for request in [r for r in self.active if r.done]:  # ended while their burst went on
            self.slots.leave(request)
        for request in [r for r in self.slots.requests() if r.cancelled]:  # some lost their place meanwhile
            self._finish(request, "cancelled")
        for request in self.slots.late(time.perf_counter(), self.settings.scheduler.timeout):
            self._fail(request, too_late(request))

    async def _admit(self) -> None:
        """In the queue's order; one that does not fit yet holds back those behind it, so none starves."""
        self._arrived = False
        while (request := self.slots.next()) is not None:
            self._calls.requests = [request]
            with self.metrics.work("admit", request=request.serial):
                fits = await self.kv.admit(request)
            if request not in self.waiting:  # cancelled while the engine grew
                self.kv.release(request)
            elif fits:
                self.slots.admit(request)
                request.reproducible &= self.info.deterministic
            elif self.active:
                return
            elif self.kv.lent:  # it may fit when an export or import has given its pages back
                await self._window.pause(_LOOK)
                self.metrics.resume(self.engine.busy_s)
                return
            else:
                await self._no_memory(request)

    async def _prefill(self) -> None:
        info = self.info
        most = info.max_rows if info.embeds else self._chunk.rows(info.max_rows)  # texts to embed are read whole
        batch = prefill_batch(self._suspects.turn(self.active), info, self.kv, self.waiting, most)
        for request, feed in batch:  # of layers with a window it has pages for a part of its prompt
            if request in self.active and not self.kv.covers(request, len(feed.tokens)):
                await self._cover(request, len(feed.tokens))
        batch = [(request, feed) for request, feed in batch if request in self.active]
        if not batch:
            return
        began = self.kv.swap.clock()
        answers = await self._calls.prefill(batch)
        ended, read = self.kv.swap.clock(), sum(len(feed.tokens) for _, feed, _ in answers)
        self.kv.swap.note_prefill(read, ended - began)
        answered = any(feed.sample or feed.want_logits or feed.targets is not None for _, feed, _ in answers)
        self._chunk.note(read, began, ended, answered=answered)
        for request, feed, out in answers:
            request.num_computed_tokens += len(feed.tokens)
            self.kv.keep(request)
            self.waiting.serve(request.client, read=len(feed.tokens))
            self.metrics.rows.add(len(feed.tokens), call="prefill")
            if request.embeds:
                request.vector = out.logits
                self._progressed(request)
                self._finish(request, "length")
            elif request.targets is not None:
                request.scores.extend(out.scores or ())
                request.logprobs += out.logprobs
                if request.num_computed_tokens == len(request.prompt):
                    self._progressed(request)
                    self._finish(request, "length")
            elif feed.sample:
                if out.token is None:
                    raise InpageError("the engine did not choose the token that it was asked for")
                request.logprobs += out.logprobs
                ends = request.end_in([out.token]) is not None or out.token in request.stop_ids
                self._deliver(request, [out.token], "stop" if ends else None)

    async def _decode(self) -> None:
        steps = burst_steps(sum(r.decoding for r in self.active), any(r.to_prefill for r in self.active))
        for request in self._suspects.turn(list(self.active)):  # oldest first: nobody who has pages is robbed of them
            if request.decoding and request in self.active:
                await self._cover(request, steps)
        if self._arrived:
            steps = 1  # whoever came during the prefill waits no longer than one that comes during a burst
        decoding = [r for r in self._suspects.turn(self.active) if r.decoding and not r.cancelled]
        if not decoding:
            return
        before = self.metrics.rows.total
        await self._calls.decode(decoding, steps, self._take)
        self._idle_rounds = self._idle_rounds + 1 if self.metrics.rows.total == before and self.active else 0
        if self._idle_rounds > 3:
            raise InpageError("the engine returns from its bursts without a token")

    def _take(self, request: Request, out: RunOutput) -> None:
        """What a burst brought one of its requests. Whoever it ended leaves a place, which others may wait for."""
        end = request.end_in(out.tokens)
        tokens = out.tokens if end is None else out.tokens[:end]
        request.num_computed_tokens += len(tokens)
        self.waiting.serve(request.client, written=len(tokens))
        self.metrics.rows.add(len(out.tokens), call="decode")
        request.logprobs += out.logprobs
        finish = "stop" if out.finished == "stop" or end is not None else None
        self._deliver(request, tokens, finish, running=end is not None)
        late = request.deadline is not None and request.deadline <= time.perf_counter()
        if late or end is not None or (request.done and self.waiting):
            self._calls.ring()

    def _fatal(self, error: Exception) -> bool:
        return isinstance(error, DeviceLost) or (isinstance(error, OutOfMemory) and self.recovery is not None)

    async def _cover(self, request: Request, steps: int) -> None:
        """Pages for the next ``steps`` positions, in an answer at least for one; else it goes back to wait (or
        fails)."""
        self._calls.requests = [request]
        with self.metrics.memory.operation("grow"):
            covered = await self.slots.cover(request, steps)
        if not covered:
            await self._no_memory(request)

    def _elsewhere(self, request: Request) -> bool:
        """Whether another backend might have the memory that it needs."""
        return self.recovery is not None and self.recovery.backends.count > 1 and not request.killed

    # -- ends ------------------------------------------------------------------------------------------------

    def _deliver(self, request: Request, tokens: list[int], finish: str | None, *, running: bool = False) -> None:
        """``running``: the engine may still write to its pages, which it keeps until the burst is over."""
        if tokens:
            before, request.last = request.last, time.perf_counter()
            request.first = request.first or request.last
            request.tokens += tokens
            self.metrics.delivered(request, before, len(tokens))
            request.goes_on(request.last)
            self._progressed(request)
        if finish is None and len(request.tokens) >= request.max_tokens:
            finish = "length"
        if finish is not None:
            self._finish(request, finish, tokens, running=running)
        elif tokens:
            request.events.put_nowait(Burst(tokens))

    def _progressed(self, request: Request) -> None:
        self._suspects.progressed(request)
        if self.recovery is not None:
            self.recovery.breaker.progressed()

    def _finish(self, request: Request, reason: str, tokens: Sequence[int] = (), *, running: bool = False) -> None:
        if not running:
            self.slots.leave(request)
        request.done = True
        request.goes_on(time.perf_counter())
        self.metrics.ended(request, reason)
        request.events.put_nowait(Burst(list(tokens), reason))

    def _fail(self, request: Request, error: BaseException) -> None:
        self.slots.leave(request)
        request.done = True
        self.metrics.ended(request, error.code if isinstance(error, InpageError) else "error", error)
        request.events.put_nowait(error)

    def _fail_all(self, error: BaseException) -> None:
        for request in self.slots.requests():
            if request.done:
                self.slots.leave(request)
            else:
                self._fail(request, error)
