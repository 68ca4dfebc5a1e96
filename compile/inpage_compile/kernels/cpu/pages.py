"""KV pages, the shape of the heads that they hold, and what writes them: rotary positions and the append.

A page holds ``PAGE`` tokens of every layer, as 16-bit halves: for each layer and kv head first the keys, [dim][token],
so that a vector holds one dimension of neighbouring tokens, then the values, [token][dim]. A head's values lie behind
its keys because they are read after them: one stream, and of most models one page of the processor's memory.
"""

from __future__ import annotations

from functools import cache

from tvm import tirx

from ..shared.expressions import Buffer, Expr, f32, let, loop, store
from ..shared.heads import EVERYTHING, PAGE, Heads
from .build import Args, kernel, parallel, span, vector, view
from .isa import Isa
from .math import F16_SCALE, f16_encode
from .quantize import lanes_of


def tables(a: Args, h: Heads, n: Expr) -> tuple[Buffer, Buffer, Buffer]:
    """Declares where each row stands, whose it is, and the pages of every sequence."""
    return (
        a.buffer("positions", (n,), "int32"),
        a.buffer("row_sequence", (n,), "int32"),
        a.buffer("block_tables", (h.sequences, h.columns_of_table), "int32"),
    )


def place_scalars(a: Args, h: Heads) -> tuple[Expr, Expr, Expr]:
    """Declares a layer's `Place`: (slot, first column, window)."""
    slot = a.scalar("layer")
    return (slot, a.scalar("first"), a.scalar("window")) if h.grouped else (slot, 0, EVERYTHING)


@cache
def rope_append(isa: Isa, h: Heads) -> tirx.PrimFunc:
    """(qkv, table, positions, row_sequence, block_tables, kv, rows, layer[, first, window] → q).

    Rotates queries and keys pairwise by ``table`` (cos, sin), stores keys and values into their pages (``kv``, in
    place), and queries into q[rows, heads · dim], times `Heads.factor` and the halves' 2^112."""
    width = h.width
    factor = f32(h.factor * F16_SCALE)

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        qkv = a.buffer("qkv", (n, width), "float32")
        table = a.buffer("table", (n, h.dim // 2, 2), "float32")
        positions, row_sequence, block_tables = tables(a, h, n)
        kv = a.buffer("kv", (h.pages, h.page_halves), "int16", in_place=True)
        rows = a.count("rows", n)
        layer, column, _ = place_scalars(a, h)
        q = a.buffer("q", (n, h.heads * h.dim), "float32")
        halves = view(kv, "int16", h.pages * h.page_halves)
        with parallel(rows * h.kv_heads) as unit:
            row, head = let(unit // h.kv_heads), let(unit % h.kv_heads)
            position = let(positions[row])
            page, slot = let(block_tables[row_sequence[row], position // PAGE + column]), let(position % PAGE)
            keys, values = let(h.keys(page, layer, head)), let(h.values(page, layer, head))
            for j in range(h.shared):
                first = let((head * h.shared + j) * h.dim)
                with loop(h.dim // 2) as i:
                    even, odd = _rotated(qkv, table, row, first, i)
                    store(q, even * factor, row, first + i * 2)
                    store(q, odd * factor, row, first + i * 2 + 1)
            first = let((h.heads + head) * h.dim)
            with loop(h.dim // 4) as four:
                made: list[Expr] = []
                for i in range(2):
                    made += _rotated(qkv, table, row, first, four * 2 + i)
                packed = let(f16_encode(let(vector(made))))
                for lane, one in enumerate(lanes_of(packed)):
                    store(halves, one, keys + (four * 4 + lane) * PAGE + slot)
            first = let((h.heads + h.kv_heads + head) * h.dim)
            with loop(h.dim // 4) as four:
                packed = let(f16_encode(let(qkv[row, span(first + four * 4)])))
                store(halves, packed, span(values + slot * h.dim + four * 4))

    return kernel(f"rope_append_{h.label}", build, width)


def _rotated(qkv: Buffer, table: Buffer, row: Expr, first: Expr, pair: Expr) -> tuple[Expr, Expr]:
    a, b = let(qkv[row, first + pair * 2]), let(qkv[row, first + pair * 2 + 1])
    c, s = let(table[row, pair, 0]), let(table[row, pair, 1])
    return a * c - b * s, a * s + b * c
