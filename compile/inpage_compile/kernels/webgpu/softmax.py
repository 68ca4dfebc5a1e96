"""The arithmetic of attention: which additions, in which order, whatever kernel does them.

A context is cut into spans of `span_of` tokens from position 0, a span into chains of ``CHAIN``. A score is the sum of
``SHARES`` quarters of its dimensions, each added in order. Weighted values, and the weights themselves, are added token
after token within a chain, the chains of a span in order, and the spans in order: what comes out depends on the query's
position alone, not on how many queries or tokens a workgroup takes at once.

Weights are powers of two: 2^x = 2^(x - ⌊x⌋) · 2^⌊x⌋, and what is divided out before the sums, so that they stay in
range, is 2^M, M the largest ⌊x⌋ so far. To change M multiplies by a power of two, which rounds nothing (above 2^-126
of the largest weight): so kernels that find M first, and ones that find it on the way (Milakov & Gimelshein, "Online
normalizer calculation for softmax", 2018), come to the same bits.
"""

from __future__ import annotations

import math

from tvm import tirx

from ..shared.heads import PAGE, Heads
from .activations import soft_cap
from .build import Buffer, Expr, bits, call, cast, exact, f32, halves, lane, let, local, madd, splat, store, u32, vector

CHAIN = 8
SHARES = 4
_MOST_SPANS = 256  # of a context, where they can be longer
NEVER = -1e30  # a score that gets no weight
_LOG2_E = math.log2(math.e)
_LEAST = -127.0  # 2 to the power of less is 0


def span_of(h: Heads) -> int:
    """Tokens of a span: less where there are few key heads, so that a long sequence is 64 workgroups and more; not much
    less, and not for long contexts, as spans are added one after another and what they leave has its place for all."""
    size = 128 if h.kv_heads >= 8 else 64 if h.kv_heads > 1 else 32
    while size < 128 and h.blocks * PAGE > _MOST_SPANS * size:
        size *= 2
    return size


def part_of(h: Heads, unit: Expr, at_once: int) -> tuple[Expr, Expr, Expr]:
    """(key head, first of its query heads, how many of them are the part's before as well) of one workgroup of those
    that share each key head's query heads, so many at once. ``unit``: which workgroup of a row."""
    parts = -(-h.shared // at_once)
    if parts == 1:
        return unit, 0, 0
    head, start = let(unit // parts), let(unit % parts * at_once)
    if not h.shared % at_once:
        return head, start, 0
    first = let(tirx.Min(start, h.shared - at_once))
    return head, first, let(start - first)


def step_of(h: Heads) -> int:
    """Pairs of dimensions that are read at once: a quarter of a head has a whole number of them."""
    return 2 if h.dim % 16 == 0 else 1


def keys_of(words: list[Expr]) -> list[Expr]:
    """uint32x4 of a pair of dimensions each, a token a lane → float32x4 of each dimension."""
    out = []
    for word in words:
        pairs = [let(halves(lane(word, n))) for n in range(4)]
        out += [let(vector(*(lane(pair, d) for pair in pairs))) for d in range(2)]
    return out


def scored(keys: list[Expr], query: Expr, total: Expr) -> Expr:
    """float32x4 of four tokens: ``total`` + query · keys, over two or four dimensions: `keys_of`, and a vector."""
    for d, key in enumerate(keys):
        total = madd(key, splat(lane(query, d)), total)
    return total


def masked(h: Heads, scores: Expr, token: Expr, length: Expr, unseen: Expr | None) -> Expr:
    """float32x4 → scores of four tokens from ``token`` on, capped; ``NEVER`` for those that a query of ``length``
    tokens does not see, nor the ones before ``unseen``."""
    out = []
    for i in range(4):
        score = lane(scores, i)
        seen = token + i < length
        if unseen is not None:
            seen = tirx.all(seen, token + i >= unseen)
        out.append(let(tirx.Select(seen, soft_cap(score, h.cap) if h.cap else score, f32(NEVER))))
    return let(vector(*out))


def exponent(score: Expr) -> Expr:
    """⌊x⌋ of a score, float32."""
    return let(call("float32", "floor", let(score * exact(_LOG2_E))))


def weights(scores: Expr, largest: Expr) -> Expr:
    """float32x4 → 2^(x - M), 0 for ``NEVER``. ``largest``: M."""
    scale = splat(exact(_LOG2_E))
    whole = let(call("float32x4", "floor", let(scores * scale)))
    part = let(call("float32x4", "exp2", madd(scores, scale, let(-whole))))
    made = let(part * power(let(whole - splat(largest)), 4))
    return let(tirx.Select(scores > splat(NEVER / 2), made, splat(0.0)))


def power(whole: Expr, lanes: int = 1) -> Expr:
    """2^n of a whole number of 0 at most, float32; exact."""
    least, bias = (f32(n) if lanes == 1 else splat(n, lanes) for n in (_LEAST, -_LEAST))
    whole = tirx.Max(whole, least) + bias
    if lanes == 1:
        return let(bits("float32", cast("uint32", whole) << u32(23)))
    return let(bits(f"float32x{lanes}", cast(f"uint32x{lanes}", whole) << splat(u32(23), lanes)))


def values_of(words: Expr) -> list[Expr]:
    """uint32x4 → eight dimensions of a value, two float32x4."""
    pairs = [let(halves(lane(words, n))) for n in range(4)]
    return [let(vector(*(lane(pairs[n + i], d) for i in range(2) for d in range(2)))) for n in (0, 2)]


class Merge:
    """Spans added one after another: M, sum and values so far of four dimensions of one query."""

    def __init__(self) -> None:
        self.largest, self.sum, self.value = local(1, "float32"), local(1, "float32"), local(1, "float32x4")

    def clear(self) -> None:
        store(self.largest, f32(NEVER), 0)
        store(self.sum, f32(0.0), 0)
        store(self.value, splat(0.0), 0)

    def fold(self, largest: Expr, total: Expr, value: Expr) -> None:
        top = let(tirx.Max(self.largest[0], largest))
        old, new = power(let(self.largest[0] - top)), power(let(largest - top))
        store(self.sum, let(self.sum[0] * old) + let(total * new), 0)
        store(self.value, let(self.value[0] * splat(old)) + let(value * splat(new)), 0)
        store(self.largest, top, 0)

    def result(self) -> Expr:
        return quotient(let(self.value[0]), self.sum[0])


def quotient(value: Expr, total: Expr) -> Expr:
    return let(value * splat(let(f32(1.0) / total)))


def cleared(count: int, dtype: str = "float32x4") -> Buffer:
    made = local(count, dtype)
    for i in range(count):
        store(made, f32(0.0) if dtype == "float32" else splat(0.0), i)
    return made
