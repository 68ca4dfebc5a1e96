"""Whose turn it is: higher priority first, then the client that has been served least, then whoever came first.

Service is counted in tokens, read and written, by client. A client that comes back after a pause starts level with the
least served of those that are busy: idling earns no credit, and having been busy alone costs none.
(Virtual token counters, as in Sheng et al., "Fairness in Serving Large Language Models", 2024.)
"""

from __future__ import annotations

from collections.abc import Iterator

from .request import Request

_READ = 0.25  # what reading a token costs, where writing one costs 1: they are computed together


class FairQueue:
    """The waiting requests. ``busy`` tells it which clients have requests running."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Request]] = {}  # by client, in order of `_place`
        self._served: dict[str, float] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Request]:
        """In the order of their turns, if nobody were served meanwhile."""
        return iter(sorted((r for queue in self._waiting.values() for r in queue), key=self._turn))

    def push(self, request: Request, busy: set[str]) -> None:
        """Queue it: behind its client's earlier ones, before later ones: it may have run and lost its place."""
        client = request.client
        if client not in busy and client not in self._waiting:
            level = min((self._served[c] for c in busy | set(self._waiting)), default=0.0)
            self._served[client] = max(self._served.get(client, 0.0), level)
        queue = self._waiting.setdefault(client, [])
        queue.append(request)
        queue.sort(key=_place)
        self._size += 1

    def head(self) -> Request | None:
        """Whose turn it is."""
        return min((queue[0] for queue in self._waiting.values()), key=self._turn, default=None)

    def remove(self, request: Request) -> bool:
        """Take it out; False if it does not wait here."""
        queue = self._waiting.get(request.client, [])
        if request not in queue:
            return False
        queue.remove(request)
        if not queue:
            del self._waiting[request.client]
        self._size -= 1
        return True

    def serve(self, client: str, read: int = 0, written: int = 0) -> None:
        """The client's requests had these tokens computed."""
        self._served[client] = self._served.get(client, 0.0) + _READ * read + written

    def served(self, client: str) -> float:
        return self._served.get(client, 0.0)

    def settle(self, busy: set[str]) -> None:
        """Forget clients that have nothing here any more. What they had been served is forgotten with them, which is
        fair only because a client that comes back starts level with the others."""
        for client in [c for c in self._served if c not in busy and c not in self._waiting]:
            del self._served[client]

    def clear(self) -> list[Request]:
        """Empty it; returns what waited."""
        everyone = list(self)
        self._waiting.clear()
        self._size = 0
        return everyone

    def _turn(self, request: Request) -> tuple[int, float, int]:
        return -request.priority, self.served(request.client), request.serial


def _place(request: Request) -> tuple[int, int]:
    return -request.priority, request.serial
