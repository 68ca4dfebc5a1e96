"""Activations to 8 bits: groups of 32 along a row, one scale each, in the form that the dot product reads.

Beside each scale stands scale · Σq, which is what the minimum of an affine weight group multiplies with:
Σ (d·w + m)·(s·q) = s·d·Σwq + m·(s·Σq).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx

from ..shared.expressions import Buffer, Expr, cast, f32, i32, let, store
from ..shared.packed import GROUP
from .build import bits, span, splat
from .isa import Isa

FORM_DTYPE = {"i8": "int8", "i16": "int16", "i16p": "int16", "f32": "float32"}


def lanes_of(vector: Expr, lanes: int = 4) -> list[Expr]:
    return [tirx.Shuffle([vector], [i32(i)]) for i in range(lanes)]


def horizontal_sum(vector: Expr) -> Expr:
    a, b, c, d = lanes_of(vector)
    return (a + b) + (c + d)


def horizontal_max(vector: Expr) -> Expr:
    a, b, c, d = lanes_of(vector)
    return tirx.Max(tirx.Max(a, b), tirx.Max(c, d))


def store_quantized(
    isa: Isa, form: str, values: Sequence[Expr], quants: Buffer, scales: Buffer, row: Expr, group: Expr,
    most: int = 127,
) -> None:  # fmt: skip
    """Quantize 8 float32x4 (one group) into ``quants[row, 32·group…]`` and ``scales[row, group, 0..1]``, the largest
    to ``most``."""
    size: Any = None
    for v in values:
        magnitude = tirx.Max(v, splat(0.0) - v)
        size = magnitude if size is None else tirx.Max(size, magnitude)
    largest = let(horizontal_max(let(size)))
    scale = let(largest * f32(1.0 / most))
    inverse = let(tirx.Select(largest > f32(0.0), f32(float(most)) / tirx.Max(largest, f32(1e-30)), f32(0.0)))
    total: Any = None
    for i, v in enumerate(values):
        q = let(cast("int32x4", isa.nearest(v * splat(inverse))))
        total = q if total is None else total + q
        at = span(group * GROUP + i * 4)
        if form == "i8":
            store(quants, cast("int8x4", q), row, at)
        elif form == "i16":
            store(quants, cast("int16x4", q), row, at)
        else:
            store(quants, cast("int16x4", tirx.Shuffle([q], [i32(j) for j in (0, 2, 1, 3)])), row, at)
    store(scales, scale, row, group, 0)
    store(scales, scale * cast("float32", horizontal_sum(let(total))), row, group, 1)


def store_group(
    isa: Isa, form: str, values: Sequence[Expr], out: Buffer, scales: Buffer | None, row: Expr, group: Expr,
    most: int = 127,
) -> None:  # fmt: skip
    """One group of 32 activations in any form; ``f32`` stores them as they are."""
    if form == "f32":
        for i, v in enumerate(values):
            store(out, v, row, span(group * GROUP + i * 4))
    else:
        store_quantized(isa, form, values, out, scales, row, group, most)


def byte_splat(words: Buffer, at: Expr) -> Expr:
    """Four neighbouring bytes repeated over the vector."""
    return bits("int8x16", splat(words[at], 4))
