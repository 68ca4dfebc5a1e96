"""Packed weight matrices as kernels for WebGPU see them: vectors of four rows out of the artifact's 16-row records.

A record (16 rows by 32 columns) is a run of 16-byte vectors. A thread has a quad of rows, 0 to 3: its words are every
fourth vector, so that neighbouring threads read neighbouring addresses.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from ..cpu.weights import Weights
from .build import Buffer, Expr, bits, call, cast, fma, halves, lane, let, splat, u32, vector

GROUP = 32


@dataclass(frozen=True)
class Scales:
    """Of one record and quad: float32x4, one a row. Nothing for float weights."""

    scale: Expr | None
    minimum: Expr | None


class Reader:
    """The weight buffer, array<vec4<u32>>, of one thread's quad of rows."""

    def __init__(self, weights: Weights, buffer: Buffer, quad: Expr) -> None:
        self.w, self.buffer, self.quad = weights, buffer, quad
        self.groups = weights.columns // GROUP
        self.span = 8 if weights.bits == 4 else 4  # columns of a piece
        self.pieces = GROUP // self.span

    def base(self, block: Expr, group: Expr) -> Expr:
        """Where a record begins, in vectors."""
        return let((block * self.groups + group) * (self.w.record // 16))

    def scales(self, base: Expr) -> Scales:
        if self.w.bits >= 16:
            return Scales(None, None)
        at = base + GROUP * self.w.bits // 8
        return Scales(self._four_halves(at), self._four_halves(at + 2) if self.w.minimum else None)

    def columns(self, base: Expr, piece: Expr, scales: Scales) -> list[Expr]:
        """The values of a piece's columns, each float32x4 of the quad's rows, exact but for a minimum's addition."""
        w = self.w
        if w.bits == 32:
            first = base + piece * (self.span * 4) + self.quad
            return [let(bits("float32x4", self.buffer[first + k * 4])) for k in range(self.span)]
        if w.bits == 16:
            first = base + piece * (self.span * 2)
            return [self._four_halves(first + k * 2) for k in range(self.span)]
        words = let(self.buffer[base + piece * 4 + self.quad])
        out = []
        for k in range(self.span):
            shift = 8 * (k % 4) + 4 * (k // 4)
            dtype = "int32x4" if w.bits == 8 else "uint32x4"
            signed = bits(dtype, words) if w.bits == 8 else words
            quant = cast("float32x4", call(dtype, "extractBits", signed, u32(shift), u32(w.bits)))
            if w.zero:
                quant = quant - splat(float(w.zero))
            if scales.minimum is not None:
                out.append(let(fma(quant, scales.scale, scales.minimum)))
            else:
                out.append(let(quant * scales.scale))
        return out

    def _four_halves(self, at: Expr) -> Expr:
        """Values of the quad's rows out of 16 halves, two vectors."""
        four = let(self.buffer[at + self.quad // 2])
        odd = self.quad % 2 == 1
        low, high = (let(halves(tirx.Select(odd, lane(four, i + 2), lane(four, i)))) for i in range(2))
        return let(vector(lane(low, 0), lane(low, 1), lane(high, 0), lane(high, 1)))


__all__ = ["GROUP", "Reader", "Scales", "Weights"]
