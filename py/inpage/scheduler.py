"""Several requests on one engine: a bounded FIFO queue, prefill in chunks, decoding together in bursts.

Each round feeds one prefill step, its rows shared evenly between the sequences that still have prompt to read,
and then decodes one burst of all the others. A request is admitted when its prompt's pages can be had, and asks
for more as it grows; where none are left, the youngest sequence gives its pages up and is computed again later,
which by the engine's determinism changes nothing of its answer. The oldest is never robbed, so one always gets
on: no deadlock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from .engines.protocol import Engine, Feed
from .errors import DeviceLost, InpageError, InvalidRequest, OutOfMemory, QueueFull
from .kv import PagePool, pages_for
from .request import Burst, Request

_GROWTH = 32  # pages reserved at a time, so that growing is rare
_FIRST_BURST, _LONGEST_BURST = 2, 16  # steps; short at first, so that an answer starts to flow at once
_BURST_BESIDE_PREFILL = 4  # while a prompt is being read, nobody waits long for their turn

Out = TypeVar("Out")


class Scheduler:
    """Owns the engine: nothing else may call it while requests are in flight."""

    def __init__(self, engine: Engine, *, max_queue: int = 64) -> None:
        info = engine.info
        self.engine = engine
        self.info = info
        self.max_queue = max_queue
        self.pool = PagePool(info.max_pages)
        self.waiting: list[Request] = []
        self.active: list[Request] = []
        self._arrived = False  # since the last admission
        self._bursting = False
        self._idle_rounds = 0
        self._task: asyncio.Task[None] | None = None
        self._rings: set[asyncio.Task[None]] = set()
        self._lost: BaseException | None = None

    @property
    def capacity(self) -> int:
        """The most tokens, prompt and answer together, that one request can have."""
        return min(self.info.context, self.pool.limit * self.info.page_tokens)

    # -- callers ---------------------------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Queue it; its ``events`` then bring bursts, the last with ``finish`` set, or end with an exception.

        Raises `InvalidRequest` for one that could never fit, `QueueFull`, `DeviceLost` when the engine is gone.
        """
        if self._lost is not None:
            raise DeviceLost(f"the engine is gone ({self._lost}); load the model again")
        if request.end > self.capacity:
            raise InvalidRequest(
                f"prompt and answer need {request.end} tokens and there is room for {self.capacity}; "
                "ask for fewer max_tokens or shorten the prompt",
                field="max_tokens",
            )
        if len(self.waiting) >= self.max_queue:
            raise QueueFull(f"{len(self.waiting)} requests are waiting already; try again later")
        request.submitted = time.perf_counter()
        if request.cancelled:
            self._finish(request, "cancelled")
            return
        self.waiting.append(request)
        self._arrived = True
        self._ring()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    def cancel(self, request: Request) -> None:
        """End it as "cancelled": at once where it waits, after the current step where it runs."""
        if request.done:
            return
        request.cancelled = True
        if request in self.waiting:
            self.waiting.remove(request)
            self._finish(request, "cancelled")
        else:
            self._ring()

    async def close(self, reason: InpageError) -> None:
        """Fail everything in flight with ``reason`` and wait until the engine is no longer being called."""
        self._lost = self._lost or reason
        self._ring()
        if self._task is not None:
            await asyncio.wait([self._task])

    def _ring(self) -> None:
        """End a running burst early, so that an arrival or a cancel is seen."""
        if self._bursting and not self._rings:
            ring = asyncio.get_running_loop().create_task(self.engine.interrupt())
            self._rings.add(ring)
            ring.add_done_callback(self._rung)

    def _rung(self, ring: asyncio.Task[None]) -> None:
        self._rings.discard(ring)
        if not ring.cancelled():
            ring.exception()  # an engine that fails here fails the burst too, which reports it

    # -- the loop --------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        try:
            while (self.waiting or self.active) and self._lost is None:
                self._reap()
                await self._admit()
                await self._prefill()
                await self._decode()
        except DeviceLost as error:
            self._lost = error
        except Exception as error:  # a bug here must reach the callers: nobody may wait forever
            self._fail_all(error)
        if self._lost is not None:
            self._fail_all(self._lost)

    def _reap(self) -> None:
        for request in [r for r in self.active if r.cancelled]:
            self._finish(request, "cancelled")

    async def _admit(self) -> None:
        """First come, first served; one that does not fit yet holds back those behind it, so none starves."""
        self._arrived = False
        while self.waiting and len(self.active) < self.info.max_sequences:
            request = self.waiting[0]
            # Room for the next token too: one that would have to give up its pages at once had better wait.
            pages = await self._take(pages_for(min(request.length + 1, request.end), self.info.page_tokens))
            if not self.waiting or self.waiting[0] is not request:  # cancelled while the engine grew
                self.pool.give(pages or ())
                continue
            if pages is None:
                if self.active:
                    return
                self.waiting.pop(0)
                self._fail(request, self._no_memory(request))
                continue
            self.waiting.pop(0)
            request.pages = pages
            self.active.append(request)
            self.active.sort(key=_serial)

    async def _prefill(self) -> None:
        """One step of prompt tokens, at most ``max_rows``, shared evenly: a short prompt does not wait for a long."""
        reading = sorted((r for r in self.active if r.to_prefill), key=lambda r: (r.to_prefill, r.serial))
        rows, choices = self.info.max_rows, self.info.max_logit_rows
        batch: list[Request] = []
        feeds: list[Feed] = []
        for place, request in enumerate(reading):
            count = min(request.to_prefill, rows // (len(reading) - place))
            if request.targets is not None:
                count = min(count, choices)  # every scored position takes a row of logits
            if count == 0:
                continue
            feed = request.prefill_feed(count)
            cost = count if request.targets is not None else int(feed.sample)
            if cost > choices:
                continue
            rows, choices = rows - count, choices - cost
            request.started = request.started or time.perf_counter()
            batch.append(request)
            feeds.append(feed)
        if not batch:
            return
        for request, feed, out in await self._call(batch, feeds, self.engine.step):
            request.fed += len(feed.tokens)
            if request.targets is not None:
                request.scores.extend(out.scores or ())
                if request.fed == len(request.prompt):
                    self._finish(request, "length")
            elif feed.sample:
                if out.token is None:
                    raise InpageError("the engine did not choose the token that it was asked for")
                self._deliver(request, [out.token], "stop" if out.token in request.stop_ids else None)

    async def _decode(self) -> None:
        reading = self._arrived or any(r.to_prefill for r in self.active)
        young = min((r.bursts for r in self.active if r.decoding), default=0)
        steps = min(_FIRST_BURST << min(young, 8), _BURST_BESIDE_PREFILL if reading else _LONGEST_BURST)
        for request in list(self.active):  # oldest first, so that nobody who has pages is robbed of them
            if request.decoding and request in self.active:
                await self._cover(request, steps)
        batch = [r for r in self.active if r.decoding]
        if not batch:
            return
        feeds = [request.decode_feed() for request in batch]
        self._bursting = True
        try:
            answers = await self._call(batch, feeds, lambda some: self.engine.run(some, steps))
        finally:
            self._bursting = False
        progress = False
        for request, _, out in answers:
            request.fed += len(out.tokens)
            request.bursts += 1
            progress = progress or bool(out.tokens)
            self._deliver(request, out.tokens, "stop" if out.finished == "stop" else None)
        self._idle_rounds = 0 if progress or not answers else self._idle_rounds + 1
        if self._idle_rounds > 3:
            raise InpageError("the engine returns from its bursts without a token")

    async def _call(
        self, batch: list[Request], feeds: list[Feed], call: Callable[[Sequence[Feed]], Awaitable[list[Out]]]
    ) -> list[tuple[Request, Feed, Out]]:
        """Run feeds together. Where that fails, run them one by one (feeding the same tokens again is
        harmless), so that only the request at fault fails."""
        try:
            return list(zip(batch, feeds, await call(feeds), strict=True))
        except DeviceLost:
            raise
        except Exception as error:
            if len(batch) == 1:
                self._fail(batch[0], error)
                return []
        answers: list[tuple[Request, Feed, Out]] = []
        for request, feed in zip(batch, feeds, strict=True):
            answers += await self._call([request], [feed], call)
        return answers

    # -- pages -----------------------------------------------------------------------------------------------

    async def _take(self, count: int) -> list[int] | None:
        """Pages from the free list, growing the engine's pool where it is too short and can grow."""
        missing = count - self.pool.free
        room = self.pool.limit - self.pool.reserved
        if 0 < missing <= room:
            extra = min(max(missing, _GROWTH), room)
            while extra and self.pool.free < count:
                try:
                    await self.engine.reserve_pages(self.pool.reserved + extra)
                except OutOfMemory:
                    extra = missing if extra > missing else extra // 2
                else:
                    self.pool.grow_to(self.pool.reserved + extra)
            if self.pool.free < count:
                self.pool.limit = self.pool.reserved  # the device is full: live with what there is
        return self.pool.take(count)

    async def _cover(self, request: Request, steps: int) -> None:
        """Pages for the next ``steps`` positions, or at least for one; else it goes back to wait (or fails)."""
        size = self.info.page_tokens
        have = len(request.pages)
        need = pages_for(min(request.fed + steps, request.end), size) - have
        if need <= 0:
            return
        pages = await self._take(need)
        if pages is None and request.fed < have * size:
            return  # the burst ends where its pages do
        while pages is None:
            pages = await self._take(1)
            if pages is not None:
                break
            youngest = self.active[-1]
            if youngest is not request:
                self._preempt(youngest)
            elif len(self.active) > 1:
                self._preempt(request)
                return
            else:
                self._fail(request, self._no_memory(request))
                return
        request.pages += pages

    def _preempt(self, request: Request) -> None:
        self._drop(request)
        request.fed = 0
        request.scores.clear()
        self.waiting.append(request)
        self.waiting.sort(key=_serial)

    def _no_memory(self, request: Request) -> OutOfMemory:
        room = self.pool.limit * self.info.page_tokens
        return OutOfMemory(
            f"a conversation of {request.length + 1} tokens does not fit: this device has memory for {room}"
        )

    # -- ends ------------------------------------------------------------------------------------------------

    def _drop(self, request: Request) -> None:
        if request in self.active:
            self.active.remove(request)
        self.pool.give(request.pages)
        request.pages = []

    def _deliver(self, request: Request, tokens: list[int], finish: str | None) -> None:
        if tokens:
            request.last = time.perf_counter()
            request.first = request.first or request.last
            request.tokens += tokens
        if finish is None and len(request.tokens) >= request.max_tokens:
            finish = "length"
        if finish is not None:
            self._finish(request, finish, tokens)
        elif tokens:
            request.events.put_nowait(Burst(tokens))

    def _finish(self, request: Request, reason: str, tokens: Sequence[int] = ()) -> None:
        self._drop(request)
        request.done = True
        request.events.put_nowait(Burst(list(tokens), reason))

    def _fail(self, request: Request, error: BaseException) -> None:
        self._drop(request)
        request.done = True
        request.events.put_nowait(error)

    def _fail_all(self, error: BaseException) -> None:
        for request in [*self.active, *self.waiting]:
            self._fail(request, error)
        self.waiting.clear()


def _serial(request: Request) -> int:
    return request.serial
