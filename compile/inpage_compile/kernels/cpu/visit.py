"""How the kernels of linear layers go through their work, and what of it is a thread's.

Whole blocks of 16 outputs for a single row; blocks × tiles of rows for many, so that threads get alike much of a matrix
with few blocks as well. Sums depend on none of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from ..shared.expressions import Expr, let, loop, when
from ..shared.packed import PackedMatrix
from .build import share
from .isa import Isa
from .tiles import QUADS, Tile

ROW_TILE = 16  # rows of activations that share one unpacking of the weights, at most
_EVEN = 128  # so many blocks are shared evenly enough among any number of threads


@dataclass(frozen=True)
class Way:
    """How a kernel goes through its work, one of several that leave the same bits. ``streams``: runs of blocks that are
    read side by side for a single row. ``tiles``: rows of activations go several at a time, see `tiles`.
    ``quad``: see `accumulate`."""

    streams: int
    tiles: bool = False
    quad: bool = False

    def __str__(self) -> str:
        parts = ["tiles"] * self.tiles + [f"streams{self.streams}"] * (self.streams > 1 or not self.tiles)
        return "_".join([*parts, *["quad"] * self.quad])


def ways(isa: Isa, weights: PackedMatrix, form: str, single: bool, few: bool = False) -> list[Way]:
    """What the device chooses from, first what runs where nothing was timed. ``single``: for steps of one row; else
    for many, or with ``few`` for many that are often just one.

    Which is fastest depends on how a CPU hides memory's latency, on its vector registers and its dot instructions."""
    quad = isa.has_quad_dot and form == "i8"
    if single:
        return [Way(2), Way(1), Way(3), Way(4), *([Way(2, quad=True), Way(1, quad=True)] if quad else [])]
    streams = [2, 3] if few and form == "i8" else [2] if few else [1]
    return [*(Way(n, True) for n in streams), *([Way(streams[0], True, True)] if quad else [])]


def has_edges(weights: PackedMatrix, form: str) -> bool:
    """Whether a single row's outputs are shared by quads: where blocks are few, and a quad can be made by itself."""
    return weights.blocks < _EVEN and weights.format.super is None and form != "f32"


def visit(
    rows: Expr, units: int, way: Way, emit: Callable[[list[Expr], Expr], None],
    emit_tile: Callable[[Expr, Tile], None], edge: Callable[[Expr, Expr, Expr], None] | None = None,
) -> None:  # fmt: skip
    """This thread's part of ``units`` for all rows. ``emit(units, row)``: a row by itself, several runs of neighbours
    side by side, then what is left over. ``emit_tile(unit, tile)``: unit by unit, so that a unit's weights are read
    once. ``edge(unit, quad, row)``: a quad of a unit that threads share."""

    def by_row(first: Expr, last: Expr) -> None:
        each = let((last - first) // way.streams)
        with loop(rows) as row:
            with loop(each) as i:
                emit([let(first + (i + s * each)) for s in range(way.streams)], row)
            if way.streams > 1:
                with loop(last - first - each * way.streams) as i:
                    emit([let(first + (each * way.streams + i))], row)

    def by_tile(tiles: Expr, first: Expr, last: Expr) -> None:
        size = let(tirx.truncdiv(rows + (tiles - 1), tirx.Max(tiles, 1)))
        with loop(last - first) as i:
            at = let(first + i)
            unit, tile = let(tirx.truncdiv(at, tiles)), let(tirx.truncmod(at, tiles))
            row = let(tile * size)
            emit_tile(unit, Tile(row, let(tirx.Min(rows - row, size)), ROW_TILE))

    if way.tiles:
        tiles = let((rows + (ROW_TILE - 1)) >> (ROW_TILE.bit_length() - 1))
        with share(tiles * units) as (first, last):
            if way.streams == 1:
                by_tile(tiles, first, last)
            else:
                with when(rows == 1):
                    by_row(first, last)
                with when(rows != 1):
                    by_tile(tiles, first, last)
    elif edge is None:
        with share(units) as (first, last):
            by_row(first, last)
    else:
        with share(units * QUADS) as (first, last):
            begin, end = let((first + (QUADS - 1)) >> 2), let(last >> 2)
            lead = let(tirx.Min(begin * QUADS, last))
            trail = let(tirx.Max(end * QUADS, lead))
            with loop(rows) as row, loop(lead - first + (last - trail)) as i:
                at = let(tirx.Select(i < lead - first, first + i, trail + (i - (lead - first))))
                edge(let(at >> 2), let(at & 3), row)
            by_row(begin, let(tirx.Max(begin, end)))
