"""The batch window: requests of low priority wait a moment for each other, so that one step prefills several prompts.

A request that must not wait, as most must not, closes the window at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection

from ..requests.request import Request


class BatchWindow:
    """``patience``: seconds that the first of them waits at most; ``size``: so many need no more."""

    def __init__(self, patience: float, size: int) -> None:
        self._patience = patience
        self._size = size
        self._notified = asyncio.Event()

    def notify(self) -> None:
        """A request came or ended, or pages were given back: look again."""
        self._notified.set()

    async def gather(self, waiting: Collection[Request]) -> bool:
        """Nobody runs: while these are too few, none is in a hurry and the first has not waited long enough, wait until
        something happens. Gives whether it waited: then look again."""
        if not waiting or len(waiting) >= self._size or any(map(_hurries, waiting)):
            return False
        left = min(r.submitted or 0.0 for r in waiting) + self._patience - time.perf_counter()
        if left <= 0:
            return False
        await self.pause(left)
        return True

    async def pause(self, seconds: float) -> None:
        """Until something happens; so long at most."""
        self._notified.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._notified.wait()


def _hurries(request: Request) -> bool:
    """Whoever has run before has waited already."""
    late = request.priority >= 0 or request.deadline is not None
    return late or request.cancelled or request.started is not None
