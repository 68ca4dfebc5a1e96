"""Where what passes from launch to launch lies: one or two arenas, whose bytes are used again once nobody needs them.

Two arenas for WebGPU, where a launch may not read from the arena that it writes: tensors are coloured so that what a
launch reads and what it writes fall apart. Offsets: largest tensor first, each at the lowest place that is free while
it lives ("greedy by size", Pisarchyk & Lee, "Efficient memory management for deep neural net inference", 2020).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inpage.format.limits import ALIGN


@dataclass(frozen=True)
class Use:
    """One launch's arena tensors: ids and how it accesses each (r, w, x)."""

    tensors: tuple[tuple[int, str], ...]


def arenas_of(uses: Sequence[Use]) -> dict[int, int]:
    """Tensor → arena 0 or 1, so that no launch reads the arena that it writes. ValueError where there is no way."""
    apart: dict[int, set[int]] = defaultdict(set)
    order: list[int] = []
    for use in uses:
        for tensor, access in use.tensors:
            order.append(tensor)
            for other, its in use.tensors:
                if (access == "r") != (its == "r"):
                    apart[tensor].add(other)
    arena: dict[int, int] = {}
    for first in order:
        if first in arena:
            continue
        arena[first] = 0
        waiting = [first]
        while waiting:
            tensor = waiting.pop()
            for other in apart[tensor]:
                if other not in arena:
                    arena[other] = 1 - arena[tensor]
                    waiting.append(other)
                elif arena[other] == arena[tensor]:
                    raise ValueError(f"tensors {tensor} and {other} cannot lie in two arenas")
    return arena


def place(uses: Sequence[Use], sizes: Mapping[int, int], arena: Mapping[int, int]) -> tuple[dict[int, int], list[int]]:
    """(tensor → offset in its arena, bytes of each arena)."""
    life: dict[int, tuple[int, int]] = {}
    for at, use in enumerate(uses):
        for tensor, _ in use.tensors:
            life[tensor] = (life.get(tensor, (at, at))[0], at)
    offsets: dict[int, int] = {}
    totals = [0] * (max(arena.values(), default=0) + 1)
    for tensor in sorted(life, key=lambda t: (-sizes[t], life[t][0])):
        size = -(-sizes[tensor] // ALIGN) * ALIGN
        busy = sorted(
            (offsets[o], offsets[o] + -(-sizes[o] // ALIGN) * ALIGN)
            for o in offsets
            if arena[o] == arena[tensor] and life[o][0] <= life[tensor][1] and life[tensor][0] <= life[o][1]
        )
        at = 0
        for start, end in busy:
            if at + size <= start:
                break
            at = max(at, end)
        offsets[tensor] = at
        totals[arena[tensor]] = max(totals[arena[tensor]], at + size)
    return offsets, totals
