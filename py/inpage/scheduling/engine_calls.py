"""A scheduler's calls to its engine: one at a time and timed. A burst is heard while it runs and can be ended early; a
batch that fails is tried again one by one, so that only the request at fault fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar

from ..engines.protocol import Engine, RunOutput, SequenceInput, StepOutput
from ..observe.scheduler_metrics import SchedulerMetrics
from ..requests.request import Request

Out = TypeVar("Out")
Pair: TypeAlias = tuple[Request, SequenceInput]
Take: TypeAlias = Callable[[Request, RunOutput], None]


class Calls:
    """``fatal``: whether an error ends the engine, and not only what was asked of it: then it is raised. ``fail`` is
    told of a request that failed alone."""

    def __init__(
        self,
        metrics: SchedulerMetrics,
        *,
        fatal: Callable[[Exception], bool],
        fail: Callable[[Request, Exception], None],
    ) -> None:
        self.engine: Engine
        self.requests: list[Request] = []  # whose call it is, or was last
        self._metrics = metrics
        self._fatal = fatal
        self._fail = fail
        self._bursting = False
        self._rings: set[asyncio.Task[None]] = set()
        self._broken: Exception | None = None

    def ring(self) -> None:
        """End a running burst early, so that an arrival or a cancel is seen."""
        if self._bursting and not self._rings:
            ring = asyncio.get_running_loop().create_task(self.engine.interrupt())
            self._rings.add(ring)
            ring.add_done_callback(self._rung)

    def _rung(self, ring: asyncio.Task[None]) -> None:
        self._rings.discard(ring)
        if not ring.cancelled():
            ring.exception()  # an engine that fails here fails the burst too, which reports it

    async def prefill(self, batch: list[Pair]) -> list[tuple[Request, SequenceInput, StepOutput]]:
        """One step of prompts. Who failed is left out."""
        answers = await self._call(
            "prefill", batch, lambda some: self.engine.step([feed for _, feed in some]), lambda _, feed: feed
        )
        return [(request, feed, out) for (request, feed), out in answers]

    async def decode(self, requests: Sequence[Request], steps: int, take: Take) -> None:
        """One burst. ``take`` gets what each request's part of it has brought since before, while it runs and at its
        end; those that are done by then are left out."""

        def burst(some: list[Pair]) -> Awaitable[list[RunOutput]]:
            return self.engine.run([feed for _, feed in some], steps, lambda outs: self._hear(some, outs, take))

        batch = [(request, request.decode_input()) for request in requests]
        self._bursting = True
        try:
            answers = await self._call("decode", batch, burst, lambda request, _: request.decode_input())
        finally:
            self._bursting = False
        self._hear([pair for pair, _ in answers], [out for _, out in answers], take)
        if self._broken is not None:
            error, self._broken = self._broken, None
            raise error

    def _hear(self, batch: list[Pair], outs: Sequence[RunOutput], take: Take) -> None:
        """May be called by the engine, which is not to be bothered with errors of ours."""
        try:
            for (request, _), out in zip(batch, outs, strict=True):
                if not request.done:
                    take(request, out)
        except Exception as error:
            self._broken = self._broken or error
            self.ring()

    async def _call(
        self,
        name: str,
        batch: list[Pair],
        call: Callable[[list[Pair]], Awaitable[list[Out]]],
        again: Callable[[Request, SequenceInput], SequenceInput],
    ) -> list[tuple[Pair, Out]]:
        """``again``: what to feed after a call that failed; feeding the same tokens twice is harmless."""
        self.requests = [request for request, _ in batch]
        try:
            with self._metrics.call(name, len(batch)):
                outs = await call(batch)
        except Exception as error:
            if self._fatal(error):
                raise
            if len(batch) == 1:
                if not batch[0][0].done:
                    self._fail(batch[0][0], error)
                return []
            alone = [[(request, again(request, feed))] for request, feed in batch if not request.done]
            return [answer for one in alone for answer in await self._call(name, one, call, again)]
        return list(zip(batch, outs, strict=True))
