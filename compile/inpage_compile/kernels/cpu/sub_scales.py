"""A super-block's whole sub-scales and sub-minima, for one group of 32 columns and all 16 rows.

Two kinds (see `quantize.rows16`): a signed byte for each 16 columns, or numbers of 4 or 6 bits in pairs: a scale and a
minimum, or the scales of neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from inpage.format.schema import SuperBlock

from ..shared.expressions import Expr, cast, i32, let
from ..shared.packed import GROUP
from .build import bits, span, splat
from .weights import Records


@dataclass(frozen=True)
class SubScales:
    """``scales`` and ``minima``: int8x16, a byte a row, one for all 32 columns or one for each 16; no minima: none."""

    scales: Sequence[Expr]
    minima: Sequence[Expr] = ()


def _super_of(reader: Records) -> SuperBlock:
    sup = reader.w.format.super
    assert sup is not None
    return sup


def read_sub_scales(reader: Records, record: Expr, within: Expr) -> SubScales:
    """Those of group ``within`` of the super-block whose record begins at byte ``record``."""
    sup, halves = _super_of(reader), GROUP // reader.w.format.group
    at = record + reader.w.sub_scales
    if sup.signed:
        return SubScales([let(reader.bytes[span(at + (within * 32 + i * 16), 16)]) for i in range(2)])
    if sup.min is not None:
        pairs = [_pair(reader, at, within * halves + i) for i in range(halves)]
        return SubScales(*zip(*pairs, strict=True))
    scales = _pair(reader, at, within if halves == 2 else let(within >> 1))
    if halves == 1:
        scales = [let(tirx.Select((within & 1) == 0, *scales))]
    return SubScales([let(scale - splat(sup.zero, 16, "int8")) for scale in scales])


def _pair(reader: Records, at: Expr, number: Expr) -> list[Expr]:
    """Both numbers of a pair, for 16 rows. ``at``: where the pairs begin."""
    low = let(reader.bytes[span(at + number * 16, 16)])
    mask, upper = splat(15, 16, "int8"), splat(0x30, 16, "int8")
    first, second = low & mask, _right(low, 4) & mask
    if _super_of(reader).scale_bits == 4:
        return [let(first), let(second)]
    # Rows 0-7 have their four bits in the low nibbles, rows 8-15 in the high ones: to the high ones with the former.
    both = reader.longs[(at >> 3) + (_pairs(reader) * 2 + number)]
    high = let(bits("int8x16", splat(both, 2)))
    moved = bits("int8x16", bits("uint16x8", high) << splat(4, 8, "uint16"))
    high = let(tirx.Shuffle([moved, high], [i32(i if i < 8 else 16 + i) for i in range(16)]))
    return [let(first | (high & upper)), let(second | (_right(high, 2) & upper))]


def _pairs(reader: Records) -> int:
    """Of a super-block."""
    sup = _super_of(reader)
    return sup.size // reader.w.format.group // (1 if sup.min is not None else 2)


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
    """One row's scale, and its minimum where there are any, int32. ``half``: of the group's 32 columns."""
    sup, halves = _super_of(reader), GROUP // reader.w.format.group
    at = record + reader.w.sub_scales
    number = within * halves + (half if halves == 2 else 0)
    if sup.signed:
        return cast("int32", reader.bytes[at + number * 16 + row]), None
    if sup.min is not None:
        return _nibbles(reader, at, number, row, 0), _nibbles(reader, at, number, row, 1)
    return _nibbles(reader, at, let(number >> 1), row, let(number & 1)) - sup.zero, None


def _nibbles(reader: Records, at: Expr, number: Expr, row: Expr, which: Expr) -> Expr:
    """One of a pair's two numbers."""
    low = (cast("int32", reader.bytes[at + number * 16 + row]) >> (which * 4)) & 15
    if _super_of(reader).scale_bits == 4:
        return low
    upper = cast("int32", reader.bytes[at + _pairs(reader) * 16 + number * 8 + row % 8])
    return low | (((upper >> (row // 8 * 4 + which * 2)) & 3) << 4)
