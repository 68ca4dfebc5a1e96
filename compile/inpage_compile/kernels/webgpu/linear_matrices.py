"""The sums of `linear` by subgroup matrices: activations and unpacked weights are rounded to float16, and products are
added up in float32.

Columns have four shares. Each is added up by itself, as many columns after the others as a matrix has, then the shares
are added in their order. A workgroup has four teams of 32 threads. Of few rows each team has a share of 16 outputs, of
many rows a quarter of the tile, one share after another. In which order a GPU adds up one product of two matrices, WGSL
leaves open; that it is the same for every element, wherever it stands, is assumed: then a row gets the same bits in
both.
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
from .sums import Inputs, share_bounds
from .weights import QuadReader

SHARES = 4
TILE_BLOCKS = 4  # of 16 outputs
THREADS = SHARES * TEAM
_FOURS = GROUP // 4
LINE = GROUP + 8  # float16: lines begin at whole vectors
_ACROSS = 32  # outputs of a team's quarter of a tile
Finish = Callable[[Expr, Expr, Expr, list[Any]], None]


@dataclass(frozen=True)
class MatrixShape:
    """A workgroup's ``rows``: 16, by 16 outputs or by a pair of them, or, in a tile by 64 outputs, 32 or 64."""

    units: MatrixUnits
    rows: int = 16

    @property
    def tile(self) -> bool:
        return self.rows > 16

    def __str__(self) -> str:
        return f"{self.rows}x{16 * TILE_BLOCKS if self.tile else 16}_matrix_{self.units}"


class _MatrixSums:
    """What both have in common. Lines of the workgroup's memory are rows of weights and of activations; 32 columns take
    40 elements, so that few of a subgroup's threads meet a bank."""

    xs: Buffer
    working: Expr  # whether this thread works the units
    taken = 1  # blocks of weight rows that a thread unpacks four columns of a quad of, one after another

    def __init__(
        self, a: Args, weights: PackedMatrix, units: MatrixUnits, inputs: Inputs, rows: Expr, t: Expr, blocks: int
    ) -> None:
        self.weights, self.units, self.rows, self.t, self.blocks = weights, units, rows, t, blocks
        self.across, self.down = 16 // units.n, 16 // units.m  # matrices of 16 rows by 16 outputs
        self.ws = a.workgroup(SHARES * 16 * LINE, "float16")
        self.parts = a.workgroup(SHARES * 16 * 16, "float32")
        self.team, self.lane = let(t // TEAM), let(t % TEAM)
        self.quad, self.four = let(t % 4), let(t // 4 % _FOURS)
        self.part = let(self.team * (16 * 16))
        self.w, self.x = Ahead(inputs.w, "uint32x4"), Ahead(inputs.x, inputs.x_type)

    def first_subgroup(self) -> Expr:
        """Whether this thread is one of its team's first subgroup, which works the units."""
        # Not `Args.subgroup_size`: that is for kernels in the place of which others run, and here none does.
        return let(cast("uint32", self.lane) < call("uint32", "subgroup_size"))

    def start(self, row: Expr) -> Expr:
        """Of a row, in vectors; rows past the last one repeat it."""
        return let(tirx.Min(row, self.rows - 1) * (self.weights.columns // 4))

    def block(self, b: int) -> Expr:
        """Of weight rows, which this thread unpacks as its ``b``-th."""
        raise NotImplementedError

    def line(self) -> Expr:
        """Of `ws` where the rows of that block begin."""
        raise NotImplementedError

    def vectors(self, group: Expr) -> Iterator[tuple[Expr, Expr]]:
        """Of activations, which this thread loads: (line of `xs` and which four of it, as elements; where it is)."""
        raise NotImplementedError

    def fetch(self, group: Expr) -> None:
        """What this thread unpacks of 32 columns, into registers."""
        self.w.again(fetching=True)
        self.x.again(fetching=True)
        for b in range(self.taken):
            self._columns(group, b)
        for _, at in self.vectors(group):
            self.x[at]

    def unpack(self, group: Expr, b: int = 0) -> None:
        """What was fetched of the ``b``-th block into the workgroup's memory, with the first one activations too."""
        if b == 0:
            self.w.again(fetching=False)
            self.x.again(fetching=False)
            for place, at in self.vectors(group):
                value = let(cast("float16x4", self.x[at]))
                for i in range(4):
                    store(self.xs, lane(value, i), place + i)
        first = let((self.line() + self.quad * 4) * LINE + self.four * 4)
        for k, column in enumerate(self._columns(group, b)):
            value = let(cast("float16x4", column))
            for i in range(4):
                store(self.ws, lane(value, i), first + (i * LINE + k))

    def _columns(self, group: Expr, b: int) -> list[Expr]:
        reader = QuadReader(self.weights, self.w, self.quad)
        return reader.columns(reader.four(reader.record(self.block(b), group), self.four))

    def multiply(self, sums: Buffer, first: int, x: Expr, rows: int, w: Expr, outputs: int) -> None:
        """32 columns of ``rows`` by ``outputs``, which stand from lines ``x`` and ``w`` on. ``first``: of the sums."""
        u, across = self.units, outputs // self.units.n
        left, right = u.matrices(rows // u.m), u.matrices(across)
        for step in range(GROUP // u.k):
            for i in range(rows // u.m):
                u.load_left(left, i, self.xs, let((x + i * u.m) * LINE + step * u.k), LINE)
            for j in range(across):
                u.load_right(right, j, self.ws, let((w + j * u.n) * LINE + step * u.k), LINE)
            for i in range(rows // u.m):
                for j in range(across):
                    u.multiply_accumulate(sums, first + i * across + j, left, i, right, j)

    def store_block(self, sums: Buffer, first: int, stride: int) -> None:
        """16 rows by 16 outputs of each team, for all threads to read. ``first``: of their matrices; those below it
        come ``stride`` later."""
        barrier()
        with when(self.working):
            for i in range(self.down):
                for j in range(self.across):
                    at = let(self.part + (i * self.units.m * 16 + j * self.units.n))
                    self.units.store(sums, first + i * stride + j, self.parts, at, 16)
        barrier()

    def load_four(self, at: Expr) -> Expr:
        """Four outputs of what `store_block` left, float32x4."""
        return vector(*(self.parts[at + n] for n in range(4)))


class MatrixRows(_MatrixSums):
    """Few rows. ``unit``: which block of weight rows, or which pair of ``blocks``; ``by``: which 16 rows."""

    def __init__(
        self, a: Args, weights: PackedMatrix, shape: MatrixShape, inputs: Inputs, rows: Expr, unit: Expr, by: Expr,
        t: Expr, blocks: int,
    ) -> None:  # fmt: skip
        super().__init__(a, weights, shape.units, inputs, rows, t, blocks)
        self.unit, self.first, self.taken = unit, let(by * shape.rows), blocks
        self.xs = a.workgroup(SHARES * 16 * LINE, "float16")
        self.working = self.first_subgroup()

    def each(self, finish: Finish) -> None:
        """``finish(row, unit, quad, values)`` for each row of activations there is: float32x4 of each block."""
        u, groups = self.units, self.weights.columns // GROUP
        own = self.across * self.down  # matrices of a block
        sums = u.matrices(own * self.blocks)
        for i in range(own * self.blocks):
            u.zero(sums, i)
        low, high = share_bounds(self.team, self.weights.columns, SHARES)
        lines = self.line()
        self.fetch(low)
        with loop(-(-groups // SHARES)) as i:
            group = let(low + i)
            there = let(group < high)
            for b in range(self.blocks):
                barrier()
                with when(there):
                    self.unpack(group, b)
                barrier()
                if b == self.blocks - 1:
                    self.fetch(let(tirx.Min(group + 1, groups - 1)))
                with when(tirx.all(there, self.working)):
                    self.multiply(sums, b * own, lines, 16, lines, 16)
        row_of, totals = let(self.t // 4), local(self.blocks, "float32x4")
        for b in range(self.blocks):
            self.store_block(sums, b * own, self.across)
            with when(row_of < 16):
                store(totals, splat(0.0), b)
                with loop(SHARES) as share:
                    at = let((share * 16 + row_of) * 16 + self.quad * 4)
                    store(totals, totals[b] + self.load_four(at), b)
        row = let(self.first + row_of)
        with when(tirx.all(row_of < 16, row < self.rows)):
            finish(row, self.unit, self.quad, [let(totals[b]) for b in range(self.blocks)])

    def block(self, b: int) -> Expr:
        return let(self.unit * self.blocks + b)

    def line(self) -> Expr:
        return let(self.team * 16)

    def vectors(self, group: Expr) -> Iterator[tuple[Expr, Expr]]:
        for n in range(16 * _FOURS // TEAM):
            item = let(self.lane + n * TEAM)
            row, four = let(item // _FOURS), let(item % _FOURS)
            place = let((self.team * 16 + row) * LINE + four * 4)
            yield place, let(self.start(self.first + row) + group * _FOURS + four)


class MatrixTile(_MatrixSums):
    """Some rows by 64 outputs, a quarter for each team. ``bx``, ``by``: which tile of weight rows, and of rows."""

    def __init__(
        self, a: Args, weights: PackedMatrix, shape: MatrixShape, inputs: Inputs, rows: Expr, bx: Expr, by: Expr,
        t: Expr, blocks: int,
    ) -> None:  # fmt: skip
        super().__init__(a, weights, shape.units, inputs, rows, t, blocks)
        self.first_block, self.first_row = let(bx * TILE_BLOCKS), let(by * shape.rows)
        self.xs = a.workgroup(shape.rows * LINE, "float16")
        self.own_rows = shape.rows // 2  # of a team
        self.items = [let(t + n * THREADS) for n in range(shape.rows * _FOURS // THREADS)]
        self.starts = [self.start(self.first_row + item // _FOURS) for item in self.items]
        self.row, self.output = let(self.team // 2 * self.own_rows), let(self.team % 2 * _ACROSS)
        self.working = tirx.all(self.first_subgroup(), self.first_row + self.row < rows)

    def each(self, finish: Finish) -> None:
        """``finish(row, unit, quad, values)`` for each row of activations there is, and each block, or pair of
        ``blocks``, of the tile: float32x4 of each of its blocks. It may be a block past the last one."""
        parts = self.own_rows // 16
        totals = local(4 * parts, "float32x4")  # [16 of a team's rows][quad][block]
        for i in range(4 * parts):
            store(totals, splat(0.0), i)
        self._accumulate(totals, parts)
        block = let(self.first_block + self.team % 2 * 2)
        for part in range(parts):
            row = let(self.first_row + self.row + (part * 16 + self.lane // 2))
            with when(row < self.rows):
                for n in range(2):
                    quad = let(self.lane % 2 * 2 + n)
                    values = [let(totals[part * 4 + n * 2 + b]) for b in range(2)]
                    if self.blocks == 2:
                        finish(row, let(block // 2), quad, values)
                        continue
                    for b in range(2):
                        finish(row, let(block + b), quad, [values[b]])

    def _accumulate(self, totals: Buffer, parts: int) -> None:
        u, groups = self.units, self.weights.columns // GROUP
        count = self.own_rows // u.m * (_ACROSS // u.n)
        sums = u.matrices(count)
        self.fetch(0)
        with loop(SHARES) as share:
            for i in range(count):
                u.zero(sums, i)
            low, high = share_bounds(share, self.weights.columns, SHARES)
            with loop(high - low) as i:
                group = let(low + i)
                barrier()
                self.unpack(group)
                barrier()
                self.fetch(let(tirx.Min(group + 1, groups - 1)))
                with when(self.working):
                    self.multiply(sums, 0, self.row, self.own_rows, self.output, _ACROSS)
            for part in range(parts):
                for b in range(2):
                    self._add(sums, totals, part, b)

    def _add(self, sums: Buffer, totals: Buffer, part: int, b: int) -> None:
        """A share's sums of 16 of a team's rows by a block to their totals."""
        self.store_block(sums, (part * self.down * 2 + b) * self.across, 2 * self.across)
        for n in range(2):
            at = let(self.part + self.lane // 2 * 16 + (self.lane % 2 * 2 + n) * 4)
            i = part * 4 + n * 2 + b
            store(totals, totals[i] + self.load_four(at), i)

    def block(self, b: int) -> Expr:
        at = self.first_block + self.t // (4 * _FOURS)
        return let(tirx.Min(at, self.weights.blocks - 1) if self.weights.blocks % TILE_BLOCKS else at)

    def line(self) -> Expr:
        return let(self.t // (4 * _FOURS) * 16)

    def vectors(self, group: Expr) -> Iterator[tuple[Expr, Expr]]:
        for item, start in zip(self.items, self.starts, strict=True):
            row, four = let(item // _FOURS), let(item % _FOURS)
            yield let(row * LINE + four * 4), let(start + group * _FOURS + four)


__all__ = ["THREADS", "TILE_BLOCKS", "MatrixRows", "MatrixShape", "MatrixTile"]
