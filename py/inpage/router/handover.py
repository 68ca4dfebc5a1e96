"""Requests between two loads of one model: what a router answered when its engine had to make room goes on at the next,
which reads prompt and tokens so far again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..backends.recovery import Gap
from ..errors import InpageError
from ..requests.request import Burst, Request
from ..responses.stream import Facts

if TYPE_CHECKING:
    from .replicas import Replicas


class Handover:
    """What `Replicas` is to callers, for those who still have the old router; ``gap``: why that one went, and when. No
    answer that passes here is kept as the old one's: the next may be another level of the model."""

    def __init__(self, gap: Gap) -> None:
        self.gap = gap
        self._waiting: dict[Request, None] = {}
        self._next: Replicas | None = None
        self._facts: Callable[[], Facts] | None = None
        self._failure: InpageError | None = None

    @property
    def longest(self) -> int:
        """As `Replicas.longest`, of what waits here."""
        return max((request.room() for request in self._waiting), default=0)

    def facts(self, before: Facts) -> Facts:
        """Of the engine that answers now. ``before``: the old one's."""
        return before if self._facts is None else self._facts()

    def submit(self, request: Request) -> None:
        """As `Replicas.submit`; until there is another engine, it waits."""
        request.reproducible = False
        if self._failure is not None:
            raise self._failure
        if self._next is not None:
            self._next.submit(request)
        else:
            self._waiting[request] = None

    def cancel(self, request: Request) -> None:
        if request in self._waiting:
            del self._waiting[request]
            request.cancelled = request.done = True
            request.events.put_nowait(Burst([], "cancelled"))
        elif self._next is not None:
            self._next.cancel(request)
        elif not request.done:
            request.cancelled = True  # the old engine still has it

    def take(self, requests: Sequence[Request]) -> None:
        """What the old engine had: they go before those who came since."""
        for request in requests:
            request.reproducible = False
        self._waiting = {**dict.fromkeys(requests), **self._waiting}
        for request in requests:
            if request.cancelled:
                self.cancel(request)

    def arrive(self, replicas: Replicas, facts: Callable[[], Facts]) -> None:
        """All continue there, and later requests are submitted there at once."""
        waiting, self._waiting = list(self._waiting), {}
        self._next, self._facts = replicas, facts
        scheduler = replicas.schedulers[0]
        self.gap.interrupts(waiting, scheduler.engine)
        for request in waiting:
            try:
                scheduler.shorten(request)
                replicas.submit(request)
            except InpageError as error:
                _fail(request, error)

    def fail(self, error: InpageError) -> None:
        """There is no other engine."""
        waiting, self._waiting, self._failure = self._waiting, {}, error
        for request in waiting:
            _fail(request, error)


def _fail(request: Request, error: InpageError) -> None:
    request.done = True
    request.events.put_nowait(error)
