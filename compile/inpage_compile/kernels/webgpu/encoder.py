"""What encoders compute beside packed matrices, on WebGPU: see `kernels.cpu.encoder`. All in float32, what passes from
kernel to kernel as well. A row, or a row's head, is a workgroup's; the order of its sums depends on its sequence alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from tvm import tirx

from inpage.errors import Unsupported
from inpage.format.plan import ENCODER_COLUMNS

from ..shared.encoder import Packing
from .activations import activate
from .build import (
    WORKGROUP_BYTES,
    Args,
    Buffer,
    Expr,
    across,
    barrier,
    call,
    cast,
    f32,
    kernel,
    lane,
    let,
    local,
    loop,
    madd,
    quads_of,
    splat,
    store,
    vector,
    when,
)

THREADS = 64
_NEVER = -1e30
# As in `kernels.cpu.encoder`.
_ERF_P = 0.3275911
_ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


def _gelu_erf(x: Expr) -> Expr:
    size = let(call("float32x4", "abs", x) * splat(math.sqrt(0.5)))
    t = let(splat(1.0) / (size * splat(_ERF_P) + splat(1.0)))
    p: Expr = splat(_ERF[0])
    for c in _ERF[1:]:
        p = let(p * t + splat(c))
    rest = let(p * t * call("float32x4", "exp", -(size * size)))
    return x * splat(0.5) * tirx.Select(x < splat(0.0), rest, splat(2.0) - rest)


def _act(activation: str, x: Expr) -> Expr:
    if activation == "tanh":
        return call("float32x4", "tanh", tirx.Max(tirx.Min(x, splat(30.0)), splat(-30.0)))
    return _gelu_erf(x) if activation == "gelu_erf" else activate(activation, x)


class Where:
    """As in `kernels.cpu.encoder`."""

    def __init__(self, a: Args) -> None:
        self.row_sequence, self.tables = a.buffer("row_sequence", "int32"), a.buffer("block_tables", "int32")

    def sequence(self, row: Expr) -> tuple[Expr, Expr, Expr]:
        at = let(self.row_sequence[row] * ENCODER_COLUMNS)
        first, count, segment = (let(self.tables[at + i]) for i in range(ENCODER_COLUMNS))
        return first, count, segment


def _sum(parts: Buffer, own: Expr, t: Expr) -> Expr:
    """Of every thread's number, in their order, in every thread. ``parts``: workgroup memory, free again behind the
    next barrier."""
    total = local(1, "float32")
    store(parts, own, t)
    barrier()
    store(total, f32(0.0), 0)
    with loop(THREADS) as i:
        store(total, total[0] + parts[i], 0)
    barrier()
    return let(total[0])


def _normalize_row(
    a: Args, columns: int, epsilon: float, row: Expr, t: Expr, x: Buffer, weight: Buffer, bias: Buffer,
    value_at: Callable[[Expr], Expr],
) -> None:  # fmt: skip
    """x's row = the layer norm of what ``value_at`` gives for its quads."""
    quads = quads_of(columns)
    parts, own = a.workgroup(THREADS, "float32"), local(1, "float32x4")
    start, turns = let(row * quads), let((quads - t + (THREADS - 1)) // THREADS)
    store(own, splat(0.0), 0)
    with loop(turns) as turn:
        quad = let(turn * THREADS + t)
        value = let(value_at(quad))
        store(x, value, start + quad)
        store(own, own[0] + value, 0)
    mean = let(splat(_sum(parts, across(let(own[0])), t) * f32(1.0 / columns)))
    store(own, splat(0.0), 0)
    with loop(turns) as turn:
        value = let(x[start + turn * THREADS + t] - mean)
        store(own, madd(value, value, own[0]), 0)
    variance = _sum(parts, across(let(own[0])), t) * f32(1.0 / columns)
    inverse = let(splat(call("float32", "inverseSqrt", variance + f32(epsilon))))
    with loop(turns) as turn:
        quad = let(turn * THREADS + t)
        store(x, (x[start + quad] - mean) * inverse * weight[quad] + bias[quad], start + quad)


@cache
def embed_norm(p: Packing, columns: int, placed: bool, types: int, epsilon: float) -> tirx.PrimFunc:
    """(x, positions, row_sequence, block_tables, [position_embd], [token_types], weight, bias, rows): in place."""
    quads = quads_of(columns)

    def build(a: Args) -> None:
        x = a.buffer("x", "float32x4", "x")
        positions, where = a.buffer("positions", "int32"), Where(a)
        table = a.buffer("position_embd", "float32x4") if placed else None
        segments = a.buffer("token_types", "float32x4") if types else None
        weight, bias = a.buffer("weight", "float32x4"), a.buffer("bias", "float32x4")
        a.scalar("rows")
        with a.workgroups(1, "rows", THREADS) as (_, row, t):
            first, _, segment = where.sequence(row)
            at = let(positions[row] * quads)
            second = let(tirx.Select(row - first >= segment, quads, 0)) if types > 1 else 0

            def value(quad: Expr) -> Expr:
                v = x[row * quads + quad]
                v = v if table is None else v + table[at + quad]
                return v if segments is None else v + segments[second + quad]

            _normalize_row(a, columns, epsilon, row, t, x, weight, bias, value)

    return kernel(f"embed_norm_{columns}_{p.context}_{types}" + ("" if placed else "_unplaced"), build)


@cache
def layer_norm(columns: int, biased: bool, epsilon: float) -> tirx.PrimFunc:
    """(x, [before], weight, bias, rows): in place x = the layer norm of x + ``before``."""
    quads = quads_of(columns)

    def build(a: Args) -> None:
        x = a.buffer("x", "float32x4", "x")
        before = a.buffer("before", "float32x4") if biased else None
        weight, bias = a.buffer("weight", "float32x4"), a.buffer("bias", "float32x4")
        a.scalar("rows")
        with a.workgroups(1, "rows", THREADS) as (_, row, t):

            def value(quad: Expr) -> Expr:
                v = x[row * quads + quad]
                return v if before is None else v + before[quad]

            _normalize_row(a, columns, epsilon, row, t, x, weight, bias, value)

    return kernel(f"layer_norm_{columns}" + ("" if biased else "_plain"), build)


@cache
def bias_act(width: int, activation: str) -> tirx.PrimFunc:
    """(x, bias, rows): x = activation(x + bias), in place."""
    quads = quads_of(width)

    def build(a: Args) -> None:
        x, bias = a.buffer("x", "float32x4", "x"), a.buffer("bias", "float32x4")
        a.scalar("rows")
        with a.workgroups(-(-quads // THREADS), "rows", THREADS) as (bx, row, t):
            quad = let(bx * THREADS + t)
            at = let(row * quads + quad)
            with when(quad < quads):
                store(x, _act(activation, let(x[at] + bias[quad])), at)

    return kernel(f"bias_{activation}_{width}", build)


@cache
def rotate(p: Packing) -> tirx.PrimFunc:
    """(qkv, table, rows): queries and keys turn pairwise by table[rows, dim / 2] = (cos, sin), in place."""
    half = p.dim // 2
    pairs = (p.heads + p.kv_heads) * half

    def build(a: Args) -> None:
        qkv, table = a.buffer("qkv", "float32x2", "x"), a.buffer("table", "float32x2", "x")  # both in the arena
        a.scalar("rows")
        with a.workgroups(-(-pairs // THREADS), "rows", THREADS) as (bx, row, t):
            pair = let(bx * THREADS + t)
            with when(pair < pairs):
                at = let(row * (p.joined // 2) + pair)
                own, turn = let(qkv[at]), let(table[row * half + pair % half])
                x, y, cosine, sine = lane(own, 0), lane(own, 1), lane(turn, 0), lane(turn, 1)
                store(qkv, vector(x * cosine - y * sine, x * sine + y * cosine), at)

    return kernel(f"rotate_{p.shape}", build)


@cache
def attention(p: Packing, scale: float) -> tirx.PrimFunc:
    """(qkv, [bias], row_sequence, block_tables, rows → y): every row over those of its sequence that it sees. Raises
    `Unsupported` where a sequence's weights do not fit into a workgroup's memory."""
    heads, dim, quads = p.heads, p.dim, p.dim // 4
    shares = max(1, THREADS // quads)  # of the tokens, whose values a quad's threads add up
    if 4 * (p.context + THREADS + dim) + 16 * shares * quads > WORKGROUP_BYTES or quads > THREADS:
        raise Unsupported(f"context: {p.context} tokens of heads of {dim} do not fit into a workgroup", field="context")

    def build(a: Args) -> None:
        qkv = a.buffer("qkv", "float32x4", "x")  # only read, but it lies in the arena that is written
        bias, where = a.buffer("bias", "float32x4") if p.biased else None, Where(a)
        a.scalar("rows")
        y = a.buffer("y", "float32x4", "w")

        def at(row: Expr, column: Expr) -> Expr:
            found = qkv[row * (p.joined // 4) + column]
            return found if bias is None else found + bias[column]

        with a.workgroups(heads, "rows", THREADS) as (head, row, t):
            weights, parts = a.workgroup(p.context, "float32"), a.workgroup(THREADS, "float32")
            query, sums = a.workgroup(quads, "float32x4"), a.workgroup(shares * quads, "float32x4")
            whole_first, whole_count, _ = where.sequence(row)
            first, count = p.seen(row, whole_first, whole_count)
            own, total = local(1, "float32"), local(1, "float32x4")
            column, kv_column = let(head * quads), let(head // p.shared * quads)
            with when(t < quads):
                store(query, at(row, let(column + t)) * splat(scale), t)
            barrier()
            turns = let((count - t + (THREADS - 1)) // THREADS)
            store(own, f32(_NEVER), 0)
            with loop(turns) as turn:
                token = let(turn * THREADS + t)
                there = let(first + token)
                store(total, splat(0.0), 0)
                with loop(quads) as d:
                    key = let(at(there, let(p.width // 4 + kv_column + d)))
                    store(total, madd(query[d], key, total[0]), 0)
                score = let(across(let(total[0])))
                store(weights, score, token)
                store(own, tirx.Max(own[0], score), 0)
            store(parts, own[0], t)
            barrier()
            store(own, f32(_NEVER), 0)
            with loop(THREADS) as i:
                store(own, tirx.Max(own[0], parts[i]), 0)
            maximum = let(own[0])
            barrier()
            store(own, f32(0.0), 0)
            with loop(turns) as turn:
                token = let(turn * THREADS + t)
                e = let(call("float32", "exp", weights[token] - maximum))
                store(weights, e, token)
                store(own, own[0] + e, 0)
            whole = _sum(parts, own[0], t)
            quad, share = let(t % quads), let(t // quads)
            own_column = let((p.width + p.kv_width) // 4 + kv_column + quad)
            with when(share < shares):
                store(total, splat(0.0), 0)
                with loop((count - share + (shares - 1)) // shares) as i:
                    token = let(i * shares + share)
                    value = let(at(first + token, own_column))
                    store(total, madd(splat(weights[token]), value, total[0]), 0)
                store(sums, total[0], share * quads + quad)
            barrier()
            with when(t < quads):
                store(total, splat(0.0), 0)
                with loop(shares) as i:
                    store(total, total[0] + sums[i * quads + t], 0)
                store(y, total[0] * splat(f32(1.0) / whole), row * (p.width // 4) + column + t)

    return kernel(f"attend_{p.label}", build)


@cache
def pool(columns: int, pooling: str, normalized: bool) -> tirx.PrimFunc:
    """(x, row_sequence, block_tables, logit_rows, rows → y): see `kernels.cpu.encoder`."""
    quads = quads_of(columns)

    def build(a: Args) -> None:
        x, where, index = a.buffer("x", "float32x4"), Where(a), a.buffer("row_index", "int32")
        a.scalar("rows")
        y = a.buffer("y", "float32x4", "w")
        with a.workgroups(1, "rows", THREADS) as (_, i, t):
            first, count, _ = where.sequence(let(index[i]))
            own, total = local(1, "float32x4"), local(1, "float32x4")
            parts = a.workgroup(THREADS, "float32")
            turns = let((quads - t + (THREADS - 1)) // THREADS)
            store(own, splat(0.0), 0)
            with loop(turns) as turn:
                quad = let(turn * THREADS + t)
                if pooling == "mean":
                    store(total, splat(0.0), 0)
                    with loop(count) as token:
                        store(total, total[0] + x[(first + token) * quads + quad], 0)
                    value = let(total[0] * splat(f32(1.0) / let(cast("float32", count))))
                else:
                    value = let(x[(first if pooling == "cls" else first + count - 1) * quads + quad])
                store(y, value, i * quads + quad)
                store(own, madd(value, value, own[0]), 0)
            if normalized:
                length = call("float32", "sqrt", _sum(parts, across(let(own[0])), t))
                inverse = let(splat(f32(1.0) / tirx.Max(length, f32(1e-12))))
                with loop(turns) as turn:
                    at = let(i * quads + turn * THREADS + t)
                    store(y, y[at] * inverse, at)

    return kernel(f"pool_{pooling}_{columns}" + ("_normalized" if normalized else ""), build)


__all__ = ["attention", "bias_act", "embed_norm", "layer_norm", "pool", "rotate"]
