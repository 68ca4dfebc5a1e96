"""Activations to 8 bits, as the CPU's kernels round them: groups of 32 along a row, each scaled by its largest
(`kernels.cpu.quantize`). The norm's weight is multiplied in before; 1/rms, found on the way, is left to the result.

A thread takes whole groups: of its share of the columns (`sums.shares_of`) every fourth. One row's kernels do it
themselves (`linear_int8.Int8Row`), for many rows it is a kernel; both leave the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from tvm import tirx

from ..shared.packed import GROUP, groups_of
from .build import (
    Args,
    Buffer,
    Expr,
    across,
    barrier,
    bits,
    call,
    cast,
    exact,
    f32,
    kernel,
    lane,
    let,
    local,
    loop,
    madd,
    splat,
    store,
    u32,
    vector,
    when,
)
from .sums import Input, Inputs, share_bounds, threads_of
from .weights import BYTES

_MOST = 127
_FOURS = GROUP // 4
RECORD = 12  # words of a group: its quants, scale, sums of each half of them, nothing


def words_of(columns: int) -> int:
    """Of a row: records of its groups, and a vector that 1/rms is the first word of."""
    return groups_of(columns) * RECORD + 4


@dataclass(frozen=True)
class Quantized:
    """A group: 8 words of four quants each, their scale, float32, and the sums of either half, int32."""

    words: list[Expr]
    scale: Expr
    sums: list[Expr]


def dot(a: Expr, b: Expr) -> Any:
    """Σ of the products of four signed bytes, int32."""
    return call("int32", "dot4I8Packed", a, b)


def quantized(inputs: Inputs, start: Expr, group: Expr, squares: Buffer) -> Quantized:
    """Group ``group`` of the row that begins at vector ``start``. Where a norm is folded in, the squares of what is
    read are added to ``squares[0]``, float32x4."""
    values, size = [], None
    for i in range(_FOURS):
        at = let(group * _FOURS + i)
        value = inputs.read(start + at, None)
        if inputs.norm is not None:
            store(squares, madd(value, value, squares[0]), 0)
            value = let(value * inputs.norm[at])
        values.append(value)
        magnitude = call("float32x4", "abs", value)
        size = let(magnitude if size is None else tirx.Max(size, magnitude))
    pairs = [tirx.Max(lane(size, 2 * i), lane(size, 2 * i + 1)) for i in range(2)]
    largest = let(tirx.Max(*pairs))
    scale = let(largest * exact(1.0 / _MOST))
    inverse = let(tirx.Select(largest > f32(0.0), f32(float(_MOST)) / tirx.Max(largest, f32(1e-30)), f32(0.0)))
    words = []
    for value in values:
        # Not a Cast, in which TVM's code generator loses the lanes.
        rounded = call("int32x4", "vec4<i32>", call("float32x4", "round", value * splat(inverse)))
        words.append(let(call("uint32", "pack4xI8", rounded)))
    sums = []
    for half in (words[: _FOURS // 2], words[_FOURS // 2 :]):
        a, b, c, d = (dot(word, u32(BYTES)) for word in half)
        sums.append(let((a + b) + (c + d)))
    return Quantized(words, scale, sums)


@cache
def quantize_rows(columns: int, dtype: str, epsilon: float | None) -> tirx.PrimFunc:
    """(x, [norm weight], rows → q): q[rows, `words_of`] of x[rows, columns]. x is bound as if it were written, so that
    both may lie in one arena and what is made of q in the other."""
    groups, threads = groups_of(columns), threads_of(columns)
    normed = epsilon is not None

    def build(a: Args) -> None:
        inputs = Inputs(a, Input(dtype, epsilon), alone=True)
        a.scalar("rows")
        q = a.buffer("q", "uint32x4", "w")
        with a.workgroups(1, "rows", threads) as (_, row, t):
            start, out = let(row * (columns // 4)), let(row * (words_of(columns) // 4))
            squares = local(1, "float32x4")
            store(squares, splat(0.0), 0)
            quad, share = let(t % 4), let(t // 4)
            low, high = share_bounds(share, columns)
            with loop((high - low - quad + 3) // 4) as i:
                group = let(low + i * 4 + quad)
                made = quantized(inputs, start, group, squares)
                at = let(out + group * (RECORD // 4))
                for v in range(2):
                    store(q, vector(*made.words[4 * v : 4 * v + 4]), at + v)
                sums = [bits("uint32", each) for each in made.sums]
                store(q, vector(bits("uint32", made.scale), *sums, u32(0)), at + 2)
            if normed:
                parts = a.workgroup(threads, "float32")
                store(parts, across(let(squares[0])), t)
                barrier()
                with when(t < 1):
                    total = local(1, "float32")
                    store(total, f32(0.0), 0)
                    with loop(threads) as i:
                        store(total, total[0] + parts[i], 0)
                    inverse = bits("uint32", inputs.inverse_rms(total[0], columns))
                    store(q, vector(inverse, u32(0), u32(0), u32(0)), out + groups * (RECORD // 4))

    return kernel(f"quantize_rows_{columns}{'_norm' if normed else ''}", build)


__all__ = ["RECORD", "Quantized", "dot", "quantize_rows", "quantized", "words_of"]
