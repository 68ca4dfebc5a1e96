"""Dot products of packed weights with activations: one group of 32 columns at a time, in every activation form.

Integer sums are exact within a group; groups are then added up in float32, in order. A row of activations therefore
gets the same bits whether it is alone or one of many: tiles of four rows only share the unpacking of weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tvm import tirx

from ..shared.expressions import Buffer, Expr, cast, i32, let, loop, store
from ..shared.packed import GROUP
from .build import bits, local, span, splat, view
from .isa import Isa
from .math import f16_decode
from .quantize import byte_splat
from .weights import Records, piece_of, quant_of

Dots = Iterator[tuple[int, int, Expr]]  # (quad of output rows, row of the tile, float32x4)
Sums = dict[tuple[int, int], Expr]  # by quad and row: int32x4 or int16x8


class InputView:
    """A linear layer's input, seen in the type that its form's dot product loads."""

    def __init__(self, form: str, columns: int, values: Buffer, scales: Buffer | None, rows: Expr) -> None:
        self.columns = columns
        self.scales: Buffer = scales
        self.floats: Buffer = values if form == "f32" else None
        self.words: Buffer = view(values, "int32", rows * (columns // 4)) if form == "i8" else None
        self.pairs: Buffer = view(values, "int32", rows * (columns // 2)) if form == "i16p" else None
        self.fours: Buffer = view(values, "int64", rows * (columns // 4)) if form == "i16" else None


@dataclass(frozen=True)
class _Tile:
    """One group of columns for ``rows`` activation rows from ``row`` on, and ``quads`` of four output rows.
    ``base``: byte offset of the weights' record; ``acc``: running sums, float32x4 [quad][row] from ``first`` on."""

    isa: Isa
    reader: Records
    x: InputView
    base: Expr
    row: Expr
    group: Expr
    rows: int
    quads: range
    acc: Buffer
    first: int

    def at(self, quad: int, r: int) -> int:
        return self.first + (quad * self.rows + r)


def accumulate(
    isa: Isa, form: str, reader: Records, x: InputView, blocks: Sequence[Expr], row: Expr, rows: int, acc: Buffer,
    quad: bool = False,
) -> None:  # fmt: skip
    """acc[block][quad][row of the tile], float32x4: 16 output rows a block × ``rows`` activation rows.

    Group by group through all the blocks: each block is a stream through memory that the processor fetches ahead.
    Everything here is unrolled, so that every index of ``acc`` is a constant and the sums stay in registers.
    ``quad``: nibbles through `Isa.quad_dot`."""
    vectors = rows * 4
    group_dot = _nibbles_i8_quads if quad else _GROUP_DOT[form]
    for i in range(len(blocks) * vectors):
        store(acc, splat(0.0), i)
    with loop(reader.groups) as group:
        for b, block in enumerate(blocks):
            base = let(reader.base(block, group))
            at_once = 4 if rows == 1 else 2
            for first in range(0, 4, at_once):
                quads = range(first, first + at_once)
                tile = _Tile(isa, reader, x, base, row, group, rows, quads, acc, b * vectors)
                for q, r, value in list(group_dot(tile)):
                    store(acc, value, tile.at(q, r))


def _affine(t: _Tile, sums: Sums) -> Dots:
    """acc + s·(d·Σwq) + m·(s·Σq) for integer sums of one group."""
    scale = [let(splat(t.x.scales[t.row + r, t.group, 0])) for r in range(t.rows)]
    total = [let(splat(t.x.scales[t.row + r, t.group, 1])) for r in range(t.rows)]
    for q in t.quads:
        d = t.reader.scale(t.base, q)
        if t.reader.w.minimum:
            m = t.reader.scale(t.base, q, 1)
        elif t.reader.w.zero:
            m = let(d * splat(-float(t.reader.w.zero)))
        else:
            m = None
        for r in range(t.rows):
            value = t.acc[t.at(q, r)]
            if m is not None:
                value = t.isa.madd(m, total[r], value)
            yield q, r, t.isa.madd(cast("float32x4", sums[q, r]) * d, scale[r], value)


def _unpacked(t: _Tile) -> Iterator[tuple[int, int, int, tuple[Expr, Expr], tuple[Expr, Expr]]]:
    """(piece, quad, row of the tile, low and high nibbles, activations of each): a group's nibbles as bytes, each
    unpacked once for all rows."""
    mask = splat(15, 16, "int8")
    shift = splat(4, 8, "uint16")
    for piece in range(4):
        at = [let((t.row + r) * (t.x.columns // 4) + t.group * 8 + piece * 2) for r in range(t.rows)]
        low_x = [let(byte_splat(t.x.words, a)) for a in at]
        high_x = [let(byte_splat(t.x.words, a + 1)) for a in at]
        for q in t.quads:
            packed = let(t.reader.bytes[span(t.base + piece * 64 + q * 16, 16)])
            low = let(packed & mask)
            high = let(bits("int8x16", bits("uint16x8", packed) >> shift) & mask)
            for r in range(t.rows):
                yield piece, q, r, (low, high), (low_x[r], high_x[r])


def _nibbles_i8(t: _Tile) -> Dots:
    """Signed bytes × nibbles into 16-bit pair sums: at most 16 · 127 · 15 < 2^15, exact for the whole group."""
    sums: Sums = {}
    for piece, q, r, (low, high), (low_x, high_x) in _unpacked(t):
        part = t.isa.pair_dot(low_x, low)
        sums[q, r] = part if piece == 0 else sums[q, r] + part
        sums[q, r] = let(sums[q, r] + t.isa.pair_dot(high_x, high))
    ones = splat(1, 8, "int16")
    for key, value in sums.items():
        sums[key] = let(t.isa.dot16(value, ones))
    yield from _affine(t, sums)


def _nibbles_i8_quads(t: _Tile) -> Dots:
    """Signed bytes × nibbles, four columns at a time straight into 32 bits."""
    sums: Sums = {}
    for piece, q, r, (low, high), (low_x, high_x) in _unpacked(t):
        before = sums[q, r] if piece else splat(0, dtype="int32")
        half = let(t.isa.quad_dot(low_x, low, before))
        sums[q, r] = let(t.isa.quad_dot(high_x, high, half))
    yield from _affine(t, sums)


def _nibbles_i16p(t: _Tile) -> Dots:
    """Nibbles masked out in place as 16-bit lanes: columns (0,2) (1,3) (4,6) (5,7) of every eight."""
    mask = splat(15, 8, "uint16")
    sums: Sums = {}
    for piece in range(4):
        at = [let((t.row + r) * (t.x.columns // 2) + t.group * 16 + piece * 4) for r in range(t.rows)]
        pairs = [[let(bits("int16x8", splat(t.x.pairs[a + j], 4))) for j in range(4)] for a in at]
        for q in t.quads:
            packed = let(bits("uint16x8", t.reader.bytes[span(t.base + piece * 64 + q * 16, 16)]))
            lanes = []
            for nibble in (0, 2, 1, 3):
                value = packed if nibble == 0 else packed >> splat(4 * nibble, 8, "uint16")
                lanes.append(let(bits("int16x8", value if nibble == 3 else value & mask)))
            for r in range(t.rows):
                for j in range(4):
                    part = t.isa.dot16(lanes[j], pairs[r][j])
                    sums[q, r] = part if (piece, j) == (0, 0) else let(sums[q, r] + part)
    yield from _affine(t, sums)


def _bytes_i16(t: _Tile) -> Dots:
    """Bytes widened to 16 bits; each dot leaves two neighbouring sums a row, which are joined after the group."""
    halves: dict[tuple[int, int, int], Expr] = {}
    for piece in range(8):
        at = [let((t.row + r) * (t.x.columns // 4) + t.group * 8 + piece) for r in range(t.rows)]
        fours = [let(bits("int16x8", splat(t.x.fours[a], 2))) for a in at]
        for q in t.quads:
            for half in range(2):
                wide = let(cast("int16x8", t.reader.bytes[span(t.base + piece * 64 + q * 16 + half * 8, 8)]))
                for r in range(t.rows):
                    part = t.isa.dot16(wide, fours[r])
                    halves[q, r, half] = part if piece == 0 else let(halves[q, r, half] + part)
    sums: Sums = {}
    for q in t.quads:
        for r in range(t.rows):
            both = [halves[q, r, 0], halves[q, r, 1]]
            even = tirx.Shuffle(both, [i32(j) for j in (0, 2, 4, 6)])
            odd = tirx.Shuffle(both, [i32(j) for j in (1, 3, 5, 7)])
            sums[q, r] = let(even + odd)
    yield from _affine(t, sums)


def _floats(t: _Tile) -> Dots:
    """Float activations: every weight becomes float32; the accuracy reference of the integer kernels."""
    w = t.reader.w
    values = {(q, r): t.acc[t.at(q, r)] for q in t.quads for r in range(t.rows)}
    for q in t.quads:
        if w.bits < 16:
            d = t.reader.scale(t.base, q)
            m = t.reader.scale(t.base, q, 1) if w.minimum else None
        for k in range(GROUP):
            if w.bits == 32:
                weight = let(t.reader.floats[span((t.base >> 2) + (k * 16 + q * 4))])
            elif w.bits == 16:
                weight = let(f16_decode(t.reader.halves[span((t.base >> 1) + (k * 16 + q * 4))]))
            else:
                words = t.reader.words[span((t.base >> 2) + (piece_of(w.bits, k) * 16 + q * 4))]
                quant = cast("float32x4", quant_of(w.bits, words, k))
                if w.zero:
                    quant = quant - splat(float(w.zero))
                weight = let(t.isa.madd(quant, d, m) if m is not None else quant * d)
            for r in range(t.rows):
                values[q, r] = let(t.isa.madd(weight, splat(t.x.floats[t.row + r, t.group * GROUP + k]), values[q, r]))
    for (q, r), value in values.items():
        yield q, r, value


_GROUP_DOT = {"i8": _nibbles_i8, "i16p": _nibbles_i16p, "i16": _bytes_i16, "f32": _floats}
