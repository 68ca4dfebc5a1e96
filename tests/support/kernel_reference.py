"""What every CPU kernel should compute, in numpy with float64 and exact integers, and how far off float32 may be.

Written from the kernels' documented contracts alone; no kernel code is used. A tolerance is not a guess: it bounds
what rounding each float32 operation can do (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, §3.1),
element by element, so that cancellation gets room and everything else does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inpage_compile.quantize import FORMATS, Groups

Array = npt.NDArray[Any]

EPS = 2.0**-24  # half a unit in the last place of float32
TINY = 2.0**-140  # room for results among float32's denormals
GROUP, PAGE = 32, 16
F16_SCALE = 2.0**112
F16_MAX = 65504.0
# Where the columns of every four stand in 16-bit activations ("i16p" meets the nibbles of a word masked in place).
_ORDER = {"i8": (0, 1, 2, 3), "i16": (0, 1, 2, 3), "i16p": (0, 2, 1, 3)}
_DTYPE = {"i8": np.int8, "i16": np.int16, "i16p": np.int16}


@dataclass(frozen=True)
class Expected:
    """An output is right where |got - want| <= tolerance; both float64, of the output's shape. ``dtype``: the output's,
    "float16" where half bits are stored."""

    want: Array
    tolerance: Array
    dtype: str

    def wrong(self, got: Array) -> Array:
        """Where ``got`` (any shape) is out of bounds or not a number: flat indices."""
        values = got.view(np.float16) if self.dtype == "float16" else got
        with np.errstate(invalid="ignore"):
            good = np.abs(values.reshape(-1).astype(np.float64) - self.want.reshape(-1)) <= self.tolerance.reshape(-1)
        return np.flatnonzero(~good)


@dataclass(frozen=True)
class Real:
    """Float32 results before they are stored in some form: true values, and a bound on each one's error."""

    value: Array
    error: Array

    def plus(self, other: Array) -> Real:
        exact = self.value + other.astype(np.float64)
        return Real(exact, self.error + EPS * np.abs(exact) + EPS * self.error)


def activations(form: str, quants: Array, scales: Array) -> dict[str, Array]:
    """Kernel arguments ``x`` and ``x_scales``. quants: integers [rows, columns] within ±127; scales: float32 [rows,
    groups]. Beside each scale stands scale · Σq."""
    return {"x": ordered(form, quants).astype(_DTYPE[form]), "x_scales": _with_sums(quants, scales)}


def ordered(form: str, values: Array) -> Array:
    """Columns as ``form`` stores them."""
    order = _ORDER.get(form)
    if order is None:
        raise ValueError(f"activation form {form!r} is unknown here: say in _ORDER how it stores its columns")
    rows, columns = values.shape
    return values.reshape(rows, columns // 4, 4)[:, :, list(order)].reshape(rows, columns)


def _with_sums(quants: Array, scales: Array) -> Array:
    rows, columns = quants.shape
    totals = quants.reshape(rows, columns // GROUP, GROUP).sum(2) * scales.astype(np.float64)
    return np.stack([scales.astype(np.float32), totals.astype(np.float32)], axis=2)


def dot_int8(weights: Groups, quants: Array, scales: Array) -> Real:
    """x · Wᵀ for quantized activations: exact integers within a group, float32 across groups."""
    rows, columns = quants.shape
    groups = columns // GROUP
    w, d, m = _affine(weights, groups)
    x = quants.astype(np.int64).reshape(rows, groups, 2, GROUP // 2)
    s = scales.astype(np.float64)
    dots = np.einsum("nghk,rghk,ngh->rng", w, x, d) * s[:, None]
    sums = np.einsum("rgh,ngh->rng", x.sum(3), m) * s[:, None]
    size = np.abs(dots).sum(2) + np.abs(sums).sum(2)
    return Real(dots.sum(2) + sums.sum(2), _gamma(3 * groups + 8) * size + TINY)


def _affine(weights: Groups, groups: int) -> tuple[Array, Array, Array]:
    """Whole numbers [rows, groups, 2, 16] and, float64 [rows, groups, 2], what those of each half of a group of 32
    columns are multiplied by and what is added."""
    fmt = FORMATS[weights.format]
    assert weights.d is not None
    rows = len(weights.q)
    q = weights.q.astype(np.int64)
    w = (np.array(fmt.table)[q] if fmt.table else q).reshape(rows, groups, 2, GROUP // 2)

    def halves(numbers: Array) -> Array:
        """Of a group, or of a super-block → of each 16 columns."""
        return np.repeat(numbers.astype(np.float64), groups * 2 // numbers.shape[1], 1).reshape(rows, groups, 2)

    if fmt.scale == "e8m0":
        return w, halves(2.0 ** (weights.d.astype(np.float64) - 128)), np.zeros((rows, groups, 2))
    d = halves(weights.d.view(np.float16))
    m = None if weights.m is None else halves(weights.m.view(np.float16))
    if fmt.super is None:
        return w, d, -float(fmt.zero) * d if m is None else m  # a zero is a minimum there
    assert weights.sub_d is not None
    d = d * (halves(weights.sub_d) - fmt.super.zero)
    if m is None or weights.sub_m is None:
        return w - fmt.zero, d, np.zeros((rows, groups, 2))
    return w, d, -m * halves(weights.sub_m)


def dot_float(weights: Groups, x: Array) -> Real:
    """x · Wᵀ for float32 activations."""
    w, a = weights.to_float32().astype(np.float64), x.astype(np.float64)
    size = np.abs(a) @ np.abs(w).T
    return Real(a @ w.T, _gamma(x.shape[1] + 4) * size + TINY)


def gate(gates: Real, ups: Real) -> Real:
    """silu(gate) · up. Silu's slope is below 1.1."""
    g, u = gates.value, ups.value
    silu = g / (1.0 + np.exp(-np.clip(g, -700, 700)))
    # Kernels take e^-gate as e^88 at most, which leaves up to |gate| / e^88 where there should be nothing.
    error = np.abs(u) * (1.1 * gates.error + 1e-38 * np.abs(g)) + (np.abs(silu) + 1.1 * gates.error) * ups.error
    value = silu * u
    return Real(value, error + (12 + 2 * np.minimum(np.abs(g), 104)) * EPS * np.abs(value) + TINY)


def exact(x: Array) -> Real:
    return Real(x.astype(np.float64), np.zeros(x.shape))


def stored(form: str, real: Real, name: str = "y") -> dict[str, Expected]:
    """What a kernel leaves of float32 results in an activation form: as they are, or quants and their scales."""
    if form == "f32":
        return {name: Expected(real.value, real.error, "float32")}
    rows, columns = real.value.shape
    shape = (rows, columns // GROUP, GROUP)
    value, error = real.value.reshape(shape), real.error.reshape(shape)
    largest, doubt = np.abs(value).max(2, keepdims=True), error.max(2, keepdims=True)
    known = largest > doubt
    inverse = np.where(known, 127.0 / np.where(known, largest, 1.0), 0.0)
    relative = np.where(known, doubt / np.where(known, largest, 1.0), 0.0) + 6 * EPS
    quants = value * inverse
    slack = np.where(known, error * inverse + np.abs(quants) * relative, np.where(largest + doubt > 0, 127.0, 0.0))
    near_tie = np.abs(np.abs(quants - np.trunc(quants)) - 0.5) <= slack
    scale = largest[:, :, 0] / 127.0
    scale_error = doubt[:, :, 0] / 127.0 + 3 * EPS * scale
    count = np.rint(quants).sum(2)
    total_error = (scale + scale_error) * np.where(known, near_tie, 0).sum(2)
    total_error += np.abs(count) * (scale_error + EPS * scale)
    total_error += np.where(known[:, :, 0], 0.0, 127.0 * GROUP * scale_error)
    wide, room = (ordered(form, part.reshape(rows, columns)) for part in (quants, 0.5 + slack))
    return {
        name: Expected(wide, room, _DTYPE[form].__name__),
        f"{name}_scales": Expected(
            np.stack([scale, scale * count], axis=2), np.stack([scale_error, total_error + TINY], axis=2), "float32"
        ),
    }


def embed(weights: Groups, ids: Array) -> Expected:
    """Rows of a matrix. A quant times a half is exact in float32, so d·q + m rounds once, here as there."""
    want = weights.to_float32()[ids].astype(np.float64)
    return Expected(want, np.zeros(want.shape), "float32")


def rms_norm(x: Array, weight: Array, epsilon: float) -> Real:
    wide = x.astype(np.float64)
    root = np.sqrt((wide * wide).mean(1, keepdims=True) + np.float64(np.float32(epsilon)))
    value = wide / root * weight.astype(np.float64)
    return Real(value, (x.shape[1] / 4 + 10) * EPS * np.abs(value) + TINY)


def rope_table(positions: Array, freqs: Array, scale: float = 1.0) -> Expected:
    """cos and sin [rows, pairs, 2] of the float32 angle position · frequency, times ``scale``."""
    angle = (positions.astype(np.float32)[:, None] * freqs[None]).astype(np.float64)
    want = np.stack([np.cos(angle), np.sin(angle)], axis=2) * scale
    return Expected(want, np.full(want.shape, 4 * EPS * scale), "float32")


@dataclass(frozen=True)
class Cache:
    """KV pages as attention and append see them. ``kv``: int16 half bits [pages, layers, 2, kv heads · dim · 16]; in a
    page, layer and head first keys [dim][token], then values [token][dim]."""

    kv: Array
    kv_heads: int
    dim: int

    def keys(self, layer: int) -> Array:
        """[pages, heads, dim, 16], a view."""
        return self.kv[:, layer].reshape(-1, self.kv_heads, 2, self.dim, PAGE)[:, :, 0]

    def values(self, layer: int) -> Array:
        """[pages, heads, 16, dim], a view."""
        return self.kv[:, layer].reshape(-1, self.kv_heads, 2, PAGE, self.dim)[:, :, 1]


def rope_append(
    cache: Cache, heads: int, layer: int, qkv: Array, table: Array, positions: Array, row_sequence: Array, tables: Array
) -> dict[str, Expected]:
    """Queries rotated and scaled, and the whole KV buffer after keys and values were added: untouched elements must
    be the same, keys may be off where rotation rounds, values are the nearest halves (±65504 at most)."""
    rows, dim, kv_heads = qkv.shape[0], cache.dim, cache.kv_heads
    by_head = qkv.astype(np.float64).reshape(rows, heads + 2 * kv_heads, dim // 2, 2)
    c, s = (table[:, None, :, i].astype(np.float64) for i in range(2))
    a, b = by_head[..., 0], by_head[..., 1]
    rotated = np.stack([a * c - b * s, a * s + b * c], axis=3).reshape(rows, -1, dim)
    size = np.stack([np.abs(a * c) + np.abs(b * s), np.abs(a * s) + np.abs(b * c)], axis=3).reshape(rows, -1, dim)
    factor = dim**-0.5 * F16_SCALE
    after = Cache(cache.kv.copy(), kv_heads, dim)
    room = Cache(np.zeros(cache.kv.shape), kv_heads, dim)
    want = Cache(after.kv.view(np.float16).astype(np.float64), kv_heads, dim)
    for row in range(rows):
        page, slot = tables[row_sequence[row], positions[row] // PAGE], positions[row] % PAGE
        keys = np.clip(rotated[row, heads : heads + kv_heads], -F16_MAX, F16_MAX)
        want.keys(layer)[page, :, :, slot] = keys
        error = 4 * EPS * size[row, heads : heads + kv_heads]
        room.keys(layer)[page, :, :, slot] = error + np.maximum((np.abs(keys) + error) * 2.0**-11, 2.0**-25)
        plain = np.clip(qkv[row].reshape(-1, dim)[heads + kv_heads :], -F16_MAX, F16_MAX)
        want.values(layer)[page, :, slot] = plain.astype(np.float16).astype(np.float64)
    q = rotated[:, :heads].reshape(rows, -1) * factor
    return {
        "q": Expected(q, 5 * EPS * factor * size[:, :heads].reshape(rows, -1) + TINY, "float32"),
        "kv": Expected(want.kv, room.kv, "float16"),
    }


def attention(
    cache: Cache, heads: int, layer: int, q: Array, positions: Array, row_sequence: Array, tables: Array,
    window: int | None = None, cap: float = 0.0,
) -> Real:  # fmt: skip
    """Causal attention of each row over its sequence's pages, up to and with its own position, of which it sees
    ``window``. ``q`` [rows, heads · dim] comes times 1/√dim and 2^112, as rope_append leaves it."""
    rows, dim, shared = q.shape[0], cache.dim, heads // cache.kv_heads
    queries = q.astype(np.float64).reshape(rows, heads, dim) / F16_SCALE
    value, error = np.zeros(queries.shape), np.zeros(queries.shape)
    halves = Cache(cache.kv.view(np.float16), cache.kv_heads, dim)
    for row in range(rows):
        length = positions[row] + 1
        first = 0 if window is None else max(0, length - window)
        seen = slice(first % PAGE, first % PAGE + length - first)
        pages = tables[row_sequence[row], first // PAGE : -(-length // PAGE)]
        by_head = (cache.kv_heads, -1, dim)
        k = halves.keys(layer)[pages].transpose(1, 0, 3, 2).reshape(by_head)[:, seen].astype(np.float64)
        v = halves.values(layer)[pages].transpose(1, 0, 2, 3).reshape(by_head)[:, seen].astype(np.float64)
        for head in range(heads):
            keys, values = k[head // shared], v[head // shared]
            scores = keys @ queries[row, head]
            doubt = _gamma(dim + 2) * (np.abs(keys) @ np.abs(queries[row, head])).max()
            if cap:
                scores, doubt = cap * np.tanh(scores / cap), doubt + cap * 2.0**-21
            below = scores - scores.max()
            w = np.exp(below)
            share = w / w.sum()
            relative = 2 * doubt + (20 + 4 * np.minimum(-below, 104)) * EPS
            y = share @ values
            value[row, head] = y
            spread = (share * relative) @ np.abs(values) + np.abs(y) * (share @ relative)
            error[row, head] = spread + _gamma(length + 16) * (share @ np.abs(values)) + TINY
    flat = (rows, heads * dim)
    return Real(value.reshape(flat), error.reshape(flat))


def join(parts: Sequence[Array]) -> Expected:
    want = np.concatenate(parts, axis=1).astype(np.float64)
    return Expected(want, np.zeros(want.shape), "float32")


def _gamma(n: int) -> float:
    return n * EPS / (1 - n * EPS)
