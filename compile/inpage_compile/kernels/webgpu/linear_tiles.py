"""The sums of many rows of activations, in tiles: a workgroup unpacks 32 columns of its weights, and takes as many of
its rows, into its memory at a time, and each thread adds to 8 outputs of some rows in registers.

A row's sum is `FewRows`' to the bit: each share of the columns by itself, in order of columns, then added to those
before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ..shared.packed import GROUP, PackedMatrix
from .ahead import Ahead
from .build import (
    Args,
    Buffer,
    Expr,
    across,
    barrier,
    cast,
    f32,
    lane,
    let,
    local,
    loop,
    madd,
    splat,
    store,
    when,
)
from .sums import Inputs, share_bounds, shares_of
from .weights import QuadReader

_FOURS = GROUP // 4  # vectors of a row in the workgroup's memory
ENOUGH = 128  # workgroups
_PROMPT = 128  # rows


@dataclass(frozen=True)
class Tile:
    """``rows`` by ``outputs`` of a workgroup, ``own`` rows by 8 outputs of a thread: the same quad of both blocks of a
    pair, so that a gate and its up meet in one thread."""

    rows: int
    outputs: int
    own: int

    @property
    def threads(self) -> int:
        return self.rows // self.own * (self.outputs // 8)

    @property
    def blocks(self) -> int:
        return self.outputs // 16

    def __str__(self) -> str:
        return f"{self.rows}x{self.outputs}x{self.own}"


TILES = (Tile(64, 64, 8), Tile(64, 64, 4), Tile(32, 64, 4), Tile(32, 32, 2))


def workgroups(blocks: int, rows: int, weights: PackedMatrix, count: int) -> int:
    """Of a prompt's piece of up to ``count`` rows, where one makes ``rows`` by ``blocks`` of 16 outputs."""
    return -(-weights.blocks // blocks) * -(-min(count, _PROMPT) // rows)


def tiles_for(weights: PackedMatrix, rows: int) -> tuple[Tile, Tile]:
    """The largest one with which a prompt still is enough workgroups for a large GPU, and the next larger one, with
    more of it in fewer threads. ``rows``: most of a step."""
    _, *usual = TILES
    many = (tile for tile in usual if workgroups(tile.blocks, tile.rows, weights, rows) >= ENOUGH)
    best = TILES.index(next(many, usual[-1]))
    return TILES[best], TILES[best - 1]


class TileSums:
    """One workgroup's sums. ``rows``: how many there are in all; ``bx``, ``by``: which tile of weight rows, and of
    rows; ``blocks``: 2 where gates and ups are interleaved."""

    def __init__(
        self, a: Args, weights: PackedMatrix, tile: Tile, inputs: Inputs, rows: Expr, bx: Expr, by: Expr, t: Expr,
        blocks: int,
    ) -> None:  # fmt: skip
        self.weights, self.tile, self.inputs, self.blocks = weights, tile, inputs, blocks
        self.rows, self.t = rows, t
        self.w, self.x = Ahead(inputs.w, "uint32x4"), Ahead(inputs.x, inputs.x_type)
        self.norm = None if inputs.norm is None else Ahead(inputs.norm, "float32x4")
        self.first_block, self.first_row = let(bx * tile.blocks), let(by * tile.rows)
        across_ = tile.outputs // 8
        lane_ = let(t % across_)
        self.pair, self.quad = let(lane_ // 4), let(lane_ % 4)
        self.line = let(t // across_)  # of the threads: its rows are `own` neighbours
        self.own_row = let(self.line * tile.own)
        self.memory(a)
        self.sums, self.totals = (local(2 * tile.own, "float32x4") for _ in range(2))
        self.items = [let(t + n * tile.threads) for n in range(tile.rows * 4 // tile.threads)]
        self.starts = []  # of the rows that this thread loads a quarter of, in vectors; the last one is repeated
        for item in self.items:
            row = let(tirx.Min(self.first_row + item // 4, rows - 1))
            self.starts.append(let(row * (weights.columns // 4)))

    def memory(self, a: Args) -> None:
        """[column][quad of outputs], and [row][four columns], these turned so that no two lines meet a bank."""
        self.ws = a.workgroup(GROUP * self.tile.outputs // 4, "float32x4")
        self.xs = a.workgroup(self.tile.rows * _FOURS, "float32x4")

    def each(self, finish: Callable[[Expr, Expr, Expr, list[Any]], None]) -> None:
        """``finish(row, unit, quad, values)`` for each row of activations there is, and each block, or pair of
        ``blocks``, of the tile: float32x4 of each of its blocks. It may be a block past the last one."""
        self._accumulate()
        own, first = self.tile.own, let(self.first_row + self.own_row)
        pair = let(self.first_block // 2 + self.pair)
        with loop(own if self.blocks == 2 else 2 * own) as i:
            r = i if self.blocks == 2 else let(i % own)
            row = let(first + r)
            with when(row < self.rows):
                if self.blocks == 2:
                    values = [self._pick(range(q * own, (q + 1) * own), r) for q in range(2)]
                else:
                    values = [self._pick(range(2 * own), i)]
                if self.inputs.norm is not None:
                    values = [let(value * self.xs[self.own_row + r]) for value in values]
                unit = pair if self.blocks == 2 else let(pair * 2 + i // own)
                finish(row, unit, self.quad, values)

    def _pick(self, those: range, which: Expr) -> Expr:
        """A total by number; as an index it would cost the totals their registers."""
        value = local(1, "float32x4")
        store(value, self.totals[those[0]], 0)
        for n in range(1, len(those)):
            with when(which == n):
                store(value, self.totals[those[n]], 0)
        return let(value[0])

    def _accumulate(self) -> None:
        groups, shares = self.weights.columns // GROUP, shares_of(self.weights.columns)
        self.squares = local(len(self.items), "float32x4")
        squares = local(1, "float32")  # of the row that has this thread's number
        store(squares, f32(0.0), 0)
        for i in range(2 * self.tile.own):
            store(self.totals, splat(0.0), i)
        self._fetch(0)
        with loop(shares) as share:
            for i in range(2 * self.tile.own):
                store(self.sums, splat(0.0), i)
            if self.inputs.norm is not None:
                for i in range(len(self.items)):
                    store(self.squares, splat(0.0), i)
            low, high = share_bounds(share, self.weights.columns)
            with loop(high - low) as i:
                group = let(low + i)
                barrier()
                self._unpack(group)
                barrier()
                self._fetch(let(tirx.Min(group + 1, groups - 1)))
                with when(self.first_row + self.own_row < self.rows):
                    self._multiply()
            if self.inputs.norm is not None:
                self._add_squares(squares)
            with when(share > 0):  # and not to 0, which would make 0 of -0
                for i in range(2 * self.tile.own):
                    store(self.sums, self.totals[i] + self.sums[i], i)
            for i in range(2 * self.tile.own):
                store(self.totals, self.sums[i], i)
        if self.inputs.norm is not None:
            barrier()
            with when(self.t < self.tile.rows):
                inverse = let(self.inputs.inverse_rms(squares[0], self.weights.columns))
                store(self.xs, splat(inverse), self.t)
            barrier()

    def _fetch(self, group: Expr) -> None:
        """What this thread unpacks of a group of columns, into registers."""
        self._rewind(fetching=True)
        self._columns(group)
        for start, _, at in self._quarters(group):
            self.x[start + at]
            if self.norm is not None:
                self.norm[at]

    def _unpack(self, group: Expr) -> None:
        """What was fetched of a group into the workgroup's memory. The squares of activations are added up."""
        self._rewind(fetching=False)
        for place, column in self._columns(group):
            store(self.ws, column, place)
        for n, (start, place, at) in enumerate(self._quarters(group)):
            value = let(cast("float32x4", self.x[start + at]))
            if self.norm is not None:
                store(self.squares, madd(value, value, self.squares[n // 2]), n // 2)
                value = let(value * self.norm[at])
            store(self.xs, value, place)

    def _rewind(self, *, fetching: bool) -> None:
        for each in (self.w, self.x, self.norm):
            if each is not None:
                each.again(fetching=fetching)

    def _columns(self, group: Expr) -> list[tuple[Expr, Expr]]:
        """(where in the workgroup's memory, float32x4): four columns of a quad of outputs, once or more."""
        tile, w, out = self.tile, self.weights, []
        for n in range(tile.outputs // 4 * _FOURS // tile.threads):
            item = let(self.t + n * tile.threads)
            quad, four, block = let(item % 4), let(item // 4 % _FOURS), let(item // (4 * _FOURS))
            at = self.first_block + block
            if w.blocks % tile.blocks:
                at = tirx.Min(at, w.blocks - 1)
            reader = QuadReader(w, self.w, quad)
            columns = reader.columns(reader.four(reader.record(let(at), group), four))
            first = let(four * tile.outputs + block * 4 + quad)
            out += [(first + k * (tile.outputs // 4), column) for k, column in enumerate(columns)]
        return out

    def _quarters(self, group: Expr) -> Iterator[tuple[Expr, Expr, Expr]]:
        """The two vectors of each quarter of a group that this thread loads: (where their row begins, where they go in
        the workgroup's memory, where they are in the row)."""
        for item, start in zip(self.items, self.starts, strict=True):
            row, quarter = let(item // 4), let(item % 4)
            turn = let(row // self.tile.own % _FOURS)
            for v in range(2):
                four = let(quarter * 2 + v)
                yield start, row * _FOURS + (four ^ turn), let(group * _FOURS + four)

    def _multiply(self) -> None:
        own, quads = self.tile.own, self.tile.outputs // 4
        turn, first = let(self.line % _FOURS), let(self.pair * 8 + self.quad)
        with loop(_FOURS) as four:
            place = let(four ^ turn)
            xs = [let(self.xs[(self.own_row + r) * _FOURS + place]) for r in range(own)]
            for k in range(4):
                for q in range(2):
                    column = let(self.ws[first + (four * 4 + k) * quads + 4 * q])
                    for r in range(own):
                        i = q * own + r
                        store(self.sums, madd(column, splat(lane(xs[r], k)), self.sums[i]), i)

    def _add_squares(self, total: Buffer) -> None:
        """A share's squares to its rows', a quarter of the columns after the other, as `FewRows` has them."""
        barrier()
        for n, item in enumerate(self.items):
            store(self.xs, self.squares[n], item)
        barrier()
        with when(self.t < self.tile.rows):
            with loop(4) as quarter:
                v = let(self.xs[self.t * 4 + quarter])
                store(total, total[0] + across(v), 0)


__all__ = ["ENOUGH", "TILES", "Tile", "TileSums", "tiles_for", "workgroups"]
