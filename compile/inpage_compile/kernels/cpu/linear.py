"""y = W·x (+ residual) for packed 16-row weights, for any number of rows; the gated pair; the embedding's rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from tvm import tirx

from ..shared.expressions import Buffer, Expr, cast, f32, i32, let, loop, store, when  # fmt: skip
from ..shared.packed import GROUP, PackedMatrix
from ..shared.planes import planes_of
from .build import Args, alternatives, kernel, local, parallel, share, span, splat  # fmt: skip
from .dots import InputView, accumulate
from .isa import Isa
from .math import activate, bfloat_scalar, e8m0_decode, f16_decode_scalar
from .quantize import FORM_DTYPE, store_group
from .sub_scales import sub_scale_of
from .weights import Records, form_for, piece_of, quant_of, table_number

ROW_TILE = 4  # activation rows that share one unpacking of the weights


def _activations(a: Args, form: str, n: Expr, columns: int) -> tuple[Buffer, Buffer | None]:
    values = a.buffer("x", (n, columns), FORM_DTYPE[form])
    scales = None if form == "f32" else a.buffer("x_scales", (n, columns // GROUP, 2), "float32")
    return values, scales


@dataclass(frozen=True)
class Way:
    """How a kernel goes through its work, one of several that leave the same bits. ``streams``: runs of blocks that are
    read side by side for a single row. ``tiles``: rows of activations go four at a time where there are so many.
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
    streams = 2 if few else 1
    return [Way(streams, True), *([Way(streams, True, True)] if quad else [])]


def _visit(rows: Expr, first: Expr, last: Expr, way: Way, emit: Callable[[list[Expr], Expr, int], None]) -> None:
    """``emit(units, row, tile)`` for all units first..last-1 and all rows. A row by itself: several runs of neighbours
    side by side, then what is left over. Tiles of rows: unit by unit, so that a unit's weights are read once."""

    def by_row() -> None:
        each = let((last - first) // way.streams)
        with loop(rows) as row:
            with loop(each) as i:
                emit([let(first + (i + s * each)) for s in range(way.streams)], row, 1)
            if way.streams > 1:
                with loop(last - first - each * way.streams) as i:
                    emit([let(first + (each * way.streams + i))], row, 1)

    def by_unit() -> None:
        with loop(last - first) as i:
            unit = let(first + i)
            tiles = let(rows >> 2)
            with loop(tiles) as t:
                emit([unit], let(t * ROW_TILE), ROW_TILE)
            with loop(rows - tiles * ROW_TILE) as r:
                emit([unit], let(tiles * ROW_TILE + r), 1)

    if not way.tiles:
        by_row()
    elif way.streams == 1:
        by_unit()
    else:
        with when(rows == 1):
            by_row()
        with when(rows != 1):
            by_unit()


@cache
def linear(
    isa: Isa, weights: PackedMatrix, form: str, residual: bool, single: bool = False, few: bool = False
) -> tirx.PrimFunc:
    """(x, [x_scales], w, [residual], rows → y): y[rows, N] = x · Wᵀ (+ residual), float32. In all its `ways`."""
    made = [linear_in(isa, weights, form, residual, way) for way in ways(isa, weights, form, single, few)]
    return alternatives(*made)


@cache
def linear_in(isa: Isa, weights: PackedMatrix, form: str, residual: bool, way: Way) -> tirx.PrimFunc:
    """`linear` in one way."""

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        values, scales = _activations(a, form, n, weights.columns)
        w = a.buffer("w", (weights.words,), "int32")
        skip = a.buffer("residual", (n, weights.rows), "float32") if residual else None
        rows = a.count("rows", n)
        y = a.buffer("y", (n, weights.rows), "float32")
        reader = Records(weights, w)
        x = InputView(form, weights.columns, values, scales, rows)

        def emit(blocks: list[Expr], row: Expr, tile: int) -> None:
            acc = local(len(blocks) * tile * 4, "float32x4")
            accumulate(isa, form, reader, x, blocks, row, tile, acc, way.quad)
            for b, block in enumerate(blocks):
                for q in range(4):
                    for r in range(tile):
                        column = let(block * 16 + q * 4)
                        _store(y, skip, acc[(b * 4 + q) * tile + r], row + r, column, weights.rows)

        with share(weights.blocks) as (first, last):
            _visit(rows, first, last, way, emit)

    suffix = "_add" if residual else ""
    return kernel(f"linear_{weights.label}_{form}_{weights.rows}x{weights.columns}{suffix}_{way}", build)


@cache
def gated(
    isa: Isa, weights: PackedMatrix, form: str, out_form: str, single: bool = False, activation: str = "silu"
) -> tirx.PrimFunc:
    """(x, [x_scales], w, rows → h, [h_scales]): h[rows, N/2] = activation(gate·x) · (up·x), in the next layer's form.
    In all its `ways`.

    ``w`` holds gate and up interleaved by 16 rows; four blocks make 32 outputs, a whole quantization group."""
    made = [gated_in(isa, weights, form, out_form, way, activation) for way in ways(isa, weights, form, single)]
    return alternatives(*made)


@cache
def gated_in(
    isa: Isa, weights: PackedMatrix, form: str, out_form: str, way: Way, activation: str = "silu"
) -> tirx.PrimFunc:
    """`gated` in one way."""
    hidden = weights.rows // 2

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        values, scales = _activations(a, form, n, weights.columns)
        w = a.buffer("w", (weights.words,), "int32")
        rows = a.count("rows", n)
        h = a.buffer("h", (n, hidden), FORM_DTYPE[out_form])
        h_scales = None if out_form == "f32" else a.buffer("h_scales", (n, hidden // GROUP, 2), "float32")
        reader = Records(weights, w)
        x = InputView(form, weights.columns, values, scales, rows)

        def emit(units: list[Expr], row: Expr, tile: int) -> None:
            count = len(units)
            acc = local(count * tile * 4, "float32x4")
            sums = local(count * tile * 16, "float32x4")  # [unit][tile row][gate, up, gate, up][quad]
            with loop(4) as part:
                blocks = [let(unit * 4 + part) for unit in units]
                accumulate(isa, form, reader, x, blocks, row, tile, acc, way.quad)
                for u in range(count):
                    for q in range(4):
                        for r in range(tile):
                            store(sums, acc[(u * 4 + q) * tile + r], (u * tile + r) * 16 + part * 4 + q)
            for u, unit in enumerate(units):
                with loop(tile) as r:
                    at = let((u * tile + r) * 16)
                    with loop(8) as i:
                        one = let(at + (i // 4 * 8 + i % 4))
                        gate, up = let(sums[one]), let(sums[one + 4])
                        store(sums, activate(isa, activation, gate) * up, one)
                    made = [let(sums[at + (i // 4 * 8 + i % 4)]) for i in range(8)]
                    store_group(isa, out_form, made, h, h_scales, row + r, unit)

        with share(hidden // GROUP) as (first, last):
            _visit(rows, first, last, way, emit)

    mark = "" if activation == "silu" else f"_{activation}"
    return kernel(f"gated{mark}_{weights.label}_{form}_{weights.rows}x{weights.columns}_{way}", build)


def _store(y: Buffer, skip: Buffer | None, value: Expr, row: Expr, column: Expr, width: int) -> None:
    """Four outputs (+ residual); lane by lane where the matrix ends inside a block."""
    if width % 16 == 0:
        at = span(column)
        store(y, value + skip[row, at] if skip is not None else value, row, at)
        return
    named = let(value)
    for lane in range(4):
        with when(column + lane < width):
            one = tirx.Shuffle([named], [i32(lane)])
            store(y, one + skip[row, column + lane] if skip is not None else one, row, column + lane)


@cache
def embed(weights: PackedMatrix, scale: float = 1.0) -> tirx.PrimFunc:
    """(token_ids, w, rows → y): y[rows, K] = the tokens' rows of a packed matrix, dequantized to float32, times
    ``scale``."""
    groups = weights.columns // GROUP

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        ids = a.buffer("token_ids", (n,), "int32")
        w = a.buffer("w", (weights.words,), "int32")
        rows = a.count("rows", n)
        y = a.buffer("y", (n, weights.columns), "float32")
        reader = Records(weights, w)
        with parallel(rows * groups) as unit:
            row, group = let(unit // groups), let(unit % groups)
            token = let(ids[row])
            base, lane = let(reader.base(token >> 4, group)), let(token & 15)
            place = reader.super_of(token >> 4, group)
            for k in range(GROUP):
                one = _element(weights, reader, base, place, lane, k)
                store(y, one if scale == 1 else one * f32(scale), row, group * GROUP + k)

    mark = "" if scale == 1 else "_scaled"
    return kernel(f"embed_{weights.label}_{weights.columns}{mark}", build)


def _element(
    weights: PackedMatrix, reader: Records, base: Expr, place: tuple[Expr, Expr] | None, lane: Expr, k: int
) -> Expr:
    """Column k of a group's row, float32."""
    f = weights.format
    if weights.bits == 32:
        return reader.floats[base // 4 + k * 16 + lane]
    if weights.bits == 16:
        half = reader.halves[base // 2 + k * 16 + lane]
        return bfloat_scalar(half) if f.type == "bfloat" else f16_decode_scalar(half)
    planes = planes_of(f)
    words = [reader.words[(base + (p.at + piece_of(p.width, k) * 64)) // 4 + lane] for p in planes]
    place_or_quant = quant_of(f, words, k, 1)
    if f.table is not None:
        place_or_quant = table_number(f.table, let(place_or_quant), i32)
    quant = cast("float32", place_or_quant - weights.zero)
    if f.scale == "e8m0":
        return quant * e8m0_decode(cast("int32", reader.bytes[base + weights.step + lane]), 1)
    if place is None:
        at = (base + weights.step) // 2 + lane
        value = quant * f16_decode_scalar(reader.halves[at])
        return value + f16_decode_scalar(reader.halves[at + 16]) if weights.minimum else value
    record, within = place
    scale, minimum = sub_scale_of(reader, record, within, lane, k // 16)
    at = record // 2 + lane
    value = cast("float32", scale) * f16_decode_scalar(reader.halves[at]) * quant
    if minimum is None:
        return value
    return value - cast("float32", minimum) * f16_decode_scalar(reader.halves[at + 16])


__all__ = ["PackedMatrix", "Way", "embed", "form_for", "gated", "gated_in", "linear", "linear_in", "ways"]
