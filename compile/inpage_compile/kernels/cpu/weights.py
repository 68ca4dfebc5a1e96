"""Packed weight matrices as kernels see them: the artifact's 16-row records, their parts and their activation forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

from tvm import tirx

from inpage.format.schema import Format

from ..shared.expressions import Buffer, Expr, cast, let
from ..shared.packed import GROUP, PackedMatrix, groups_of
from ..shared.planes import Plane, planes_of
from .build import bits, placed, span, splat, view
from .isa import Isa
from .math import e8m0_decode, f16_decode


def form_for(isa: Isa, format: Format, activations: str) -> str:
    """The activation form that a weight format wants; ``activations``: "int8", or "f32" to leave them unquantized."""
    if activations == "f32" or format.is_float or isa.name == "portable":
        return "f32"
    return "i16" if format.table is not None or format.planes[0] == 8 else isa.nibble_form


class Records:
    """The weight buffer seen as the types that its parts have."""

    def __init__(self, weights: PackedMatrix, buffer: Buffer) -> None:
        self.w = weights
        self.first: Expr = 0
        self.groups = groups_of(weights.columns)
        self.bytes = view(buffer, "int8", weights.words * 4)
        self.halves = view(buffer, "int16", weights.words * 2)
        self.words = buffer
        self.floats = view(buffer, "float32", weights.words)
        self.longs: Buffer = view(buffer, "int64", weights.words // 2) if weights.format.super is not None else None

    def placed(self, base: Expr) -> Records:
        """The same with byte ``base`` as its beginning."""
        other, w = copy(self), self.w
        other.bytes = placed(self.bytes, "int8", w.record, base)
        for name, dtype, size in (("halves", "int16", 2), ("words", "int32", 4), ("floats", "float32", 4)):
            setattr(other, name, view(other.bytes, dtype, w.record // size))
        return other

    def quad(self, first: Expr) -> Records:
        """The same from another quad of each block on, which is then number 0: of matrices without super-blocks."""
        other = copy(self)
        other.first = first
        return other

    def at(self, quad: int) -> Expr:
        """Which quad of the block that is."""
        return self.first + quad

    @property
    def super_groups(self) -> int:
        """Groups of 32 columns in a super-block; 0 where there are none."""
        return self.w.format.span // GROUP if self.w.format.super is not None else 0

    @property
    def supers(self) -> int:
        return self.groups // self.super_groups

    def record(self, block: Expr, index: Expr) -> Expr:
        """Byte offset of a super-block's record."""
        return (block * self.supers + index) * self.w.record

    def base(self, block: Expr, group: Expr) -> Expr:
        """Byte offset of the quants of a group of 32 columns; without super-blocks that is its record."""
        if not self.super_groups:
            return (block * self.groups + group) * self.w.record
        record = self.record(block, group // self.super_groups)
        return record + (self.w.header + group % self.super_groups * self.w.step)

    def super_of(self, block: Expr, group: Expr) -> tuple[Expr, Expr] | None:
        """The record of a group of 32 columns, and which group it is there; None where there are no super-blocks."""
        if not self.super_groups:
            return None
        return let(self.record(block, group // self.super_groups)), let(group % self.super_groups)

    def scale(self, base: Expr, quad: int, which: int = 0) -> Expr:
        """Four rows' scales, or with ``which`` 1 minima, of the record whose quants begin at ``base``."""
        if self.w.format.scale == "e8m0":
            return let(e8m0_decode(cast("int32x4", self.bytes[span(base + (self.w.step + self.at(quad) * 4))])))
        at = (base >> 1) + (self.w.step // 2 + which * 16 + self.at(quad) * 4)
        return let(f16_decode(self.halves[span(at)]))

    def super_scale(self, record: Expr, quad: int, which: int = 0) -> Expr:
        """As `scale`, of the super-block whose record begins there."""
        return let(f16_decode(self.halves[span((record >> 1) + (which * 16 + quad * 4))]))


def piece_of(bits: int, k: int) -> int:
    """Which 64-byte piece of a plane holds column k; ``bits``: the plane's width."""
    return k * bits // 32


def shift_of(width: int, k: int) -> int:
    """Where column k's bits are in its byte of a plane of that width, which is byte k % 4 of the word."""
    return width * (k % (32 // width) // 4)


def quant_of(format: Format, words: list[Expr], k: int, lanes: int = 4) -> Expr:
    """Column k's quant, or its place in the table, out of each row's 32-bit words, one of each plane. ``lanes`` 1: of
    one row's."""
    if format.bits == 8:
        left, right = (_many(n, lanes, "int32") for n in (24 - 8 * (k % 4), 24))
        return (words[0] << left) >> right
    quant: Expr | None = None
    for plane, word in zip(planes_of(format), words, strict=True):
        left = plane.low - 8 * (k % 4) - shift_of(plane.width, k)
        part = _shifted(word, left, lanes, "int32") & _many(plane.mask, lanes, "int32")
        quant = part if quant is None else quant | part
    assert quant is not None
    return quant


def table_number(table: Sequence[int], place: Expr, of: Callable[[int], Expr]) -> Expr:
    """table[place] for int32 places, by comparing bit after bit; ``of`` makes a constant like them."""

    def among(numbers: Sequence[int], bit: int) -> Expr:
        if len(numbers) == 1:
            return of(numbers[0])
        half = len(numbers) // 2
        return tirx.Select((place & of(bit)) == of(0), among(numbers[:half], bit >> 1), among(numbers[half:], bit >> 1))

    return let(among(table, len(table) // 2))


def _shifted(value: Expr, left: int, lanes: int, dtype: str) -> Expr:
    """``value`` shifted to the left, or to the right where ``left`` is below 0."""
    if left == 0:
        return value
    by = _many(abs(left), lanes, dtype)
    return value << by if left > 0 else value >> by


def _many(value: int, lanes: int, dtype: str) -> Expr:
    return tirx.const(value, dtype) if lanes == 1 else splat(value, lanes, dtype)


def bytes_of(reader: Records, base: Expr, quad: int, piece: int) -> tuple[Expr, Expr]:
    """The quants of 4 rows × 8 columns as bytes: of the first four columns, and of the other four. A row's four columns
    are neighbours."""
    nibbles, uppers = _planes(reader, base, quad, piece)
    out: list[Expr] = []
    if nibbles is not None:
        packed = let(nibbles)
        mask = splat(15, 16, "int8")
        out = [packed & mask, bits("int8x16", bits("uint16x8", packed) >> splat(4, 8, "uint16")) & mask]
    for plane, upper in uppers:
        for i in range(2):
            left = plane.low - shift_of(plane.width, piece * 8 + i * 4)
            part = bits("int8x16", _shifted(upper, left, 8, "uint16")) & splat(plane.mask, 16, "int8")
            if len(out) == 2:
                out[i] |= part
            else:
                out.append(part)
    return let(out[0]), let(out[1])


def lanes_of_pairs(reader: Records, base: Expr, quad: int, piece: int) -> list[Expr]:
    """The quants of 4 rows × 8 columns as 16-bit lanes: columns (0,2) (1,3) (4,6) (5,7)."""
    nibbles, uppers = _planes(reader, base, quad, piece)
    packed = None if nibbles is None else let(bits("uint16x8", nibbles))
    mask = splat(15, 8, "uint16")
    lanes = []
    for i, nibble in enumerate((0, 2, 1, 3)):
        value: Expr | None = None
        if packed is not None:
            value = packed if nibble == 0 else packed >> splat(4 * nibble, 8, "uint16")
            value = value if nibble == 3 else value & mask
        for plane, upper in uppers:
            left = plane.low - shift_of(plane.width, piece * 8 + i // 2 * 4) - i % 2 * 8
            part = _shifted(upper, left, 8, "uint16") & splat(plane.mask, 8, "uint16")
            value = part if value is None else value | part
        assert value is not None
        lanes.append(let(bits("int16x8", value)))
    return lanes


def _planes(reader: Records, base: Expr, quad: int, piece: int) -> tuple[Expr | None, list[tuple[Plane, Expr]]]:
    """Of 4 rows × 8 columns the plane of nibbles, int8x16, where there is one, and the others, uint16x8."""
    planes = planes_of(reader.w.format)

    def load(plane: Plane) -> Expr:
        at = base + (plane.at + piece_of(plane.width, piece * 8) * 64)
        return reader.bytes[span(at + reader.at(quad) * 16, 16)]

    nibbles: Expr | None = load(planes.pop(0)) if planes[0].width == 4 else None
    return nibbles, [(plane, let(bits("uint16x8", load(plane)))) for plane in planes]
