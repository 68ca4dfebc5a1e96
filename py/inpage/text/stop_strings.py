"""Stop strings: an answer ends with the first of them that is complete, and shows nothing of it, wherever token borders
fall. Of two that are complete at the same character, the longer counts."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Text goes in as it comes, and out as soon as no stop string can begin in it any more."""

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise ValueError("an empty stop string would end every answer at once")
        self._stops = tuple(stops)
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> str:
        """What may be shown now. Once ``matched`` is set, everything before the match has been; the rest is dropped."""
        if self.matched is not None:
            return ""
        seen = self._held + text
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := seen.find(stop)) >= 0]
        if found:
            _, at, self.matched = min(found)
            self._held = ""
            return seen[:at]
        keep = max((_overlap(seen, stop) for stop in self._stops), default=0)
        self._held = seen[len(seen) - keep :]
        return seen[: len(seen) - keep]

    def flush(self) -> str:
        """The answer has ended: what was held back belongs to it."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How long the longest end of ``text`` is that ``stop`` begins with."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
