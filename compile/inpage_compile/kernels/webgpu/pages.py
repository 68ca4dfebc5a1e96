"""KV pages on the GPU, and what writes them: rotary positions and the append.

Each layer has its own pages. A page holds ``PAGE`` tokens as pairs of f16 in 32-bit words: first the keys,
[kv head][pair of dimensions][token], so that the threads of a workgroup, one a token, read neighbouring words; then
the values, [kv head][token][pair], for threads that have a pair of dimensions each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tvm import tirx

from ..shared.heads import EVERYTHING, PAGE, Heads
from .build import Args, Buffer, Expr, call, cast, f32, kernel, lane, let, madd, splat, store, vector, when


def page_words(h: Heads) -> int:
    """32-bit words of one layer's page."""
    return h.kv_heads * h.dim * PAGE


def tables(a: Args) -> tuple[Buffer, Buffer, Buffer]:
    """Declares where each row stands, whose it is, and the pages of every sequence."""
    return a.buffer("positions", "int32"), a.buffer("row_sequence", "int32"), a.buffer("block_tables", "int32")


def place_scalars(a: Args, h: Heads) -> tuple[Expr, Expr]:
    """Declares the scalars of a layer's `Place`: (first column, window)."""
    return (a.scalar("first"), a.scalar("window")) if h.grouped else (0, EVERYTHING)


@cache
def slots(h: Heads) -> tirx.PrimFunc:
    """(positions, row_sequence, block_tables, rows → slots): slots[rows, `Heads.firsts`] = page · ``PAGE`` + slot in it
    of each row's token, for each group of layers: once a step, so that no layer looks it up again."""

    def build(a: Args) -> None:
        positions, row_sequence, block_tables = tables(a)
        rows = a.scalar("rows")
        out = a.buffer("slots", "int32", "w")
        with a.workgroups(1, ["ceildiv", "rows", 64], 64) as (_, by, t):
            row = let(by * 64 + t)
            with when(row < rows):
                position = let(positions[row])
                first = let(row_sequence[row] * h.columns_of_table + position // PAGE)
                for group, column in enumerate(h.firsts):
                    page = block_tables[first + column]
                    store(out, page * PAGE + position % PAGE, row * len(h.firsts) + group)

    return kernel(f"slots_{len(h.firsts)}_{h.columns_of_table}", build)


@dataclass(frozen=True)
class Into:
    """What a matrix of queries, keys and values, or some of their columns from ``first`` on, does with its results
    instead of leaving them side by side. ``bias``: added before."""

    h: Heads
    first: int = 0
    bias: bool = False

    @property
    def mark(self) -> str:
        return f"_into_{self.h.label}" + ("_biased" if self.bias else "") + (f"_at{self.first}" if self.first else "")

    @property
    def has_queries(self) -> bool:
        return self.first < self.h.heads * self.h.dim


class PageWriter:
    """Rotates queries, times `Heads.factor`, and keys by adjacent pairs; puts keys and values into a layer's pages.

    Declares the buffers (table, slots, kv) and, by `scalars`, the group."""

    def __init__(self, a: Args, h: Heads, dtype: str) -> None:
        self.h, self.dtype = h, dtype
        self.table, self.slots = a.buffer("table", "float32x4"), a.buffer("slots", "int32")
        self.kv = a.buffer("kv", "uint32", "x")
        self.queries: Buffer = None
        self.group: Expr = 0

    def scalars(self, a: Args) -> None:
        if len(self.h.firsts) > 1:
            self.group = a.scalar("group")

    def put(self, row: Expr, column: Expr, value: Expr) -> None:
        """``value``: float32x4 of four columns, a multiple of 4, of queries, keys and values side by side."""
        h, half = self.h, self.h.dim // 2
        head, pair = let(column // h.dim), let(column % h.dim // 2)
        with when(head < h.heads + h.kv_heads):
            turn = let(self.table[(row * half + pair) // 2])
            turned = []
            for i in (0, 2):
                x, y, c, s = lane(value, i), lane(value, i + 1), lane(turn, i), lane(turn, i + 1)
                minus = let(-y)
                turned += [let(madd(x, c, minus * s)), let(madd(x, s, y * c))]
            if self.queries is not None:
                with when(head < h.heads):
                    scaled = cast(f"{self.dtype}x4", vector(*turned) * splat(f32(h.factor)))
                    store(self.queries, scaled, (row * (h.heads * h.dim) + column) // 4)
            with when(head >= h.heads):
                page, slot = self._place(row)
                first = let(page + ((head - h.heads) * half + pair) * PAGE + slot)
                for i in range(2):
                    store(self.kv, _word(turned[2 * i], turned[2 * i + 1]), first + i * PAGE)
        with when(head >= h.heads + h.kv_heads):
            page, slot = self._place(row)
            first = page + page_words(h) // 2 + (head - (h.heads + h.kv_heads)) * half * PAGE
            first = let(first + slot * half + pair)
            for i in range(2):
                store(self.kv, _word(lane(value, 2 * i), lane(value, 2 * i + 1)), first + i)

    def _place(self, row: Expr) -> tuple[Expr, Expr]:
        """Where the page of a row's token begins, and its slot there."""
        at = let(self.slots[row * len(self.h.firsts) + self.group])
        return let(at // PAGE * page_words(self.h)), let(at % PAGE)


def _word(low: Expr, high: Expr) -> Expr:
    return call("uint32", "pack2x16float", vector(low, high))


@cache
def rope_append(h: Heads, dtype: str) -> tirx.PrimFunc:
    """(qkv, table, slots, kv, rows[, group] → q): rotated queries, times `Heads.factor`, and rotated keys, and values,
    in the layer's pages. For what comes between projection and rotation; else the projection does it: see `Into`."""
    quads = h.width // 4

    def build(a: Args) -> None:
        qkv = a.buffer("qkv", f"{dtype}x4", "x")  # only read, but it lies in the arena that is written
        writer = PageWriter(a, h, dtype)
        a.scalar("rows")
        writer.scalars(a)
        writer.queries = a.buffer("q", f"{dtype}x4", "w")
        with a.workgroups(-(-quads // 64), "rows", 64) as (bx, row, t):
            quad = let(bx * 64 + t)
            with when(quad < quads):
                writer.put(row, let(quad * 4), let(cast("float32x4", qkv[row * quads + quad])))

    return kernel(f"rope_append_{h.label}", build)


__all__ = ["PAGE", "Heads", "Into", "PageWriter", "page_words", "place_scalars", "rope_append", "slots", "tables"]
