"""Dot products of packed weights with activations: one group of 32 columns at a time, in every activation form.

Integer sums are exact within a group; groups are then added up in float32, in order. A row of activations therefore
gets the same bits whether it is alone or one of many: tiles of four rows only share the unpacking of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tvm import tirx

from inpage.format.schema import Format

from ..shared.expressions import Buffer, Expr, cast, i32, let, loop, store
from ..shared.packed import GROUP
from ..shared.planes import planes_of
from .build import bits, local, span, splat, view
from .isa import Isa
from .math import bfloat_decode, f16_decode
from .quantize import byte_splat
from .sub_scales import SubScales, doubled, read_sub_scales, widened
from .weights import Records, bytes_of, lanes_of_pairs, piece_of, quant_of, table_number

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
    ``base``: byte offset of the weights' quants; ``acc``: running sums, float32x4 [quad][row] from ``first`` on.
    ``place``: the record of the super-block that the group is in, and which group it is there."""

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
    place: tuple[Expr, Expr] | None = None

    def at(self, quad: int, r: int) -> int:
        return self.first + (quad * self.rows + r)


def accumulate(
    isa: Isa, form: str, reader: Records, x: InputView, blocks: Sequence[Expr], row: Expr, rows: int, acc: Buffer,
    quad: bool = False,
) -> None:  # fmt: skip
    """acc[block][quad][row of the tile], float32x4: 16 output rows a block × ``rows`` activation rows.

    Group by group through all the blocks: each block is a stream through memory that the processor fetches ahead.
    Everything here is unrolled, so that every index of ``acc`` is a constant and the sums stay in registers.
    ``quad``: bytes through `Isa.quad_dot`."""
    vectors = rows * 4
    for i in range(len(blocks) * vectors):
        store(acc, splat(0.0), i)

    def tiles(b: int, base: Expr, group: Expr, place: tuple[Expr, Expr] | None = None) -> Iterator[_Tile]:
        at_once = 4 if rows == 1 else 2
        for first in range(0, 4, at_once):
            yield _Tile(isa, reader, x, base, row, group, rows, range(first, first + at_once), acc, b * vectors, place)

    if reader.super_groups and form != "f32":
        _accumulate_supers(isa, form, reader, blocks, rows, acc, quad, tiles)
        return
    group_dot = _floats if form == "f32" else _group_sums(form, quad)
    with loop(reader.groups) as group:
        for b, block in enumerate(blocks):
            place = reader.super_of(block, group)
            base = let(reader.base(block, group))
            for tile in tiles(b, base, group, place):
                for q, r, value in list(group_dot(tile)):
                    store(acc, value, tile.at(q, r))


def _accumulate_supers(
    isa: Isa, form: str, reader: Records, blocks: Sequence[Expr], rows: int, acc: Buffer, quad: bool,
    tiles: Callable[..., Iterator[_Tile]],
) -> None:  # fmt: skip
    """Within a super-block, scales are whole numbers: integer sums by sub-scale stay below 2^24, so that float32 holds
    each one exactly. They are added up with the activations' scales, and so are the minima; then each sum is
    multiplied by the super-block's own float, once."""
    vectors = rows * 4
    has_minimum = reader.w.format.super is not None and reader.w.format.super.min is not None
    dots = local(len(blocks) * vectors, "float32x4")
    minima = local(len(blocks) * vectors, "float32x4") if has_minimum else None
    with loop(reader.supers) as index:
        records = [let(reader.record(block, index)) for block in blocks]
        for i in range(len(blocks) * vectors):
            store(dots, splat(0.0), i)
            if minima is not None:
                store(minima, splat(0.0), i)
        with loop(reader.super_groups) as within:
            group = let(index * reader.super_groups + within)
            for b, record in enumerate(records):
                subs = read_sub_scales(reader, record, within)
                base = let(record + (reader.w.header + within * reader.w.step))
                scaled = _sums_of(form, quad)(subs)
                least = _least(form, quad, subs)
                for tile in tiles(b, base, group):
                    sums = scaled(tile)
                    scale = [let(splat(tile.x.scales[tile.row + r, group, 0])) for r in range(rows)]
                    for q in tile.quads:
                        for r in range(rows):
                            i = tile.at(q, r)
                            store(dots, isa.madd(cast("float32x4", sums[q, r]), scale[r], dots[i]), i)
                    if minima is None or least is None:
                        continue
                    for i, m, total in least(tile, scale):
                        store(minima, isa.madd(m, total, minima[i]), i)
        for b, record in enumerate(records):
            for q in range(4):
                d = reader.super_scale(record, q)
                for r in range(rows):
                    i = b * vectors + q * rows + r
                    store(acc, isa.madd(dots[i], d, acc[i]), i)
                if minima is None:
                    continue
                m = let(splat(0.0) - reader.super_scale(record, q, 1))
                for r in range(rows):
                    i = b * vectors + q * rows + r
                    store(acc, isa.madd(minima[i], m, acc[i]), i)


Least = Callable[[_Tile, list[Expr]], Iterator[tuple[int, Expr, Expr]]]


def _least(form: str, quad: bool, subs: SubScales) -> Least | None:
    """What a group's sub-minima add: for each sum its place, a number, float32x4, and what that is multiplied by."""
    if len(subs.minima) == 0:
        return None
    if len(subs.minima) == 1:
        widths = widened(subs.minima[0])

        def whole(t: _Tile, _: list[Expr]) -> Iterator[tuple[int, Expr, Expr]]:
            total = [let(splat(t.x.scales[t.row + r, t.group, 1])) for r in range(t.rows)]
            for q in t.quads:
                m = let(cast("float32x4", widths[q]))
                for r in range(t.rows):
                    yield t.at(q, r), m, total[r]

        return whole
    # Activations have one sum for 32 columns; that of each half is their dot product with ones.
    sums = _sums_of(form, quad, ones=True)(SubScales(subs.minima))

    def by_halves(t: _Tile, scale: list[Expr]) -> Iterator[tuple[int, Expr, Expr]]:
        for (q, r), value in sums(t).items():
            yield t.at(q, r), let(cast("float32x4", value)), scale[r]

    return by_halves


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


def _group_sums(form: str, quad: bool) -> Callable[[_Tile], Dots]:
    """The dot of one group that has floats for scales."""

    def dot(t: _Tile) -> Dots:
        yield from _affine(t, _sums_of(form, quad)(None)(t))

    return dot


def _centre(t: _Tile) -> int:
    """What is subtracted from quants before they are multiplied. Without super-blocks nothing is: a group's zero is
    then a minimum, which the activations' sum is multiplied by. There is no such sum for half a group."""
    return t.reader.w.zero if t.reader.super_groups else 0


def _lane_pieces(t: _Tile) -> int:
    """How many pieces of eight columns a 16-bit lane holds the exact products of: four products a piece."""
    centre = _centre(t)
    largest = max(centre, (1 << t.reader.w.bits) - 1 - centre)
    return 4 if 16 * 127 * largest < 1 << 15 and t.reader.w.format.group == GROUP else 2


@dataclass(frozen=True)
class _Products:
    """How a form multiplies eight columns at a time. ``xs``: of a piece, each row's activations; ``ws``: a quad's
    weights, one for each of a row's activations; ``constant``: a weight that is the same everywhere; ``add``: a sum and
    the products of both, where None is no sum yet. Without ``ws`` every weight is 1."""

    xs: Callable[[_Tile, int], list[Sequence[Expr]]]
    ws: Callable[[_Tile, int, int], Sequence[Expr]] | None
    constant: Callable[[int], Expr]
    add: Callable[[Isa, Expr | None, Sequence[Expr], Sequence[Expr]], Expr]


def _sums(t: _Tile, products: _Products, pieces: int, scaled: Callable[[Expr, int, int], Expr]) -> Sums:
    """Integer sums, int32. ``pieces``: so many are added up before ``scaled(sum, first piece, quad)``."""
    centre = _centre(t) if products.ws is not None else 0
    out: Sums = {}
    for start in range(0, 4, pieces):
        part: Sums = {}
        offset: dict[int, Expr] = {}
        for piece in range(start, start + pieces):
            xs = products.xs(t, piece)
            if centre:
                for r, row in enumerate(xs):
                    offset[r] = products.add(t.isa, offset.get(r), row, [products.constant(centre)] * len(row))
            for q in t.quads:
                ws = products.ws(t, q, piece) if products.ws else [products.constant(1)] * len(xs[0])
                for r in range(t.rows):
                    part[q, r] = products.add(t.isa, part.get((q, r)), xs[r], ws)
        for (q, r), value in part.items():
            own = scaled(value - offset[r] if centre else value, start, q)
            out[q, r] = let(out[q, r] + own if (q, r) in out else own)
    return out


def _pair_sums(products: _Products, subs: SubScales | None) -> Callable[[_Tile], Sums]:
    """Signed bytes × unsigned ones into 16-bit pair sums, for as many columns as these are exact; then into 32 bits,
    by the sub-scales."""
    factors = [doubled(scale) for scale in subs.scales] if subs is not None else [[splat(1, 8, "int16")] * 4]

    def sums(t: _Tile) -> Sums:
        def scaled(value: Expr, start: int, q: int) -> Expr:
            return t.isa.dot16(value, factors[start // 2 % len(factors)][q])

        return _sums(t, products, _lane_pieces(t), scaled)

    return sums


def _whole_sums(products: _Products, subs: SubScales | None) -> Callable[[_Tile], Sums]:
    """Sums that are in 32 bits from the beginning, by the sub-scales."""
    factors = [widened(scale) for scale in subs.scales] if subs is not None else None
    pieces = 4 // len(factors or [None])

    def scaled(value: Expr, start: int, q: int) -> Expr:
        return value if factors is None else value * factors[start // pieces][q]

    return lambda t: _sums(t, products, pieces, scaled)


def _fours(t: _Tile, piece: int) -> list[Sequence[Expr]]:
    """Of each row of activations two times four columns, each repeated over the vector."""
    at = [let((t.row + r) * (t.x.columns // 4) + t.group * 8 + piece * 2) for r in range(t.rows)]
    low = [let(byte_splat(t.x.words, a)) for a in at]
    return list(zip(low, [let(byte_splat(t.x.words, a + 1)) for a in at], strict=True))


def _twos(t: _Tile, piece: int) -> list[Sequence[Expr]]:
    """Of each row of activations four times two columns, each repeated over the vector."""
    at = [let((t.row + r) * (t.x.columns // 2) + t.group * 16 + piece * 4) for r in range(t.rows)]
    return [[let(bits("int16x8", splat(t.x.pairs[a + j], 4))) for j in range(4)] for a in at]


def _bytes_of(t: _Tile, q: int, piece: int) -> Sequence[Expr]:
    return bytes_of(t.reader, t.base, q, piece)


def _add_pairs(isa: Isa, sum: Expr | None, xs: Sequence[Expr], ws: Sequence[Expr]) -> Expr:
    """Neighbours' products into 16 bits."""
    low, high = (isa.pair_dot(x, w) for x, w in zip(xs, ws, strict=True))
    return let((low if sum is None else sum + low) + high)


def _add_quads(isa: Isa, sum: Expr | None, xs: Sequence[Expr], ws: Sequence[Expr]) -> Expr:
    """Four neighbours' products straight into 32 bits."""
    total = splat(0, dtype="int32") if sum is None else sum
    for x, w in zip(xs, ws, strict=True):
        total = let(isa.quad_dot(x, w, total))
    return total


def _add_lanes(isa: Isa, sum: Expr | None, xs: Sequence[Expr], ws: Sequence[Expr]) -> Expr:
    """Products of 16-bit lanes, neighbours' into 32 bits."""
    first, *others = (isa.dot16(w, x) for x, w in zip(xs, ws, strict=True))
    total = first if sum is None else let(sum + first)
    for own in others:
        total = let(total + own)
    return total


_PAIRS = _Products(_fours, _bytes_of, lambda n: splat(n, 16, "int8"), _add_pairs)
_QUADS = replace(_PAIRS, add=_add_quads)
# Quants masked out in place: columns (0,2) (1,3) (4,6) (5,7) of every eight.
_LANES = _Products(
    _twos, lambda t, q, piece: lanes_of_pairs(t.reader, t.base, q, piece), lambda n: splat(n, 8, "int16"), _add_lanes
)


def _wide_sums(subs: SubScales | None) -> Callable[[_Tile], Sums]:
    """Signed bytes widened to 16 bits; each dot leaves two neighbouring sums a row, which are joined at the end."""
    factors = widened(subs.scales[0]) if subs is not None else None

    def sums(t: _Tile) -> Sums:
        wide = _of_table(t) if t.reader.w.format.table is not None else _as_stored(t)
        halves: dict[tuple[int, int, int], Expr] = {}
        for piece in range(8):
            at = [let((t.row + r) * (t.x.columns // 4) + t.group * 8 + piece) for r in range(t.rows)]
            fours = [let(bits("int16x8", splat(t.x.fours[a], 2))) for a in at]
            for q in t.quads:
                for half in range(2):
                    w = wide(piece, q, half)
                    for r in range(t.rows):
                        part = t.isa.dot16(w, fours[r])
                        halves[q, r, half] = part if piece == 0 else let(halves[q, r, half] + part)
        out: Sums = {}
        for q in t.quads:
            for r in range(t.rows):
                both = [halves[q, r, 0], halves[q, r, 1]]
                even = tirx.Shuffle(both, [i32(j) for j in (0, 2, 4, 6)])
                odd = tirx.Shuffle(both, [i32(j) for j in (1, 3, 5, 7)])
                own = let(even + odd)
                out[q, r] = own if factors is None else let(own * factors[q])
        return out

    return sums


Wide = Callable[[int, int, int], Expr]  # (four columns, quad, which half of its rows) → int16x8


def _as_stored(t: _Tile) -> Wide:
    def wide(piece: int, q: int, half: int) -> Expr:
        return let(cast("int16x8", t.reader.bytes[span(t.base + piece * 64 + q * 16 + half * 8, 8)]))

    return wide


def _of_table(t: _Tile) -> Wide:
    table = t.reader.w.format.table
    assert table is not None
    found: dict[tuple[int, int], list[Expr]] = {}

    def wide(piece: int, q: int, half: int) -> Expr:
        if (piece // 2, q) not in found:
            places = bytes_of(t.reader, t.base, q, piece // 2)
            found[piece // 2, q] = [let(t.isa.lookup(table, place)) for place in places]
        numbers = found[piece // 2, q][piece % 2]
        return let(cast("int16x8", tirx.Shuffle([numbers], [i32(half * 8 + i) for i in range(8)])))

    return wide


def _floats(t: _Tile) -> Dots:
    """Float activations: every weight becomes float32; the accuracy reference of the integer kernels."""
    f = t.reader.w.format
    values = {(q, r): t.acc[t.at(q, r)] for q in t.quads for r in range(t.rows)}
    decode = bfloat_decode if f.type == "bfloat" else f16_decode
    affine = None if f.is_float else _affine_of(t)
    for q in t.quads:
        scales = None if affine is None else affine(q)
        for k in range(GROUP):
            if f.bits == 32:
                weight = let(t.reader.floats[span((t.base >> 2) + (k * 16 + q * 4))])
            elif f.bits == 16:
                weight = let(decode(t.reader.halves[span((t.base >> 1) + (k * 16 + q * 4))]))
            else:
                assert scales is not None
                words = [
                    t.reader.words[span((t.base >> 2) + (p.at // 4 + piece_of(p.width, k) * 16 + q * 4))]
                    for p in planes_of(f)
                ]
                quant = cast("float32x4", _number(t.isa, f, quant_of(f, words, k)))
                if f.zero:
                    quant = quant - splat(float(f.zero))
                d, m = scales[k // 16]
                weight = let(t.isa.madd(quant, d, m) if m is not None else quant * d)
            for r in range(t.rows):
                values[q, r] = let(t.isa.madd(weight, splat(t.x.floats[t.row + r, t.group * GROUP + k]), values[q, r]))
    for (q, r), value in values.items():
        yield q, r, value


def _affine_of(t: _Tile) -> Callable[[int], list[tuple[Expr, Expr | None]]]:
    """A quad's scale and minimum, float32x4, for the first and the last 16 columns."""
    if t.place is None:
        return lambda q: [(t.reader.scale(t.base, q), t.reader.scale(t.base, q, 1) if t.reader.w.minimum else None)] * 2
    record, within = t.place
    subs = read_sub_scales(t.reader, record, within)
    scales = [widened(scale) for scale in subs.scales]
    minima = [widened(minimum) for minimum in subs.minima]

    def of(q: int) -> list[tuple[Expr, Expr | None]]:
        d = t.reader.super_scale(record, q)
        least: list[Expr | None] = [None]
        if minima:
            of_minima = splat(0.0) - t.reader.super_scale(record, q, 1)
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


def _sums_of(form: str, quad: bool, ones: bool = False) -> Callable[[SubScales | None], Callable[[_Tile], Sums]]:
    """Integer sums of a group by its sub-scales. ``ones``: as if every quant were 1."""
    if form == "i16":
        return _wide_sums
    sums, products = (
        (_whole_sums, _LANES) if form == "i16p" else (_whole_sums, _QUADS) if quad else (_pair_sums, _PAIRS)
    )
    return partial(sums, replace(products, ws=None) if ones else products)
