"""What is done once a step, row by row: rotation table, last norm; and the gate where it is by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from tvm import tirx

from ..shared.heads import Heads
from ..shared.packed import GROUP, PackedMatrix
from .activations import activate, soft_cap
from .build import (
    Args,
    Buffer,
    Expr,
    across,
    barrier,
    bits,
    call,
    cast,
    exact,
    f32,
    halves,
    i32,
    kernel,
    let,
    local,
    loop,
    madd,
    quads_of,
    splat,
    store,
    u32,
    vector,
    when,
)

THREADS = 64


@cache
def rope_table(head_dim: int, scale: float = 1.0, turning: int = 0) -> tirx.PrimFunc:
    """(positions, freqs, rows → table): table[rows, head_dim / 2] = cos and sin of position · frequency, times
    ``scale`` for the first ``turning`` elements of a head (0: all).

    WGSL promises nothing of its own sin beyond π, so the angle is reduced to within π/4 in three steps (Cody and
    Waite) and put into cephes' polynomials for single precision."""
    half = head_dim // 2

    def build(a: Args) -> None:
        positions = a.buffer("positions", "int32")
        freqs = a.buffer("freqs", "float32")
        a.scalar("rows")
        table = a.buffer("table", "float32x2", "w")
        with a.workgroups(-(-half // THREADS), "rows", THREADS) as (bx, row, t):
            pair = let(bx * THREADS + t)
            with when(pair < half):
                cosine, sine = _cos_sin(let(cast("float32", positions[row]) * freqs[pair]))
                size: Expr = f32(scale)
                if turning not in (0, head_dim):
                    size = let(tirx.Select(pair < turning // 2, size, f32(1.0)))
                turn = vector(cosine, sine) if scale == 1 else vector(cosine * size, sine * size)
                store(table, turn, row * half + pair)

    return kernel(f"rope_table_{head_dim}" + ("" if scale == 1 else "_scaled"), build)


def _cos_sin(angle: Expr) -> tuple[Expr, Expr]:
    turns = let(call("float32", "floor", madd(angle, f32(2 / 3.141592653589793), f32(0.5))))
    high = let(call("float32", "floor", turns * f32(1 / 256)) * f32(256.0))
    rest = angle
    # Together π/2. The first ones are short, so that their products with either half of the turns are exact.
    for part in (1.5703125, 4.837512969970703125e-4, 7.549789954891881e-8):
        for count in (high, let(turns - high)):
            rest = let(madd(-count, exact(part), rest))
    square = let(rest * rest)
    sine = f32(-1.9515295891e-4)
    for c in (8.3321608736e-3, -1.6666654611e-1):
        sine = let(madd(sine, square, f32(c)))
    sine = let(madd(let(sine * square), rest, rest))
    cosine = f32(2.443315711809948e-5)
    for c in (-1.388731625493765e-3, 4.166664568298827e-2):
        cosine = let(madd(cosine, square, f32(c)))
    cosine = let(madd(let(cosine * square), square, madd(square, f32(-0.5), f32(1.0))))
    quarter = let(cast("int32", turns) % 4)
    swap = quarter % 2 == 1
    c, s = let(tirx.Select(swap, sine, cosine)), let(tirx.Select(swap, cosine, sine))
    return tirx.Select(tirx.any(quarter == 1, quarter == 2), -c, c), tirx.Select(quarter >= 2, -s, s)


@cache
def norm(columns: int, epsilon: float) -> tirx.PrimFunc:
    """(x, pick, norm weight, rows → y): y[rows, columns] = the RMS norm of x's rows ``pick``, float32.

    The head does not fold it in: so many workgroups would each do it again."""
    quads = quads_of(columns)

    def build(a: Args) -> None:
        x, pick, weight = a.buffer("x", "float32x4"), a.buffer("pick", "int32"), a.buffer("norm", "float32x4")
        a.scalar("rows")
        y = a.buffer("y", "float32x4", "w")
        with a.workgroups(1, "rows", THREADS) as (_, row, t):
            with _normed(a, x, weight, pick[row], t, columns, epsilon) as (_, quad, value):
                store(y, value, row * quads + quad)

    return kernel(f"norm_{columns}", build)


@cache
def add_bias(width: int, dtype: str) -> tirx.PrimFunc:
    """(x, bias, rows): x[rows, width] += bias, in place."""

    def build(a: Args) -> None:
        x, bias = a.buffer("x", dtype, "x"), a.buffer("bias", "float32")
        a.scalar("rows")
        with a.workgroups(-(-width // THREADS), "rows", THREADS) as (bx, row, t):
            column = let(bx * THREADS + t)
            at = let(row * width + column)
            with when(column < width):
                store(x, cast(dtype, cast("float32", x[at]) + bias[column]), at)

    return kernel(f"add_bias_{width}", build)


@cache
def head_norm(h: Heads, epsilon: float, dtype: str) -> tirx.PrimFunc:
    """(qkv, weight, rows): each head of queries and keys in qkv[rows, …] = head / rms(head) · weight, in place.

    ``weight``: float32 [2, dim], of queries and of keys."""
    width = (h.heads + 2 * h.kv_heads) * h.dim

    def build(a: Args) -> None:
        qkv, weight = a.buffer("qkv", dtype, "x"), a.buffer("weight", "float32")
        a.scalar("rows")
        with a.workgroups(h.heads + h.kv_heads, "rows", THREADS) as (head, row, t):
            parts, own, total = a.workgroup(THREADS, "float32"), local(1, "float32"), local(1, "float32")
            start, turns = let(row * width + head * h.dim), let((h.dim - t + (THREADS - 1)) // THREADS)
            which = let(tirx.Select(head < h.heads, i32(0), i32(h.dim)))
            store(own, f32(0.0), 0)
            with loop(turns) as turn:
                value = let(cast("float32", qkv[start + turn * THREADS + t]))
                store(own, madd(value, value, own[0]), 0)
            store(parts, own[0], t)
            barrier()
            store(total, f32(0.0), 0)
            with loop(THREADS) as i:
                store(total, total[0] + parts[i], 0)
            inverse = let(call("float32", "inverseSqrt", total[0] * f32(1.0 / h.dim) + f32(epsilon)))
            with loop(turns) as turn:
                i = let(turn * THREADS + t)
                value = cast("float32", qkv[start + i]) * inverse * weight[which + i]
                store(qkv, cast(dtype, value), start + i)

    return kernel(f"head_norm_{h.heads}_{h.kv_heads}_{h.dim}", build)


@cache
def gate(width: int, dtype: str, activation: str = "silu") -> tirx.PrimFunc:
    """(gate, up, rows): gate[rows, width] = activation(gate) · up, in place."""
    quads = quads_of(width)

    def build(a: Args) -> None:
        gates = a.buffer("gate", f"{dtype}x4", "x")
        ups = a.buffer("up", f"{dtype}x4", "x")  # it lies in the arena that is written, so it has to be bound alike
        a.scalar("rows")
        with a.workgroups(-(-quads // THREADS), "rows", THREADS) as (bx, row, t):
            quad = let(bx * THREADS + t)
            at = let(row * quads + quad)
            with when(quad < quads):
                g, u = let(cast("float32x4", gates[at])), let(cast("float32x4", ups[at]))
                value = let(activate(activation, g) * u)
                store(gates, cast(f"{dtype}x4", value), at)

    mark = "" if activation == "silu" else f"_{activation}"
    return kernel(f"gate{mark}_{width}", build)


@cache
def cap(width: int, size: float) -> tirx.PrimFunc:
    """(x, rows): x[rows, width] = size · tanh(x / size), float32, in place."""

    def build(a: Args) -> None:
        x = a.buffer("x", "float32", "x")
        a.scalar("rows")
        with a.workgroups(-(-width // (4 * THREADS)), "rows", THREADS) as (bx, row, t):
            for i in range(4):
                column = let((bx * 4 + i) * THREADS + t)
                at = let(row * width + column)
                with when(column < width):
                    store(x, soft_cap(let(x[at]), size), at)

    return kernel(f"cap_{width}", build)


@cache
def add_normed(columns: int, epsilon: float) -> tirx.PrimFunc:
    """(x, y, norm weight, rows): x[rows, columns] += the RMS norm of y, float32, in place."""

    def build(a: Args) -> None:
        x = a.buffer("x", "float32x4", "x")
        y = a.buffer("y", "float32x4", "x")  # "x": as in `gate`
        weight = a.buffer("norm", "float32x4")
        a.scalar("rows")
        with a.workgroups(1, "rows", THREADS) as (_, row, t):
            with _normed(a, y, weight, row, t, columns, epsilon) as (at, _, value):
                store(x, x[at] + value, at)

    return kernel(f"add_normed_{columns}", build)


@cache
def norm_rows(columns: int, epsilon: float, dtype: str) -> tirx.PrimFunc:
    """(x, norm weight, rows → y): y[rows, columns] = the RMS norm of x's rows, as ``dtype``. For matrix units, which
    take nothing larger than float16 has: a norm that is folded in would come too late."""

    def build(a: Args) -> None:
        x = a.buffer("x", "float32x4", "x")  # "x": as in `gate`
        weight = a.buffer("norm", "float32x4")
        a.scalar("rows")
        y = a.buffer("y", f"{dtype}x4", "w")
        with a.workgroups(1, "rows", THREADS) as (_, row, t):
            with _normed(a, x, weight, row, t, columns, epsilon) as (at, _, value):
                store(y, cast(f"{dtype}x4", value), at)

    return kernel(f"norm_rows_{columns}", build)


@cache
def rms_rows(columns: int, epsilon: float) -> tirx.PrimFunc:
    """(x, weight, rows): x[rows, columns] = its RMS norm, float32, in place: of encoders, whose states are pooled."""

    def build(a: Args) -> None:
        x, weight = a.buffer("x", "float32x4", "x"), a.buffer("weight", "float32x4")
        a.scalar("rows")
        with a.workgroups(1, "rows", THREADS) as (_, row, t):
            with _normed(a, x, weight, row, t, columns, epsilon) as (at, _, value):
                store(x, value, at)

    return kernel(f"rms_rows_{columns}", build)


@contextmanager
def _normed(
    a: Args, x: Buffer, weight: Buffer, row: Expr, t: Expr, columns: int, epsilon: float
) -> Iterator[tuple[Expr, Expr, Expr]]:
    """The RMS norm of a row, four columns of this thread after others: (where in x, where in the row, float32x4)."""
    quads = quads_of(columns)
    scratch = a.workgroup(THREADS, "float32"), local(1, "float32x4"), local(1, "float32")
    start, turns = let(row * quads), let((quads - t + (THREADS - 1)) // THREADS)
    inverse = _inverse_rms(scratch, x, start, turns, t, columns, epsilon)
    with loop(turns) as turn:
        quad = let(turn * THREADS + t)
        yield start + quad, quad, x[start + quad] * weight[quad] * splat(inverse)


def _inverse_rms(
    scratch: tuple[Buffer, Buffer, Buffer], x: Buffer, start: Expr, turns: Expr, t: Expr, columns: int, epsilon: float
) -> Expr:
    """1/rms of a row, in every thread of its workgroup."""
    parts, own, total = scratch
    store(own, splat(0.0), 0)
    with loop(turns) as turn:
        value = let(x[start + turn * THREADS + t])
        store(own, madd(value, value, own[0]), 0)
    v = let(own[0])
    store(parts, across(v), t)
    barrier()
    store(total, f32(0.0), 0)
    with loop(THREADS) as i:
        store(total, total[0] + parts[i], 0)
    return let(call("float32", "inverseSqrt", total[0] * f32(1.0 / columns) + f32(epsilon)))


@cache
def join(widths: tuple[int, ...], dtype: str) -> tirx.PrimFunc:
    """(part 0, part 1, …, rows → y): the parts side by side in y[rows, sum of widths]."""
    width = sum(widths)

    def build(a: Args) -> None:
        parts = [a.buffer(f"part{i}", dtype, "x") for i in range(len(widths))]  # "x": as in `gate`
        a.scalar("rows")
        y = a.buffer("y", dtype, "w")
        with a.workgroups(-(-width // THREADS), "rows", THREADS) as (bx, row, t):
            column, first = let(bx * THREADS + t), 0
            for part, own in zip(parts, widths, strict=True):
                with when(tirx.all(column >= first, column < first + own)):
                    store(y, part[row * own + column - first], row * width + column)
                first += own

    return kernel("join_" + "_".join(map(str, widths)), build)


__all__ = ["add_bias", "add_normed", "cap", "gate", "head_norm", "join", "norm", "rms_rows", "rope_table"]
