"""Which level fits into so many bytes, by what a page will count: weights, the largest arena, KV pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from inpage.backends.memory_ceiling import kv_bytes
from inpage.errors import OutOfMemory
from inpage.format.plan_types import Plan
from inpage.settings import ModelSettings

from ..artifact import weights
from ..sources import Source


def best_level(levels: Mapping[str, Source], target: int, plans_of: Callable[[Source], Sequence[Plan]]) -> str:
    """The first of ``levels``, the largest first, that fits with room for a conversation of as many tokens as a page
    wants at least. ``plans_of``: its variants' plans; where weights alone are too large they are not made. Raises
    `OutOfMemory` with what each level needs where none fits."""
    tokens = ModelSettings().least_context

    def beside(source: Source) -> int:
        plans = plans_of(source)
        pages = max(kv_bytes(plan, min(tokens, plan.maxima.context)) for plan in plans)
        return max(plan.arena_bytes for plan in plans) + pages

    sizes = {name: weights.size(source) for name, source in levels.items()}
    more = None
    for name, size in sizes.items():
        if size < target:
            more = beside(levels[name])
            if size + more <= target:
                return name
    more = beside(list(levels.values())[-1]) if more is None else more
    each = ", ".join(f"{name} {(size + more) / 1e6:.1f} MB" for name, size in sizes.items())
    raise OutOfMemory(
        f"no level fits target_memory, {target / 1e6:.1f} MB: {each} (room for {tokens} tokens included)",
        field="target_memory",
    )
