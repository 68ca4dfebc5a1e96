"""Packed weight matrices as kernels for WebGPU see them: vectors of four rows out of the artifact's 16-row records.

A record (16 rows by 32 columns, or by a super-block) is a run of 16-byte vectors. A thread has a quad of rows, 0 to 3:
its words are every fourth vector, so that neighbouring threads read neighbouring addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from tvm import tirx

from inpage.errors import Unsupported
from inpage.format.schema import Format

from ..shared.packed import GROUP, PackedMatrix, groups_of
from ..shared.planes import planes_of
from .build import Buffer, Expr, bits, cast, halves, i32, lane, let, loop, madd, splat, u32, vector

BYTES = 0x01010101  # times a byte: the same one in each of a word's four


def check_format(format: Format) -> None:
    """Raises `Unsupported` for what no kernel for WebGPU reads."""
    if not _is_read(format):
        what = f"{format.bits} bits of type {format.type} in groups of {format.group}"
        raise Unsupported(f"format: no WebGPU kernel reads {what} with such scales", field="format")


def _is_read(f: Format) -> bool:
    sup = f.super
    if f.is_float:
        return True
    minimum = f.min is not None or (sup is not None and sup.min is not None)
    if (f.table is not None and f.bits != 4) or (minimum and (f.zero or f.table is not None)):
        return False
    if f.bits == 8:
        return f.type == "int" and sup is None and f.group == GROUP and not minimum and f.scale == "f16"
    if f.type != "uint" or f.bits > 6:
        return False
    if sup is None:
        return f.group == GROUP and f.bits >= 4 and (f.scale == "f16" or f.table is not None)
    if sup.signed:
        return f.group < GROUP and not minimum
    return sup.scale_bits in (4, 6) and sup.size % 64 == 0


def multiplies_int8(f: Format) -> bool:
    """Whether a format's quants are whole numbers of 8 bits, for `linear_int8`."""
    return _is_read(f) and not f.is_float and f.table is None


@dataclass(frozen=True)
class Record:
    """32 columns of 16 rows, in vectors: where the record that holds them starts, and their quants; ``step``: which 32
    columns of their super-block they are."""

    start: Expr
    quants: Expr
    step: Expr


@dataclass(frozen=True)
class Scales:
    """Of one group and quad, float32x4, one a row: ``scale`` divided by 1, 2^8, 2^16 and 2^24, for quants left where
    they are in their word, and what is added to their product."""

    scale: list[Expr]
    minimum: Expr


@dataclass(frozen=True)
class Four:
    """Four columns of a record: ``words``, their quants, a byte each, in a word a row, and what these are scaled by.
    For float weights only which four they are."""

    record: Record
    four: Expr
    words: Expr = None
    scales: Scales | None = None


class GroupSums(Protocol):
    """What is done around the columns that share a scale."""

    def begin(self) -> None: ...

    def end(self, scales: list[Scales], number: Expr) -> None:
        """``scales``: of each record; ``number``: which of the 32 columns' groups."""


class QuadReader:
    """The weight buffer, array<vec4<u32>>, of one thread's quad of rows."""

    def __init__(self, weights: PackedMatrix, buffer: Buffer, quad: Expr) -> None:
        self.w, self.buffer, self.quad = weights, buffer, quad
        self.format = weights.format
        check_format(self.format)
        self.groups = groups_of(weights.columns)
        self.planes = [] if self.format.is_float else planes_of(self.format)

    def record(self, block: Expr, group: Expr) -> Record:
        """``group``: which 32 columns."""
        w, sup = self.w, self.format.super
        if sup is None:
            start = let((block * self.groups + group) * (w.record // 16))
            return Record(start, start, 0)
        steps = sup.size // GROUP
        step = let(group % steps)
        start = let((block * (self.groups // steps) + group // steps) * (w.record // 16))
        return Record(start, let(start + step * (w.step // 16) + w.header // 16), step)

    @contextmanager
    def fours(self, records: list[Record], sums: GroupSums | None = None) -> Iterator[tuple[Any, list[Four]]]:
        """A loop over 32 columns by fours: which four, and what each record has of it. Loops, as unrolled code would
        take drivers seconds to compile: one for each piece of the narrowest plane, in it one for each piece of the next
        wider one, so that every word is read once."""
        with ExitStack() as nest:
            if self.format.is_float:
                four = nest.enter_context(loop(GROUP // 4))
                yield four, [Four(record, four) for record in records]
                return
            yield self._quants(records, _Nest(nest), sums)

    def _quants(self, records: list[Record], nest: _Nest, sums: GroupSums | None) -> tuple[Expr, list[Four]]:
        group = self.format.group
        supers = [self._super_scales(record) for record in records]
        scales: list[Scales] = []
        words: list[list[Expr]] = []
        for plane in reversed(self.planes):
            if not scales and plane.columns <= group:
                nest.into(group)
                scales = [self._scales(r, s, nest.at) for r, s in zip(records, supers, strict=True)]
                if sums is not None:
                    sums.begin()
                    nest.stack.callback(sums.end, scales, nest.at)
            nest.into(plane.columns)
            words.insert(0, [self._word(r.quants + plane.at // 16 + nest.at * 4) for r in records])
        four, within = nest.last()
        own = [self._joined([of_plane[i] for of_plane in words], four, within) for i in range(len(records))]
        return four, [Four(r, four, w, s) for r, w, s in zip(records, own, scales, strict=True)]

    def four(self, record: Record, four: Expr) -> Four:
        """Four columns of a record, by themselves."""
        if self.format.is_float:
            return Four(record, four)
        scales = self._scales(record, self._super_scales(record), let(four * 4 // self.format.group))
        words = [self._word(record.quants + plane.at // 16 + four // (plane.columns // 4) * 4) for plane in self.planes]
        return Four(record, four, self._joined(words, four, four % (self.planes[0].columns // 4)), scales)

    def packed(self, words: Expr) -> Expr:
        """The words of a `Four` with nothing but its quants, as `dot4I8Packed` takes them."""
        if len(self.planes) > 1 or self.w.bits == 8:
            return words
        return let(words & splat(u32(((1 << self.w.bits) - 1) * BYTES)))

    def scales(self, record: Record, number: Expr) -> Scales:
        """Of group ``number`` of a record's 32 columns."""
        return self._scales(record, self._super_scales(record), number)

    def _joined(self, words: list[Expr], four: Expr, within: Expr) -> Expr:
        """A word of each plane → the quants of four columns, a byte each. ``within``: which four of the lowest plane's
        word."""
        low, *others = self.planes
        if low.width == 8:
            return words[0]
        joined = let(words[0] >> splat(cast("uint32", within * low.width)))
        for plane, word in zip(others, words[1:], strict=True):
            joined = joined & splat(u32(((1 << plane.low) - 1) * BYTES))
            shift = splat(cast("uint32", four % (plane.columns // 4) * plane.width))
            joined = let(joined | ((word >> shift) << splat(u32(plane.low)) & splat(u32(plane.mask * BYTES))))
        return joined

    def _super_scales(self, record: Record) -> list[Expr]:
        """A super-block's own scale, and that of its minima."""
        sup = self.format.super
        if sup is None:
            return []
        return [self._four_halves(record.start + 2 * i) for i in range(1 if sup.min is None else 2)]

    def _scales(self, record: Record, supers: list[Expr], group: Expr) -> Scales:
        """``group``: which one of the 32 columns."""
        w = self.w
        at = record.start + GROUP * w.bits // 8
        minimum = None
        if self.format.scale == "e8m0":
            scale = [self._exponents(at)]
        elif not supers:
            scale = [self._four_halves(at)]
        else:
            subs = self._sub_scales(record, record.step * (GROUP // self.format.group) + group)
            scale = [let(own * sub) for own, sub in zip(supers, subs, strict=True)]
            if len(scale) == 2:
                minimum = let(-scale.pop())
        for _ in range(3):
            scale.append(let(scale[-1] * splat(1 / 256)))
        if w.minimum:
            minimum = self._four_halves(at + 2)
        elif minimum is None:  # A byte with its sign bit turned is the quant plus 128.
            minimum = let(scale[0] * splat(-128.0 if w.bits == 8 else -float(w.zero)))
        return Scales(scale, minimum)

    def _sub_scales(self, record: Record, number: Expr) -> list[Expr]:
        """Of a super-block's group its sub-scale, and its sub-minimum."""
        sup = self.format.super
        assert sup is not None
        number = let(number)
        at = record.start + self.w.sub_scales // 16
        if sup.signed:
            low = let(_lane_at(let(self.buffer[at + number]), self.quad))
            return [_bytes(low ^ u32(0x80808080)) - splat(128.0)]
        if sup.min is not None:
            return [_bytes(each) for each in self._pair(at, number, sup.size // self.format.group)]
        first, second = self._pair(at, let(number // 2), sup.size // self.format.group // 2)
        return [let(_bytes(tirx.Select(number % 2 == 1, second, first)) - splat(float(sup.zero)))]

    def _pair(self, at: Expr, number: Expr, pairs: int) -> list[Expr]:
        """Both numbers of a pair, a byte a row in a word. ``at``: where pairs begin; ``pairs``: how many there are."""
        sup, mask = self.format.super, u32(0x0F0F0F0F)
        assert sup is not None
        low = let(_lane_at(let(self.buffer[at + number]), self.quad))
        first, second = low & mask, (low >> u32(4)) & mask
        if sup.scale_bits == 4:
            return [first, second]
        # Two bits of both, in a nibble a row: those of rows 8 to 15 are the high ones.
        vectors = let(self.buffer[at + pairs + number // 2])
        high = _lane_at(vectors, let(number % 2 * 2 + self.quad % 2))
        high = let(high >> cast("uint32", self.quad // 2 * 4))
        upper = u32(0x30303030)
        return [first | ((high << u32(4)) & upper), second | ((high << u32(2)) & upper)]

    def _word(self, at: Expr) -> Expr:
        return let(self.buffer[at + self.quad])

    def columns(self, of: Four) -> list[Expr]:
        """The values of four columns, each float32x4 of the quad's rows, exact but for a minimum's addition: a quant
        times its scales, both levels of them, has no more than 24 bits."""
        w, start, four = self.w, of.record.start, of.four
        if w.bits == 32:
            return [let(bits("float32x4", self._word(start + (four * 4 + k) * 4))) for k in range(4)]
        if w.bits == 16:
            return [self._four_halves(start + (four * 4 + k) * 2) for k in range(4)]
        assert of.scales is not None
        words, scale = of.words, of.scales.scale
        if self.format.table is not None:
            return [let(_numbers(self.format.table, words, k) * scale[0]) for k in range(4)]
        out = []
        biased = let(words ^ splat(u32(0x80808080))) if w.bits == 8 else words
        for k in range(4):
            # Masked, not shifted: the scale is as much smaller, and both products are exact.
            if w.bits == 8 and k == 3:  # as signed as the word itself
                out.append(let(_masked(words, 0xFF000000) * scale[k]))
                continue
            quant = _masked(biased, ((1 << w.bits) - 1) << (8 * k))
            out.append(let(madd(quant, scale[k], of.scales.minimum)))
        return out

    def _exponents(self, at: Expr) -> Expr:
        """The quad's four of 16 bytes e, a vector: 2^(e - 128)."""
        word = let(_lane_at(let(self.buffer[at]), self.quad))
        return let(vector(*(e8m0(let((word >> u32(8 * i)) & u32(255))) for i in range(4))))

    def _four_halves(self, at: Expr) -> Expr:
        """Values of the quad's rows out of 16 halves, two vectors."""
        four = let(self.buffer[at + self.quad // 2])
        odd = self.quad % 2 == 1
        words = (tirx.Select(odd, lane(four, i + 2), lane(four, i)) for i in range(2))
        if self.format.type == "bfloat":
            return let(vector(*(half for word in words for half in bfloats(let(word)))))
        low, high = (let(halves(word)) for word in words)
        return let(vector(lane(low, 0), lane(low, 1), lane(high, 0), lane(high, 1)))


class _Nest:
    """Loops in each other that divide 32 columns: ``at`` is which part of them the innermost turn is for."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack, self.size = stack, GROUP
        self.at: Expr = 0

    def into(self, columns: int) -> None:
        """Divide the part into ones of so many columns."""
        if columns < self.size:
            count = self.size // columns
            self.at = self._of(self.stack.enter_context(loop(count)), count)
            self.size = columns

    def last(self) -> tuple[Expr, Expr]:
        """Into fours: which four of all, and of the part."""
        count = self.size // 4
        if count == 1:
            return self.at, 0
        i = self.stack.enter_context(loop(count))
        return let(self._of(i, count)), i

    def _of(self, i: Expr, count: int) -> Expr:
        return i if self.size == GROUP else self.at * count + i


def e8m0(exponent: Expr) -> Expr:
    """2^(e - 128), float32, of a uint32 e."""
    small = u32(0x200000) << exponent  # denormals, which the device may take for 0
    return bits("float32", tirx.Select(exponent < u32(2), small, (exponent - u32(1)) << u32(23)))


def table_number(table: Sequence[int], place: Expr, of: Callable[[int], Expr]) -> Expr:
    """table[place], a whole number of 8 bits as the lowest byte of a word whose other bits are any. ``place``: uint32,
    of one lane or more, below 16; ``of`` makes a constant like it."""
    words = [sum((n & 255) << (8 * i) for i, n in enumerate(table[at : at + 4])) for at in range(0, 16, 4)]

    def either(bit: int, low: Expr, high: Expr) -> Expr:
        return tirx.Select((place & of(bit)) == of(0), low, high)

    word = let(either(8, either(4, of(words[0]), of(words[1])), either(4, of(words[2]), of(words[3]))))
    return let(word >> ((place & of(3)) << of(3)))


def _numbers(table: Sequence[int], words: Expr, k: int) -> Expr:
    """Of byte k of each row's word, float32x4."""

    def of(n: int) -> Expr:
        return splat(u32(n))

    number = table_number(table, let((words >> of(8 * k)) & of(15)), of)
    return cast("float32x4", bits("int32x4", number << of(24)) >> splat(i32(24)))


def bfloats(word: Expr) -> tuple[Expr, Expr]:
    """The two bfloat16 in a 32-bit word, float32."""
    return bits("float32", word << u32(16)), bits("float32", word & u32(0xFFFF0000))


def _lane_at(vectors: Expr, i: Expr) -> Expr:
    """A lane that only the thread knows: WGSL can index a vector by a variable, TIR cannot."""
    low, high = (tirx.Select(i % 2 == 1, lane(vectors, k + 1), lane(vectors, k)) for k in (0, 2))
    return tirx.Select(i >= 2, high, low)


def _bytes(word: Expr) -> Expr:
    """A word's four bytes, float32x4."""
    apart = splat(let(word)) >> vector(*(u32(8 * i) for i in range(4)))
    return let(cast("float32x4", apart & splat(u32(255))))


def _masked(words: Expr, mask: int) -> Expr:
    return cast("float32x4", bits("int32x4", words & splat(u32(mask))))


__all__ = ["BYTES", "Four", "GroupSums", "QuadReader", "Record", "Scales", "bfloats", "check_format", "e8m0",
           "multiplies_int8", "table_number"]  # fmt: skip
