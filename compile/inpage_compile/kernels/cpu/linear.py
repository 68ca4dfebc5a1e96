"""y = W·x (+ residual) for packed 16-row weights: the matrix-vector kernel, its few-rows form, and the gated pair.

Integer sums are exact within a group of 32 columns; groups are then added up in float32, in order. A row of
activations therefore gets the same bits whether it is alone or one of many: tiles of four rows only share the
unpacking of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from tvm import tirx

from .build import (
    Args,
    Buffer,
    Expr,
    bits,
    cast,
    i32,
    kernel,
    let,
    local,
    loop,
    parallel,
    span,
    splat,
    store,
    view,
    when,
)
from .isa import Isa
from .math import exp, f16_decode, f16_decode_scalar
from .quantize import FORM_DTYPE, GROUP, byte_splat, store_group

ROW_TILE = 4  # activation rows that share one unpacking of the weights

Sink = Callable[[int, int, Expr], None]  # (row of the tile, quad of output rows, float32x4)
Dots = Iterator[tuple[int, int, Expr]]  # (quad of output rows, row of the tile, float32x4)
Sums = dict[tuple[int, int], Expr]  # by quad and row: int32x4 or int16x8


@dataclass(frozen=True)
class Weights:
    """A packed [rows, columns] matrix. ``zero`` is subtracted from the quants; ``minimum``: a second f16 a group."""

    format: str
    rows: int
    columns: int

    @property
    def bits(self) -> int:
        return {"q4": 4, "q8": 8, "f1": 16, "f3": 32}[self.format[:2]]

    @property
    def minimum(self) -> bool:
        return self.format == "q4_1"

    @property
    def zero(self) -> int:
        return 8 if self.format == "q4_0" else 0

    @property
    def blocks(self) -> int:
        return (self.rows + 15) // 16

    @property
    def record(self) -> int:
        """Bytes of 16 rows × 32 columns."""
        scales = 0 if self.bits >= 16 else 32 * (2 if self.minimum else 1)
        return 16 * 32 * self.bits // 8 + scales

    @property
    def words(self) -> int:
        return self.blocks * (self.columns // GROUP) * self.record // 4


def form_for(isa: Isa, format: str, activations: str) -> str:
    """The activation form that a weight format wants; ``activations``: "int8", or "f32" to leave them unquantized."""
    if activations == "f32" or format in ("f32", "f16") or isa.name == "portable":
        return "f32"
    return isa.nibble_form if format.startswith("q4") else "i16"


class _Reader:
    """The weight buffer seen as the types that its parts have."""

    def __init__(self, weights: Weights, buffer: Buffer) -> None:
        self.w = weights
        self.groups = weights.columns // GROUP
        self.bytes = view(buffer, "int8", weights.words * 4)
        self.halves = view(buffer, "int16", weights.words * 2)
        self.words = buffer
        self.floats = view(buffer, "float32", weights.words)

    def base(self, block: Expr, group: Expr) -> Expr:
        """Byte offset of a record."""
        return (block * self.groups + group) * self.w.record

    def scale(self, base: Expr, quad: int, which: int = 0) -> Expr:
        at = (base + 16 * GROUP * self.w.bits // 8 + which * 32) // 2 + quad * 4
        return let(f16_decode(self.halves[span(at)]))


def _accumulate(
    isa: Isa, form: str, reader: _Reader, x: _Activations, block: Expr, row: Expr, tile: int, sink: Sink
) -> None:
    """Sixteen output rows × ``tile`` activation rows, handed to ``sink`` as float32x4."""
    quads_at_once = 4 if tile == 1 else 2
    for first in range(0, 4, quads_at_once):
        quads = range(first, first + quads_at_once)
        acc = local(tile * quads_at_once, "float32x4")
        for i in range(tile * quads_at_once):
            store(acc, splat(0.0), i)
        with loop(reader.groups) as group:
            base = let(reader.base(block, group))
            for q, r, value in _GROUP_DOT[form](isa, reader, x, base, row, group, tile, quads, acc, first):
                store(acc, value, (q - first) * tile + r)
        for q in quads:
            for r in range(tile):
                sink(r, q, acc[(q - first) * tile + r])


class _Activations:
    def __init__(self, form: str, columns: int, values: Buffer, scales: Buffer | None, rows: Expr) -> None:
        self.columns = columns
        self.scales: Buffer = scales
        self.floats: Buffer = values if form == "f32" else None
        self.words: Buffer = view(values, "int32", rows * (columns // 4)) if form == "i8" else None
        self.pairs: Buffer = view(values, "int32", rows * (columns // 2)) if form == "i16p" else None
        self.fours: Buffer = view(values, "int64", rows * (columns // 4)) if form == "i16" else None


def _affine(
    isa: Isa, reader: _Reader, x: _Activations, base: Expr, row: Expr, group: Expr, tile: int, quads: range,
    sums: Sums, acc: Buffer, first: int,
) -> Dots:  # fmt: skip
    """acc + s·(d·Σwq) + m·(s·Σq) for integer sums of one group."""
    scale = [let(splat(x.scales[row + r, group, 0])) for r in range(tile)]
    total = [let(splat(x.scales[row + r, group, 1])) for r in range(tile)]
    for q in quads:
        d = reader.scale(base, q)
        if reader.w.minimum:
            m = reader.scale(base, q, 1)
        elif reader.w.zero:
            m = let(d * splat(-float(reader.w.zero)))
        else:
            m = None
        for r in range(tile):
            value = acc[(q - first) * tile + r]
            if m is not None:
                value = isa.madd(m, total[r], value)
            yield q, r, isa.madd(cast("float32x4", sums[q, r]) * d, scale[r], value)


def _nibbles_i8(
    isa: Isa, reader: _Reader, x: _Activations, base: Expr, row: Expr, group: Expr, tile: int, quads: range,
    acc: Buffer, first: int,
) -> Dots:  # fmt: skip
    """Signed bytes × nibbles into 16-bit pair sums: at most 16 · 127 · 15 < 2^15, exact for the whole group."""
    mask = splat(15, 16, "int8")
    shift = splat(4, 8, "uint16")
    sums: Sums = {}
    for piece in range(4):
        at = [let((row + r) * (x.columns // 4) + group * 8 + piece * 2) for r in range(tile)]
        low_x = [let(byte_splat(x.words, a)) for a in at]
        high_x = [let(byte_splat(x.words, a + 1)) for a in at]
        for q in quads:
            packed = let(reader.bytes[span(base + piece * 64 + q * 16, 16)])
            low = let(packed & mask)
            high = let(bits("int8x16", bits("uint16x8", packed) >> shift) & mask)
            for r in range(tile):
                part = isa.pair_dot(low_x[r], low)
                sums[q, r] = part if piece == 0 else sums[q, r] + part
                sums[q, r] = let(sums[q, r] + isa.pair_dot(high_x[r], high))
    ones = splat(1, 8, "int16")
    for key, value in sums.items():
        sums[key] = let(isa.dot16(value, ones))
    yield from _affine(isa, reader, x, base, row, group, tile, quads, sums, acc, first)


def _nibbles_i16p(
    isa: Isa, reader: _Reader, x: _Activations, base: Expr, row: Expr, group: Expr, tile: int, quads: range,
    acc: Buffer, first: int,
) -> Dots:  # fmt: skip
    """Nibbles masked out in place as 16-bit lanes: columns (0,2) (1,3) (4,6) (5,7) of every eight."""
    mask = splat(15, 8, "uint16")
    sums: Sums = {}
    for piece in range(4):
        at = [let((row + r) * (x.columns // 2) + group * 16 + piece * 4) for r in range(tile)]
        pairs = [[let(bits("int16x8", splat(x.pairs[a + j], 4))) for j in range(4)] for a in at]
        for q in quads:
            packed = let(bits("uint16x8", reader.bytes[span(base + piece * 64 + q * 16, 16)]))
            lanes = []
            for nibble in (0, 2, 1, 3):
                value = packed if nibble == 0 else packed >> splat(4 * nibble, 8, "uint16")
                lanes.append(let(bits("int16x8", value if nibble == 3 else value & mask)))
            for r in range(tile):
                for j in range(4):
                    part = isa.dot16(lanes[j], pairs[r][j])
                    sums[q, r] = part if (piece, j) == (0, 0) else let(sums[q, r] + part)
    yield from _affine(isa, reader, x, base, row, group, tile, quads, sums, acc, first)


def _bytes_i16(
    isa: Isa, reader: _Reader, x: _Activations, base: Expr, row: Expr, group: Expr, tile: int, quads: range,
    acc: Buffer, first: int,
) -> Dots:  # fmt: skip
    """Bytes widened to 16 bits; each dot leaves two neighbouring sums a row, which are joined after the group."""
    halves: dict[tuple[int, int, int], Expr] = {}
    for piece in range(8):
        at = [let((row + r) * (x.columns // 4) + group * 8 + piece) for r in range(tile)]
        fours = [let(bits("int16x8", splat(x.fours[a], 2))) for a in at]
        for q in quads:
            for half in range(2):
                wide = let(cast("int16x8", reader.bytes[span(base + piece * 64 + q * 16 + half * 8, 8)]))
                for r in range(tile):
                    part = isa.dot16(wide, fours[r])
                    halves[q, r, half] = part if piece == 0 else let(halves[q, r, half] + part)
    sums: Sums = {}
    for q in quads:
        for r in range(tile):
            both = [halves[q, r, 0], halves[q, r, 1]]
            even = tirx.Shuffle(both, [i32(j) for j in (0, 2, 4, 6)])
            odd = tirx.Shuffle(both, [i32(j) for j in (1, 3, 5, 7)])
            sums[q, r] = let(even + odd)
    yield from _affine(isa, reader, x, base, row, group, tile, quads, sums, acc, first)


def _floats(
    isa: Isa, reader: _Reader, x: _Activations, base: Expr, row: Expr, group: Expr, tile: int, quads: range,
    acc: Buffer, first: int,
) -> Dots:  # fmt: skip
    """Float activations: every weight becomes float32; the accuracy reference of the integer kernels."""
    w = reader.w
    values = {(q, r): acc[(q - first) * tile + r] for q in quads for r in range(tile)}
    for q in quads:
        if w.bits < 16:
            d = reader.scale(base, q)
            m = reader.scale(base, q, 1) if w.minimum else None
        for k in range(GROUP):
            if w.bits == 32:
                weight = let(reader.floats[span(base // 4 + k * 16 + q * 4)])
            elif w.bits == 16:
                weight = let(f16_decode(reader.halves[span(base // 2 + k * 16 + q * 4)]))
            else:
                words = reader.words[span((base + _piece(w.bits, k) * 64) // 4 + q * 4)]
                quant = cast("float32x4", _quant(w.bits, words, k))
                if w.zero:
                    quant = quant - splat(float(w.zero))
                weight = let(isa.madd(quant, d, m) if m is not None else quant * d)
            for r in range(tile):
                values[q, r] = let(isa.madd(weight, splat(x.floats[row + r, group * GROUP + k]), values[q, r]))
    for (q, r), value in values.items():
        yield q, r, value


def _piece(bits_: int, k: int) -> int:
    return k // 8 if bits_ == 4 else k // 4


def _quant(bits_: int, words: Expr, k: int) -> Expr:
    """Column k's quant out of each row's 32-bit word."""
    if bits_ == 4:
        return (words >> splat(8 * (k % 4) + 4 * (k % 8 // 4), dtype="int32")) & splat(15, dtype="int32")
    return (words << splat(24 - 8 * (k % 4), dtype="int32")) >> splat(24, dtype="int32")


_GROUP_DOT = {"i8": _nibbles_i8, "i16p": _nibbles_i16p, "i16": _bytes_i16, "f32": _floats}


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
        reader = _Reader(weights, w)
        x = _Activations(form, weights.columns, values, scales, rows)
        with parallel(weights.blocks) as block:

            def emit(row: Expr, tile: int) -> None:
                def sink(r: int, q: int, value: Expr) -> None:
                    if weights.rows % 16 == 0:
                        at = span(block * 16 + q * 4)
                        store(y, value + skip[row + r, at] if skip is not None else value, row + r, at)
                    else:
                        _store_tail(y, skip, value, row + r, block * 16 + q * 4, weights.rows)

                _accumulate(isa, form, reader, x, block, row, tile, sink)

            _row_tiles(rows, emit)

    suffix = "_add" if residual else ""
    return kernel(f"linear_{weights.format}_{form}_{weights.rows}x{weights.columns}{suffix}", build)


@cache
def gated(isa: Isa, weights: Weights, form: str, out_form: str) -> tirx.PrimFunc:
    """(x, [x_scales], w, rows → h, [h_scales]): h[rows, N/2] = silu(gate·x) · (up·x), in the next layer's form.

    ``w`` holds gate and up interleaved by 16 rows; one iteration makes 32 outputs, a whole quantization group."""
    hidden = weights.rows // 2

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        values, scales = _activations(a, form, n, weights.columns)
        w = a.buffer("w", (weights.words,), "int32")
        rows = a.count("rows", n)
        h = a.buffer("h", (n, hidden), FORM_DTYPE[out_form])
        h_scales = None if out_form == "f32" else a.buffer("h_scales", (n, hidden // GROUP, 2), "float32")
        reader = _Reader(weights, w)
        x = _Activations(form, weights.columns, values, scales, rows)
        with parallel(hidden // GROUP) as unit:

            def emit(row: Expr, tile: int) -> None:
                sums = local(tile * 16, "float32x4")  # [tile row][gate, up, gate, up][quad]
                with loop(4) as part:

                    def sink(r: int, q: int, value: Expr) -> None:
                        store(sums, value, r * 16 + part * 4 + q)

                    _accumulate(isa, form, reader, x, unit * 4 + part, row, tile, sink)
                with loop(tile) as r:
                    with loop(8) as i:
                        at = let(r * 16 + i // 4 * 8 + i % 4)
                        gate, up = let(sums[at]), let(sums[at + 4])
                        store(sums, gate / (splat(1.0) + exp(isa, splat(0.0) - gate)) * up, at)
                    made = [let(sums[r * 16 + i // 4 * 8 + i % 4]) for i in range(8)]
                    store_group(isa, out_form, made, h, h_scales, row + r, unit)

            _row_tiles(rows, emit)

    return kernel(f"gated_{weights.format}_{form}_{weights.rows}x{weights.columns}", build)


def _store_tail(y: Buffer, skip: Buffer | None, value: Expr, row: Expr, column: Expr, width: int) -> None:
    """Lane by lane where the matrix ends inside a block."""
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
        reader = _Reader(weights, w)
        with parallel(rows * groups) as unit:
            row, group = let(unit // groups), let(unit % groups)
            token = let(ids[row])
            base, lane = let(reader.base(token >> 4, group)), let(token & 15)
            for k in range(GROUP):
                store(y, _element(weights, reader, base, lane, k), row, group * GROUP + k)

    return kernel(f"embed_{weights.format}_{weights.columns}", build)


def _element(weights: Weights, reader: _Reader, base: Expr, lane: Expr, k: int) -> Expr:
    if weights.bits == 32:
        return reader.floats[base // 4 + k * 16 + lane]
    if weights.bits == 16:
        return f16_decode_scalar(reader.halves[base // 2 + k * 16 + lane])
    word = reader.words[(base + _piece(weights.bits, k) * 64) // 4 + lane]
    if weights.bits == 4:
        quant: Expr = (word >> (8 * (k % 4) + 4 * (k % 8 // 4))) & 15
    else:
        quant = (word << (24 - 8 * (k % 4))) >> 24
    at = (base + 16 * GROUP * weights.bits // 8) // 2 + lane
    value = cast("float32", quant - weights.zero) * f16_decode_scalar(reader.halves[at])
    return value + f16_decode_scalar(reader.halves[at + 16]) if weights.minimum else value


__all__ = ["Weights", "embed", "form_for", "gated", "linear"]
