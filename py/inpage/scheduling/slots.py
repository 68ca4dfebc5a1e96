"""The engine's slots and the queue of waiting requests: admission and preemption. The scheduler makes the engine calls.

Slots are given in the queue's order. A running request is preempted for one of higher priority, where its client has
more than its share, or when KV pages run out. It returns to the queue with its tokens; its KV stays in its pages until
they are needed, or is swapped out (`kv.swap`) where memory ran out.
"""

from __future__ import annotations

from collections import Counter

from ..errors import OutOfMemory
from ..kv import Kv
from ..requests.request import Request
from .fair_queue import FairQueue


class Slots:
    """``places``: the number of slots. ``active``: the running requests in order of arrival."""

    def __init__(self) -> None:
        self.places = 1
        self.queue = FairQueue()
        self.active: list[Request] = []
        self._kv: Kv | None = None

    def reset(self, kv: Kv, places: int) -> None:
        """Another engine, with pages of its own. Only while nobody is active."""
        assert not self.active
        self._kv, self.places = kv, places

    @property
    def kv(self) -> Kv:
        assert self._kv is not None
        return self._kv

    def __bool__(self) -> bool:
        """Whether anybody is here."""
        return bool(self.active or self.queue)

    def requests(self) -> list[Request]:
        return [*self.active, *self.queue]

    def late(self, now: float, patience: float | None) -> list[Request]:
        """Whose deadline is over, and who has waited for longer than ``patience`` seconds: whoever has run once is not
        sent away any more for that."""
        late = [r for r in self.requests() if r.deadline is not None and r.deadline <= now]
        if patience is not None:
            new = [r for r in self.queue if r.started is None and not r.patient]
            late += [r for r in new if r.submitted and r.submitted + patience <= now]
        return list(dict.fromkeys(late))

    def wait(self, request: Request) -> None:
        self.queue.push(request, self._running())

    def next(self) -> Request | None:
        """Whose turn it is, if there is a place or one can be taken back for it."""
        request = self.queue.head(self._running())
        return request if request is not None and self._make_room_for(request) else None

    def admit(self, request: Request) -> None:
        self.queue.remove(request)
        self.active.append(request)
        self.active.sort(key=_serial)

    def preempt(self, request: Request) -> None:
        """Back to the queue; its pages are given up."""
        self.active.remove(request)
        self.kv.release(request)
        if request.targets is not None:  # they are scored again
            request.scores.clear()
            request.logprobs.clear()
        self.wait(request)

    def leave(self, request: Request) -> None:
        """It is gone from here, wherever it was."""
        if request in self.active:
            self.active.remove(request)
        elif request in self.queue:
            self.queue.remove(request)
        self.kv.release(request)
        self.kv.swap.forget(request)

    async def cover(self, request: Request, steps: int) -> bool:
        """Pages for its next ``steps`` positions, in an answer at least for one, the youngest's if there are no others.
        False where it has none and is alone; while pages are lent, it waits for them in the queue."""
        while not await self.kv.cover(request, steps):
            if len(self.active) == 1 and not self.kv.lent:
                return False
            youngest = self.active[-1]
            await self.kv.suspend(youngest)
            self.preempt(youngest)
            if youngest is request:
                break
        return True

    def no_memory(self, request: Request) -> OutOfMemory:
        return OutOfMemory(
            f"a conversation of {request.length + 1} tokens does not fit: this device has memory for {self.kv.capacity}"
        )

    def _make_room_for(self, request: Request) -> bool:
        if len(self.active) < self.places:
            return True
        least = min(r.priority for r in self.active)
        if least < request.priority:
            self.preempt([r for r in self.active if r.priority == least][-1])
            return True
        running = self._running()
        peers = [r for r in self.active if r.priority == request.priority]
        most = max((running[r.client] for r in peers), default=0)
        if most < running[request.client] + 2:
            return False
        self.preempt([r for r in peers if running[r.client] == most][-1])
        return True

    def _running(self) -> Counter[str]:
        return Counter(request.client for request in self.active)


def _serial(request: Request) -> int:
    return request.serial
