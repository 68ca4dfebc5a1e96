"""Perplexity of a compiled model, as ``inpage score`` measures it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from inpage.router import Router
from inpage.router.router import SCORE_WINDOW

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scored:
    """``ids``: the text's tokens. ``nats``: of all that were predicted together; ``positions``: how many those are,
    ``bytes``: of the text that they stand for."""

    ids: list[int]
    nats: float
    positions: int
    bytes: int

    @property
    def perplexity(self) -> float:
        """By token."""
        return math.exp(self.nats / self.positions)

    def by_tokens_of(self, other: Scored) -> float:
        """Perplexity if the text had as many tokens as for ``other``, whose tokenizer may be another one: what a byte
        costs here, for as many bytes as a token has there."""
        return math.exp(self.nats / self.bytes * other.bytes / other.positions)


def scored(folder: Path, text: str) -> Scored:
    """What ``inpage score`` says of an artifact with a native variant and a text, and what it is computed from."""
    return run(_score(folder, text))


async def _score(folder: Path, text: str) -> Scored:
    async with await Router.load(folder, backend="native") as router:
        ids, window = router.encode(text), min(SCORE_WINDOW, router.scheduler.capacity)
        score = await router.score(ids, window)
        predicted = [token for i, token in enumerate(ids) if i % window]
        size = sum(len(router.tokenizer.bytes_of(token)) for token in predicted)
        return Scored(ids, math.fsum(score.nll), len(score.nll), size)


def run(work: Coroutine[Any, Any, T]) -> T:
    """To its end, in a thread of its own: who compiles may have an event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
