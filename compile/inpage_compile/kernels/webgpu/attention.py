"""Attention over KV pages: every span of the context by itself and then merged, or whole rows with several queries at
once.

Decoding gives every span a workgroup and merges them in a second kernel; prefill walks through the spans. Both come to
the same bits: see `softmax`.
"""

from __future__ import annotations

from functools import cache

from tvm import tirx

from inpage.format.limits import BINDING_BYTES, WORKGROUPS

from ..shared.heads import PAGE, Heads
from .build import Args, Expr, cast, kernel, lane, let, loop, splat, store, vector, when
from .pages import page_words, place_scalars, rope_append, tables
from .softmax import SPAN, THREADS, Merge, Part, Span, heads_at_once, parts_of, queries_at_once


def spans(h: Heads) -> int:
    """Of a whole context."""
    return -(-h.blocks * PAGE // SPAN)


def partial_pairs(h: Heads) -> int:
    """float32x2 that a span leaves for one key head: values of its query heads, then (maximum, sum) of each."""
    return h.shared * (h.dim // 2 + 1)


def spans_fit(h: Heads, rows: int) -> bool:
    """Whether WebGPU could launch `attention_spans` of so many rows, and bind what it leaves. `attention`, which makes
    the same bits, always fits."""
    left = rows * h.kv_heads * spans(h) * partial_pairs(h) * 8
    return left <= BINDING_BYTES and spans(h) * h.kv_heads * parts_of(h) <= WORKGROUPS


@cache
def attention_spans(h: Heads, dtype: str) -> tirx.PrimFunc:
    """(qkv, positions, row_sequence, block_tables, kv, rows[, first, window] → partials): each span of each row, by
    itself.

    partials: float32x2 [rows, kv head, span, `partial_pairs`]; spans past a row's position are left as they are."""
    width, each = (h.heads + 2 * h.kv_heads) * h.dim, h.kv_heads * parts_of(h)

    def build(a: Args) -> None:
        q = a.buffer("qkv", f"{dtype}x4")
        positions, row_sequence, block_tables = tables(a)
        kv = a.buffer("kv", "uint32")
        a.scalar("rows")
        column, window = place_scalars(a, h)
        partials = a.buffer("partials", "float32x2", "w")
        with a.workgroups(spans(h) * each, "rows", THREADS) as (bx, row, t):
            part, span = Part(h, let(bx % each)), let(bx // each)
            start, length = let(span * SPAN), let(positions[row] + 1)
            one = Span(a, h, part, 1, q, block_tables, kv, t, column, window)
            with when(one.sees(start, length)):
                one.run(row_sequence[row], start, [let(row * (width // 4))], [length])
                first = let(((row * h.kv_heads + part.head) * spans(h) + span) * partial_pairs(h))
                for turn in range(one.turns):
                    there, j, pair = one.pair(turn)
                    with when(there):
                        store(partials, one.values[turn], first + (part.first + j) * (h.dim // 2) + pair)
                        with when(pair == 0):
                            both = vector(one.maximum(0, j), one.sums[turn])
                            store(partials, both, first + h.shared * (h.dim // 2) + (part.first + j))

    return kernel(f"attention_spans_{h.label}", build)


@cache
def attention_merge(h: Heads, dtype: str) -> tirx.PrimFunc:
    """(partials, positions, rows[, first, window] → y): y[rows, `Heads.columns`] from the spans of
    `attention_spans`."""
    half, threads = h.dim // 2, 64
    pairs, wide = h.heads * half, h.columns // 2

    def build(a: Args) -> None:
        partials = a.buffer("partials", "float32x2")
        positions = a.buffer("positions", "int32")
        a.scalar("rows")
        _, window = place_scalars(a, h)
        y = a.buffer("y", f"{dtype}x2", "w")
        with a.workgroups(-(-wide // threads), "rows", threads) as (bx, row, t):
            unit = let(bx * threads + t)
            if wide > pairs:
                with when(tirx.all(unit >= pairs, unit < wide)):
                    store(y, cast(f"{dtype}x2", splat(0.0, 2)), row * wide + unit)
            with when(unit < pairs):
                head, j, pair = let(unit // half // h.shared), let(unit // half % h.shared), let(unit % half)
                state = Merge()
                state.clear()
                skipped = let(tirx.Max(positions[row] + 1 - window, 0) // SPAN) if h.grouped else 0
                with loop(positions[row] // SPAN + 1, skipped) as span:
                    first = let(((row * h.kv_heads + head) * spans(h) + span) * partial_pairs(h))
                    both = let(partials[first + h.shared * half + j])
                    state.fold(lane(both, 0), lane(both, 1), let(partials[first + j * half + pair]))
                store(y, cast(f"{dtype}x2", state.result()), row * wide + unit)

    return kernel(f"attention_merge_{h.label}", build)


@cache
def attention(h: Heads, dtype: str) -> tirx.PrimFunc:
    """(qkv, positions, row_sequence, block_tables, kv, rows[, first, window] → y): y[rows, `Heads.columns`], some rows
    a workgroup.

    Rows of one sequence share what is read; a workgroup with rows of several sequences takes one after another."""
    queries, each = queries_at_once(h), h.kv_heads * parts_of(h)
    width, half, wide = (h.heads + 2 * h.kv_heads) * h.dim, h.dim // 2, h.columns // 2

    def build(a: Args) -> None:
        q = a.buffer("qkv", f"{dtype}x4", "x")  # only read, but it lies in the arena that is written
        positions, row_sequence, block_tables = tables(a)
        kv = a.buffer("kv", "uint32")
        rows = a.scalar("rows")
        column, window = place_scalars(a, h)
        y = a.buffer("y", f"{dtype}x2", "w")
        with a.workgroups(each, ["ceildiv", "rows", queries], THREADS) as (unit, by, t):
            part = Part(h, unit)
            body = Span(a, h, part, queries, q, block_tables, kv, t, column, window)
            numbers = [let(by * queries + r) for r in range(queries)]
            safe = [let(tirx.Min(n, rows - 1)) for n in numbers]
            sequences = [let(row_sequence[n]) for n in safe]
            starts = [let(n * (width // 4)) for n in safe]
            states = [Merge() for _ in range(queries * body.turns)]
            with loop(queries) as lead:
                number = let(by * queries + lead)
                sequence = let(row_sequence[tirx.Min(number, rows - 1)])
                new = [tirx.any(lead <= r, sequences[r] != sequence) for r in range(queries - 1)]
                with when(tirx.all(number < rows, *new)):
                    lengths = [
                        let(tirx.Select(sequences[r] == sequence, positions[safe[r]] + 1, 0)) for r in range(queries)
                    ]
                    _walk(body, states, sequence, starts, lengths)
                    for turn in range(body.turns):
                        there, j, pair = body.pair(turn)
                        for r in range(queries):
                            with when(tirx.all(there, lengths[r] > 0, numbers[r] < rows)):
                                head = part.head * h.shared + part.first + j
                                at = numbers[r] * wide + head * half + pair
                                store(y, cast(f"{dtype}x2", states[turn * queries + r].result()), at)
            rest = wide - h.heads * half
            if rest:
                for number in numbers:
                    with when(tirx.all(unit == each - 1, t < rest, number < rows)):
                        store(y, cast(f"{dtype}x2", splat(0.0, 2)), number * wide + h.heads * half + t)

    return kernel(f"attention_{h.label}", build)


def _walk(body: Span, states: list[Merge], sequence: Expr, starts: list[Expr], lengths: list[Expr]) -> None:
    """Fold all spans into ``states``, one for each of this thread's outputs and each query."""
    for state in states:
        state.clear()
    longest = lengths[0]
    for length in lengths[1:]:
        longest = tirx.Max(longest, length)
    skipped: Expr = 0
    if body.h.grouped:
        skipped = body.floor(lengths, longest)
        skipped = let(tirx.Max(skipped, 0) // SPAN)
    with loop(let((longest + (SPAN - 1)) // SPAN), skipped) as span:
        start = let(span * SPAN)
        body.run(sequence, start, starts, lengths)
        for turn in range(body.turns):
            _, j, _ = body.pair(turn)
            for r, length in enumerate(lengths):
                i = turn * body.queries + r
                with when(body.sees(start, length)):
                    states[i].fold(body.maximum(r, j), body.sums[i], body.values[i])


__all__ = [
    "SPAN", "attention", "attention_merge", "attention_spans", "heads_at_once", "page_words", "partial_pairs",
    "parts_of", "queries_at_once", "rope_append", "spans", "spans_fit",
]  # fmt: skip
