"""Dot products of packed weights with several rows of activations, a tile: four output rows' weights of a group are
unpacked once and stay in registers while row after row of activations goes by.

Sums are made in the order of `dots.accumulate`, so that a row gets the same bits alone and in a tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..shared.expressions import Buffer, Expr, let, loop, store
from ..shared.packed import GROUP
from .build import local, splat
from .dots import add_group, affine, group_scales, least_of
from .floats import float_weight, floats
from .isa import Isa
from .quads import InputGroup, InputView, Made, Quads
from .sub_scales import read_sub_scales
from .sums import GroupSums, sums_of
from .weights import Records

QUADS = 4  # of outputs in a block
_FLOATS = 8  # float weights are held for so many columns at a time
At = Callable[[Expr], Expr]  # where a row's sums begin, by its number in the tile


@dataclass(frozen=True)
class Tile:
    """``count`` rows of activations from ``first`` on, at most ``most``."""

    first: Expr
    count: Expr
    most: int


def accumulate_tile(
    isa: Isa, form: str, reader: Records, x: InputView, block: Expr, tile: Tile, acc: Buffer, at: At, quad: bool = False
) -> None:
    """acc[at(row) + quad], float32x4, for 16 output rows and all rows of the tile."""
    _clear(tile, acc, at)
    if reader.super_groups and form != "f32":
        _supers(isa, form, reader, x, block, tile, acc, at, quad)
        return
    sums = None if form == "f32" else sums_of(form, quad)
    with loop(reader.groups) as group:
        place, base = reader.super_of(block, group), let(reader.base(block, group))
        records, start = (reader.placed(base), 0) if place is None else (reader, base)
        for q in range(QUADS):
            part = Quads(isa, records, start, range(q, q + 1), acc, lambda q: q, place)
            if sums is not None:
                sums.hold(part)
                group_scales(part, q)
                _rows(part, x, tile, group, at, lambda p, _: _store(p, affine(p, sums(p))))
                continue
            for first in range(0, GROUP, _FLOATS):
                _floats(part, range(first, first + _FLOATS), x, tile, group, at)


def _floats(part: Quads, columns: range, x: InputView, tile: Tile, group: Expr, at: At) -> None:
    for q in part.quads:
        for k in columns:
            float_weight(part, q, k)
    _rows(part, x, tile, group, at, lambda p, _: _store(p, floats(p, columns)))


def _supers(
    isa: Isa, form: str, reader: Records, x: InputView, block: Expr, tile: Tile, acc: Buffer, at: At, quad: bool
) -> None:
    """As `dots.accumulate` does it for super-blocks."""
    sup = reader.w.format.super
    assert sup is not None
    dots = local(tile.most * QUADS, "float32x4")
    minima: Buffer = local(tile.most * QUADS, "float32x4") if sup.min is not None else None

    def own(r: Expr) -> Expr:
        return r * QUADS

    with loop(reader.supers) as index:
        record = let(reader.record(block, index))
        for buffer in (dots, minima):
            if buffer is not None:
                _clear(tile, buffer, own)
        with loop(reader.super_groups) as within:
            group = let(index * reader.super_groups + within)
            base = let(record + (reader.w.header + within * reader.w.step))
            subs = read_sub_scales(reader, record, within)
            sums, least = sums_of(form, quad, subs), least_of(form, quad, subs)
            parts = [Quads(isa, reader, base, range(q, q + 1), acc, lambda q: q) for q in range(QUADS)]
            offsets = _offsets(sums, parts[0], x, tile, group)
            for part in parts:
                sums.hold(part)
                if least is not None:
                    least.hold(part)

                def add(p: Quads, r: Expr) -> None:
                    if offsets:
                        p.held["offsets"] = [let(offsets[0][r * offsets[1] + i]) for i in range(offsets[1])]
                    add_group(p, sums, least, dots, minima)

                _rows(part, x, tile, group, own, add)
        for q in range(QUADS):
            d = reader.super_scale(record, q)
            m = let(splat(0.0) - reader.super_scale(record, q, 1)) if minima is not None else None
            with loop(tile.count) as r:
                i = let(at(r) + q)
                store(acc, isa.madd(dots[own(r) + q], d, acc[i]), i)
                if m is not None:
                    store(acc, isa.madd(minima[own(r) + q], m, acc[i]), i)


def _offsets(sums: GroupSums, part: Quads, x: InputView, tile: Tile, group: Expr) -> tuple[Buffer, int] | None:
    """What is subtracted from each row's sums whatever the quad, and how many that are of a row."""
    count, dtype = sums.offsets_of(part)
    if not count:
        return None
    made = local(tile.most * count, dtype)

    def make(p: Quads, r: Expr) -> None:
        for i, value in enumerate(sums.offsets(p)):
            store(made, value, r * count + i)

    _rows(part, x, tile, group, lambda r: r, make)
    return made, count


def _rows(part: Quads, x: InputView, tile: Tile, group: Expr, at: At, body: Callable[[Quads, Expr], None]) -> None:
    """``body(part, r)`` for the activations of each row r of the tile."""
    with loop(tile.count) as r:
        first = let(at(r))
        body(replace(part, x=InputGroup(x, let(tile.first + r), group, True), at=lambda q: first + q), r)


def _store(p: Quads, made: Made) -> None:
    for q, value in list(made):
        store(p.acc, value, p.at(q))


def _clear(tile: Tile, acc: Buffer, at: At) -> None:
    with loop(tile.count) as r:
        for q in range(QUADS):
            store(acc, splat(0.0), at(r) + q)
