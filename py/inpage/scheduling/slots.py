"""Who has a place at the engine and who waits for one. No engine calls beyond pages: the scheduler makes those.

A place is given in the queue's order, and taken back from whoever has the least priority, from a client that has more
than its share, or for want of memory. Whoever loses it goes back to the queue with what it has; what it computed stays
in its pages as long as nobody needs them, or is saved (`kv.swap`) where they are taken for want of memory.
"""

from __future__ import annotations

from collections import Counter

from ..errors import OutOfMemory
from ..kv import KvManager
from ..requests.request import Request
from .fair_queue import FairQueue


class Seats:
    """``places``: how many requests may run at once. ``active`` is in order of arrival."""

    def __init__(self) -> None:
        self.places = 1
        self.queue = FairQueue()
        self.active: list[Request] = []
        self._kv: KvManager | None = None

    def furnish(self, kv: KvManager, places: int) -> None:
        """Another engine, with pages of its own. Only while nobody is active."""
        assert not self.active
        self._kv, self.places = kv, places

    @property
    def kv(self) -> KvManager:
        assert self._kv is not None
        return self._kv

    def __bool__(self) -> bool:
        """Whether anybody is here."""
        return bool(self.active or self.queue)

    def everyone(self) -> list[Request]:
        return [*self.active, *self.queue]

    def late(self, now: float, patience: float | None) -> list[Request]:
        """Whose deadline is over, and who has waited for longer than ``patience`` seconds: whoever has run once is not
        sent away any more for that."""
        late = [r for r in self.everyone() if r.deadline is not None and r.deadline <= now]
        if patience is not None:
            late += [r for r in self.queue if r.started is None and r.submitted and r.submitted + patience <= now]
        return list(dict.fromkeys(late))

    def wait(self, request: Request) -> None:
        self.queue.push(request, self._running())

    def next(self) -> Request | None:
        """Whose turn it is, if there is a place or one can be taken back for it."""
        request = self.queue.head(self._running())
        return request if request is not None and self._room_for(request) else None

    def sit(self, request: Request) -> None:
        self.queue.remove(request)
        self.active.append(request)
        self.active.sort(key=_serial)

    def stand_up(self, request: Request) -> None:
        """Back to the queue; its pages are given up."""
        self.active.remove(request)
        self.kv.release(request)
        request.scores.clear()
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
        """Pages for its next ``steps`` positions, or at least for one, the youngest's if there are no others. False
        where it has none and is alone."""
        while not await self.kv.cover(request, steps):
            if len(self.active) == 1:
                return False
            youngest = self.active[-1]
            await self.kv.swap.save(youngest)
            self.stand_up(youngest)
            if youngest is request:
                break
        return True

    def no_memory(self, request: Request) -> OutOfMemory:
        return OutOfMemory(
            f"a conversation of {request.length + 1} tokens does not fit: this device has memory for {self.kv.capacity}"
        )

    def _room_for(self, request: Request) -> bool:
        if len(self.active) < self.places:
            return True
        least = min(r.priority for r in self.active)
        if least < request.priority:
            self.stand_up([r for r in self.active if r.priority == least][-1])
            return True
        running = self._running()
        peers = [r for r in self.active if r.priority == request.priority]
        most = max((running[r.client] for r in peers), default=0)
        if most < running[request.client] + 2:
            return False
        self.stand_up([r for r in peers if running[r.client] == most][-1])
        return True

    def _running(self) -> Counter[str]:
        return Counter(request.client for request in self.active)


def _serial(request: Request) -> int:
    return request.serial
