"""Guided decoding and logprobs: requests whose tokens a grammar restricts, or that report the likeliest tokens.

Both sides of what the engine worker (web/engine/grammar/stepwise.js) is told and tells of them."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequest
from .protocol import Grammar, Logprob, SequenceInput

MAX_TOP = 20
FIELDS = {"schema": "schema", "regex": "regex", "ebnf": "grammar", "tag": "tools"}  # by kind: what a caller calls it
_REPORT = 1 + 2 * MAX_TOP  # doubles of one choice: its logprob, then pairs of id and logprob, -1 where there are fewer


@dataclass(frozen=True, slots=True)
class Held:
    """An answer so far, and what it is held to. ``request``: by which its state is kept."""

    grammar: Grammar
    request: str
    tokens: list[int]


def guidance(places: Iterable[tuple[int, SequenceInput]]) -> dict[str, Any]:
    """The fields of a step or burst, by struct: ``constraints`` and ``tops``. Empty where nobody asks."""
    placed = sorted(places, key=_place)
    constraints = [
        {"sequence": i, "id": feed.request, "kind": feed.grammar.kind, "source": feed.grammar.source,
         "tokens": array("i", feed.answer)}
        for i, feed in placed if feed.grammar is not None
    ]  # fmt: skip
    told: dict[str, Any] = {"constraints": constraints} if constraints else {}
    if any(feed.top is not None for _, feed in placed):
        told["tops"] = array("i", [-1 if feed.top is None else _checked(feed.top) for _, feed in placed])
    return told


def logprobs_in(report: bytes | None, choice: int, token: int, top: int | None) -> list[Logprob]:
    """What a report says of its ``choice``; empty where ``top`` did not ask."""
    if top is None or not report:
        return []
    numbers = memoryview(report).cast("d")[choice * _REPORT : (choice + 1) * _REPORT]
    pairs = tuple((int(numbers[1 + 2 * k]), numbers[2 + 2 * k]) for k in range(top) if numbers[1 + 2 * k] >= 0)
    return [Logprob(token, numbers[0], pairs)]


def likeliest(logits: Sequence[float], token: int, logprob: float, top: int) -> Logprob:
    """The same from a row of logits, whose ``token`` was chosen at ``logprob``."""
    if not top:
        return Logprob(token, logprob)
    log_sum = logits[token] - logprob
    best = heapq.nlargest(_checked(top), range(len(logits)), key=logits.__getitem__)
    return Logprob(token, logprob, tuple((i, logits[i] - log_sum) for i in best))


def _checked(top: int) -> int:
    if not 0 <= top <= MAX_TOP:
        raise InvalidRequest(f"{top} likeliest tokens; at most {MAX_TOP} can be told", field="logprobs")
    return top


def _place(placed: tuple[int, SequenceInput]) -> int:
    return placed[0]
