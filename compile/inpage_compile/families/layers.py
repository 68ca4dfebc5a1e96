"""Which layers see everything and which a window, and how their keys and values share pages.

Pages of all groups are of one size, so groups have as many layers each: those of the rarer kind are one group, those of
the other kind several (as vLLM does it). A group that lacks layers leaves its pages' rest unused."""

from __future__ import annotations

from dataclasses import dataclass

from inpage.format.plan_types import KvGroup
from inpage.format.schema import Architecture

from ..kernels.shared.heads import EVERYTHING, PAGE, Place

_GROUPS = 16  # of a kind at most: each has a block table of its own


@dataclass(frozen=True, slots=True)
class Layout:
    """``groups``: of layers with their own block tables; empty where all layers are one and none has a window.
    ``slots``: layers of a page."""

    layers: int
    slots: int
    groups: tuple[KvGroup, ...] = ()

    @property
    def tables(self) -> int:
        return max(1, len(self.groups))

    def places(self, blocks: int) -> list[Place]:
        """Of each layer. ``blocks``: columns of one group's block table."""
        if not self.groups:
            return [Place(layer) for layer in range(self.layers)]
        found = {
            layer: Place(slot, i * blocks, group.window or EVERYTHING)
            for i, group in enumerate(self.groups)
            for slot, layer in enumerate(group.layers)
        }
        return [found[layer] for layer in range(self.layers)]


def layout_of(a: Architecture) -> Layout:
    if not 0 < a.window < a.context:
        return Layout(a.layers, a.layers)
    whole = [layer for layer in a.whole_layers if layer < a.layers]
    kinds = [(whole, None), ([layer for layer in range(a.layers) if layer not in whole], a.window)]
    kinds = [kind for kind in kinds if kind[0]]
    most = max(len(layers) for layers, _ in kinds)
    slots = max(min(len(layers) for layers, _ in kinds), -(-most // _GROUPS))
    groups = [
        KvGroup(tuple(layers[first : first + slots]), PAGE, window)
        for layers, window in kinds
        for first in range(0, len(layers), slots)
    ]
    if all(group.window is None for group in groups):
        return Layout(a.layers, a.layers)
    return Layout(a.layers, slots, tuple(groups))
