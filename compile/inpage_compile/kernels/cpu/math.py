"""Vector arithmetic that instruction sets lack: half precision by bit patterns, and an exponential.

Half-precision storage never uses the float16 type: wasm has none, so TVM would call scalar helpers. Shifting a half's
exponent and mantissa into a float32's place leaves the value times 2^-112 (the difference of the exponents' biases),
denormals included; infinities and NaNs do not occur in what is stored here.
"""

from __future__ import annotations

import math

from tvm import tirx

from ..shared.expressions import Expr, cast, f32, let
from .build import bits, splat
from .isa import Isa

F16_SCALE = 2.0**112
_F16_MASK = -0x70002000  # 0x8fffe000: the sign, the five exponent bits and the mantissa
F16_MAX = 65504.0


def f16_shifted(half: Expr) -> Expr:
    """int16x4 of half bits → float32x4 of value · 2^-112, for callers that fold the factor in elsewhere."""
    return bits("float32x4", (cast("int32x4", half) << splat(13, dtype="int32")) & splat(_F16_MASK, dtype="int32"))


def f16_decode(half: Expr) -> Expr:
    """int16x4 of half bits → float32x4."""
    return f16_shifted(half) * splat(F16_SCALE)


def f16_decode_scalar(half: Expr) -> Expr:
    """One int16 of half bits → float32."""
    word = (cast("int32", half) << 13) & tirx.const(_F16_MASK, "int32")
    return bits("float32", word) * f32(F16_SCALE)


def bfloat_decode(half: Expr) -> Expr:
    """int16x4 of bfloat16 bits → float32x4."""
    return bits("float32x4", cast("int32x4", half) << splat(16, dtype="int32"))


def bfloat_scalar(half: Expr) -> Expr:
    """One int16 of bfloat16 bits → float32."""
    return bits("float32", cast("int32", half) << 16)


def e8m0_decode(byte: Expr, lanes: int = 4) -> Expr:
    """Bytes e, int32x4 or with one lane int32 (their upper bits are ignored), → 2^(e - 128), denormals included."""

    def many(n: int) -> Expr:
        return splat(n, dtype="int32") if lanes == 4 else tirx.const(n, "int32")

    e = let(byte & many(255))
    bits_of = tirx.Select(e < many(2), many(0x200000) << e, (e - many(1)) << many(23))
    return bits("float32x4" if lanes == 4 else "float32", bits_of)


def f16_encode(value: Expr) -> Expr:
    """float32x4 → int16x4 of half bits, clamped to ±65504: nearest even, except that a half's denormals (below 2^-14)
    are rounded twice, so that what lies within 2^-37 of the middle between two of them may go to the other one."""
    clamped = tirx.Max(tirx.Min(value, splat(F16_MAX)), splat(-F16_MAX))
    word = let(bits("int32x4", clamped * splat(2.0**-112)))
    size = let(word & splat(0x7FFFFFFF, dtype="int32"))
    rounded = (
        size + splat(0xFFF, dtype="int32") + ((size >> splat(13, dtype="int32")) & splat(1, dtype="int32"))
    ) >> splat(13, dtype="int32")
    sign = (word >> splat(16, dtype="int32")) & splat(-0x8000, dtype="int32")
    return cast("int16x4", rounded | sign)


# exp2 on [-0.5, 0.5]: the Taylor series of e^(t ln 2) to degree 7, whose remainder there is below 2^-27.
_EXP2 = (
    1.0,
    0.6931471805599453,
    0.24022650695910072,
    0.05550410866482158,
    0.009618129107628477,
    0.0013333558146428443,
    0.00015403530393381608,
    1.5252733804059841e-05,
)


def exp(isa: Isa, x: Expr) -> Expr:
    """float32x4 → e^x with a relative error below (2 + 1.25 |x|) · 2^-24; 0 from -88 down, and arguments above 88 are
    taken as 88."""
    y = let(tirx.Max(tirx.Min(x, splat(88.0)), splat(-104.0)) * splat(1.4426950408889634))
    n = let(tirx.Max(isa.nearest(y), splat(-127.0)))
    t = let(tirx.Max(y - n, splat(-0.5)))
    p: Expr = splat(_EXP2[-1])
    for c in reversed(_EXP2[:-1]):
        p = isa.madd(p, t, splat(c))
    scale = bits("float32x4", (cast("int32x4", n) + splat(127, dtype="int32")) << splat(23, dtype="int32"))
    return p * scale


_GELU = math.sqrt(2 / math.pi)


def activate(isa: Isa, kind: str, x: Expr) -> Expr:
    """float32x4 → silu, x / (1 + e^-x), or gelu by tanh, which is x / (1 + e^-2u), u = √(2/π) (x + 0.044715 x³)."""
    if kind == "silu":
        return x / (splat(1.0) + exp(isa, splat(0.0) - x))
    inner = let((splat(0.044715) * x * x + splat(1.0)) * x * splat(-2 * _GELU))
    return x / (splat(1.0) + exp(isa, inner))


def soft_cap(isa: Isa, x: Expr, cap: float) -> Expr:
    """float32x4 → cap · tanh(x / cap), within 2^-22 of cap."""
    return splat(cap) - splat(2 * cap) / (exp(isa, x * splat(2 / cap)) + splat(1.0))
