"""Long work of one request on the event loop, in slices: others go on in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import Any, TypeVar

T = TypeVar("T")

_SLICE = 0.008  # seconds


def at_once(steps: Generator[Any, None, T]) -> T:
    """What ``steps`` returns, without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T = end.value
            return value


async def in_slices(steps: Generator[Any, None, T]) -> T:
    """What ``steps`` returns. It yields wherever it may be left for a while."""
    began = time.perf_counter()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T = end.value
            return value
        if time.perf_counter() - began > _SLICE:
            await asyncio.sleep(0)
            began = time.perf_counter()
