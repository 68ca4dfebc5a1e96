"""Which level fits into so many bytes, by what a page will count: weights, the largest arena, KV pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from inpage.backends.memory_ceiling import kv_bytes
from inpage.errors import OutOfMemory, Unsupported
from inpage.format.plan_types import Plan
from inpage.settings import ModelSettings

from ..artifact import weights
from ..sources import Source


def best_level(levels: Mapping[str, Source], target: int, plans_of: Callable[[Source], Sequence[Plan]]) -> str:
    """The first of ``levels``, the largest first, that fits with room for a conversation of as many tokens as a page
    wants at least. ``plans_of``: its variants' plans; where weights alone are too large they are not made, but at the
    last level. A level that no plan can be made of is passed over. Raises `OutOfMemory` with what each level needs
    where none fits, and `Unsupported` where none can be made."""
    tokens, last = ModelSettings().least_context, list(levels)[-1]
    needed: list[str] = []
    impossible: list[Unsupported] = []
    for name, source in levels.items():
        size = weights.size(source)
        if size >= target and name != last:
            needed.append(f"{name} over {size / 1e6:.1f} MB")
            continue
        try:
            plans = plans_of(source)
        except Unsupported as error:
            impossible.append(error)
            needed.append(f"{name} cannot be made")
            continue
        pages = max(kv_bytes(plan, min(tokens, plan.maxima.context)) for plan in plans)
        need = size + max(plan.arena_bytes for plan in plans) + pages
        if need <= target:
            return name
        needed.append(f"{name} {need / 1e6:.1f} MB")
    if impossible and len(impossible) == len(levels):
        raise impossible[-1]
    raise OutOfMemory(
        f"no level fits target_memory, {target / 1e6:.1f} MB: {', '.join(needed)} (room for {tokens} tokens included)",
        field="target_memory",
    )
