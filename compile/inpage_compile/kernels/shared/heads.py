"""The shape of attention's heads, and of the KV pages that hold them."""

from __future__ import annotations

from dataclasses import dataclass

from inpage.errors import Unsupported

from .expressions import Expr
from .packed import GROUP

PAGE = 16


CHUNK = 64  # tokens whose attention has a softmax of its own: see `softmax`


EVERYTHING = 1 << 30  # the window of a layer that has none


@dataclass(frozen=True)
class Place:
    """Where a layer's keys and values lie, and what it sees of them. ``slot``: which of a page's layers it is;
    ``first``: the column of the block table where its group's pages begin; ``window``: tokens, its own included."""

    slot: int
    first: int = 0
    window: int = EVERYTHING


@dataclass(frozen=True)
class Heads:
    """``layers``: of a page; ``pages``: how many pages the KV buffer is declared with; ``blocks``: columns of the block
    table for one group's pages of a whole context. ``grouped``: layers have block tables of their own, one behind the
    other in a sequence's row of ``table_columns`` (0: ``blocks``), or windows: kernels take a `Place`'s first column
    and window as scalars. ``scale``: of queries, 0 for 1/√dim; ``cap``: scores become cap · tanh(score / cap), 0 for
    none. ``firsts``: the first columns that layers with attention have.

    Raises `Unsupported`, naming the field, for heads that the kernels do not take."""

    heads: int
    kv_heads: int
    dim: int
    layers: int
    pages: int
    sequences: int
    blocks: int
    grouped: bool = False
    table_columns: int = 0
    scale: float = 0.0
    cap: float = 0.0
    firsts: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if self.dim % 8:
            message = f"head_dim: {self.dim} is not a multiple of 8, which the kernels need"
            raise Unsupported(message, field="head_dim")
        if self.heads % self.kv_heads:
            message = f"heads: {self.heads} do not divide among {self.kv_heads} key heads"
            raise Unsupported(message, field="kv_heads")

    @property
    def label(self) -> str:
        """The part of a kernel's name that identifies what it is made for."""
        marks = ("_grouped" if self.grouped else "") + ("_capped" if self.cap else "")
        return f"{self.heads}_{self.kv_heads}_{self.dim}{marks}"

    @property
    def factor(self) -> float:
        """Of queries."""
        return self.scale or self.dim**-0.5

    @property
    def columns_of_table(self) -> int:
        return self.table_columns or self.blocks

    def scalars(self, place: Place) -> list[int]:
        """What a launch passes of a layer's place, behind its slot."""
        return [place.first, place.window] if self.grouped else []

    @property
    def width(self) -> int:
        """Columns of queries, keys and values side by side."""
        return (self.heads + 2 * self.kv_heads) * self.dim

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
