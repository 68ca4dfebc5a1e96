"""Finite automata over code points: what patterns, formats, lengths and names have in common, so that they can be
joined, excluded and counted together. Sets of code points are sorted tuples of ranges, both ends included."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

Ranges = tuple[tuple[int, int], ...]
State = TypeVar("State", bound=Hashable)

# JSON text in UTF-8 holds no lone surrogates.
ANY: Ranges = ((0, 0xD7FF), (0xE000, 0x10FFFF))
STATES = 2000  # of one automaton while it is built
WORK = 300_000  # of one schema: edges and sets of characters that are looked at; about a second
_left: ContextVar[list[int] | None] = ContextVar("left", default=None)


class TooLarge(Exception):
    """More states than `STATES`, or more work than `WORK`."""


@contextmanager
def limited(work: int | None) -> Iterator[None]:
    """All automata made within take so much work at most; None: any."""
    before = _left.set(None if work is None else [work])
    try:
        yield
    finally:
        _left.reset(before)


def spend(work: int) -> None:
    left = _left.get()
    if left is not None:
        left[0] -= work
        if left[0] < 0:
            raise TooLarge


@dataclass(frozen=True, slots=True)
class Dfa:
    """``edges[state]``: sorted (low, high, target); what is in none of them leads nowhere. It starts in state 0."""

    edges: tuple[tuple[tuple[int, int, int], ...], ...]
    final: tuple[bool, ...]

    def __hash__(self) -> int:  # cheap, as it is part of the key of each rule
        return hash((len(self.edges), self.edges[0], self.edges[-1]))

    @property
    def empty(self) -> bool:
        """Whether it accepts nothing."""
        return not any(self.final)

    def accepts(self, text: str) -> bool:
        state = 0
        for char in map(ord, text):
            for low, high, target in self.edges[state]:
                if low <= char <= high:
                    state = target
                    break
            else:
                return False
        return self.final[state]


NOTHING = Dfa(((),), (False,))
EVERYTHING = Dfa((tuple((low, high, 0) for low, high in ANY),), (True,))


def union(*sets: Ranges) -> Ranges:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(pair for each in sets for pair in each):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        else:
            merged.append((low, high))
    return tuple(merged)


def common(a: Ranges, b: Ranges) -> Ranges:
    return union(tuple((max(x, u), min(y, v)) for x, y in a for u, v in b if max(x, u) <= min(y, v)))


def without(a: Ranges, b: Ranges) -> Ranges:
    gaps, at = [], 0
    for low, high in b:
        if at < low:
            gaps.append((at, low - 1))
        at = high + 1
    gaps.append((at, 0x10FFFF))
    return common(a, tuple(gaps))


def explore(start: State, step: Callable[[State], tuple[bool, Iterable[tuple[int, int, State]]]]) -> Dfa:
    """The automaton that ``step`` walks: of a state, whether it is final, and its edges, which must not overlap."""
    index = {start: 0}
    order = [start]
    edges: list[tuple[tuple[int, int, int], ...]] = []
    final: list[bool] = []
    for state in order:  # grows meanwhile
        ends, outgoing = step(state)
        row = []
        for low, high, target in outgoing:
            if target not in index:
                index[target] = len(order)
                order.append(target)
                if len(order) > STATES:
                    raise TooLarge
            row.append((low, high, index[target]))
        spend(len(row) + 1)
        edges.append(tuple(sorted(row)))
        final.append(ends)
    return minimal(Dfa(tuple(edges), tuple(final)))


def both(a: Dfa, b: Dfa) -> Dfa:
    if a == EVERYTHING or b == EVERYTHING:
        return b if a == EVERYTHING else a

    def step(state: tuple[int, int]) -> tuple[bool, list[tuple[int, int, tuple[int, int]]]]:
        i, j = state
        out = []
        for low, high, p in a.edges[i]:
            for least, most, q in b.edges[j]:
                if max(low, least) <= min(high, most):
                    out.append((max(low, least), min(high, most), (p, q)))
        return a.final[i] and b.final[j], out

    return explore((0, 0), step)


def complement(a: Dfa) -> Dfa:
    def step(state: int) -> tuple[bool, list[tuple[int, int, int]]]:
        if state < 0:
            return True, [(low, high, -1) for low, high in ANY]
        row = a.edges[state]
        covered = union(tuple((low, high) for low, high, _ in row))
        return not a.final[state], [*row, *((low, high, -1) for low, high in without(ANY, covered))]

    return explore(0, step)


def words(texts: Iterable[str]) -> Dfa:
    """Exactly these."""

    def step(rests: tuple[str, ...]) -> tuple[bool, list[tuple[int, int, tuple[str, ...]]]]:
        after: dict[str, list[str]] = {}
        for rest in rests:
            if rest:
                after.setdefault(rest[0], []).append(rest[1:])
        return "" in rests, [(ord(c), ord(c), tuple(more)) for c, more in after.items()]

    return explore(tuple(sorted(set(texts))), step)


def lengths(least: int, most: int | None) -> Dfa:
    """All texts of so many code points."""
    last = least if most is None else most + 1

    def step(n: int) -> tuple[bool, list[tuple[int, int, int]]]:
        if most is not None and n > most:
            return False, []
        return n >= least, [(low, high, min(n + 1, last)) for low, high in ANY]

    return explore(0, step)


def minimal(a: Dfa) -> Dfa:
    """The smallest that accepts the same (Moore), without states from which nothing is accepted."""
    nearest, farthest = _distances(a)
    if nearest[0] is None:
        return NOTHING
    # Equal states accept equally long texts: a partition so fine to begin with leaves few rounds, even of a long chain.
    block = _named(zip(a.final, nearest, farthest, strict=True))
    count = max(block) + 1
    while True:
        spend(len(block) // 2)
        rows = [_row(row, block, nearest) for row in a.edges]
        block = _named(zip(block, rows, strict=True))
        if max(block) + 1 == count:
            break
        count = max(block) + 1
    index = {block[0]: 0}
    queue = [0]
    edges: list[tuple[tuple[int, int, int], ...]] = []
    for state in queue:
        for _, _, target in a.edges[state]:
            if nearest[target] is not None and block[target] not in index:
                index[block[target]] = len(index)
                queue.append(target)
        edges.append(tuple((low, high, index[t]) for low, high, t in _row(a.edges[state], block, nearest)))
    return Dfa(tuple(edges), tuple(a.final[state] for state in queue))


def _named(signs: Iterable[object]) -> list[int]:
    names: dict[object, int] = {}
    return [names.setdefault(sign, len(names)) for sign in signs]


def _row(
    edges: Iterable[tuple[int, int, int]], block: Sequence[int], nearest: Sequence[int | None]
) -> tuple[tuple[int, int, int], ...]:
    row: list[tuple[int, int, int]] = []
    for low, high, target in edges:
        if nearest[target] is None:
            continue
        if row and row[-1][1] + 1 == low and row[-1][2] == block[target]:
            row[-1] = row[-1][0], high, block[target]
        else:
            row.append((low, high, block[target]))
    return tuple(row)


def _distances(a: Dfa) -> tuple[list[int | None], list[int | None]]:
    """Of each state: characters of the shortest text that is accepted from it, None where there is none, and steps of
    the longest way on, None where it has no end."""
    before: list[list[int]] = [[] for _ in a.final]
    for state, row in enumerate(a.edges):
        for target in {target for _, _, target in row}:
            before[target].append(state)
    nearest: list[int | None] = [0 if end else None for end in a.final]
    queue = [state for state, end in enumerate(a.final) if end]
    for state in queue:
        for earlier in before[state]:
            if nearest[earlier] is None:
                nearest[earlier] = (nearest[state] or 0) + 1
                queue.append(earlier)
    # Ways from which nothing is accepted do not count.
    ahead = [len({t for _, _, t in row if nearest[t] is not None}) for row in a.edges]
    farthest: list[int | None] = [None] * len(a.final)
    queue = [state for state, n in enumerate(ahead) if n == 0 and nearest[state] is not None]
    for state in queue:
        ways = [farthest[t] or 0 for _, _, t in a.edges[state] if nearest[t] is not None]
        farthest[state] = max(ways, default=-1) + 1
        for earlier in before[state]:
            ahead[earlier] -= 1
            if ahead[earlier] == 0 and nearest[earlier] is not None:
                queue.append(earlier)
    return nearest, farthest
