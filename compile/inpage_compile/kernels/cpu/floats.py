"""Dot products of a group of 32 columns with float activations: the accuracy reference of the integer kernels."""

from __future__ import annotations

from collections.abc import Callable

from inpage.format.schema import Format

from ..shared.expressions import Expr, cast, let
from ..shared.packed import GROUP
from ..shared.planes import planes_of
from .build import bits, span, splat
from .isa import Isa
from .math import bfloat_decode, f16_decode
from .quads import Made, Quads
from .sub_scales import read_sub_scales, widened
from .weights import piece_of, quant_of, table_number


def floats(p: Quads, columns: range = range(GROUP)) -> Made:
    """Float activations: every weight becomes float32; the accuracy reference of the integer kernels."""
    for q in p.quads:
        value = p.acc[p.at(q)]
        for k in columns:
            value = let(p.isa.madd(float_weight(p, q, k), splat(p.x.words[k]), value))
        yield q, value


def float_weight(p: Quads, q: int, k: int) -> Expr:
    """Column k of a quad's rows, float32x4."""
    f = p.reader.w.format

    def make() -> Expr:
        if f.bits == 32:
            return let(p.reader.floats[span((p.base >> 2) + (k * 16 + q * 4))])
        if f.bits == 16:
            decode = bfloat_decode if f.type == "bfloat" else f16_decode
            return let(decode(p.reader.halves[span((p.base >> 1) + (k * 16 + q * 4))]))
        words = [
            p.reader.words[span((p.base >> 2) + (plane.at // 4 + piece_of(plane.width, k) * 16 + q * 4))]
            for plane in planes_of(f)
        ]
        quant = cast("float32x4", _number(p.isa, f, quant_of(f, words, k)))
        if f.zero:
            quant = quant - splat(float(f.zero))
        d, m = p.once(("affine", q), lambda: p.once("affine", lambda: _affine_of(p))(q))[k // 16]
        return let(p.isa.madd(quant, d, m) if m is not None else quant * d)

    made: Expr = p.once(("float", q, k), make)
    return made


def _affine_of(p: Quads) -> Callable[[int], list[tuple[Expr, Expr | None]]]:
    """A quad's scale and minimum, float32x4, for the first and the last 16 columns."""
    if p.place is None:
        return lambda q: [(p.reader.scale(p.base, q), p.reader.scale(p.base, q, 1) if p.reader.w.minimum else None)] * 2
    record, within = p.place
    subs = read_sub_scales(p.reader, record, within)
    scales = [widened(scale) for scale in subs.scales]
    minima = [widened(minimum) for minimum in subs.minima]

    def of(q: int) -> list[tuple[Expr, Expr | None]]:
        d = p.reader.super_scale(record, q)
        least: list[Expr | None] = [None]
        if minima:
            of_minima = splat(0.0) - p.reader.super_scale(record, q, 1)
            least = [let(cast("float32x4", minimum[q]) * of_minima) for minimum in minima]
        by_half = [let(cast("float32x4", scale[q]) * d) for scale in scales]
        return [(by_half[half % len(by_half)], least[half % len(least)]) for half in range(2)]

    return of


def _number(isa: Isa, f: Format, quant: Expr) -> Expr:
    """What a quant of the format stands for, int32x4: itself, or what stands in the table there."""
    if f.table is None:
        return quant
    if isa.name == "portable":
        return table_number(f.table, quant, lambda n: splat(n, dtype="int32"))
    # The other bytes of each lane are shifted out.
    looked_up = bits("int32x4", isa.lookup(f.table, bits("int8x16", quant)))
    return (looked_up << splat(24, dtype="int32")) >> splat(24, dtype="int32")
