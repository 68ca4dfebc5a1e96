"""Functions of single numbers: the gate's activation, and soft caps."""

from __future__ import annotations

import math

from tvm import tirx

from .build import Expr, call, exact, f32, let, splat

_GELU = math.sqrt(2 / math.pi)


def activate(kind: str, x: Expr) -> Expr:
    """float32x4 → silu, x / (1 + e^-x), or gelu by tanh, which is x / (1 + e^-2u), u = √(2/π) (x + 0.044715 x³)."""
    if kind == "silu":
        return x / (splat(1.0) + call("float32x4", "exp", -x))
    inner = let((splat(0.044715) * x * x + splat(1.0)) * x * splat(-2 * _GELU))
    return x / (splat(1.0) + call("float32x4", "exp", tirx.Min(inner, splat(80.0))))


def soft_cap(x: Expr, cap: float) -> Expr:
    """float32 → cap · tanh(x / cap)."""
    grown = call("float32", "exp", tirx.Min(x * exact(2 / cap), f32(80.0)))
    return f32(cap) - f32(2 * cap) / (grown + f32(1.0))
