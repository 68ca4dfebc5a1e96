"""Which layers see everything, which a window, which are short convolutions, and how what they keep shares pages.

Pages of all groups are of one size, so groups have as many layers each: those of the rarest kind are one group, those
of the others several (as vLLM does it). A group that lacks layers leaves its pages' rest unused. A convolution keeps a
row a token, as a layer with a window of its taps keeps keys and values; where that is longer, its pages hold fewer
tokens."""

from __future__ import annotations

from dataclasses import dataclass

from inpage.errors import Unsupported
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

    def places(self, context: int) -> list[Place]:
        """Of each layer in a model of that context."""
        if not self.groups:
            return [Place(layer) for layer in range(self.layers)]
        found, column = dict[int, Place](), 0
        for group in self.groups:
            window = group.window or EVERYTHING
            found |= {layer: Place(slot, column, window) for slot, layer in enumerate(group.layers)}
            column += -(-context // group.page_tokens)
        return [found[layer] for layer in range(self.layers)]


def layout_of(a: Architecture) -> Layout:
    """Raises `Unsupported`, naming the field, where a page has no room for a row of a convolution."""
    window = a.window if 0 < a.window < a.context else None
    if window is None and not a.conv_layers:
        return Layout(a.layers, a.layers)
    attend = [layer for layer in range(a.layers) if layer not in a.conv_layers]
    whole = [layer for layer in attend if window is None or layer in a.whole_layers]
    kinds = [
        (whole, PAGE, None),
        ([layer for layer in attend if layer not in whole], PAGE, window),
        (list(a.conv_layers), conv_tokens(a) if a.conv_layers else 0, a.conv_taps if a.conv_taps < a.context else None),
    ]
    kinds = [kind for kind in kinds if kind[0]]
    most = max(len(layers) for layers, _, _ in kinds)
    slots = max(min(len(layers) for layers, _, _ in kinds), -(-most // _GROUPS))
    groups = [
        KvGroup(tuple(layers[first : first + slots]), tokens, seen)
        for layers, tokens, seen in kinds
        for first in range(0, len(layers), slots)
    ]
    if not a.conv_layers and all(group.window is None for group in groups):
        return Layout(a.layers, a.layers)
    return Layout(a.layers, slots, tuple(groups))


def conv_tokens(a: Architecture) -> int:
    """Rows of a convolution that a layer's place in a page holds, of float32 where keys and values are halves: for as
    many tokens, or a part of them."""
    tokens = PAGE
    while 2 * tokens * a.hidden > 2 * a.kv_heads * a.head_dim * PAGE:
        tokens //= 2
    if not tokens:
        message = f"hidden: {a.hidden} channels of a convolution do not fit a page of {a.kv_heads} key heads"
        raise Unsupported(message, field="hidden")
    return tokens
