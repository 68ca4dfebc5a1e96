"""y = W·x (+ residual) for packed 16-row weights, for any number of rows; the gated pair; the embedding's rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tvm import tirx

from .build import Args, Buffer, Expr, cast, i32, kernel, let, local, loop, parallel, share, span, splat, store, when
from .dots import Activations, Blocks, accumulate
from .isa import Isa
from .math import exp, f16_decode_scalar
from .quantize import FORM_DTYPE, GROUP, store_group
from .weights import Reader, Weights, form_for, piece_of

ROW_TILE = 4  # activation rows that share one unpacking of the weights
STREAMS = 6  # blocks that are read side by side
FEW = 16  # more rows than this keep a block's weights in the first cache, and its latency no longer matters


def _activations(a: Args, form: str, n: Expr, columns: int) -> tuple[Buffer, Buffer | None]:
    values = a.buffer("x", (n, columns), FORM_DTYPE[form])
    scales = None if form == "f32" else a.buffer("x_scales", (n, columns // GROUP, 2), "float32")
    return values, scales


def _row_tiles(rows: Expr, emit: Callable[[Expr, int], None]) -> None:
    """Tiles of four rows, then what is left one by one."""
    tiles = let(rows >> 2)
    with loop(tiles) as t:
        emit(let(t * ROW_TILE), ROW_TILE)
    with loop(rows - tiles * ROW_TILE) as r:
        emit(let(tiles * ROW_TILE + r), 1)


def _streams(first: Expr, last: Expr, rows: Expr, emit: Callable[[Blocks], None]) -> None:
    """All of first..last-1, as up to `STREAMS` runs of neighbours side by side, then what is left over."""
    streams = let(tirx.Select(rows > FEW, i32(1), i32(STREAMS)))
    each = let((last - first) // streams)
    left = let(last - first - each * streams)
    numbers = local(STREAMS, "int32")
    with loop(each + tirx.Min(left, 1)) as i:
        count = let(tirx.Select(i < each, streams, left))
        start = let(first + tirx.Select(i < each, i, each * streams))
        step = let(tirx.Select(i < each, each, 1))
        with loop(count) as s:
            store(numbers, start + s * step, s)
        emit(Blocks(numbers, count))


@cache
def linear(isa: Isa, weights: Weights, form: str, residual: bool) -> tirx.PrimFunc:
    """(x, [x_scales], w, [residual], rows → y): y[rows, N] = x · Wᵀ (+ residual), float32."""

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        values, scales = _activations(a, form, n, weights.columns)
        w = a.buffer("w", (weights.words,), "int32")
        skip = a.buffer("residual", (n, weights.rows), "float32") if residual else None
        rows = a.count("rows", n)
        y = a.buffer("y", (n, weights.rows), "float32")
        reader = Reader(weights, w)
        x = Activations(form, weights.columns, values, scales, rows)

        def emit(blocks: Blocks) -> None:
            def tile(row: Expr, size: int) -> None:
                acc = local(STREAMS * size * 4, "float32x4")
                accumulate(isa, form, reader, x, blocks, row, size, acc)
                with loop(blocks.count) as b, loop(4) as q:
                    column = let(blocks.at(b) * 16 + q * 4)
                    for r in range(size):
                        _store(y, skip, acc[(b * 4 + q) * size + r], row + r, column, weights.rows)

            _row_tiles(rows, tile)

        with share(weights.blocks) as (first, last):
            _streams(first, last, rows, emit)

    suffix = "_add" if residual else ""
    return kernel(f"linear_{weights.format}_{form}_{weights.rows}x{weights.columns}{suffix}", build)


@cache
def gated(isa: Isa, weights: Weights, form: str, out_form: str) -> tirx.PrimFunc:
    """(x, [x_scales], w, rows → h, [h_scales]): h[rows, N/2] = silu(gate·x) · (up·x), in the next layer's form.

    ``w`` holds gate and up interleaved by 16 rows; four blocks make 32 outputs, a whole quantization group."""
    hidden = weights.rows // 2

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        values, scales = _activations(a, form, n, weights.columns)
        w = a.buffer("w", (weights.words,), "int32")
        rows = a.count("rows", n)
        h = a.buffer("h", (n, hidden), FORM_DTYPE[out_form])
        h_scales = None if out_form == "f32" else a.buffer("h_scales", (n, hidden // GROUP, 2), "float32")
        reader = Reader(weights, w)
        x = Activations(form, weights.columns, values, scales, rows)

        def emit(units: Blocks) -> None:
            def tile(row: Expr, size: int) -> None:
                acc = local(STREAMS * size * 4, "float32x4")
                sums = local(STREAMS * size * 16, "float32x4")  # [unit][tile row][gate, up, gate, up][quad]
                with loop(4) as part:
                    blocks = Blocks(units.numbers, units.count, 4, part)
                    accumulate(isa, form, reader, x, blocks, row, size, acc)
                    with loop(units.count) as u, loop(4) as q:
                        for r in range(size):
                            store(sums, acc[(u * 4 + q) * size + r], (u * size + r) * 16 + part * 4 + q)
                with loop(units.count * size) as ur:
                    with loop(8) as i:
                        at = let(ur * 16 + (i // 4 * 8 + i % 4))
                        gate, up = let(sums[at]), let(sums[at + 4])
                        store(sums, gate / (splat(1.0) + exp(isa, splat(0.0) - gate)) * up, at)
                    made = [let(sums[ur * 16 + (i // 4 * 8 + i % 4)]) for i in range(8)]
                    group = let(units.at(ur // size))
                    store_group(isa, out_form, made, h, h_scales, row + ur % size, group)

            _row_tiles(rows, tile)

        with share(hidden // GROUP) as (first, last):
            _streams(first, last, rows, emit)

    return kernel(f"gated_{weights.format}_{form}_{weights.rows}x{weights.columns}", build)


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
def embed(weights: Weights) -> tirx.PrimFunc:
    """(token_ids, w, rows → y): y[rows, K] = the tokens' rows of a packed matrix, dequantized to float32."""
    groups = weights.columns // GROUP

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        ids = a.buffer("token_ids", (n,), "int32")
        w = a.buffer("w", (weights.words,), "int32")
        rows = a.count("rows", n)
        y = a.buffer("y", (n, weights.columns), "float32")
        reader = Reader(weights, w)
        with parallel(rows * groups) as unit:
            row, group = let(unit // groups), let(unit % groups)
            token = let(ids[row])
            base, lane = let(reader.base(token >> 4, group)), let(token & 15)
            for k in range(GROUP):
                store(y, _element(weights, reader, base, lane, k), row, group * GROUP + k)

    return kernel(f"embed_{weights.format}_{weights.columns}", build)


def _element(weights: Weights, reader: Reader, base: Expr, lane: Expr, k: int) -> Expr:
    if weights.bits == 32:
        return reader.floats[base // 4 + k * 16 + lane]
    if weights.bits == 16:
        return f16_decode_scalar(reader.halves[base // 2 + k * 16 + lane])
    word = reader.words[(base + piece_of(weights.bits, k) * 64) // 4 + lane]
    if weights.bits == 4:
        quant: Expr = (word >> (8 * (k % 4) + 4 * (k % 8 // 4))) & 15
    else:
        quant = (word << (24 - 8 * (k % 4))) >> 24
    at = (base + 16 * GROUP * weights.bits // 8) // 2 + lane
    value = cast("float32", quant - weights.zero) * f16_decode_scalar(reader.halves[at])
    return value + f16_decode_scalar(reader.halves[at + 16]) if weights.minimum else value


__all__ = ["Weights", "embed", "form_for", "gated", "linear"]
