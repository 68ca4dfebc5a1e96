"""y = W·x (+ residual) for packed 16-row weights, for any number of rows; the gated pair; the embedding's rows."""

from __future__ import annotations

from functools import cache

from tvm import tirx

from ..shared.alternatives import alternatives
from ..shared.expressions import Buffer, Expr, cast, f32, i32, let, loop, store, when
from ..shared.packed import GROUP, PackedMatrix
from ..shared.planes import planes_of
from .build import Args, kernel, local, parallel, span
from .dots import accumulate
from .isa import Isa
from .math import activate, bfloat_scalar, e8m0_decode, f16_decode_scalar
from .quads import InputView
from .quantize import FORM_DTYPE, store_group
from .sub_scales import sub_scale_of
from .tiles import QUADS, Tile, accumulate_tile
from .visit import Way, has_edges, visit, ways
from .weights import Records, form_for, piece_of, quant_of, table_number


def activations(a: Args, form: str, n: Expr, columns: int) -> tuple[Buffer, Buffer | None]:
    """Declares a linear layer's input: values and, where they are quantized, scales."""
    values = a.buffer("x", (n, columns), FORM_DTYPE[form])
    scales = None if form == "f32" else a.buffer("x_scales", (n, columns // GROUP, 2), "float32")
    return values, scales


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
        values, scales = activations(a, form, n, weights.columns)
        w = a.buffer("w", (weights.words,), "int32")
        skip = a.buffer("residual", (n, weights.rows), "float32") if residual else None
        rows = a.count("rows", n)
        y = a.buffer("y", (n, weights.rows), "float32")
        reader = Records(weights, w)
        x = InputView(form, weights.columns, values, scales, rows)

        def emit(blocks: list[Expr], row: Expr) -> None:
            acc = accumulate(isa, form, reader, x, blocks, row, way.quad)
            for b, block in enumerate(blocks):
                for q in range(QUADS):
                    _store(y, skip, acc[b * QUADS + q], row, let(block * 16 + q * 4), weights.rows)

        def emit_tile(block: Expr, tile: Tile) -> None:
            acc = local(tile.most * QUADS, "float32x4")
            accumulate_tile(isa, form, reader, x, block, tile, acc, lambda r: r * QUADS, way.quad)
            with loop(tile.count) as r:
                for q in range(QUADS):
                    _store(y, skip, acc[r * QUADS + q], let(tile.first + r), let(block * 16 + q * 4), weights.rows)

        def edge(block: Expr, quad: Expr, row: Expr) -> None:
            acc = accumulate(isa, form, reader.quad(quad), x, [block], row, way.quad, quads=1)
            _store(y, skip, acc[0], row, let(block * 16 + quad * 4), weights.rows)

        visit(rows, weights.blocks, way, emit, emit_tile, edge if has_edges(weights, form) else None)

    suffix = "_add" if residual else ""
    name = f"linear_{weights.label}_{form}_{weights.rows}x{weights.columns}{suffix}_{way}"
    return kernel(name, build, weights=weights.words * 4)


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
        values, scales = activations(a, form, n, weights.columns)
        w = a.buffer("w", (weights.words,), "int32")
        rows = a.count("rows", n)
        h = a.buffer("h", (n, hidden), FORM_DTYPE[out_form])
        h_scales = None if out_form == "f32" else a.buffer("h_scales", (n, hidden // GROUP, 2), "float32")
        reader = Records(weights, w)
        x = InputView(form, weights.columns, values, scales, rows)

        def emit(units: list[Expr], row: Expr) -> None:
            sums = local(len(units) * 16, "float32x4")  # [unit][gate, up, gate, up][quad]
            with loop(4) as part:
                blocks = [let(unit * 4 + part) for unit in units]
                acc = accumulate(isa, form, reader, x, blocks, row, way.quad)
                for u in range(len(units)):
                    for q in range(QUADS):
                        store(sums, acc[u * QUADS + q], u * 16 + part * QUADS + q)
            for u, unit in enumerate(units):
                activated(sums, u * 16, row, unit)

        def emit_tile(unit: Expr, tile: Tile) -> None:
            sums = local(tile.most * 16, "float32x4")  # [row][gate, up, gate, up][quad]
            with loop(4) as part:
                block = let(unit * 4 + part)
                accumulate_tile(isa, form, reader, x, block, tile, sums, lambda r: r * 16 + part * QUADS, way.quad)
            with loop(tile.count) as r:
                activated(sums, let(r * 16), let(tile.first + r), unit)

        def activated(sums: Buffer, at: Expr, row: Expr, unit: Expr) -> None:
            """32 outputs, whose gates and ups begin at ``at``."""
            with loop(8) as i:
                one = let(at + (i // 4 * 8 + i % 4))
                gate, up = let(sums[one]), let(sums[one + 4])
                store(sums, activate(isa, activation, gate) * up, one)
            made = [let(sums[at + (i // 4 * 8 + i % 4)]) for i in range(8)]
            store_group(isa, out_form, made, h, h_scales, row, unit)

        visit(rows, hidden // GROUP, way, emit, emit_tile)

    mark = "" if activation == "silu" else f"_{activation}"
    forms = form if out_form == form else f"{form}_to_{out_form}"  # the next matrix may have another type in each layer
    name = f"gated{mark}_{weights.label}_{forms}_{weights.rows}x{weights.columns}_{way}"
    return kernel(name, build, weights=weights.words * 4)


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
