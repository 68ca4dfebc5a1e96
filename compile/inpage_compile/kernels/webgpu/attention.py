"""Rotary positions, the append to KV pages, and attention over pages.

Each layer has its own pages. A page holds ``PAGE`` tokens as pairs of f16 in 32-bit words: first the keys,
[kv head][pair of dimensions][token], so that the threads of a workgroup, one a token, read neighbouring words; then
the values, [kv head][token][pair], for threads that have a pair of dimensions each.

Order of sums: a query's context is cut into spans of ``SPAN`` tokens from position 0; each span gets its own softmax
(maximum, sum, weighted values), and spans are merged in order (Milakov & Gimelshein, "Online normalizer calculation
for softmax", 2018). Decoding gives every span a workgroup and merges them in a second kernel; prefill walks through
the spans with several queries at once. Both come to the same bits: the order depends on the query's position alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tvm import tirx

from ..cpu.pages import PAGE, Heads
from .build import (
    Args,
    Buffer,
    Expr,
    barrier,
    call,
    cast,
    f32,
    halves,
    kernel,
    lane,
    let,
    local,
    loop,
    madd,
    splat,
    store,
    vector,
    when,
)

SPAN = 128
THREADS = 128  # one a token of a span
_NEVER = -1e30  # a score that no softmax gives weight to
_PARTS = 16  # first stage of a maximum


def page_words(h: Heads) -> int:
    """32-bit words of one layer's page."""
    return h.kv_heads * h.dim * PAGE


def spans(h: Heads) -> int:
    """Of a whole context."""
    return -(-h.blocks * PAGE // SPAN)


def partial_pairs(h: Heads) -> int:
    """float32x2 that a span leaves for one key head: values of its query heads, then (maximum, sum) of each."""
    return h.shared * (h.dim // 2 + 1)


def queries_at_once(h: Heads) -> int:
    """Rows of a prefill workgroup, as many as their scores fit."""
    return max(1, min(4, 24 // h.shared))


def _where(a: Args) -> tuple[Buffer, Buffer, Buffer]:
    return a.buffer("positions", "int32"), a.buffer("row_sequence", "int32"), a.buffer("block_tables", "int32")


@cache
def rope_append(h: Heads, dtype: str) -> tirx.PrimFunc:
    """(qkv, table, positions, row_sequence, block_tables, kv, rows): rotates queries, times 1/√dim, in place, and
    stores rotated keys, and values, into the layer's pages."""
    half = h.dim // 2
    pairs = (h.heads + 2 * h.kv_heads) * half

    def build(a: Args) -> None:
        qkv = a.buffer("qkv", f"{dtype}x2", "x")
        table = a.buffer("table", "float32x2")
        positions, row_sequence, block_tables = _where(a)
        kv = a.buffer("kv", "uint32", "x")
        a.scalar("rows")
        with a.workgroups(-(-pairs // 64), "rows", 64) as (bx, row, t):
            unit = let(bx * 64 + t)
            head, pair = let(unit // half), let(unit % half)
            with when(unit < pairs):
                at = let(row * pairs + unit)
                value = let(cast("float32x2", qkv[at]))
                position = let(positions[row])
                page = let(block_tables[row_sequence[row] * h.blocks + position // PAGE] * page_words(h))
                slot = let(position % PAGE)
                with when(head < h.heads + h.kv_heads):
                    turn = let(table[row * half + pair])
                    x, y, c, s = lane(value, 0), lane(value, 1), lane(turn, 0), lane(turn, 1)
                    even, odd = let(madd(x, c, -(y * s))), let(madd(x, s, y * c))
                    with when(head < h.heads):
                        scale = f32(h.dim**-0.5)
                        store(qkv, cast(f"{dtype}x2", vector(even * scale, odd * scale)), at)
                    with when(head >= h.heads):
                        word = call("uint32", "pack2x16float", vector(even, odd))
                        store(kv, word, page + ((head - h.heads) * half + pair) * PAGE + slot)
                with when(head >= h.heads + h.kv_heads):
                    word = call("uint32", "pack2x16float", value)
                    first = page + page_words(h) // 2 + (head - (h.heads + h.kv_heads)) * half * PAGE
                    store(kv, word, first + slot * half + pair)

    return kernel(f"rope_append_{h.heads}_{h.kv_heads}_{h.dim}", build)


class _Span:
    """One span of one key head for some queries: scores, softmax, weighted values, all left in this thread's registers
    and the workgroup's memory."""

    def __init__(self, a: Args, h: Heads, queries: int, q: Buffer, block_tables: Buffer, kv: Buffer, t: Expr) -> None:
        self.h, self.queries, self.q, self.block_tables, self.kv, self.t = h, queries, q, block_tables, kv, t
        self.rows = queries * h.shared
        self.scores = a.workgroup(self.rows * SPAN, "float32")
        self.tops = a.workgroup(self.rows * (_PARTS + 1), "float32")
        self.turns = -(-h.shared * h.dim // 2 // THREADS)  # pairs of outputs a thread has
        self.own = local(self.rows, "float32")
        self.values = local(queries * self.turns, "float32x2")
        self.sums = local(queries * self.turns, "float32")

    def pair(self, turn: int) -> tuple[Expr, Expr, Expr]:
        """(is there one, query head of the group, pair of dimensions) that this thread makes in a turn."""
        half = self.h.dim // 2
        unit = let(self.t + turn * THREADS)
        return unit < self.h.shared * half, let(tirx.Min(unit // half, self.h.shared - 1)), let(unit % half)

    def maximum(self, query: int, head: Expr) -> Expr:
        return self.tops[self.rows * _PARTS + query * self.h.shared + head]

    def run(self, head: Expr, sequence: Expr, start: Expr, starts: list[Expr], lengths: list[Expr]) -> None:
        """``starts``: of each query's row in q, in vectors of four; ``lengths``: tokens that it sees."""
        limit = lengths[0]
        for length in lengths[1:]:
            limit = tirx.Max(limit, length)
        limit = let(limit)
        table = let(sequence * self.h.blocks)
        self._score(head, table, start, starts, lengths, limit)
        barrier()
        self._softmax()
        barrier()
        self._weigh(head, table, start, let(tirx.Min(limit - start, SPAN)))
        barrier()

    def _score(
        self, head: Expr, table: Expr, start: Expr, starts: list[Expr], lengths: list[Expr], limit: Expr
    ) -> None:
        h, token = self.h, let(start + self.t)
        for i in range(self.rows):
            store(self.own, f32(0.0), i)
        with when(token < limit):
            page = let(self.block_tables[table + token // PAGE] * page_words(h))
            keys = let(page + head * (h.dim // 2 * PAGE) + token % PAGE)
            with loop(h.dim // 4) as i:
                k = [let(halves(self.kv[keys + (i * 2 + n) * PAGE])) for n in range(2)]
                for r, first in enumerate(starts):
                    for j in range(h.shared):
                        at = first + (head * h.shared + j) * (h.dim // 4) + i
                        q = let(cast("float32x4", self.q[at]))
                        one = self.own[r * h.shared + j]
                        for d in range(4):
                            one = madd(lane(q, d), lane(k[d // 2], d % 2), one)
                        store(self.own, one, r * h.shared + j)
        for r, length in enumerate(lengths):
            for j in range(h.shared):
                i = r * h.shared + j
                store(self.own, tirx.Select(token < length, self.own[i], f32(_NEVER)), i)
                store(self.scores, self.own[i], i * SPAN + self.t)

    def _softmax(self) -> None:
        """scores → e^(score - maximum), in two stages."""
        each = SPAN // _PARTS
        for turn in range(-(-self.rows * _PARTS // THREADS)):
            unit = let(self.t + turn * THREADS)
            with when(unit < self.rows * _PARTS):
                top = local(1, "float32")
                store(top, f32(_NEVER), 0)
                with loop(each) as i:
                    store(top, tirx.Max(top[0], self.scores[unit * each + i]), 0)
                store(self.tops, top[0], unit)
        barrier()
        with when(self.t < self.rows):
            top = local(1, "float32")
            store(top, f32(_NEVER), 0)
            with loop(_PARTS) as i:
                store(top, tirx.Max(top[0], self.tops[self.t * _PARTS + i]), 0)
            store(self.tops, top[0], self.rows * _PARTS + self.t)
        barrier()
        for i in range(self.rows):
            e = call("float32", "exp", self.own[i] - self.tops[self.rows * _PARTS + i])
            store(self.scores, e, i * SPAN + self.t)

    def _weigh(self, head: Expr, table: Expr, start: Expr, count: Expr) -> None:
        h = self.h
        half = h.dim // 2
        for turn in range(self.turns):
            there, j, pair = self.pair(turn)
            mine = range(turn * self.queries, (turn + 1) * self.queries)
            for i in mine:
                store(self.values, splat(0.0, 2), i)
                store(self.sums, f32(0.0), i)
            with when(there), loop((count + (PAGE - 1)) // PAGE) as p:
                page = let(self.block_tables[table + start // PAGE + p] * page_words(h))
                values = let(page + page_words(h) // 2 + head * (half * PAGE) + pair)
                with loop(tirx.Min(count - p * PAGE, PAGE)) as i:
                    v = let(halves(self.kv[values + i * half]))
                    for r in range(self.queries):
                        e = let(self.scores[(r * h.shared + j) * SPAN + p * PAGE + i])
                        store(self.values, madd(v, splat(e, 2), self.values[mine[r]]), mine[r])
                        store(self.sums, self.sums[mine[r]] + e, mine[r])


class _Merge:
    """Spans folded one after another: the running maximum, sum and values of one output pair of one query."""

    def __init__(self) -> None:
        self.maximum, self.sum, self.value = local(1, "float32"), local(1, "float32"), local(1, "float32x2")

    def clear(self) -> None:
        store(self.maximum, f32(_NEVER), 0)
        store(self.sum, f32(0.0), 0)
        store(self.value, splat(0.0, 2), 0)

    def fold(self, maximum: Expr, total: Expr, value: Expr) -> None:
        top = let(tirx.Max(self.maximum[0], maximum))
        old = let(call("float32", "exp", self.maximum[0] - top))
        new = let(call("float32", "exp", maximum - top))
        store(self.sum, madd(total, new, let(self.sum[0] * old)), 0)
        store(self.value, madd(value, splat(new, 2), let(self.value[0] * splat(old, 2))), 0)
        store(self.maximum, top, 0)

    def result(self) -> Expr:
        return self.value[0] * splat(f32(1.0) / self.sum[0], 2)


@cache
def attention_spans(h: Heads, dtype: str) -> tirx.PrimFunc:
    """(qkv, positions, row_sequence, block_tables, kv, rows → partials): each span of each row, by itself.

    partials: float32x2 [rows, kv head, span, `partial_pairs`]; spans past a row's position are left as they are."""
    width = (h.heads + 2 * h.kv_heads) * h.dim

    def build(a: Args) -> None:
        q = a.buffer("qkv", f"{dtype}x4")
        positions, row_sequence, block_tables = _where(a)
        kv = a.buffer("kv", "uint32")
        a.scalar("rows")
        partials = a.buffer("partials", "float32x2", "w")
        with a.workgroups(spans(h) * h.kv_heads, "rows", THREADS) as (bx, row, t):
            head, span = let(bx % h.kv_heads), let(bx // h.kv_heads)
            start, length = let(span * SPAN), let(positions[row] + 1)
            one = _Span(a, h, 1, q, block_tables, kv, t)
            with when(start < length):
                one.run(head, row_sequence[row], start, [let(row * (width // 4))], [length])
                first = let(((row * h.kv_heads + head) * spans(h) + span) * partial_pairs(h))
                for turn in range(one.turns):
                    there, j, pair = one.pair(turn)
                    with when(there):
                        store(partials, one.values[turn], first + j * (h.dim // 2) + pair)
                        with when(pair == 0):
                            both = vector(one.maximum(0, j), one.sums[turn])
                            store(partials, both, first + h.shared * (h.dim // 2) + j)

    return kernel(f"attention_spans_{h.heads}_{h.kv_heads}_{h.dim}", build)


@cache
def attention_merge(h: Heads, dtype: str) -> tirx.PrimFunc:
    """(partials, positions, rows → y): y[rows, heads · dim] from the spans of `attention_spans`."""
    half, threads = h.dim // 2, 64
    pairs = h.heads * half

    def build(a: Args) -> None:
        partials = a.buffer("partials", "float32x2")
        positions = a.buffer("positions", "int32")
        a.scalar("rows")
        y = a.buffer("y", f"{dtype}x2", "w")
        with a.workgroups(-(-pairs // threads), "rows", threads) as (bx, row, t):
            unit = let(bx * threads + t)
            with when(unit < pairs):
                head, j, pair = let(unit // half // h.shared), let(unit // half % h.shared), let(unit % half)
                state = _Merge()
                state.clear()
                with loop(positions[row] // SPAN + 1) as span:
                    first = let(((row * h.kv_heads + head) * spans(h) + span) * partial_pairs(h))
                    both = let(partials[first + h.shared * half + j])
                    state.fold(lane(both, 0), lane(both, 1), let(partials[first + j * half + pair]))
                store(y, cast(f"{dtype}x2", state.result()), row * pairs + unit)

    return kernel(f"attention_merge_{h.heads}_{h.kv_heads}_{h.dim}", build)


@cache
def attention(h: Heads, dtype: str) -> tirx.PrimFunc:
    """(qkv, positions, row_sequence, block_tables, kv, rows → y): y[rows, heads · dim], some rows a workgroup.

    Rows of one sequence share what is read; a workgroup with rows of several sequences takes one after another."""
    queries = queries_at_once(h)
    width, half = (h.heads + 2 * h.kv_heads) * h.dim, h.dim // 2

    def build(a: Args) -> None:
        q = a.buffer("qkv", f"{dtype}x4", "x")  # only read, but it lies in the arena that is written
        positions, row_sequence, block_tables = _where(a)
        kv = a.buffer("kv", "uint32")
        rows = a.scalar("rows")
        y = a.buffer("y", f"{dtype}x2", "w")
        with a.workgroups(h.kv_heads, ["ceildiv", "rows", queries], THREADS) as (head, by, t):
            body = _Span(a, h, queries, q, block_tables, kv, t)
            numbers = [let(by * queries + r) for r in range(queries)]
            safe = [let(tirx.Min(n, rows - 1)) for n in numbers]
            sequences = [let(row_sequence[n]) for n in safe]
            starts = [let(n * (width // 4)) for n in safe]
            states = [_Merge() for _ in range(queries * body.turns)]
            with loop(queries) as lead:
                number = let(by * queries + lead)
                sequence = let(row_sequence[tirx.Min(number, rows - 1)])
                new = [tirx.any(lead <= r, sequences[r] != sequence) for r in range(queries - 1)]
                with when(tirx.all(number < rows, *new)):
                    lengths = [
                        let(tirx.Select(sequences[r] == sequence, positions[safe[r]] + 1, 0)) for r in range(queries)
                    ]
                    _walk(body, states, head, sequence, starts, lengths)
                    for turn in range(body.turns):
                        there, j, pair = body.pair(turn)
                        for r in range(queries):
                            with when(tirx.all(there, lengths[r] > 0, numbers[r] < rows)):
                                at = numbers[r] * (h.heads * half) + (head * h.shared + j) * half + pair
                                store(y, cast(f"{dtype}x2", states[turn * queries + r].result()), at)

    return kernel(f"attention_{h.heads}_{h.kv_heads}_{h.dim}", build)


def _walk(
    body: _Span, states: list[_Merge], head: Expr, sequence: Expr, starts: list[Expr], lengths: list[Expr]
) -> None:
    """Fold all spans into ``states``, one for each of this thread's outputs and each query."""
    for state in states:
        state.clear()
    longest = lengths[0]
    for length in lengths[1:]:
        longest = tirx.Max(longest, length)
    with loop(let((longest + (SPAN - 1)) // SPAN)) as span:
        start = let(span * SPAN)
        body.run(head, sequence, start, starts, lengths)
        for turn in range(body.turns):
            _, j, _ = body.pair(turn)
            for r, length in enumerate(lengths):
                i = turn * body.queries + r
                with when(start < length):
                    states[i].fold(body.maximum(r, j), body.sums[i], body.values[i])


__all__ = [
    "SPAN", "attention", "attention_merge", "attention_spans", "page_words", "partial_pairs", "queries_at_once",
    "rope_append", "spans",
]  # fmt: skip
