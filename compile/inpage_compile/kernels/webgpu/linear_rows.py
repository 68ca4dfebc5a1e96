"""The sums of a few rows of activations with 16 outputs, or with 16 gates and 16 ups: see `linear`. Every weight is
unpacked once for all of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tvm import tirx

from ..shared.packed import GROUP, PackedMatrix
from .build import (
    WORKGROUP_BYTES,
    Args,
    Buffer,
    Expr,
    across,
    barrier,
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
from .sums import Inputs, share_bounds, shares_of, threads_of
from .weights import Four, QuadReader

_TOGETHER = 4  # rows; a step that has fewer than a workgroup takes leaves out the others by so many


class FewRows:
    """One workgroup's sums. ``rows``: how many there are in all; ``unit``: which block of weight rows, or which pair of
    ``blocks``; ``by``: which tile of ``tile`` rows."""

    def __init__(
        self, a: Args, weights: PackedMatrix, tile: int, inputs: Inputs, rows: Expr, unit: Expr, by: Expr, t: Expr,
        blocks: int,
    ) -> None:  # fmt: skip
        self.weights, self.tile, self.inputs, self.blocks = weights, tile, inputs, blocks
        self.rows, self.unit, self.by, self.t = rows, unit, by, t
        self.shares, self.threads = shares_of(weights.columns), threads_of(weights.columns)
        self.quad, self.share = let(t % 4), let(t // 4)
        # Rows whose shares lie in the workgroup's memory at once.
        self.room, each = tile, self.threads * (16 if inputs.norm is None else 20)
        while self.room * each > WORKGROUP_BYTES:
            self.room //= 2
        self.blocks_at_once = self._blocks_at_once(each)
        self.parts = a.workgroup(self.blocks_at_once * self.room * self.threads, "float32x4")
        self.squares: Buffer = None
        if inputs.norm is not None:
            self.squares = self._room_for_squares(a)
            self.own_squares, self.inverse = local(tile, "float32"), local(1, "float32")
        self.starts = []  # of each row of activations, in vectors; rows past the last one repeat it
        for r in range(tile):
            row = let(tirx.Min(by * tile + r, rows - 1))
            self.starts.append(let(row * (weights.columns // 4)))

    def each(self, finish: Callable[[Expr, Expr, Expr, list[Any]], None]) -> None:
        """``finish(row, unit, quad, values)`` for each row of activations there is: float32x4 of each block."""
        self._accumulate()
        tile_row, row = let(self.t // 4), let(self.by * self.tile + self.t // 4)
        there = tirx.all(tile_row < self.tile, row < self.rows)
        sums = local(self.blocks, "float32x4")
        for low in range(0, self.blocks, self.blocks_at_once):
            blocks = range(low, low + self.blocks_at_once)
            for first in range(0, self.tile, self.room):
                if low or first:
                    barrier()
                for block in blocks:
                    self._leave_shares(block, first)
                barrier()
                last = first + self.room
                mine = there if self.room == self.tile else tirx.all(there, tile_row >= first, tile_row < last)
                with when(mine):
                    own = let(tile_row - first if first else tile_row)
                    for block in blocks:
                        self._add_shares(block, sums, own)
        with when(there):
            values = [let(sums[b]) for b in range(self.blocks)]
            if self.inputs.norm is not None:
                values = [let(value * splat(self.inverse[0])) for value in values]
            finish(row, self.unit, self.quad, values)

    def _blocks_at_once(self, each: int) -> int:
        """Whose shares lie in the workgroup's memory at once. ``each``: bytes that a row's take there."""
        return 1

    def _start(self, block: int) -> int:
        """Of a block's shares."""
        return block % self.blocks_at_once * self.room * self.threads

    def _accumulate(self) -> None:
        """Each thread's share of the sums."""
        inputs = self.inputs
        reader = QuadReader(self.weights, inputs.w, self.quad)
        self.sums = local(self.blocks * self.tile, "float32x4")
        for i in range(self.blocks * self.tile):
            store(self.sums, splat(0.0), i)
        squares = local(self.tile, "float32x4")
        if inputs.norm is not None:
            for r in range(self.tile):
                store(squares, splat(0.0), r)
        own = [let(self.unit * self.blocks + b) for b in range(self.blocks)] if self.blocks > 1 else [self.unit]
        with self._groups() as group:
            records = [reader.record(block, group) for block in own]
            with reader.fours(records) as (four, quants):
                self._add_four(reader, quants, group, four)
            if inputs.norm is not None:
                self._add_squares(squares, group)
        if inputs.norm is not None:
            for r in range(self.tile):
                v = let(squares[r])
                store(self.own_squares, across(v), r)

    @contextmanager
    def _groups(self) -> Iterator[Expr]:
        """A loop over this thread's columns, 32 at a time: which of the row's."""
        low, high = share_bounds(self.share, self.weights.columns)
        with loop(high - low) as i:
            yield let(low + i)

    def _in_parts(self, do: Callable[[range], None]) -> None:
        """``do`` for the tile's rows; where they are many, not for those that the step does not have."""
        if self.tile <= _TOGETHER:
            do(range(self.tile))
            return
        for first in range(0, self.tile, _TOGETHER):
            with when(self.by * self.tile + first < self.rows):
                do(range(first, first + _TOGETHER))

    def _add_four(self, reader: QuadReader, quants: list[Four], group: Expr, four: Expr) -> None:
        """Four columns of each block, times their activations."""
        at = let(group * (GROUP // 4) + four)
        norm = None if self.inputs.norm is None else let(self.inputs.norm[at])
        columns = [reader.columns(of) for of in quants]
        self._in_parts(lambda rows: self._add(columns, {r: self.inputs.read(self.starts[r] + at, norm) for r in rows}))

    def _add(self, columns: list[list[Expr]], xs: dict[int, Expr]) -> None:
        """``xs``: a row's four activations, by row."""
        for b, four in enumerate(columns):
            for r, x in xs.items():
                i = b * self.tile + r
                total = self.sums[i]
                for k, column in enumerate(four):
                    total = madd(column, splat(lane(x, k)), total)
                store(self.sums, total, i)

    def _add_squares(self, squares: Buffer, group: Expr) -> None:
        """A quarter of the group's columns for each quad of threads."""

        def add(rows: range) -> None:
            for v in range(2):
                at = let(group * (GROUP // 4) + self.quad * 2 + v)
                for r in rows:
                    value = self.inputs.read(self.starts[r] + at, None)
                    store(squares, madd(value, value, squares[r]), r)

        self._in_parts(add)

    def _room_for_squares(self, a: Args) -> Buffer:
        return a.workgroup(self.room * self.threads, "float32")

    def _leave_shares(self, block: int, first: int) -> None:
        """This thread's share of rows of the tile from ``first`` on, for the others."""
        for r in range(self.room):
            at = self._start(block) + r * self.threads + self.t
            store(self.parts, self.sums[block * self.tile + first + r], at)
            if self.inputs.norm is not None and block == 0:
                self._leave_squares(r, self.own_squares[first + r])

    def _leave_squares(self, row: int, own: Expr) -> None:
        store(self.squares, own, row * self.threads + self.t)

    def _add_shares(self, block: int, sums: Buffer, row: Expr) -> None:
        """``row``: of those whose shares are there. With the first block the row's 1/rms is found as well."""
        start = let(self._start(block) + row * self.threads + self.quad)
        store(sums, self.parts[start], block)
        with loop(self.shares - 1) as i:
            store(sums, sums[block] + self.parts[start + (i + 1) * 4], block)
        if self.inputs.norm is None or block:
            return
        total = local(1, "float32")
        store(total, f32(0.0), 0)
        self._sum_squares(total, row)
        store(self.inverse, self.inputs.inverse_rms(total[0], self.weights.columns), 0)

    def _sum_squares(self, total: Buffer, row: Expr) -> None:
        """Of all threads, in their order."""
        with loop(self.threads) as i:
            store(total, total[0] + self.squares[row * self.threads + i], 0)


__all__ = ["FewRows"]
