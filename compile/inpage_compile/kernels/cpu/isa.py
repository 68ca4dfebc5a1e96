"""What differs between the CPUs' instruction sets: the integer dot products and the fused multiply-add.

``form`` says how a linear layer wants its quantized activations laid out (see `quantize.store_quantized`):

- ``i8``: bytes in order, for dots that multiply signed bytes by nibbles and add neighbours into 16 bits;
- ``i16p``: 16-bit values, within every eight columns in the order 0 2 1 3 4 6 5 7, so that the even and odd bytes of
  a packed weight word, masked out in place, meet their activations in one 16-bit dot;
- ``i16``: 16-bit values in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from ..shared.expressions import Expr
from .build import splat, vector


@dataclass(frozen=True)
class Isa:
    """``name``: wasm-relaxed, wasm-simd, x86 (SSSE3 and FMA), portable (any LLVM CPU)."""

    name: str

    @property
    def nibble_form(self) -> str:
        return "i8" if self.name in ("wasm-relaxed", "x86") else "i16p"

    def pair_dot(self, signed: Expr, small: Expr) -> Expr:
        """int8x16 × (int8x16 within 0..127) → int16x8 of neighbours' sums. Exact while |sum| fits 16 bits."""
        if self.name == "wasm-relaxed":
            return _intrinsic("int16x8", "llvm.wasm.relaxed.dot.i8x16.i7x16.signed", signed, small)
        return _intrinsic("int16x8", "llvm.x86.ssse3.pmadd.ub.sw.128", small, signed)

    @property
    def has_quad_dot(self) -> bool:
        return self.name == "wasm-relaxed"

    def quad_dot(self, signed: Expr, small: Expr, acc: Expr) -> Expr:
        """acc + int8x16 × (int8x16 within 0..127) → int32x4 of four neighbours' sums. One instruction on CPUs with
        AVX-VNNI or Arm's dot product, three elsewhere, where `pair_dot` is faster."""
        return _intrinsic("int32x4", "llvm.wasm.relaxed.dot.i8x16.i7x16.add.signed", signed, small, acc)

    def dot16(self, a: Expr, b: Expr) -> Expr:
        """int16x8 × int16x8 → int32x4 of neighbours' sums."""
        if self.name.startswith("wasm"):
            return _intrinsic("int32x4", "llvm.wasm.dot", a, b)
        if self.name == "x86":
            return _intrinsic("int32x4", "llvm.x86.sse2.pmadd.wd", a, b)
        wide_a, wide_b = (tirx.reinterpret("int32x4", v) for v in (a, b))
        high = (wide_a >> splat(16, dtype="int32")) * (wide_b >> splat(16, dtype="int32"))
        low = _low16(wide_a) * _low16(wide_b)
        return low + high

    def lookup(self, table: Sequence[int], places: Expr) -> Expr:
        """table[places], int8x16, for 16 numbers of 8 bits and places in 0..15."""
        name = "llvm.wasm.swizzle" if self.name.startswith("wasm") else "llvm.x86.ssse3.pshuf.b.128"
        return _intrinsic("int8x16", name, vector([tirx.const(n, "int8") for n in table]), places)

    def madd(self, a: Expr, b: Expr, c: Expr) -> Expr:
        """a*b + c. Fused or not is the instruction set's choice, but always the same one."""
        if self.name == "wasm-relaxed":
            return _intrinsic("float32x4", "llvm.wasm.relaxed.madd", a, b, c)
        if self.name == "wasm-simd":
            return a * b + c
        return _intrinsic("float32x4", "llvm.fma", a, b, c)

    def nearest(self, a: Expr) -> Expr:
        """Round to the nearest integer, halves to even."""
        return tirx.nearbyint(a)


def _low16(word: Expr) -> Expr:
    return (word << splat(16, dtype="int32")) >> splat(16, dtype="int32")


def _intrinsic(dtype: str, name: str, *args: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin(dtype, name, *args)
