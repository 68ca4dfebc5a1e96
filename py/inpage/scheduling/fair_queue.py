"""Whose turn it is: higher priority first, then the client that has been served least, then whoever came first.

Service is counted in tokens, read and written, by client. A client that comes back after a pause starts level with the
least served of those that are busy: idling earns no credit, and having been busy alone costs none.
(Virtual token counters, as in Sheng et al., "Fairness in Serving Large Language Models", 2024.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..requests.request import Request

_READ = 0.25  # what reading a token costs, where writing one costs 1: they are computed together
_CLIENTS = 1000  # whose service is remembered while others are busy


class FairQueue:
    """The waiting requests. ``running``: how many requests each client has running."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Request]] = {}  # by client, in order of `_place`
        self._served: dict[str, float] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Request]:
        """In order of priority and arrival."""
        return iter(sorted((r for queue in self._waiting.values() for r in queue), key=_place))

    def __contains__(self, request: object) -> bool:
        return isinstance(request, Request) and request in self._waiting.get(request.client, ())

    def push(self, request: Request, running: Mapping[str, int]) -> None:
        """Queue it: behind its client's earlier ones, before later ones: it may have run and lost its place."""
        client = request.client
        if not running.get(client) and client not in self._waiting:
            level = min((self.served(c) for c in {*running, *self._waiting}), default=0.0)
            self._served[client] = max(self._served.get(client, 0.0), level)
            if len(self._served) > _CLIENTS:
                here = {*running, *self._waiting, client}
                self._served = {c: served for c, served in self._served.items() if c in here}
        queue = self._waiting.setdefault(client, [])
        queue.append(request)
        queue.sort(key=_place)
        self._size += 1

    def head(self, running: Mapping[str, int]) -> Request | None:
        """Whose turn it is. Of clients served alike, the one with less running."""

        def turn(request: Request) -> tuple[int, float, int, int]:
            client = request.client
            return -request.priority, self.served(client), running.get(client, 0), request.serial

        return min((queue[0] for queue in self._waiting.values()), key=turn, default=None)

    def remove(self, request: Request) -> None:
        """Take it out. Raises ValueError if it does not wait here."""
        queue = self._waiting.get(request.client, [])
        queue.remove(request)
        if not queue:
            del self._waiting[request.client]
        self._size -= 1

    def serve(self, client: str, read: int = 0, written: int = 0) -> None:
        """The client's requests had these tokens computed."""
        self._served[client] = self._served.get(client, 0.0) + _READ * read + written

    def served(self, client: str) -> float:
        return self._served.get(client, 0.0)

    def settle(self) -> None:
        """Nobody runs or waits any more: what anyone was served does not matter from here on."""
        if not self._size:
            self._served.clear()


def _place(request: Request) -> tuple[int, int]:
    return -request.priority, request.serial
