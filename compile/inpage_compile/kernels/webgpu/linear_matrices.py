"""The sums of `linear` by matrix units: activations and unpacked weights are rounded to float16, and products are added
up in float32.

Columns have four shares. Each is added up by itself, so many columns after the others as the units take at once, then
the shares are added in their order. A workgroup has four teams of 32 threads. Of few rows each team has a share of 16
outputs, of many rows a quarter of the tile, one share after another. What a unit makes of one row and one output is its
own affair, and the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ..shared.packed import GROUP, PackedMatrix
from .ahead import Ahead
from .build import Args, Buffer, Expr, barrier, call, cast, lane, let, local, loop, splat, store, vector, when
from .matrix_units import TEAM, MatrixUnits
from .sums import Inputs
from .weights import QuadReader

SHARES = 4
THREADS = SHARES * TEAM
_FOURS = GROUP // 4
_ACROSS = 32  # outputs of a team's quarter
_DOWN = 16  # of its rows, whose sums leave the units at once
Finish = Callable[[Expr, Expr, Expr, list[Any]], None]


@dataclass(frozen=True)
class ByUnits:
    """A workgroup's ``rows``: 16, by 16 outputs or by a pair of them, or, in a tile by 64 outputs, 32 or 64."""

    units: MatrixUnits
    rows: int = 16

    @property
    def tile(self) -> bool:
        return self.rows > 16

    @property
    def blocks(self) -> int:
        """Of a tile: of 16 outputs."""
        return 4

    def __str__(self) -> str:
        return f"{self.rows}x{64 if self.tile else 16}_units_{self.units}"


def share_bounds(share: Expr, columns: int) -> tuple[Expr, Expr]:
    """Of a share: its first 32 columns' number, and the number behind its last ones'."""
    groups = columns // GROUP
    return let(share * groups // SHARES), let((share + 1) * groups // SHARES)


class _ByUnits:
    """What both have in common. ``width``: outputs of a line of the workgroup's weights."""

    width: int
    ws: Buffer
    xs: Buffer

    def __init__(self, weights: PackedMatrix, shape: ByUnits, inputs: Inputs, rows: Expr, t: Expr, blocks: int) -> None:
        self.weights, self.units, self.inputs, self.rows, self.t = weights, shape.units, inputs, rows, t
        self.blocks = blocks
        self.team, self.lane = let(t // TEAM), let(t % TEAM)
        self.w, self.x = Ahead(inputs.w, "uint32x4"), Ahead(inputs.x, inputs.x_type)

    def works(self) -> Expr:
        """Whether this thread is one of its team's first subgroup, which works the units."""
        # Not `Args.subgroup_size`: that is for kernels in the place of which others run, and here none does.
        return let(cast("uint32", self.lane) < call("uint32", "subgroup_size"))

    def start(self, row: Expr) -> Expr:
        """Of a row, in vectors; rows past the last one repeat it."""
        return let(tirx.Min(row, self.rows - 1) * (self.weights.columns // 4))

    def own_columns(self, group: Expr) -> Iterator[tuple[Expr, list[Expr]]]:
        """What this thread unpacks of 32 columns: four of a quad of weight rows, once or twice. (Where they go in
        ``ws``, a line of which is a column; float32x4.)"""
        raise NotImplementedError

    def own_vectors(self, group: Expr) -> Iterator[tuple[Expr, Expr]]:
        """Which vectors of activations it loads: (where they go in ``xs``, where they are)."""
        raise NotImplementedError

    def fetch(self, group: Expr) -> None:
        """All of that into registers."""
        self.w.again(fetching=True)
        self.x.again(fetching=True)
        for _ in self.own_columns(group):
            pass
        for _, at in self.own_vectors(group):
            self.x[at]

    def unpack(self, group: Expr) -> None:
        """What was fetched into the workgroup's memory."""
        self.w.again(fetching=False)
        self.x.again(fetching=False)
        for place, columns in self.own_columns(group):
            for k, column in enumerate(columns):
                self._put(self.ws, place + k * self.width, column)
        for place, at in self.own_vectors(group):
            self._put(self.xs, place, self.x[at])

    def columns(self, block: Expr, quad: Expr, group: Expr, four: Expr) -> list[Expr]:
        reader = QuadReader(self.weights, self.w, quad)
        return reader.columns(reader.four(reader.record(block, group), four))

    def _put(self, memory: Buffer, at: Expr, value: Expr) -> None:
        four = let(cast("float16x4", value))
        for i in range(4):
            store(memory, lane(four, i), at + i)

    def multiply(self, sums: Buffer, x: Expr, w: Expr, rows: int, outputs: int) -> None:
        """32 columns of ``rows`` by ``outputs``, which stand from ``x`` and ``w`` on."""
        u, width = self.units, self.width
        left, right = u.values(rows // u.m), u.values(outputs // u.n)
        for step in range(GROUP // u.k):
            for i in range(rows // u.m):
                u.left(left, i, self.xs, let(x + (i * u.m * GROUP + step * u.k)), GROUP)
            for j in range(outputs // u.n):
                u.right(right, j, self.ws, let(w + (step * u.k * width + j * u.n)), width)
            for i in range(rows // u.m):
                for j in range(outputs // u.n):
                    u.multiply(sums, i * (outputs // u.n) + j, left, i, right, j)


class UnitRows(_ByUnits):
    """Few rows. ``unit``: which block of weight rows, or which pair of ``blocks``; ``by``: which 16 rows."""

    def __init__(
        self, a: Args, weights: PackedMatrix, shape: ByUnits, inputs: Inputs, rows: Expr, unit: Expr, by: Expr,
        t: Expr, blocks: int,
    ) -> None:  # fmt: skip
        super().__init__(weights, shape, inputs, rows, t, blocks)
        self.unit, self.first = unit, let(by * shape.rows)
        self.width = 16 * blocks
        self.ws = a.workgroup(SHARES * GROUP * self.width, "float16")
        self.xs = a.workgroup(SHARES * shape.rows * GROUP, "float16")
        self.parts = a.workgroup(SHARES * shape.rows * 16, "float32")
        self.working = self.works()

    def each(self, finish: Finish) -> None:
        """``finish(row, unit, quad, values)`` for each row of activations there is: float32x4 of each block."""
        u, count = self.units, 16 // self.units.m * (self.width // self.units.n)
        sums = u.values(count)
        for i in range(count):
            u.zero(sums, i)
        low, high = share_bounds(self.team, self.weights.columns)
        groups = self.weights.columns // GROUP
        self.fetch(let(tirx.Min(low, groups - 1)))
        with loop(-(-groups // SHARES)) as i:
            group = let(low + i)
            there = let(group < high)
            barrier()
            with when(there):
                self.unpack(group)
            barrier()
            self.fetch(let(tirx.Min(group + 1, groups - 1)))
            with when(tirx.all(there, self.working)):
                x, w = let(self.team * (16 * GROUP)), let(self.team * (GROUP * self.width))
                self.multiply(sums, x, w, 16, self.width)
        own, quad = let(self.t // 4), let(self.t % 4)
        totals = local(self.blocks, "float32x4")
        across = self.width // u.n
        for block in range(self.blocks):
            barrier()
            with when(self.working):
                for i in range(16 // u.m):
                    for j in range(16 // u.n):
                        at = let((self.team * 16 + i * u.m) * 16 + j * u.n)
                        u.leave(sums, i * across + block * (16 // u.n) + j, self.parts, at, 16)
            barrier()
            with when(own < 16):
                store(totals, splat(0.0), block)
                with loop(SHARES) as share:
                    at = let((share * 16 + own) * 16 + quad * 4)
                    store(totals, totals[block] + vector(*(self.parts[at + n] for n in range(4))), block)
        row = let(self.first + own)
        with when(tirx.all(own < 16, row < self.rows)):
            finish(row, self.unit, quad, [let(totals[b]) for b in range(self.blocks)])

    def own_columns(self, group: Expr) -> Iterator[tuple[Expr, list[Expr]]]:
        quad, four = let(self.lane % 4), let(self.lane // 4)
        for b in range(self.blocks):
            place = let((self.team * GROUP + four * 4) * self.width + b * 16 + quad * 4)
            yield place, self.columns(let(self.unit * self.blocks + b), quad, group, four)

    def own_vectors(self, group: Expr) -> Iterator[tuple[Expr, Expr]]:
        for n in range(16 * _FOURS // TEAM):
            item = let(self.lane + n * TEAM)
            row, four = let(item // _FOURS), let(item % _FOURS)
            place = let((self.team * 16 + row) * GROUP + four * 4)
            yield place, let(self.start(self.first + row) + group * _FOURS + four)


class UnitTile(_ByUnits):
    """Some rows by 64 outputs, a quarter for each team. ``bx``, ``by``: which tile of weight rows, and of rows."""

    def __init__(
        self, a: Args, weights: PackedMatrix, shape: ByUnits, inputs: Inputs, rows: Expr, bx: Expr, by: Expr, t: Expr,
        blocks: int,
    ) -> None:  # fmt: skip
        super().__init__(weights, shape, inputs, rows, t, blocks)
        self.width = 64
        self.first_block, self.first_row = let(bx * shape.blocks), let(by * shape.rows)
        self.ws = a.workgroup(GROUP * self.width, "float16")
        self.xs = a.workgroup(shape.rows * GROUP, "float16")
        self.parts = a.workgroup(SHARES * _DOWN * _ACROSS, "float32")
        self.own_rows = shape.rows // 2  # of a team
        self.items = [let(t + n * THREADS) for n in range(shape.rows * _FOURS // THREADS)]
        self.starts = [self.start(self.first_row + item // _FOURS) for item in self.items]
        self.part_row, self.part_output = let(self.team // 2 * self.own_rows), let(self.team % 2 * _ACROSS)
        self.has_rows = let(self.first_row + self.part_row < rows)
        self.working = tirx.all(self.works(), self.has_rows)

    def each(self, finish: Finish) -> None:
        """``finish(row, unit, quad, values)`` for each row of activations there is, and each block, or pair of
        ``blocks``, of the tile: float32x4 of each of its blocks. It may be a block past the last one."""
        parts = self.own_rows // _DOWN
        totals = local(4 * parts, "float32x4")  # [part of the rows][quad][block]
        for i in range(4 * parts):
            store(totals, splat(0.0), i)
        self._accumulate(totals)
        block = let(self.first_block + self.team % 2 * 2)
        for part in range(parts):
            row = let(self.first_row + self.part_row + (part * _DOWN + self.lane // 2))
            with when(row < self.rows):
                for n in range(2):
                    quad = let(self.lane % 2 * 2 + n)
                    values = [let(totals[part * 4 + n * 2 + b]) for b in range(2)]
                    if self.blocks == 2:
                        finish(row, let(block // 2), quad, values)
                        continue
                    for b in range(2):
                        finish(row, let(block + b), quad, [values[b]])

    def _accumulate(self, totals: Buffer) -> None:
        u, groups = self.units, self.weights.columns // GROUP
        count = self.own_rows // u.m * (_ACROSS // u.n)
        sums = u.values(count)
        self.fetch(0)
        with loop(SHARES) as share:
            for i in range(count):
                u.zero(sums, i)
            low, high = share_bounds(share, self.weights.columns)
            with loop(high - low) as i:
                group = let(low + i)
                barrier()
                self.unpack(group)
                barrier()
                self.fetch(let(tirx.Min(group + 1, groups - 1)))
                with when(self.working):
                    self.multiply(sums, let(self.part_row * GROUP), self.part_output, self.own_rows, _ACROSS)
            for part in range(self.own_rows // _DOWN):
                self._add(sums, totals, part)

    def _add(self, sums: Buffer, totals: Buffer, part: int) -> None:
        """A share's sums of 16 of a team's rows to their totals."""
        u, across, down = self.units, _ACROSS // self.units.n, _DOWN // self.units.m
        barrier()
        first = let(self.team * (_DOWN * _ACROSS))
        with when(self.working):
            for i in range(down):
                for j in range(across):
                    at = let(first + (i * u.m * _ACROSS + j * u.n))
                    u.leave(sums, (part * down + i) * across + j, self.parts, at, _ACROSS)
        barrier()
        for n in range(2):
            quad = let(self.lane % 2 * 2 + n)
            for b in range(2):
                at, i = let(first + self.lane // 2 * _ACROSS + b * 16 + quad * 4), part * 4 + n * 2 + b
                store(totals, totals[i] + vector(*(self.parts[at + k] for k in range(4))), i)

    def own_columns(self, group: Expr) -> Iterator[tuple[Expr, list[Expr]]]:
        quad, four, block = let(self.t % 4), let(self.t // 4 % _FOURS), let(self.t // (4 * _FOURS))
        at = self.first_block + block
        if self.weights.blocks % 4:
            at = tirx.Min(at, self.weights.blocks - 1)
        place = let(four * (4 * self.width) + block * 16 + quad * 4)
        yield place, self.columns(let(at), quad, group, four)

    def own_vectors(self, group: Expr) -> Iterator[tuple[Expr, Expr]]:
        for item, start in zip(self.items, self.starts, strict=True):
            row, four = let(item // _FOURS), let(item % _FOURS)
            yield let(row * GROUP + four * 4), let(start + group * _FOURS + four)


__all__ = ["THREADS", "ByUnits", "UnitRows", "UnitTile"]
