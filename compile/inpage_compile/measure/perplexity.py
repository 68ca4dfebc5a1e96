"""Perplexity of a compiled model, as ``inpage score`` measures it, and its speed; with the native engine."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from inpage.router import Router
from inpage.router.router import SCORE_WINDOW

T = TypeVar("T")

# Lewis Carroll, 1865, in the public domain; the lines of a paragraph are joined.
TEXT = "Alice's Adventures in Wonderland, chapter V"
_TOKENS = 32  # that speed is measured on


@dataclass(frozen=True, slots=True)
class Scored:
    """``ids``: the text's tokens. ``nats``: of all that were predicted together; ``positions``: how many those are,
    ``bytes``: of the text that they stand for; ``window``: tokens that were read together. ``decode``: tokens a second,
    of one sequence, where it was asked for."""

    ids: list[int] = field(repr=False)
    nats: float
    positions: int
    bytes: int
    window: int
    decode: float | None = None

    @property
    def perplexity(self) -> float:
        """By token."""
        return math.exp(self.nats / self.positions)

    def by_tokens_of(self, other: Scored) -> float:
        """Perplexity if the text had as many tokens as for ``other``, whose tokenizer may be another one: what a byte
        costs here, for as many bytes as a token has there."""
        if self.ids == other.ids:
            return self.perplexity
        return math.exp(self.nats / self.bytes * other.bytes / other.positions)


def text() -> str:
    return Path(__file__).with_name("alice.txt").read_text("utf-8")


def measure(
    folder: Path, levels: Iterable[str], variant: str, *, on: str | None = None, speed: bool = False
) -> list[Scored]:
    """Of each level, "" being the only one, by one of its native variants, on a text, by default `text`. Kernels are
    this process's own: they are trusted. Raises as `Router.load` does, and `InvalidRequest` where text or context are
    too short to predict anything."""
    read = text() if on is None else on
    places = (f"{folder}#{level}" if level else str(folder) for level in levels)
    return [run(_measured(place, variant, read, speed)) for place in places]


async def _measured(place: str, variant: str, read: str, speed: bool) -> Scored:
    async with await Router.load(place, backend=variant, trust=True) as router:
        ids, window = router.encode(read), min(SCORE_WINDOW, router.scheduler.capacity)
        score = await router.score(ids, window)
        predicted = [token for i, token in enumerate(ids) if i % window]
        size = sum(len(router.tokenizer.bytes_of(token)) for token in predicted)
        decode = None
        if speed:
            ends = dict.fromkeys(router.manifest.tokenizer.eos, -100)
            result = await router.complete(read[:200], max_tokens=_TOKENS, temperature=0, logit_bias=ends)
            decode = result.decode_tps
        return Scored(ids, math.fsum(score.nll), len(score.nll), size, window, decode)


def run(work: Coroutine[Any, Any, T]) -> T:
    """To its end, in a thread of its own: who compiles may have an event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
