"""Whether an answer goes in circles: its last tokens are one block, again and again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

LEAST = 32  # tokens in all: a row of a table, a number or a laugh may well repeat one token
PERIOD = 256  # tokens of the longest block


class Rounds:
    """``most``: copies of a block behind each other that are enough, and more of a short one, up to `LEAST` tokens."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._places: dict[int, deque[int]] = {}  # of each token, not further back than `PERIOD`
        self._runs: dict[int, int] = {}  # by period: how many tokens now are what they were so many before
        self._count = 0

    def push(self, tokens: Iterable[int]) -> int | None:
        """How many of these tokens it takes until there are enough copies; None where there are not."""
        for i, token in enumerate(tokens):
            if self._push(token):
                return i + 1
        return None

    def _push(self, token: int) -> bool:
        at, places = self._count, self._places.setdefault(token, deque())
        while places and places[0] < at - PERIOD:
            places.popleft()
        self._runs = {at - place: self._runs.get(at - place, 0) + 1 for place in places}
        places.append(at)
        self._count += 1
        return any(run >= period * (max(self._most, -(-LEAST // period)) - 1) for period, run in self._runs.items())
