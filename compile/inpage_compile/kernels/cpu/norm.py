"""RMS norm, leaving its result in the form that the next linear layer reads; norms of heads; the rotation table."""

from __future__ import annotations

from functools import cache

from tvm import tirx

from ..shared.expressions import Buffer, Expr, f32, i32, let, loop, store
from ..shared.heads import Heads
from ..shared.packed import GROUP, groups_of
from .build import Args, kernel, local, parallel, share, span, splat
from .isa import Isa
from .quantize import FORM_DTYPE, horizontal_sum, store_group


@cache
def rms_norm(isa: Isa, columns: int, epsilon: float, form: str, gather: bool = False) -> tirx.PrimFunc:
    """(x, [row_index], weight, rows[, logit_rows] → y, [y_scales]): y = x / rms(x) · weight, float32 or quantized.

    With ``gather``, row i of the output is made from row ``logit_rows[i]`` of x."""
    groups = groups_of(columns)

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        m = tirx.Var("logit_rows", "int64") if gather else n
        x = a.buffer("x", (n, columns), "float32")
        index = a.buffer("row_index", (m,), "int32") if gather else None
        weight = a.buffer("weight", (columns,), "float32")
        out_rows = a.count("rows", n)
        if gather:
            out_rows = a.count("logit_rows", m)
        y = a.buffer("y", (m, columns), FORM_DTYPE[form])
        scales = None if form == "f32" else a.buffer("y_scales", (m, groups, 2), "float32")
        # Threads share groups, so that one row keeps them all busy too; each adds up the squares of its rows itself.
        with share(out_rows * groups) as (first, last):
            begin = let(first // groups)
            with loop(tirx.Max((last + (groups - 1)) // groups - begin, 0)) as i:
                row = let(begin + i)
                source = let(index[row]) if index is not None else row
                inverse = _inverse_rms(isa, x, source, columns, epsilon)
                start = let(tirx.Max(first - row * groups, 0))
                with loop(tirx.Min(last - row * groups, groups) - start) as k:
                    group = let(start + k)
                    made = []
                    for each in range(8):
                        at = span(group * GROUP + each * 4)
                        made.append(let(x[source, at] * inverse * weight[at]))
                    store_group(isa, form, made, y, scales, row, group)

    return kernel(f"rms_norm_{form}_{columns}" + ("_gather" if gather else ""), build, columns)


@cache
def add_normed(isa: Isa, columns: int, epsilon: float) -> tirx.PrimFunc:
    """(x, y, weight, rows): x[rows, columns] += y / rms(y) · weight, float32, in place."""

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        x = a.buffer("x", (n, columns), "float32", in_place=True)
        y = a.buffer("y", (n, columns), "float32")
        weight = a.buffer("weight", (columns,), "float32")
        rows = a.count("rows", n)
        with parallel(rows) as row:
            inverse = _inverse_rms(isa, y, row, columns, epsilon)
            with loop(columns // 4) as i:
                at = span(i * 4)
                store(x, x[row, at] + y[row, at] * inverse * weight[at], row, at)

    return kernel(f"add_normed_{columns}", build, columns)


def _inverse_rms(isa: Isa, x: Buffer, row: Expr, columns: int, epsilon: float) -> Expr:
    squares = local(1, "float32x4")
    store(squares, splat(0.0), 0)
    with loop(columns // 4) as i:
        v = let(x[row, span(i * 4)])
        store(squares, isa.madd(v, v, squares[0]), 0)
    mean = let(horizontal_sum(let(squares[0])) * f32(1.0 / columns) + f32(epsilon))
    return let(splat(f32(1.0) / tirx.sqrt(mean)))


@cache
def head_norm(h: Heads, epsilon: float) -> tirx.PrimFunc:
    """(qkv, weight, rows): each head of queries and keys in qkv[rows, …] = head / rms(head) · weight, in place.

    ``weight``: [2, dim], of queries and of keys."""
    width, heads = h.width, h.heads + h.kv_heads

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        qkv = a.buffer("qkv", (n, width), "float32", in_place=True)
        weight = a.buffer("weight", (2 * h.dim,), "float32")
        rows = a.count("rows", n)
        with parallel(rows * heads) as unit:
            row, head = let(unit // heads), let(unit % heads)
            first, which = let(head * h.dim), let(tirx.Select(head < h.heads, i32(0), i32(h.dim)))
            squares = local(1, "float32")
            store(squares, f32(0.0), 0)
            with loop(h.dim) as i:
                v = let(qkv[row, first + i])
                store(squares, squares[0] + v * v, 0)
            inverse = let(f32(1.0) / tirx.sqrt(squares[0] * f32(1.0 / h.dim) + f32(epsilon)))
            with loop(h.dim) as i:
                store(qkv, qkv[row, first + i] * inverse * weight[which + i], row, first + i)

    return kernel(f"head_norm_{h.heads}_{h.kv_heads}_{h.dim}", build, heads * h.dim)


@cache
def rope_table(head_dim: int, scale: float = 1.0, turning: int = 0) -> tirx.PrimFunc:
    """(positions, freqs, rows → table): table[rows, head_dim/2, 2] = cos and sin of position · frequency, times
    ``scale`` for the first ``turning`` elements of a head (0: all)."""
    half = head_dim // 2

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        positions = a.buffer("positions", (n,), "int32")
        freqs = a.buffer("freqs", (half,), "float32")
        rows = a.count("rows", n)
        table = a.buffer("table", (n, half, 2), "float32")
        with parallel(rows * half) as unit:
            row, pair = let(unit // i32(half)), let(unit % i32(half))
            angle = let(tirx.Cast("float32", positions[row]) * freqs[pair])
            for i, turn in enumerate((tirx.cos(angle), tirx.sin(angle))):
                size: Expr = f32(scale)
                if turning not in (0, head_dim):
                    size = tirx.Select(pair < turning // 2, size, f32(1.0))
                store(table, turn if scale == 1 else turn * size, row, pair, i)

    return kernel(f"rope_table_{head_dim}" + ("" if scale == 1 else "_scaled"), build)
