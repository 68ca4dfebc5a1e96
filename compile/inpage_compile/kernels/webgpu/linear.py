"""y = W·x for packed 16-row weights, its weights dequantized on the way, with what stands before and after it.

A workgroup makes 16 outputs of ``tile`` rows of activations. Its threads are 4 quads of outputs by `shares_of` the
columns; each thread adds its share in order of columns, then the shares are added in order. Tile and batch do
not change that order, so one row gets the same bits in a GEMV and in a GEMM.

An RMS norm before it is folded in: the norm's weight multiplies the activations as they are read, and 1/rms, found on
the way, the result. The residual is added in place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from tvm import tirx

from ..shared.packed import GROUP, PackedMatrix
from .activations import activate
from .build import (
    WORKGROUP_BYTES,
    Args,
    Buffer,
    Expr,
    across,
    barrier,
    call,
    cast,
    f32,
    kernel,
    lane,
    let,
    local,
    loop,
    madd,
    splat,
    store,
    when,
)
from .pages import Into, PageWriter
from .weights import QuadReader

_SHARES = (16, 32, 64)
_GROUPS = 4  # of a share, where shares are more than the fewest


def shares_of(columns: int) -> int:
    """How many parts a row's sum has: more of long rows, so that a few thousand outputs are enough threads to keep a
    large GPU's memory busy. Nothing but the columns decides: each number gives other bits."""
    fewest, *more = _SHARES
    return max([fewest, *(n for n in more if n * _GROUPS <= columns // GROUP)])


def threads_of(columns: int) -> int:
    return 4 * shares_of(columns)


@dataclass(frozen=True)
class Input:
    """``dtype`` of the activations; ``epsilon`` of the norm to fold in, if any."""

    dtype: str
    epsilon: float | None = None

    @property
    def mark(self) -> str:
        return "_norm" if self.epsilon is not None else ""


@cache
def linear(weights: PackedMatrix, tile: int, x: Input, out: str, add: bool = False, width: int = 0, first: int = 0,
           again: bool = False) -> tirx.PrimFunc:  # fmt: skip
    """(x, w, [norm weight], [y], rows → [y]): y[rows, width] from column ``first`` on = norm(x) · Wᵀ, or, in
    place, += with ``add``. ``again``: y is there already, and these columns of it are written."""
    width = width or weights.rows

    def build(a: Args) -> None:
        activations, w, norm = _inputs(a, x)
        wide = all(n % 4 == 0 for n in (weights.rows, width, first))
        y_type = f"{out}x4" if wide else out
        y = a.buffer("y", y_type, "x") if add or again else None
        rows = a.scalar("rows")
        if y is None:
            y = a.buffer("y", y_type, "w")
        with a.workgroups(weights.blocks, ["ceildiv", "rows", tile], threads_of(weights.columns)) as (block, by, t):
            body = _Body(a, weights, tile, x, (activations, w, norm), rows, by, t)
            body.accumulate([block])

            def finish(row: Expr, quad: Expr, value: Expr) -> None:
                column = let(block * 16 + quad * 4)
                if wide:
                    at = let((row * width + first + column) // 4)
                    with when(column < weights.rows):
                        store(y, cast(y_type, value + cast("float32x4", y[at]) if add else value), at)
                    return
                for i in range(4):
                    at = let(row * width + first + column + i)
                    with when(column + i < weights.rows):
                        one = lane(value, i)
                        store(y, cast(out, one + cast("float32", y[at]) if add else one), at)

            body.total(0, finish)

    mark = ("_add" if add else "_again" if again else "") + (f"_at{first}" if first else "")
    mark += f"_of{width}" if width != weights.rows else ""
    return kernel(f"linear{tile}_{weights.label}_{weights.rows}x{weights.columns}{x.mark}{mark}", build)


@cache
def project(weights: PackedMatrix, tile: int, x: Input, out: str, into: Into) -> tirx.PrimFunc:
    """(x, w, [norm weight], [bias], table, slots, kv, [q], rows[, group] → [q]): queries, keys and values, each to its
    place: see `pages.Into`. q is there already where these are not its first columns."""

    def build(a: Args) -> None:
        activations, w, norm = _inputs(a, x)
        bias = a.buffer("bias", "float32x4") if into.bias else None
        writer = PageWriter(a, into.h, out)
        if into.has_queries and into.first:
            writer.queries = a.buffer("q", f"{out}x4", "x")
        rows = a.scalar("rows")
        writer.scalars(a)
        if into.has_queries and not into.first:
            writer.queries = a.buffer("q", f"{out}x4", "w")
        with a.workgroups(weights.blocks, ["ceildiv", "rows", tile], threads_of(weights.columns)) as (block, by, t):
            body = _Body(a, weights, tile, x, (activations, w, norm), rows, by, t)
            body.accumulate([block])

            def finish(row: Expr, quad: Expr, value: Expr) -> None:
                own = let(block * 16 + quad * 4)
                column = let(into.first + own)
                with when(own < weights.rows):
                    writer.put(row, column, value if bias is None else let(value + bias[column // 4]))

            body.total(0, finish)

    name = f"project{tile}_{weights.label}_{weights.rows}x{weights.columns}"
    return kernel(f"{name}{x.mark}{into.mark}", build)


@cache
def gated(weights: PackedMatrix, tile: int, x: Input, out: str, width: int = 0, first: int = 0,
          activation: str = "silu") -> tirx.PrimFunc:  # fmt: skip
    """(x, w, [norm weight], [h], rows → [h]): h[rows, width] from column ``first`` on = activation(gate·x) · (up·x);
    ``w``: both interleaved by 16 rows. Where ``first`` is not 0, h is there already."""
    width = width or weights.rows // 2

    def build(a: Args) -> None:
        activations, w, norm = _inputs(a, x)
        h = a.buffer("h", f"{out}x4", "x") if first else None
        rows = a.scalar("rows")
        if h is None:
            h = a.buffer("h", f"{out}x4", "w")
        with a.workgroups(weights.blocks // 2, ["ceildiv", "rows", tile], threads_of(weights.columns)) as (unit, by, t):
            body = _Body(a, weights, tile, x, (activations, w, norm), rows, by, t)
            body.accumulate([let(unit * 2), let(unit * 2 + 1)])
            gates = local(1, "float32x4")

            def keep(row: Expr, quad: Expr, value: Expr) -> None:
                store(gates, value, 0)

            def finish(row: Expr, quad: Expr, up: Expr) -> None:
                gate = let(gates[0])
                value = activate(activation, gate) * up
                store(h, cast(f"{out}x4", value), let((row * width + first + unit * 16 + quad * 4) // 4))

            body.total(0, keep)
            body.total(1, finish)

    mark = f"_at{first}" if first else ""
    kind = "" if activation == "silu" else f"_{activation}"
    return kernel(f"gated{tile}{kind}_{weights.label}_{weights.rows}x{weights.columns}{x.mark}{mark}", build)


def _inputs(a: Args, x: Input) -> tuple[Buffer, Buffer, Buffer]:
    activations = a.buffer("x", f"{x.dtype}x4")
    w = a.buffer("w", "uint32x4")
    norm = a.buffer("norm", "float32x4") if x.epsilon is not None else None
    return activations, w, norm


class _Body:
    """One workgroup's sums. ``rows``: how many there are in all; ``by``: which tile of them."""

    def __init__(
        self, a: Args, weights: PackedMatrix, tile: int, x: Input, buffers: tuple[Buffer, Buffer, Buffer],
        rows: Expr, by: Expr, t: Expr,
    ) -> None:  # fmt: skip
        self.weights, self.tile, self.x, self.rows, self.by, self.t = weights, tile, x, rows, by, t
        self.activations, self.w, self.norm = buffers
        self.shares, self.threads = shares_of(weights.columns), threads_of(weights.columns)
        self.quad, self.share = let(t % 4), let(t // 4)
        # Rows whose shares lie in the workgroup's memory at once.
        self.room, each = tile, self.threads * (16 if self.norm is None else 20)
        while self.room * each > WORKGROUP_BYTES:
            self.room //= 2
        self.parts = a.workgroup(self.room * self.threads, "float32x4")
        self.squares: Buffer = None
        if self.norm is not None:
            self.squares = a.workgroup(self.room * self.threads, "float32")
            self.own_squares, self.inverse = local(tile, "float32"), local(1, "float32")
        self.starts = []  # of each row of activations, in vectors; rows past the last one repeat it
        for r in range(tile):
            row = let(tirx.Min(by * tile + r, rows - 1))
            self.starts.append(let(row * (weights.columns // 4)))

    def accumulate(self, blocks: list[Expr]) -> None:
        """Each thread's share of the sums for ``blocks`` of 16 weight rows."""
        groups = self.weights.columns // GROUP
        reader = QuadReader(self.weights, self.w, self.quad)
        self.sums = local(len(blocks) * self.tile, "float32x4")
        for i in range(len(blocks) * self.tile):
            store(self.sums, splat(0.0), i)
        squares = local(self.tile, "float32x4")
        if self.norm is not None:
            for r in range(self.tile):
                store(squares, splat(0.0), r)
        low, high = let(self.share * groups // self.shares), let((self.share + 1) * groups // self.shares)
        with loop(high - low) as i:
            group = let(low + i)
            records = [reader.record(block, group) for block in blocks]
            with reader.fours(records) as (four, quants):
                at = let(group * (GROUP // 4) + four)
                norm = let(self.norm[at]) if self.norm is not None else None
                xs = [self._activation(at, start, norm) for start in self.starts]
                for b, four_columns in enumerate(quants):
                    columns = reader.columns(four_columns)
                    for r in range(self.tile):
                        i = b * self.tile + r
                        total = self.sums[i]
                        for k, column in enumerate(columns):
                            total = madd(column, splat(lane(xs[r], k)), total)
                        store(self.sums, total, i)
            if self.norm is not None:
                self._add_squares(squares, group)
        if self.norm is not None:
            for r in range(self.tile):
                v = let(squares[r])
                store(self.own_squares, across(v), r)

    def _activation(self, at: Expr, start: Expr, norm: Expr) -> Expr:
        value = cast("float32x4", self.activations[start + at])
        return let(value if norm is None else value * norm)

    def _add_squares(self, squares: Buffer, group: Expr) -> None:
        """A quarter of the group's columns for each quad of threads."""
        for v in range(2):
            at = let(group * (GROUP // 4) + self.quad * 2 + v)
            for r, start in enumerate(self.starts):
                value = let(cast("float32x4", self.activations[start + at]))
                store(squares, madd(value, value, squares[r]), r)

    def total(self, block: int, finish: Callable[[Expr, Expr, Expr], None]) -> None:
        """Add the shares of one block; ``finish(row, quad, float32x4)`` for each row of activations there is."""
        tile_row, row = let(self.t // 4), let(self.by * self.tile + self.t // 4)
        there = tirx.all(tile_row < self.tile, row < self.rows)
        sums = local(1, "float32x4")
        for first in range(0, self.tile, self.room):
            if block or first:
                barrier()
            self._leave_shares(block, first)
            barrier()
            last = first + self.room
            mine = there if self.room == self.tile else tirx.all(there, tile_row >= first, tile_row < last)
            with when(mine):
                self._add_shares(sums, let(tile_row - first if first else tile_row), inverse=block == 0)
        with when(there):
            if self.norm is None:
                finish(row, self.quad, let(sums[0]))
            else:
                finish(row, self.quad, let(sums[0] * splat(self.inverse[0])))

    def _leave_shares(self, block: int, first: int) -> None:
        """This thread's share of rows of the tile from ``first`` on, for the others."""
        for r in range(self.room):
            at = r * self.threads + self.t
            store(self.parts, self.sums[block * self.tile + first + r], at)
            if self.norm is not None and block == 0:
                store(self.squares, self.own_squares[first + r], at)

    def _add_shares(self, sums: Buffer, row: Expr, inverse: bool) -> None:
        """``row``: of those whose shares are there; ``inverse``: find its 1/rms as well."""
        start = let(row * self.threads + self.quad)
        store(sums, self.parts[start], 0)
        with loop(self.shares - 1) as i:
            store(sums, sums[0] + self.parts[start + (i + 1) * 4], 0)
        if self.norm is None or not inverse:
            return
        total = local(1, "float32")
        store(total, f32(0.0), 0)
        with loop(self.threads) as i:
            store(total, total[0] + self.squares[row * self.threads + i], 0)
        assert self.x.epsilon is not None
        mean = total[0] * f32(1.0 / self.weights.columns) + f32(self.x.epsilon)
        store(self.inverse, call("float32", "inverseSqrt", mean), 0)


__all__ = ["Input", "gated", "linear", "project", "shares_of"]
