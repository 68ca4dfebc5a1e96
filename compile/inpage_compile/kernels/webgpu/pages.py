"""KV pages on the GPU, and what writes them: rotary positions and the append.

Each layer has its own pages. A page holds ``PAGE`` tokens as pairs of f16 in 32-bit words: first the keys,
[kv head][pair of dimensions][token], so that the threads of a workgroup, one a token, read neighbouring words; then
the values, [kv head][token][pair], for threads that have a pair of dimensions each.
"""

from __future__ import annotations

from functools import cache

from tvm import tirx

from ..shared.heads import EVERYTHING, PAGE, Heads
from .build import Args, Buffer, Expr, call, cast, f32, kernel, lane, let, madd, store, vector, when


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
def rope_append(h: Heads, dtype: str) -> tirx.PrimFunc:
    """(qkv, table, positions, row_sequence, block_tables, kv, rows[, first, window]): rotates queries, times
    `Heads.factor`, in place, and stores rotated keys, and values, into the layer's pages."""
    half = h.dim // 2
    pairs = (h.heads + 2 * h.kv_heads) * half

    def build(a: Args) -> None:
        qkv = a.buffer("qkv", f"{dtype}x2", "x")
        table = a.buffer("table", "float32x2")
        positions, row_sequence, block_tables = tables(a)
        kv = a.buffer("kv", "uint32", "x")
        a.scalar("rows")
        column, _ = place_scalars(a, h)
        with a.workgroups(-(-pairs // 64), "rows", 64) as (bx, row, t):
            unit = let(bx * 64 + t)
            head, pair = let(unit // half), let(unit % half)
            with when(unit < pairs):
                at = let(row * pairs + unit)
                value = let(cast("float32x2", qkv[at]))
                position = let(positions[row])
                block = row_sequence[row] * h.columns_of_table + position // PAGE + column
                page = let(block_tables[block] * page_words(h))
                slot = let(position % PAGE)
                with when(head < h.heads + h.kv_heads):
                    turn = let(table[row * half + pair])
                    x, y, c, s = lane(value, 0), lane(value, 1), lane(turn, 0), lane(turn, 1)
                    even, odd = let(madd(x, c, -(y * s))), let(madd(x, s, y * c))
                    with when(head < h.heads):
                        scale = f32(h.factor)
                        store(qkv, cast(f"{dtype}x2", vector(even * scale, odd * scale)), at)
                    with when(head >= h.heads):
                        word = call("uint32", "pack2x16float", vector(even, odd))
                        store(kv, word, page + ((head - h.heads) * half + pair) * PAGE + slot)
                with when(head >= h.heads + h.kv_heads):
                    word = call("uint32", "pack2x16float", value)
                    first = page + page_words(h) // 2 + (head - (h.heads + h.kv_heads)) * half * PAGE
                    store(kv, word, first + slot * half + pair)

    return kernel(f"rope_append_{h.label}", build)


__all__ = ["PAGE", "Heads", "page_words", "rope_append", "tables"]
