"""Long work of one request on the event loop, in slices: others go on in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

_SLICE = 0.008  # seconds


def at_once(steps: Generator[Any, None, T]) -> T:
    """What ``steps`` returns, without a pause."""
    found: list[T] = []
    for _ in _into(found, steps):
        pass
    return found[0]


async def in_slices(steps: Generator[Any, None, T]) -> T:
    """What ``steps`` returns. It yields wherever it may be left for a while."""
    found: list[T] = []
    began = time.perf_counter()
    for _ in _into(found, steps):
        if time.perf_counter() - began > _SLICE:
            await asyncio.sleep(0)
            began = time.perf_counter()
    return found[0]


def _into(found: list[T], steps: Generator[Any, None, T]) -> Iterator[Any]:
    found.append((yield from steps))
