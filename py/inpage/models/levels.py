"""How much memory a model takes at each level that it comes in, and the best level that fits.

A level is one precision of the model (an artifact may carry several, or there are several artifacts, the best first)
with the variants that may run: without the variant that has the largest arena the model takes less. Each level can be
had with a shorter context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..kv import Blocks


@dataclass(frozen=True, slots=True)
class Level:
    """``fixed``: bytes of weights and of the largest arena; ``page_bytes``: of a KV page; ``blocks``: how tokens lie in
    pages; ``refused``: why other variants may not run, by name."""

    artifact: int  # its place among the model's precisions, the best being 0
    name: str
    fixed: int
    page_bytes: int
    blocks: Blocks
    context: int  # tokens of one conversation
    conversations: int  # that run at once
    refused: tuple[tuple[str, str], ...] = ()
    engines: int = 1  # that are wanted of it
    extra: int = 0  # bytes of each after the first, without KV pages
    rows: int = 1  # tokens of a step

    def kv_bytes(self, tokens: int) -> int:
        """Of so many tokens in one conversation."""
        return self.blocks.need(tokens, self.rows) * self.page_bytes

    def need(self, tokens: int) -> int:
        """Bytes of the model with room for one conversation of so many tokens."""
        return self.fixed + self.kv_bytes(tokens)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a model may hold: ``total`` bytes, ``kv`` of them for KV pages; None: as many as the device has, without a
    budget. ``tokens``: of one conversation at least."""

    level: Level
    total: int
    kv: int | None
    tokens: int


def best_fit(levels: Sequence[Level], room: int, *, share: int, least: int) -> Grant | None:
    """The first precision that fits into ``room`` bytes, with the longest context, then with the most variants.

    ``least``: tokens that a conversation must have room for. ``share``: bytes up to which a model may use more than one
    conversation needs, for several at once."""
    for artifact in dict.fromkeys(level.artifact for level in levels):
        group = [level for level in levels if level.artifact == artifact]
        tokens = max(level.context for level in group)
        while True:
            for level in group:
                wanted = min(tokens, level.context)
                if level.need(wanted) <= room:
                    most = level.conversations * level.kv_bytes(level.context)
                    kv = max(level.kv_bytes(wanted), min(share - level.fixed, most), _replicas(level, room))
                    kv = min(kv, room - level.fixed)
                    return Grant(level, level.fixed + kv, kv, wanted)
            if tokens <= least:
                break
            tokens = max(tokens // 2, least)
    return None


def holding(levels: Sequence[Level], tokens: int) -> list[Level]:
    """Those in which one conversation can have so many tokens."""
    return [level for level in levels if level.context >= tokens]


def smallest(levels: Sequence[Level], least: int) -> Grant:
    """With which the model takes the least memory."""
    level = min(levels, key=lambda level: level.need(min(least, level.context)))
    tokens = min(least, level.context)
    return Grant(level, level.need(tokens), level.kv_bytes(tokens), tokens)


def next_lower(levels: Sequence[Level], artifact: int) -> Grant | None:
    """The precision after ``artifact``, without a budget; None where that is the last."""
    level = next((level for level in levels if level.artifact > artifact), None)
    return None if level is None else Grant(level, level.fixed, None, level.context)


def _replicas(level: Level, room: int) -> int:
    """Bytes beyond the first engine's own for as many engines as there is room for, a whole context in each."""
    whole = level.kv_bytes(level.context)
    sizes = (n * whole + (n - 1) * level.extra for n in range(level.engines, 1, -1))
    return next((size for size in sizes if level.fixed + size <= room), 0)


def needs(levels: Sequence[Level], least: int) -> dict[str, int]:
    """Bytes that each precision needs at least, by name, the best first."""
    out: dict[int, tuple[str, int]] = {}
    for level in levels:
        need = level.need(min(least, level.context))
        out[level.artifact] = (level.name, min(need, out.get(level.artifact, ("", need))[1]))
    return {f"{name} ({i})" if [n for n, _ in out.values()].count(name) > 1 else name: need
            for i, (name, need) in out.items()}  # fmt: skip
