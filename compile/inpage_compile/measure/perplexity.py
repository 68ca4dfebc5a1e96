"""Perplexity and speed of an artifact's levels, with the native engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from inpage.router import Router

# Lewis Carroll, 1865, in the public domain; the lines of a paragraph are joined.
TEXT = "Alice's Adventures in Wonderland, chapter V"
WINDOW = 512
_TOKENS = 32  # that speed is measured on


@dataclass(frozen=True, slots=True)
class Measured:
    """``value``: perplexity; ``decode``: tokens a second, of one sequence, where it was asked for."""

    value: float
    positions: int
    window: int
    decode: float | None = None


def text() -> str:
    return Path(__file__).with_name("alice.txt").read_text("utf-8")


def measure(folder: Path, levels: Iterable[str], variant: str, *, speed: bool = False) -> list[Measured]:
    """Of each level, "" being the only one, by one of its native variants. Kernels are this process's own: they are
    trusted. Raises as `Router.load` does, and `InvalidRequest` where the context is too short to predict anything."""
    places = (f"{folder}#{level}" if level else str(folder) for level in levels)
    return [asyncio.run(_measured(place, variant, speed)) for place in places]


async def _measured(place: str, variant: str, speed: bool) -> Measured:
    async with await Router.load(place, backend=variant, trust=True) as router:
        window = min(WINDOW, router.info["context"])
        score = await router.score(text(), window)
        decode = None
        if speed:
            ends = dict.fromkeys(router.manifest.tokenizer.eos, -100)
            result = await router.complete(text()[:200], max_tokens=_TOKENS, temperature=0, logit_bias=ends)
            decode = result.decode_tps
        return Measured(score.perplexity, len(score.nll), window, decode)
