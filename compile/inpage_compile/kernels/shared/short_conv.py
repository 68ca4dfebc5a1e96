"""The shape of a gated short convolution, and how what it reads of earlier tokens lies in KV pages.

A token's row is B·x, a number a channel, in float32: halves would cost a layer the precision that they cost keys and
values, but nothing averages over tokens or scales what comes out. Rows lie one behind the other in a layer's place of a
page, as many tokens as there is room for, so that a convolution is one more layer with a window for whoever hands out
pages."""

from __future__ import annotations

from dataclasses import dataclass

from .expressions import Expr
from .heads import Heads


@dataclass(frozen=True)
class ShortConv:
    """``width``: channels; ``taps``: tokens that one sees, its own included; ``tokens``: of a page; ``heads``: of the
    attention whose pages these are."""

    heads: Heads
    width: int
    taps: int
    tokens: int

    @property
    def label(self) -> str:
        return f"{self.width}_{self.taps}"

    def row(self, page: Expr, layer: Expr, position: Expr) -> Expr:
        """Where a token's row begins in the KV buffer of a CPU, in float32."""
        h = self.heads
        return page * (h.page_halves // 2) + layer * (h.layer_halves // 2) + position % self.tokens * self.width
