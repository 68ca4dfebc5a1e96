"""A super-block's whole sub-scales and sub-minima, for one group of 32 columns and all 16 rows.

Two kinds (see `PackedMatrix`): pairs of a scale and a minimum of 6 bits for 32 columns, or a signed byte for each 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from ..shared.expressions import Expr, cast, i32, let
from .build import bits, span, splat
from .weights import Records


@dataclass(frozen=True)
class SubScales:
    """``scales``: int8x16, a byte a row, one for all 32 columns or one for each 16; ``minima``: int8x16 or None."""

    scales: Sequence[Expr]
    minima: Expr | None


def read_sub_scales(reader: Records, record: Expr, within: Expr) -> SubScales:
    """Those of group ``within`` of the super-block whose record begins at byte ``record``."""
    w = reader.w
    sup = w.format.super
    assert sup is not None
    at = record + w.sub_scales
    if sup.signed:
        return SubScales([let(reader.bytes[span(at + (within * 32 + i * 16), 16)]) for i in range(2)], None)
    low = let(reader.bytes[span(at + within * 16, 16)])
    mask, upper = splat(15, 16, "int8"), splat(0x30, 16, "int8")
    # Rows 0-7 have their four bits in the low nibbles, rows 8-15 in the high ones: to the high ones with the former.
    both = reader.longs[(at >> 3) + (reader.super_groups * 2 + within)]
    high = let(bits("int8x16", splat(both, 2)))
    moved = bits("int8x16", bits("uint16x8", high) << splat(4, 8, "uint16"))
    high = let(tirx.Shuffle([moved, high], [i32(i if i < 8 else 16 + i) for i in range(16)]))
    scale = (low & mask) | (high & upper)
    minimum = (_right(low, 4) & mask) | (_right(high, 2) & upper)
    return SubScales([let(scale)], let(minimum))


def _right(vector: Expr, by: int) -> Expr:
    """Bytes shifted to the right; their upper bits are what the neighbour lost."""
    return bits("int8x16", bits("uint16x8", vector) >> splat(by, 8, "uint16"))


def doubled(numbers: Expr) -> list[Expr]:
    """A byte a row → int16x8 for each quad of rows, every number twice: beside a row's two 16-bit sums."""
    out = []
    for half in range(2):
        twice = let(tirx.Shuffle([numbers], [i32(half * 8 + i // 2) for i in range(16)]))
        out += [let(cast("int16x8", _part(twice, i, 8))) for i in range(2)]
    return out


def widened(numbers: Expr) -> list[Expr]:
    """A byte a row → int32x4 for each quad of rows."""
    out = []
    for half in range(2):
        wide = let(cast("int16x8", _part(numbers, half, 8)))
        out += [let(cast("int32x4", _part(wide, i, 4))) for i in range(2)]
    return out


def _part(vector: Expr, which: int, lanes: int) -> Expr:
    return tirx.Shuffle([vector], [i32(which * lanes + i) for i in range(lanes)])


def sub_scale_of(reader: Records, record: Expr, within: Expr, row: Expr, half: int) -> tuple[Expr, Expr | None]:
    """One row's scale, and its minimum where there are any, int32."""
    w = reader.w
    sup = w.format.super
    assert sup is not None
    at = record + w.sub_scales
    if sup.signed:
        return cast("int32", reader.bytes[at + (within * 2 + half) * 16 + row]), None
    low = let(cast("int32", reader.bytes[at + within * 16 + row]))
    upper = cast("int32", reader.bytes[at + reader.super_groups * 16 + within * 8 + row % 8])
    upper = let(upper >> (row // 8 * 4))
    return (low & 15) | ((upper & 3) << 4), ((low >> 4) & 15) | (((upper >> 2) & 3) << 4)
