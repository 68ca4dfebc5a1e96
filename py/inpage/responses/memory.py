"""The first tier: the most recently used answers, in this process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from .answer import Answer


class MemoryTier:
    """At most ``entries`` answers; the least recently used goes first."""

    name = "memory"

    def __init__(self, entries: int = 100) -> None:
        self.entries = entries
        self._answers: OrderedDict[str, Answer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    async def get(self, key: str) -> Answer | None:
        answer = self._answers.get(key)
        if answer is not None:
            self._answers.move_to_end(key)
        return answer

    async def put(self, key: str, answer: Answer) -> None:
        self._answers[key] = answer
        self._answers.move_to_end(key)
        while len(self._answers) > self.entries:
            self._answers.popitem(last=False)

    async def remove(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._answers.pop(key, None)

    async def invalidate(self, tag: str | None) -> int:
        """Forget the answers with ``tag``, or all; returns how many."""
        doomed = [key for key, answer in self._answers.items() if tag is None or tag in answer.tags]
        await self.remove(doomed)
        return len(doomed)

    async def close(self) -> None:
        self._answers.clear()
