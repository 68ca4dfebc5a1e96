"""Between a stream and the scheduler, for requests whose answer is determined: a kept answer is given at once, and
those who ask the same at the same time share one run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..requests.request import Burst, Request
from .answer import Answer
from .cache import AnswerCache

Events = asyncio.Queue[Burst | BaseException]
SHARED = "shared"  # how an answer came that another's run brought


@dataclass(slots=True)
class _Run:
    """One request at the scheduler, and everyone who reads along."""

    key: str  # of the answer, in the cache
    request: Request
    tags: tuple[str, ...]
    readers: dict[Request, Events] = field(default_factory=dict)
    bursts: list[Burst] = field(default_factory=list)  # so far, for those who come later
    task: asyncio.Task[None] | None = None


class SharedRuns:
    """``submit`` and ``cancel`` are the scheduler's."""

    def __init__(
        self, cache: AnswerCache, submit: Callable[[Request], None], cancel: Callable[[Request], None]
    ) -> None:
        self.cache = cache
        self._submit, self._cancel = submit, cancel
        self._runs: dict[str, _Run] = {}  # that others may join
        self._joined: dict[Request, _Run] = {}  # by reader

    async def open(self, key: str, request: Request, tags: tuple[str, ...]) -> tuple[Events, str]:
        """The events of ``request``'s answer, and where it comes from: a tier's name, `SHARED` or "engine".

        Its ``tokens`` and times are kept as if it had run itself. Raises what ``submit`` raises."""
        request.submitted = time.perf_counter()
        found = await self.cache.get(key)
        events: Events = asyncio.Queue()
        if found is not None:
            answer, tier = found
            # It was kept whole: a request with ``max_repeats`` gets it up to where that would have ended it.
            end = request.circle(answer.token_ids)
            finish = answer.finish_reason if end is None else "stop"
            self._tell(request, events, Burst(list(answer.token_ids[:end]), finish))
            return events, tier
        kept, key = key, _run_key(key, request)
        run = self._runs.get(key)
        if run is None or not run.request.reproducible:
            source = "engine"
            own = Request(
                request.prompt,
                request.max_tokens,
                request.sampling,
                request.stop_ids,
                client=request.client,
                priority=request.priority,
                grammar=request.grammar,
                max_repeats=request.max_repeats,
            )
            self._submit(own)
            run = self._runs[key] = _Run(kept, own, tags)
            run.task = asyncio.get_running_loop().create_task(self._pump(key, run))
        else:
            source = SHARED
            self.cache.hits[SHARED] += 1
        request.interruptions = run.request.interruptions
        run.readers[request] = events
        self._joined[request] = run
        for burst in run.bursts:
            self._tell(request, events, burst)
        return events, source

    def leave(self, key: str, request: Request) -> None:
        """This reader has had enough; the last one to leave ends the run."""
        run = self._joined.pop(request, None)
        if run is None or run.readers.pop(request, None) is None:
            return
        if not run.readers and not run.request.done:
            # Whoever asks the same from now on starts a run of their own: this one ends as cancelled.
            self._forget(_run_key(key, request), run)
            self._cancel(run.request)

    async def _pump(self, key: str, run: _Run) -> None:
        finish = None
        while finish is None:
            event = await run.request.events.get()
            if isinstance(event, Burst):
                run.bursts.append(event)
                finish = event.finish
            else:
                finish = "error"
            if finish in ("error", "cancelled"):  # nothing for those who come later
                self._forget(key, run)
            for reader, events in list(run.readers.items()):
                self._tell(reader, events, event)
        if finish in ("stop", "length"):
            if run.request.reproducible and run.request.circle(run.request.tokens) is None:
                await self.cache.put(run.key, Answer(tuple(run.request.tokens), finish, run.tags))
            self._forget(key, run)  # only now: whoever asked meanwhile read the run's bursts

    def _forget(self, key: str, run: _Run) -> None:
        if self._runs.get(key) is run:
            del self._runs[key]

    def _tell(self, request: Request, events: Events, event: Burst | BaseException) -> None:
        if isinstance(event, Burst):
            if event.tokens:
                request.last = time.perf_counter()
                request.first = request.first or request.last
                request.tokens += event.tokens
            request.done = request.done or event.finish is not None
        else:
            request.done = True
        events.put_nowait(event)


def _run_key(key: str, request: Request) -> str:
    """What requests that share a run have in common."""
    return f"{key}/{request.max_repeats or 0}"
