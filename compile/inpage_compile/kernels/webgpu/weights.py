"""Packed weight matrices as kernels for WebGPU see them: vectors of four rows out of the artifact's 16-row records.

A record (16 rows by 32 columns) is a run of 16-byte vectors. A thread has a quad of rows, 0 to 3: its words are every
fourth vector, so that neighbouring threads read neighbouring addresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from inpage.errors import Unsupported

from ..shared.packed import GROUP, PackedMatrix, groups_of
from .build import Buffer, Expr, bits, cast, halves, lane, let, loop, madd, splat, u32, vector


def check_format(weights: PackedMatrix) -> None:
    """Raises `Unsupported` for a format that only kernels for CPUs read."""
    f = weights.format
    if f.type == "bfloat" or f.super is not None or f.planes[1:]:
        raise Unsupported(f"no WebGPU kernel reads {weights.label} yet", field="format")


@dataclass(frozen=True)
class Scales:
    """Of one record and quad, float32x4, one a row: ``scale`` divided by 1, 2^8, 2^16 and 2^24, for quants left where
    they are in their word, and what is added to their product. Nothing for float weights."""

    scale: list[Expr]
    minimum: Expr | None


class QuadReader:
    """The weight buffer, array<vec4<u32>>, of one thread's quad of rows."""

    def __init__(self, weights: PackedMatrix, buffer: Buffer, quad: Expr) -> None:
        check_format(weights)
        self.w, self.buffer, self.quad = weights, buffer, quad
        self.groups = groups_of(weights.columns)

    def base(self, block: Expr, group: Expr) -> Expr:
        """Where a record begins, in vectors."""
        return let((block * self.groups + group) * (self.w.record // 16))

    def scales(self, base: Expr) -> Scales:
        if self.w.bits >= 16:
            return Scales([], None)
        at = base + GROUP * self.w.bits // 8
        scale = [self._four_halves(at)]
        for _ in range(3):
            scale.append(let(scale[-1] * splat(1 / 256)))
        if self.w.minimum:
            return Scales(scale, self._four_halves(at + 2))
        # A byte with its sign bit turned is the quant plus 128.
        return Scales(scale, let(scale[0] * splat(-128.0 if self.w.bits == 8 else -float(self.w.zero))))

    @contextmanager
    def words(self, bases: list[Expr]) -> Iterator[tuple[Any, list[Buffer]]]:
        """A loop over a record's columns by fours: which four, and the words of each record that they are in (nothing
        for float weights). A loop, as unrolled code would take drivers seconds to compile."""
        if self.w.bits >= 16:
            with loop(GROUP // 4) as four:
                yield four, [None] * len(bases)
        elif self.w.bits == 8:
            with loop(GROUP // 4) as four:
                yield four, [self._word(base + four * 4) for base in bases]
        else:  # the low nibbles of eight columns' words are four columns, the high ones the next four
            with loop(GROUP // 8) as eight:
                words = [self._word(base + eight * 4) for base in bases]
                with loop(2) as high:
                    shift = splat(cast("uint32", high * 4))
                    yield let(eight * 2 + high), [let(word >> shift) for word in words]

    def _word(self, at: Expr) -> Expr:
        return let(self.buffer[at + self.quad])

    def columns(self, base: Expr, four: Expr, words: Expr, scales: Scales) -> list[Expr]:
        """The values of four columns, each float32x4 of the quad's rows, exact but for a minimum's addition."""
        w = self.w
        if w.bits == 32:
            return [let(bits("float32x4", self._word(base + (four * 4 + k) * 4))) for k in range(4)]
        if w.bits == 16:
            return [self._four_halves(base + (four * 4 + k) * 2) for k in range(4)]
        out = []
        biased = let(words ^ splat(u32(0x80808080))) if w.bits == 8 else words
        for k in range(4):
            # Masked, not shifted: the scale is as much smaller, and both products are exact.
            if w.bits == 8 and k == 3:  # as signed as the word itself
                out.append(let(_masked(words, 0xFF000000) * scales.scale[k]))
                continue
            quant = _masked(biased, ((1 << w.bits) - 1) << (8 * k))
            out.append(let(madd(quant, scales.scale[k], scales.minimum)))
        return out

    def _four_halves(self, at: Expr) -> Expr:
        """Values of the quad's rows out of 16 halves, two vectors."""
        four = let(self.buffer[at + self.quad // 2])
        odd = self.quad % 2 == 1
        low, high = (let(halves(tirx.Select(odd, lane(four, i + 2), lane(four, i)))) for i in range(2))
        return let(vector(lane(low, 0), lane(low, 1), lane(high, 0), lane(high, 1)))


def _masked(words: Expr, mask: int) -> Expr:
    return cast("float32x4", bits("int32x4", words & splat(u32(mask))))


__all__ = ["GROUP", "PackedMatrix", "QuadReader", "Scales"]
