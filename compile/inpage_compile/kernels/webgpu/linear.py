"""y = W·x for packed 16-row weights, its weights dequantized on the way, with what stands before and after it.

The columns of a row have shares (`shares_of`). Each is added up in order of columns, then the shares are added in
order. Of few rows a workgroup makes 16 outputs, and its threads have a quad of outputs and a share each (`FewRows`); of
many it makes a `Tile`, one share after another (`TileSums`). So one row gets the same bits in a GEMV and in a GEMM. Of
activations in 8 bits see `linear_int8`, of matrix units `linear_matrices`.

An RMS norm before it is folded in: the norm's weight multiplies the activations as they are read, and 1/rms, found on
the way, the result. The residual is added in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from tvm import tirx

from ..shared.packed import PackedMatrix
from .activations import activate
from .build import Args, Expr, cast, kernel, lane, let, store, when
from .linear_int8 import Int8Row, Int8Rows, Int8TileSums
from .linear_matrices import THREADS, TILE_BLOCKS, MatrixRows, MatrixShape, MatrixTile
from .linear_rows import FewRows
from .linear_subgroups import SharedReads, SharedRows
from .linear_tiles import Tile, TileSums
from .pages import Into, PageWriter
from .sums import Input, Inputs, threads_of

Shape = int | SharedReads | Tile | MatrixShape  # rows of a workgroup: few of them, or a tile


@cache
def linear(weights: PackedMatrix, shape: Shape, x: Input, out: str, add: bool = False, width: int = 0, first: int = 0,
           again: bool = False) -> tirx.PrimFunc:  # fmt: skip
    """(x, w, [norm weight], [y], rows → [y]): y[rows, width] from column ``first`` on = norm(x) · Wᵀ, or, in
    place, += with ``add``. ``again``: y is there already, and these columns of it are written."""
    width = width or weights.rows

    def build(a: Args) -> None:
        inputs = Inputs(a, x, isinstance(shape, int))
        wide = all(n % 4 == 0 for n in (weights.rows, width, first))
        y_type = f"{out}x4" if wide else out
        y = a.buffer("y", y_type, "x") if add or again else None
        rows = a.scalar("rows")
        if y is None:
            y = a.buffer("y", y_type, "w")
        with _sums(a, weights, shape, inputs, rows) as sums:

            def finish(row: Expr, block: Expr, quad: Expr, values: list[Expr]) -> None:
                value = values[0]
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

            sums.each(finish)

    mark = ("_add" if add else "_again" if again else "") + (f"_at{first}" if first else "")
    mark += f"_of{width}" if width != weights.rows else ""
    return kernel(f"linear_{weights.label}_{weights.rows}x{weights.columns}{x.mark}{mark}_{shape}", build)


@cache
def project(weights: PackedMatrix, shape: Shape, x: Input, out: str, into: Into) -> tirx.PrimFunc:
    """(x, w, [norm weight], [bias], table, slots, kv, [q], rows[, group] → [q]): queries, keys and values, each to its
    place: see `pages.Into`. q is there already where these are not its first columns."""

    def build(a: Args) -> None:
        inputs = Inputs(a, x, isinstance(shape, int))
        bias = a.buffer("bias", "float32x4") if into.bias else None
        writer = PageWriter(a, into.h, out)
        if into.has_queries and into.first:
            writer.queries = a.buffer("q", f"{out}x4", "x")
        rows = a.scalar("rows")
        writer.scalars(a)
        if into.has_queries and not into.first:
            writer.queries = a.buffer("q", f"{out}x4", "w")
        with _sums(a, weights, shape, inputs, rows) as sums:

            def finish(row: Expr, block: Expr, quad: Expr, values: list[Expr]) -> None:
                value = values[0]
                own = let(block * 16 + quad * 4)
                column = let(into.first + own)
                with when(own < weights.rows):
                    writer.put(row, column, value if bias is None else let(value + bias[column // 4]))

            sums.each(finish)

    name = f"project_{weights.label}_{weights.rows}x{weights.columns}"
    return kernel(f"{name}{x.mark}{into.mark}_{shape}", build)


@cache
def gated(weights: PackedMatrix, shape: Shape, x: Input, out: str, width: int = 0, first: int = 0,
          activation: str = "silu") -> tirx.PrimFunc:  # fmt: skip
    """(x, w, [norm weight], [h], rows → [h]): h[rows, width] from column ``first`` on = activation(gate·x) · (up·x);
    ``w``: both interleaved by 16 rows. Where ``first`` is not 0, h is there already."""
    width = width or weights.rows // 2

    def build(a: Args) -> None:
        inputs = Inputs(a, x, isinstance(shape, int))
        h = a.buffer("h", f"{out}x4", "x") if first else None
        rows = a.scalar("rows")
        if h is None:
            h = a.buffer("h", f"{out}x4", "w")
        with _sums(a, weights, shape, inputs, rows, blocks=2) as sums:

            def finish(row: Expr, unit: Expr, quad: Expr, values: list[Expr]) -> None:
                gate, up = values
                value = activate(activation, gate) * up
                with when(unit < weights.blocks // 2):
                    store(h, cast(f"{out}x4", value), let((row * width + first + unit * 16 + quad * 4) // 4))

            sums.each(finish)

    mark = f"_at{first}" if first else ""
    kind = "" if activation == "silu" else f"_{activation}"
    return kernel(f"gated{kind}_{weights.label}_{weights.rows}x{weights.columns}{x.mark}{mark}_{shape}", build)


@contextmanager
def _sums(
    a: Args, weights: PackedMatrix, shape: Shape, inputs: Inputs, rows: Expr, blocks: int = 1
) -> Iterator[FewRows | TileSums | MatrixRows | MatrixTile]:
    """The kernel's body. ``blocks``: of 16 weight rows that belong together."""
    if isinstance(shape, MatrixShape):
        wide = -(-weights.blocks // (TILE_BLOCKS if shape.tile else blocks))
        with a.workgroups(wide, ["ceildiv", "rows", shape.rows], THREADS) as (bx, by, t):
            yield (MatrixTile if shape.tile else MatrixRows)(a, weights, shape, inputs, rows, bx, by, t, blocks)
    elif isinstance(shape, Tile):
        wide = -(-weights.blocks // shape.blocks)
        with a.workgroups(wide, ["ceildiv", "rows", shape.rows], shape.threads) as (bx, by, t):
            tiles = Int8TileSums if inputs.int8 else TileSums
            yield tiles(a, weights, shape, inputs, rows, bx, by, t, blocks)
    else:
        kind: type[FewRows] = FewRows if not inputs.int8 else Int8Rows if inputs.quantized else Int8Row
        count, kind = (shape.rows, SharedRows) if isinstance(shape, SharedReads) else (shape, kind)
        threads = threads_of(weights.columns)
        with a.workgroups(weights.blocks // blocks, ["ceildiv", "rows", count], threads) as (bx, by, t):
            yield kind(a, weights, count, inputs, rows, bx, by, t, blocks)


__all__ = ["Input", "Shape", "gated", "linear", "project"]
