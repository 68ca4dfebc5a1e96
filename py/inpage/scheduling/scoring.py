"""Perplexity of a model on a text, by independent windows: the tool that checks a conversion or a kernel.

Each window starts with an empty context; positions 1 to its end are predicted, and all predictions together give the
perplexity (llama.cpp's and Hugging Face's convention differs only in how windows overlap; here they do not).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..requests.request import Request
from .scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class Score:
    """Per predicted position, windows concatenated: ``nll`` in nats, ``argmax`` the most likely id, ``margin`` the
    top-1 minus the top-2 logit."""

    nll: list[float]
    argmax: list[int]
    margin: list[float]

    @property
    def perplexity(self) -> float:
        return math.exp(math.fsum(self.nll) / len(self.nll))


async def score(scheduler: Scheduler, ids: Sequence[int], window: int) -> Score:
    """Windows of ``window`` ids one after another; a last window of a single id predicts nothing."""
    rows: list[tuple[int, float, float]] = []
    for start in range(0, len(ids), window):
        part = ids[start : start + window]
        if len(part) > 1:
            # The last id is never fed: nothing is predicted from it.
            request = Request(part[:-1], targets=part[1:])
            scheduler.submit(request)
            try:
                event = await request.events.get()
            finally:
                scheduler.cancel(request)
            if isinstance(event, BaseException):
                raise event
            rows += request.scores
    return Score([row[1] for row in rows], [row[0] for row in rows], [row[2] for row in rows])
