"""Perplexity of a model on a text, by independent windows: the tool that checks a conversion or a kernel.

Each window starts with an empty context; positions 1 to its end are predicted, and all predictions together give the
perplexity (llama.cpp's and Hugging Face's convention differs only in how windows overlap; here they do not).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..engines.protocol import Logprob
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
            rows += (await _scored(scheduler, Request(part[:-1], targets=part[1:]))).scores
    return Score([row[1] for row in rows], [row[0] for row in rows], [row[2] for row in rows])


async def logprobs(scheduler: Scheduler, ids: Sequence[int], top: int) -> list[Logprob]:
    """Of each id but the first, after all before it, with so many of the likeliest."""
    request = await _scored(scheduler, Request(ids[:-1], targets=ids[1:], top=top or None))
    tops = [one.top for one in request.logprobs] if top else [()] * (len(ids) - 1)
    rows = zip(ids[1:], request.scores, tops, strict=True)
    return [Logprob(token, -nll, likeliest) for token, (_, nll, _), likeliest in rows]


async def _scored(scheduler: Scheduler, request: Request) -> Request:
    scheduler.submit(request)
    try:
        event = await request.events.get()
    finally:
        scheduler.cancel(request)
    if isinstance(event, BaseException):
        raise event
    return request
