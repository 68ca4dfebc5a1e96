"""Requests in no hurry wait a moment for each other, so that their prompts are read in one step instead of one each.

Whoever is in a hurry, most requests are, never waits and ends the waiting of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection

from ..requests.request import Request


class Gathering:
    """``patience``: seconds that the first of them waits at most; ``size``: so many need no more."""

    def __init__(self, patience: float, size: int) -> None:
        self._patience = patience
        self._size = size
        self._stirred = asyncio.Event()

    def stir(self) -> None:
        """Somebody came, or went: look again."""
        self._stirred.set()

    async def gather(self, waiting: Collection[Request]) -> bool:
        """Nobody runs: while these are too few, none is in a hurry and the first has not waited long enough, wait until
        something happens. Gives whether it waited: then look again."""
        if not waiting or len(waiting) >= self._size or any(map(_hurries, waiting)):
            return False
        left = min(r.submitted or 0.0 for r in waiting) + self._patience - time.perf_counter()
        if left <= 0:
            return False
        self._stirred.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stirred.wait(), left)
        return True


def _hurries(request: Request) -> bool:
    """Whoever has run before has waited already."""
    late = request.priority >= 0 or request.deadline is not None
    return late or request.cancelled or request.started is not None
