"""The gated short convolution on the GPU: as `kernels.cpu.short_conv` has it."""

from __future__ import annotations

from functools import cache

from tvm import tirx

from ..shared.short_conv import ShortConv
from .build import Args, Buffer, Expr, cast, kernel, let, local, madd, store, when
from .pages import page_words, tables

THREADS = 64


@cache
def conv_append(c: ShortConv, dtype: str) -> tirx.PrimFunc:
    """(bcx, positions, row_sequence, block_tables, kv, rows, first): B·x of bcx[rows, 3 · width] = B, C, x into the
    layer's pages."""
    pairs = c.width // 2

    def build(a: Args) -> None:
        bcx = a.buffer("bcx", f"{dtype}x2")
        positions, row_sequence, block_tables = tables(a)
        kv = a.buffer("kv", "float32x2", "x")
        a.scalar("rows")
        column = a.scalar("first")
        with a.workgroups(-(-pairs // THREADS), "rows", THREADS) as (bx, row, t):
            pair = let(bx * THREADS + t)
            with when(pair < pairs):
                at = _row(c, block_tables, row_sequence[row], column, let(positions[row])) + pair
                store(kv, _gated(c, bcx, row, pair), at)

    return kernel(f"conv_append_{c.label}", build)


@cache
def short_conv(c: ShortConv, dtype: str) -> tirx.PrimFunc:
    """(bcx, weight, positions, row_sequence, block_tables, kv, rows, first → y): y[rows, width], the convolution of
    every row. ``weight``: [taps, width], the own token's last."""
    pairs = c.width // 2

    def build(a: Args) -> None:
        bcx = a.buffer("bcx", f"{dtype}x2", "x")  # it lies in the arena that is written, so it has to be bound alike
        weight = a.buffer("weight", "float32x2")
        positions, row_sequence, block_tables = tables(a)
        kv = a.buffer("kv", "float32x2")
        a.scalar("rows")
        column = a.scalar("first")
        y = a.buffer("y", f"{dtype}x2", "w")
        with a.workgroups(-(-pairs // THREADS), "rows", THREADS) as (bx, row, t):
            pair, total = let(bx * THREADS + t), local(1, "float32x2")
            with when(pair < pairs):
                position = let(positions[row])
                store(total, let(_gated(c, bcx, row, pair)) * weight[(c.taps - 1) * pairs + pair], 0)
                for back in range(1, c.taps):
                    with when(position >= back):
                        at = _row(c, block_tables, row_sequence[row], column, let(position - back)) + pair
                        store(total, madd(kv[at], weight[(c.taps - 1 - back) * pairs + pair], total[0]), 0)
                c_gate = cast("float32x2", bcx[(row * 3 + 1) * pairs + pair])
                store(y, cast(f"{dtype}x2", total[0] * c_gate), row * pairs + pair)

    return kernel(f"short_conv_{c.label}", build)


def _gated(c: ShortConv, bcx: Buffer, row: Expr, pair: Expr) -> Expr:
    """Two channels of B·x, float32x2."""
    pairs = c.width // 2
    b, x = (cast("float32x2", bcx[(row * 3 + part) * pairs + pair]) for part in (0, 2))
    return b * x


def _row(c: ShortConv, block_tables: Buffer, sequence: Expr, column: Expr, position: Expr) -> Expr:
    """Where a token's row begins in the layer's pages, in pairs of float32."""
    block = sequence * c.heads.columns_of_table + position // c.tokens + column
    return block_tables[block] * (page_words(c.heads) // 2) + position % c.tokens * (c.width // 2)


__all__ = ["conv_append", "short_conv"]
