"""How a sequence's tokens lie in KV pages, and which of them a later token sees.

Layers form groups with a block table each (`KvGroup`). A block is the tokens that fill whole pages of every group: what
is shared, kept and swapped is blocks. A group with a sliding window needs only the last ones. Groups with the same
window are one part: their pages of a block come and go together.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from ..format.plan_types import KvGroup

GONE = 0  # a block table's entry for a page that is not there any more


@dataclass(frozen=True, slots=True)
class Part:
    """``groups``: (block table, pages of a block in it) of each. ``pages``: of a block in all of them. ``reach``: the
    blocks before a block that its first token sees; None for all."""

    window: int | None
    groups: tuple[tuple[int, int], ...]
    pages: int
    reach: int | None

    def needed(self, blocks: int) -> int:
        """The first block that a sequence needs which continues after so many."""
        return 0 if self.reach is None else max(0, blocks - self.reach)


class Blocks:
    """Of one engine. ``groups``: as `EngineInfo.groups`. ``tokens`` and ``pages``: of a block. The part that sees
    everything is the first, if there is one."""

    def __init__(self, page_tokens: int, groups: Sequence[KvGroup] = ()) -> None:
        groups = groups or (KvGroup((), page_tokens),)
        self.tokens = size = math.lcm(*(group.page_tokens for group in groups))
        self.tables = len(groups)
        parts = []
        for window in sorted({group.window for group in groups}, key=lambda w: w or 0):
            mine = tuple((i, size // g.page_tokens) for i, g in enumerate(groups) if g.window == window)
            reach = None if window is None else -(-(window - 1) // size)
            parts.append(Part(window, mine, sum(pages for _, pages in mine), reach))
        self.parts = tuple(parts)
        self.pages = sum(part.pages for part in parts)
        self.whole = parts[0].window is None
        self.windowed = parts[-1].window is not None

    def of(self, tokens: int) -> int:
        """How many hold ``tokens`` tokens."""
        return -(-tokens // self.tokens)

    def most(self, part: Part, rows: int) -> float:
        """Blocks of a part that a sequence has at once, while ``rows`` of its tokens are fed in a step."""
        return math.inf if part.reach is None else part.reach + 1 + (self.tokens - 2 + rows) // self.tokens

    def need(self, tokens: int, rows: int) -> int:
        """Pages that a sequence of so many tokens has at once, at most."""
        return sum(int(min(self.of(tokens), self.most(part, rows))) * part.pages for part in self.parts)

    def after(self, blocks: int) -> int:
        """Pages that a sequence needs which continues after so many blocks."""
        return sum((blocks - part.needed(blocks)) * part.pages for part in self.parts)

    def room(self, pages: int, rows: int, context: int) -> int:
        """Tokens of a sequence for which so many pages do."""
        if not self.windowed:
            return pages // self.pages * self.tokens
        blocks = range(self.of(context) + 1)
        return (bisect_right(blocks, pages, key=lambda n: self.need(n * self.tokens, rows)) - 1) * self.tokens


class Tables:
    """The block tables of one sequence, ``lists``, which an engine reads. Of each part the blocks from ``gone`` on are
    there."""

    __slots__ = ("blocks", "gone", "lists")

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.lists: list[list[int]] = [[] for _ in range(blocks.tables)]
        self.gone = [0] * len(blocks.parts)

    def count(self, part: int) -> int:
        """Blocks of a part, those that are gone included."""
        table, pages = self.blocks.parts[part].groups[0]
        return len(self.lists[table]) // pages

    def get(self, part: int, block: int) -> list[int]:
        """Its pages; none where it is gone, or was never there."""
        if block < self.gone[part]:
            return []
        return [p for t, n in self.blocks.parts[part].groups for p in self.lists[t][block * n : (block + 1) * n]]

    def put(self, part: int, block: int, pages: Sequence[int]) -> None:
        """In the place of those that it had, or as the next."""
        at = 0
        for table, n in self.blocks.parts[part].groups:
            self.lists[table][block * n : (block + 1) * n] = pages[at : at + n]
            at += n

    def extend(self, part: int, pages: Sequence[int]) -> None:
        """By whole blocks."""
        each = self.blocks.parts[part].pages
        at = 0
        for table, n in self.blocks.parts[part].groups:
            count = len(pages) // each * n
            self.lists[table] += pages[at : at + count]
            at += count

    def drop(self, part: int, end: int) -> list[int]:
        """Blocks before ``end`` are gone; gives their pages."""
        first, out = self.gone[part], list[int]()
        if end <= first:
            return out
        for table, n in self.blocks.parts[part].groups:
            pages = self.lists[table]
            out += pages[first * n : end * n]
            pages[first * n : end * n] = [GONE] * ((end - first) * n)
        self.gone[part] = end
        return out

    def pages(self) -> list[int]:
        """All that are there."""
        out: list[int] = []
        for part, gone in zip(self.blocks.parts, self.gone, strict=True):
            for table, n in part.groups:
                out += self.lists[table][gone * n :]
        return out
