"""Attention of few rows: each span of each row's context is a workgroup's, and a second kernel adds them up.

The query heads of a key head are one workgroup's, as far as their registers go, so that every key and value is read
once. `attention_tiles` makes the same bits for many rows. The arithmetic is `softmax`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tvm import tirx

from inpage.format.limits import BINDING_BYTES, WORKGROUPS

from ..shared.heads import PAGE, Heads
from .build import (
    Args,
    Buffer,
    Expr,
    barrier,
    cast,
    f32,
    kernel,
    lane,
    let,
    local,
    loop,
    madd,
    splat,
    store,
    u32,
    vector,
    when,
)
from .pages import page_words, place_scalars, rope_append, tables
from .softmax import (
    CHAIN,
    SHARES,
    Merge,
    cleared,
    exponent,
    masked,
    scored,
    span_of,
    step_of,
    values_of,
    weights,
)

_POOL = 768  # vectors of workgroup memory, 12 KiB
_HEADS = 8  # whose sums a thread has in registers


def spans(h: Heads) -> int:
    """Of a whole context."""
    return -(-h.blocks * PAGE // span_of(h))


def threads_of(h: Heads) -> int:
    return max(64, span_of(h))


def _turns(h: Heads) -> int:
    """Chains times eights of dimensions that a thread takes one after another."""
    return -(-(h.dim // 8) * (span_of(h) // CHAIN) // threads_of(h))


def parts_of(h: Heads) -> int:
    """Workgroups that one key head's query heads are shared among."""
    return -(-h.shared // max(1, min(_HEADS // _turns(h), _POOL // span_of(h))))


def heads_at_once(h: Heads) -> int:
    """Query heads of one workgroup: the key head's, in as many parts of a size as it takes."""
    return -(-h.shared // parts_of(h))


def partial_quads(h: Heads) -> int:
    """float32x4 that a span leaves for one key head: values of its query heads, then (M, sum) of each."""
    return h.shared * (h.dim // 4 + 1)


def spans_fit(h: Heads, rows: int) -> bool:
    """Whether WebGPU could launch `attention_spans` of so many rows, and bind what it leaves. `attention`, which makes
    the same bits, always fits."""
    left = rows * h.kv_heads * spans(h) * partial_quads(h) * 16
    return left <= BINDING_BYTES and spans(h) * h.kv_heads * parts_of(h) <= WORKGROUPS


@cache
def attention_spans(h: Heads, dtype: str) -> tirx.PrimFunc:
    """(q, positions, row_sequence, block_tables, kv, rows[, first, window] → partials): each span of each row, by
    itself.

    partials: float32x4 [rows, kv head, span, `partial_quads`]; spans that a row does not see are left as they are."""
    each, size, step = h.kv_heads * parts_of(h), span_of(h), step_of(h)

    def build(a: Args) -> None:
        q = a.buffer("q", f"{dtype}x{2 * step}")
        positions, row_sequence, block_tables = tables(a)
        kv = a.buffer("kv", "uint32x4")
        a.scalar("rows")
        column, window = place_scalars(a, h)
        partials = a.buffer("partials", "float32x4", "w")
        with a.workgroups(spans(h) * each, "rows", threads_of(h)) as (bx, row, t):
            head, first, skip = _part(h, let(bx % each))
            span, length = let(bx // each), let(positions[row] + 1)
            start = let(span * size)
            unseen = let(length - window) if h.grouped else None
            seen = start < length
            if unseen is not None:
                seen = tirx.all(seen, start + size > unseen)
            with when(seen):
                table = let(row_sequence[row] * h.columns_of_table + column + start // PAGE)
                one = _Span(a, h, kv, block_tables, table, head, t, start, length, unseen)
                one.score(q, let((row * h.heads + head * h.shared + first) * (h.dim // (2 * step))))
                one.weigh()
                one.add()
                at = let(((row * h.kv_heads + head) * spans(h) + span) * partial_quads(h))

                def leave(j: Expr, quad: Expr, value: Expr, total: Expr) -> None:
                    with when(j >= skip):
                        store(partials, value, at + (first + j) * (h.dim // 4) + quad)
                        with when(quad == 0):
                            both = vector(one.tops[j], total, f32(0.0), f32(0.0))
                            store(partials, both, at + h.shared * (h.dim // 4) + first + j)

                one.gather(leave)

    return kernel(f"attention_spans_{h.label}", build)


def _part(h: Heads, unit: Expr) -> tuple[Expr, Expr, Expr]:
    """(key head, first of its query heads, how many of them are the part's before as well) of one workgroup.
    ``unit``: below kv_heads · `parts_of`."""
    parts, at_once = parts_of(h), heads_at_once(h)
    if parts == 1:
        return unit, 0, 0
    head, start = let(unit // parts), let(unit % parts * at_once)
    if not h.shared % at_once:
        return head, start, 0
    first = let(tirx.Min(start, h.shared - at_once))
    return head, first, let(start - first)


class _Span:
    """One span of one key head for one row's query heads. The steps' order is the methods'."""

    def __init__(
        self, a: Args, h: Heads, kv: Buffer, block_tables: Buffer, table: Expr, head: Expr, t: Expr, start: Expr,
        length: Expr, unseen: Expr | None,
    ) -> None:  # fmt: skip
        """``table``: where the span's pages stand; the row sees tokens from ``unseen`` to ``length``."""
        self.h, self.kv, self.block_tables, self.table, self.head, self.t = h, kv, block_tables, table, head, t
        self.start, self.length, self.unseen = start, length, unseen
        self.size, self.heads, self.threads = span_of(h), heads_at_once(h), threads_of(h)
        self.quads, self.octets = self.size // 4, h.dim // 8
        self.chains, self.turns = self.size // CHAIN, _turns(h)
        self.pool = a.workgroup(_POOL, "float32x4")
        self.tops = a.workgroup(self.heads, "float32")
        self.chain_sums = a.workgroup(self.chains * self.heads, "float32")

    def _page(self, token: Expr) -> Expr:
        """Where the page of a token of the span begins, in vectors."""
        return let(self.block_tables[self.table + token // PAGE] * (page_words(self.h) // 4))

    def _any_seen(self, token: Expr, count: int) -> Expr:
        """Whether any of so many tokens is."""
        seen = self.start + token < self.length
        return seen if self.unseen is None else tirx.all(seen, self.start + token + count > self.unseen)

    def score(self, q: Buffer, query: Expr) -> None:
        """Query · keys, a share of the dimensions a thread: four tokens' by a vector of keys. ``query``: where the
        part's first head begins."""
        h, t, step, pairs = self.h, self.t, step_of(self.h), self.h.dim // 2
        with when(t < self.size):
            token, share = let(t // 16 * PAGE + t % 4 * 4), let(t // 4 % SHARES)
            sums = cleared(self.heads)
            with when(self._any_seen(let(t // 16 * PAGE), PAGE)):
                keys = let(self._page(token) + self.head * (pairs * PAGE // 4) + t % 4)
                first = let(share * (pairs // SHARES))
                with loop(pairs // SHARES // step) as i:
                    pair = let(first + i * step)
                    words = [let(self.kv[keys + (pair + n) * (PAGE // 4)]) for n in range(step)]
                    for j in range(self.heads):
                        at = query + j * (pairs // step) + pair // step
                        value = let(cast(f"float32x{2 * step}", q[at]))
                        store(sums, scored(words, value, sums[j]), j)
            for j in range(self.heads):
                store(self.pool, sums[j], (share * self.heads + j) * self.quads + token // 4)
        barrier()

    def weigh(self) -> None:
        """Scores → weights, behind them in the pool, and each head's M."""
        units = self.heads * self.quads
        places = [let(self.t + k * self.threads) for k in range(-(-units // self.threads))]
        for unit in places:
            with when(unit < units):
                total = self.pool[unit]
                for share in range(1, SHARES):
                    total = total + self.pool[share * units + unit]
                token = let(self.start + unit % self.quads * 4)
                store(self.pool, masked(self.h, let(total), token, self.length, self.unseen), unit)
        barrier()
        for unit in places:
            with when(unit < units):
                top = local(1, "float32x4")
                row = let(unit // self.quads * self.quads)
                store(top, self.pool[row], 0)
                with loop(self.quads, 1) as i:
                    store(top, tirx.Max(top[0], self.pool[row + i]), 0)
                v = let(top[0])
                largest = exponent(let(tirx.Max(tirx.Max(lane(v, 0), lane(v, 1)), tirx.Max(lane(v, 2), lane(v, 3)))))
                store(self.pool, weights(let(self.pool[unit]), largest), units + unit)
                with when(unit % self.quads == 0):
                    store(self.tops, largest, unit // self.quads)
        barrier()

    def add(self) -> None:
        """Weights · values: a chain's of eight dimensions a thread."""
        units = self.octets * self.chains
        self.values = cleared(self.turns * self.heads * 2)
        sums = cleared(self.turns * self.heads, "float32")
        for turn in range(self.turns):
            unit = let(self.t + turn * self.threads)
            octet, chain = let(unit % self.octets), let(unit // self.octets)
            token = let(chain * CHAIN)
            with when(tirx.all(unit < units, self._any_seen(token, CHAIN))):
                first = let(self._page(token) + page_words(self.h) // 8 + self.head * (self.octets * PAGE)
                            + token % PAGE * self.octets + octet)  # fmt: skip
                with loop(CHAIN // 4) as four:
                    at = let(token + four * 4)
                    words = [self._value(let(first + (four * 4 + n) * self.octets), let(at + n)) for n in range(4)]
                    es = [let(self.pool[self.heads * self.quads + j * self.quads + at // 4])
                          for j in range(self.heads)]  # fmt: skip
                    for n, word in enumerate(words):
                        v = values_of(word)
                        for j, e in enumerate(es):
                            i = turn * self.heads + j
                            for k in range(2):
                                total = madd(v[k], splat(lane(e, n)), self.values[2 * i + k])
                                store(self.values, total, 2 * i + k)
                            store(sums, sums[i] + lane(e, n), i)
            with when(tirx.all(unit < units, octet == 0)):
                for j in range(self.heads):
                    store(self.chain_sums, sums[turn * self.heads + j], chain * self.heads + j)
        barrier()

    def _value(self, at: Expr, token: Expr) -> Expr:
        """Eight dimensions of a token: 0 of one that is not seen, whose place may hold anything."""
        return let(tirx.Select(self._any_seen(token, 1), self.kv[at], splat(u32(0))))

    def gather(self, leave: Callable[[Expr, Expr, Expr, Expr], None]) -> None:
        """Chains, in order; ``leave(head of the part, four of its dimensions, float32x4, sum of weights)``."""
        entries = self.heads * self.octets
        at_once = min(entries, _POOL // (2 * self.chains))
        for low in range(0, entries, at_once):
            count = min(at_once, entries - low)
            for turn in range(self.turns):
                unit = let(self.t + turn * self.threads)
                octet, chain = let(unit % self.octets), let(unit // self.octets)
                for j in range(self.heads):
                    entry = let(j * self.octets + octet - low)
                    with when(tirx.all(unit < self.octets * self.chains, entry >= 0, entry < count)):
                        for k in range(2):
                            value = self.values[2 * (turn * self.heads + j) + k]
                            store(self.pool, value, (chain * count + entry) * 2 + k)
            barrier()
            with loop(-(-count * 2 // self.threads)) as turn:
                place = let(self.t + turn * self.threads)
                with when(place < count * 2):
                    quad = let(low * 2 + place)
                    j = let(quad // (2 * self.octets))
                    value, total = local(1, "float32x4"), local(1, "float32")
                    store(value, self.pool[place], 0)
                    store(total, self.chain_sums[j], 0)
                    with loop(self.chains, 1) as chain:
                        store(value, value[0] + self.pool[chain * (count * 2) + place], 0)
                        store(total, total[0] + self.chain_sums[chain * self.heads + j], 0)
                    leave(j, let(quad % (2 * self.octets)), let(value[0]), let(total[0]))
            if low + at_once < entries:
                barrier()


@cache
def attention_merge(h: Heads, dtype: str) -> tirx.PrimFunc:
    """(partials, positions, rows[, first, window] → y): y[rows, `Heads.columns`] from the spans of
    `attention_spans`."""
    threads = 64
    quads, wide = h.heads * h.dim // 4, h.columns // 4

    def build(a: Args) -> None:
        partials = a.buffer("partials", "float32x4")
        positions = a.buffer("positions", "int32")
        a.scalar("rows")
        _, window = place_scalars(a, h)
        y = a.buffer("y", f"{dtype}x4", "w")
        with a.workgroups(-(-wide // threads), "rows", threads) as (bx, row, t):
            unit = let(bx * threads + t)
            if wide > quads:
                with when(tirx.all(unit >= quads, unit < wide)):
                    store(y, cast(f"{dtype}x4", splat(0.0)), row * wide + unit)
            with when(unit < quads):
                of_head = h.dim // 4
                head, j, quad = let(unit // of_head // h.shared), let(unit // of_head % h.shared), let(unit % of_head)
                state = Merge()
                state.clear()
                skipped = let(tirx.Max(positions[row] + 1 - window, 0) // span_of(h)) if h.grouped else 0
                with loop(positions[row] // span_of(h) + 1, skipped) as span:
                    first = let(((row * h.kv_heads + head) * spans(h) + span) * partial_quads(h))
                    both = let(partials[first + h.shared * of_head + j])
                    state.fold(lane(both, 0), lane(both, 1), let(partials[first + j * of_head + quad]))
                store(y, cast(f"{dtype}x4", state.result()), row * wide + unit)

    return kernel(f"attention_merge_{h.label}", build)


__all__ = [
    "attention_merge", "attention_spans", "heads_at_once", "page_words", "partial_quads", "parts_of", "rope_append",
    "spans", "spans_fit",
]  # fmt: skip
