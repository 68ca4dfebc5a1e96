"""The shape of attention's heads, and of the KV pages that hold them."""

from __future__ import annotations

from dataclasses import dataclass

from inpage.errors import Unsupported

from .expressions import Expr
from .packed import GROUP

PAGE = 16


CHUNK = 64  # tokens whose attention has a softmax of its own: see `softmax`


@dataclass(frozen=True)
class Heads:
    """``pages``: how many pages the KV buffer is declared with; ``blocks``: columns of the block table.

    Raises `Unsupported`, naming the field, for heads that the kernels do not take."""

    heads: int
    kv_heads: int
    dim: int
    layers: int
    pages: int
    sequences: int
    blocks: int

    def __post_init__(self) -> None:
        if self.dim % 8:
            message = f"head_dim: {self.dim} is not a multiple of 8, which the kernels need"
            raise Unsupported(message, field="head_dim")
        if self.heads % self.kv_heads:
            message = f"heads: {self.heads} do not divide among {self.kv_heads} key heads"
            raise Unsupported(message, field="kv_heads")

    @property
    def shared(self) -> int:
        """Query heads that read the same keys."""
        return self.heads // self.kv_heads

    @property
    def columns(self) -> int:
        """Of attention's result, as the matrix after it reads it: whole groups, zeros past heads · dim."""
        return -(-self.heads * self.dim // GROUP) * GROUP

    @property
    def chunks(self) -> int:
        """Of a whole context."""
        return -(-self.blocks * PAGE // CHUNK)

    @property
    def layer_halves(self) -> int:
        return 2 * self.kv_heads * self.dim * PAGE

    @property
    def page_halves(self) -> int:
        return self.layers * self.layer_halves

    def keys(self, page: Expr, layer: Expr, head: Expr) -> Expr:
        return page * self.page_halves + layer * self.layer_halves + head * (2 * self.dim * PAGE)

    def values(self, page: Expr, layer: Expr, head: Expr) -> Expr:
        return self.keys(page, layer, head) + self.dim * PAGE
