"""The sums of `linear` for activations in 8 bits: whole numbers, by `dot4I8Packed`, within the columns that share a
scale, then float32. Weights stay as they are: their quants lie four columns in a word already.

Σ (d·w + m)·(s·q) = d·s·Σwq + m·(s·Σq), and where the quants have a zero, d·s·(Σwq - zero·Σq), a whole number as well.
The order of groups and shares is the floats', so a row gets the same bits from each of the kernels here.
"""

from __future__ import annotations

from collections.abc import Callable
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
    bits,
    cast,
    i32,
    lane,
    let,
    local,
    loop,
    madd,
    splat,
    store,
    vector,
    when,
)
from .linear_rows import FewRows
from .linear_tiles import Tile, TileSums
from .quantize_rows import RECORD, dot, quantized, words_of
from .sums import Inputs, share_bounds
from .weights import QuadReader, Scales

_FOURS = GROUP // 4
_VECTORS = RECORD // 4
Finish = Callable[[Expr, Expr, Expr, list[Any]], None]


class _Group:
    """What is added up of the columns that share a scale: int32x4 of each block and row. It stands around them in
    `QuadReader.fours`."""

    def __init__(self, sums: _Int8Sums, blocks: int, rows: int) -> None:
        self.sums, self.blocks, self.rows = sums, blocks, rows
        self.whole = local(blocks * rows, "int32x4")

    def begin(self) -> None:
        for i in range(self.blocks * self.rows):
            store(self.whole, splat(i32(0)), i)

    def add(self, words: list[Expr], xs: dict[int, Expr]) -> None:
        """Four columns: a word a weight row of each block, by one a row of activations."""
        for r, x in xs.items():
            for b, word in enumerate(words):
                i = b * self.rows + r
                store(self.whole, self.whole[i] + vector(*(dot(lane(word, k), x) for k in range(4))), i)

    def end(self, scales: list[Scales], number: Expr) -> None:
        self.sums.in_parts(lambda rows: self._scaled(scales, number, rows))

    def _scaled(self, scales: list[Scales], number: Expr, rows: range) -> None:
        for r in rows:
            scale, total = self.sums.scale(r), self.sums.total(r, number)
            for b, each in enumerate(scales):
                i = b * self.rows + r
                store(self.sums.floats, scaled(self.sums.weights, self.whole[i], each, scale, total,
                                               self.sums.floats[i]), i)  # fmt: skip


def scaled(w: PackedMatrix, whole: Expr, scales: Scales, scale: Expr, total: Expr | None, before: Expr) -> Any:
    """``before`` and what the products ``whole`` of some columns, int32x4, are worth. ``scale``, ``total``: of these
    activations, float32 and int32."""
    if total is not None and not _has_minimum(w):
        whole = whole - splat(total * i32(w.zero))
    value = madd(cast("float32x4", whole), let(scales.scale[0] * splat(scale)), before)
    if total is not None and _has_minimum(w):
        value = madd(scales.minimum, splat(let(scale * cast("float32", total))), let(value))
    return let(value)


def _has_minimum(w: PackedMatrix) -> bool:
    return w.minimum or (w.format.super is not None and w.format.super.min is not None)


def _needs_total(w: PackedMatrix) -> bool:
    return _has_minimum(w) or (w.zero != 0 and w.bits < 8)


class _Int8Sums(FewRows):
    """What few rows have in common, wherever their quants lie."""

    floats: Buffer

    def word(self, r: int, four: Expr) -> Expr:
        """Four quants of row ``r`` of the tile, of the group that is added."""
        raise NotImplementedError

    def scale(self, r: int) -> Expr:
        raise NotImplementedError

    def half(self, r: int, number: Expr) -> Expr:
        """The sum of half a group's quants."""
        raise NotImplementedError

    def total(self, r: int, number: Expr) -> Expr | None:
        """Of the columns that share a weight's scale."""
        if not _needs_total(self.weights):
            return None
        if self.weights.format.group == GROUP:
            return let(self.half(r, 0) + self.half(r, 1))
        return let(self.half(r, number))

    def in_parts(self, do: Callable[[range], None]) -> None:
        self._in_parts(do)

    def begin(self) -> QuadReader:
        self.sums = self.floats = local(self.blocks * self.tile, "float32x4")
        for i in range(self.blocks * self.tile):
            store(self.floats, splat(0.0), i)
        self.group = _Group(self, self.blocks, self.tile)
        return QuadReader(self.weights, self.inputs.w, self.quad)

    def add_group(self, reader: QuadReader, group: Expr) -> None:
        records = [reader.record(let(self.unit * self.blocks + b), group) for b in range(self.blocks)]
        with reader.fours(records, self.group) as (four, quants):
            words = [reader.packed(of.words) for of in quants]
            self._in_parts(lambda rows: self.group.add(words, {r: let(self.word(r, four)) for r in rows}))


class Int8Rows(_Int8Sums):
    """Rows that `quantize_rows` left."""

    def each(self, finish: Finish) -> None:
        super().each(_normed(self.inputs, self.weights, finish))

    def _accumulate(self) -> None:
        stride, reader = words_of(self.weights.columns), self.begin()
        starts = [let(tirx.Min(self.by * self.tile + r, self.rows - 1) * stride) for r in range(self.tile)]
        with self._groups() as group:
            self.at = [let(start + group * RECORD) for start in starts]
            self.add_group(reader, group)

    def word(self, r: int, four: Expr) -> Expr:
        return self.inputs.x[self.at[r] + four]

    def scale(self, r: int) -> Expr:
        return let(bits("float32", self.inputs.x[self.at[r] + _FOURS]))

    def half(self, r: int, number: Expr) -> Expr:
        return bits("int32", self.inputs.x[self.at[r] + _FOURS + 1 + number])


class Int8Row(_Int8Sums):
    """One row, which each workgroup rounds for itself into its memory: all of it, or, of a long one, a part of each
    share at a time."""

    def __init__(
        self, a: Args, weights: PackedMatrix, tile: int, inputs: Inputs, rows: Expr, unit: Expr, by: Expr, t: Expr,
        blocks: int,
    ) -> None:  # fmt: skip
        if tile != 1:
            raise ValueError(f"{tile} rows; more than one are quantized before")
        super().__init__(a, weights, tile, inputs, rows, unit, by, t, blocks)
        self.most = -(-weights.columns // GROUP // self.shares)  # groups of a share
        each = self.shares * (GROUP + 12)  # bytes: quants, a scale, two sums
        room = WORKGROUP_BYTES - a.shared
        # Parts of four: each of them has a thread.
        self.part = self.most if self.most * each <= room else room // each // 4 * 4
        slots = self.shares * self.part
        self.words, self.scales = a.workgroup(slots * _FOURS, "uint32"), a.workgroup(slots, "float32")
        self.halves = a.workgroup(slots * 2, "int32")

    def _accumulate(self) -> None:
        reader, (low, high) = self.begin(), share_bounds(self.share, self.weights.columns)
        squares = local(1, "float32x4")
        store(squares, splat(0.0), 0)
        if self.part >= self.most:
            self._add_part(reader, squares, low, high)
        else:
            with loop(-(-self.most // self.part)) as i:
                barrier()
                first = let(tirx.Min(low + i * self.part, high))
                self._add_part(reader, squares, first, let(tirx.Min(first + self.part, high)))
        if self.inputs.norm is not None:
            v = let(squares[0])
            store(self.own_squares, across(v), 0)

    def _add_part(self, reader: QuadReader, squares: Buffer, first: Expr, end: Expr) -> None:
        slots = let(self.share * self.part)
        with loop((end - first - self.quad + 3) // 4) as i:
            group = let(first + i * 4 + self.quad)
            made = quantized(self.inputs, self.starts[0], group, squares)
            at = let(slots + i * 4 + self.quad)
            for k, word in enumerate(made.words):
                store(self.words, word, at * _FOURS + k)
            store(self.scales, made.scale, at)
            for k, total in enumerate(made.sums):
                store(self.halves, total, at * 2 + k)
        barrier()
        with loop(end - first) as i:
            self.slot = let(slots + i)
            self.add_group(reader, let(first + i))

    def word(self, r: int, four: Expr) -> Expr:
        return self.words[self.slot * _FOURS + four]

    def scale(self, r: int) -> Expr:
        return let(self.scales[self.slot])

    def half(self, r: int, number: Expr) -> Expr:
        return self.halves[self.slot * 2 + number]


class Int8TileSums(TileSums):
    """Rows that `quantize_rows` left, in tiles: quants lie in the workgroup's memory, a word for four columns, and the
    scales of 32 columns beside them."""

    def __init__(
        self, a: Args, weights: PackedMatrix, tile: Tile, inputs: Inputs, rows: Expr, bx: Expr, by: Expr, t: Expr,
        blocks: int,
    ) -> None:  # fmt: skip
        super().__init__(a, weights, tile, inputs, rows, bx, by, t, blocks)
        self.parts = GROUP // weights.format.group
        count = self.parts * tile.outputs // 4
        self.scales = a.workgroup(count, "float32x4")
        self.minima = a.workgroup(count, "float32x4") if _has_minimum(weights) else None
        self.numbers = a.workgroup(tile.rows, "uint32x4")  # of each row: scale, sums of both halves
        if max(count, tile.rows) > tile.threads:
            raise ValueError(f"{tile} has too few threads")

    def memory(self, a: Args) -> None:
        """[four columns][quad of outputs], and [four columns][row]."""
        self.ws = a.workgroup(_FOURS * self.tile.outputs // 4, "uint32x4")
        self.xs = a.workgroup(_FOURS * self.tile.rows, "uint32")

    def each(self, finish: Finish) -> None:
        super().each(_normed(self.inputs, self.weights, finish))

    def _fetch(self, group: Expr) -> None:
        self._rewind(fetching=True)
        self._read(group)

    def _unpack(self, group: Expr) -> None:
        self._rewind(fetching=False)
        words, (scales, number), xs, numbers = self._read(group)
        tile = self.tile
        for place, word in words:
            store(self.ws, word, place)
        for at, word in xs:
            for k in range(4):
                store(self.xs, lane(word, k), at + k * tile.rows)
        with when(self.t < self.parts * tile.outputs // 4):
            store(self.scales, scales.scale[0], number)
            if self.minima is not None:
                store(self.minima, scales.minimum, number)
        with when(self.t < tile.rows):
            store(self.numbers, numbers, self.t)

    def _read(self, group: Expr) -> tuple[list[tuple[Expr, Expr]], tuple[Scales, Expr], list[tuple[Expr, Expr]], Expr]:
        """What this thread has of a group: quants of weights and where they go, scales of a quad of weights and their
        number, quants of activations and where they go, and the numbers of a row."""
        tile, w = self.tile, self.weights
        words = []
        for n in range(tile.outputs // 4 * _FOURS // tile.threads):
            item = let(self.t + n * tile.threads)
            quad, four, block = let(item % 4), let(item // 4 % _FOURS), let(item // (4 * _FOURS))
            reader = QuadReader(w, self.w, quad)
            of = reader.four(reader.record(self._block(block), group), four)
            words.append((let(four * (tile.outputs // 4) + block * 4 + quad), reader.packed(of.words)))
        number = let(self.t % (self.parts * tile.outputs // 4))
        quad, block = let(number % 4), let(number // 4 % tile.blocks)
        reader = QuadReader(w, self.w, quad)
        part = let(number // (tile.outputs // 4))
        scales = reader.scales(reader.record(self._block(block), group), part)
        xs = []
        record = let(group * _VECTORS)
        for n in range(tile.rows * 2 // tile.threads):
            item = let(self.t + n * tile.threads)
            row, half = let(item // 2), let(item % 2)
            xs.append((let(half * 4 * tile.rows + row), let(self.x[self._start(row) + record + half])))
        numbers = let(self.x[self._start(let(self.t % tile.rows)) + record + 2])
        return words, (scales, number), xs, numbers

    def _block(self, block: Expr) -> Any:
        at = self.first_block + block
        return let(tirx.Min(at, self.weights.blocks - 1) if self.weights.blocks % self.tile.blocks else at)

    def _start(self, row: Expr) -> Any:
        return let(tirx.Min(self.first_row + row, self.rows - 1) * (words_of(self.weights.columns) // 4))

    def _multiply(self) -> None:
        own, quads, w = self.tile.own, self.tile.outputs // 4, self.weights
        first, fours = let(self.pair * 8 + self.quad), _FOURS // self.parts
        whole = local(2 * own, "int32x4")
        with loop(self.parts) as part:
            for i in range(2 * own):
                store(whole, splat(i32(0)), i)
            with loop(fours) as i:
                four = let(part * fours + i)
                xs = [let(self.xs[four * self.tile.rows + self.own_row + r]) for r in range(own)]
                for q in range(2):
                    column = let(self.ws[four * quads + first + 4 * q])
                    for r in range(own):
                        products = vector(*(dot(lane(column, k), xs[r]) for k in range(4)))
                        store(whole, whole[q * own + r] + products, q * own + r)
            at = let(part * quads + first)
            least = [None if self.minima is None else let(self.minima[at + 4 * q]) for q in range(2)]
            scales = [Scales([let(self.scales[at + 4 * q])], least[q]) for q in range(2)]
            for r in range(own):
                numbers = let(self.numbers[self.own_row + r])
                scale = let(bits("float32", lane(numbers, 0)))
                total = self._total(numbers, part)
                for q in range(2):
                    i = q * own + r
                    store(self.sums, scaled(w, whole[i], scales[q], scale, total, self.sums[i]), i)

    def _total(self, numbers: Expr, part: Expr) -> Expr | None:
        if not _needs_total(self.weights):
            return None
        halves = [bits("int32", lane(numbers, i)) for i in (1, 2)]
        if self.parts == 1:
            return let(halves[0] + halves[1])
        return let(tirx.Select(part == 0, *halves))


def _normed(inputs: Inputs, weights: PackedMatrix, finish: Finish) -> Finish:
    """``finish`` of values times the row's 1/rms, which `quantize_rows` left behind it."""
    if inputs.epsilon is None:
        return finish
    stride = words_of(weights.columns)
    last = stride - 4

    def finished(row: Expr, unit: Expr, quad: Expr, values: list[Any]) -> None:
        at = let(row * stride + last)
        word = inputs.x[at] if inputs.x_type == "uint32" else lane(let(inputs.x[at // 4]), 0)
        inverse = let(bits("float32", word))
        finish(row, unit, quad, [let(value * splat(inverse)) for value in values])

    return finished


__all__ = ["Int8Row", "Int8Rows", "Int8TileSums"]
