"""The softmax of some queries' context, span by span, in one workgroup.

Order of sums: a query's context is cut into spans of ``SPAN`` tokens from position 0; each span gets its own softmax
(maximum, sum, weighted values), and spans are merged in order (Milakov & Gimelshein, "Online normalizer calculation
for softmax", 2018). The order depends on the query's position alone.

Query heads that share a key head are made by one workgroup as long as their scores fit into its memory, else by
several: how many changes no bit.
"""

from __future__ import annotations

from tvm import tirx

from ..shared.heads import PAGE, Heads
from .activations import soft_cap
from .build import (
    Args,
    Buffer,
    Expr,
    barrier,
    call,
    cast,
    f32,
    halves,
    lane,
    let,
    local,
    loop,
    madd,
    splat,
    store,
    when,
)
from .pages import page_words

SPAN = 128
THREADS = 128  # one a token of a span
_NEVER = -1e30  # a score that no softmax gives weight to
_PARTS = 16  # first stage of a maximum
_ROWS = 24  # queries times heads of a workgroup: 16 KiB hold the scores of 28
_TURNS = 6  # pairs of outputs a thread makes one after another for one query, ...
_UNROLLED = 12  # ... and for all queries: each is code of its own, which drivers take their time to compile


def heads_at_once(h: Heads) -> int:
    """Query heads of one workgroup: the key head's, in as many parts of a size as it takes."""
    return -(-h.shared // parts_of(h))


def parts_of(h: Heads) -> int:
    """Workgroups that one key head's query heads are shared among."""
    return -(-h.shared // max(1, min(_ROWS, _TURNS * 2 * THREADS // h.dim)))


def queries_at_once(h: Heads) -> int:
    """Rows of a prefill workgroup, as many as their scores fit."""
    return max(1, min(4, _ROWS // heads_at_once(h), _UNROLLED // turns_of(h)))


def turns_of(h: Heads) -> int:
    """Pairs of outputs that a thread makes for one query."""
    return -(-heads_at_once(h) * h.dim // 2 // THREADS)


class Part:
    """The query heads of one workgroup: `heads_at_once` from ``first`` of the key head's on. The ``skip`` first ones
    are the part's before as well, where the heads do not divide evenly; that part stores them."""

    def __init__(self, h: Heads, unit: Expr) -> None:
        """``unit``: below kv_heads · `parts_of`."""
        parts, at_once = parts_of(h), heads_at_once(h)
        self.head: Expr = unit
        self.first: Expr = 0
        self.skip: Expr = 0
        if parts == 1:
            return
        self.head, start = let(unit // parts), let(unit % parts * at_once)
        self.first = start
        if h.shared % at_once:
            self.first = let(tirx.Min(start, h.shared - at_once))
            self.skip = let(start - self.first)


class Span:
    """One span of one key head for some queries: scores, softmax, weighted values, all left in this thread's registers
    and the workgroup's memory."""

    def __init__(
        self, a: Args, h: Heads, part: Part, queries: int, q: Buffer, block_tables: Buffer, kv: Buffer, t: Expr,
        column: Expr, window: Expr,
    ) -> None:  # fmt: skip
        self.column, self.window = column, window
        self.h, self.queries, self.q, self.block_tables, self.kv, self.t = h, queries, q, block_tables, kv, t
        self.part, self.heads = part, heads_at_once(h)
        self.rows = queries * self.heads
        self.scores = a.workgroup(self.rows * SPAN, "float32")
        self.tops = a.workgroup(self.rows * (_PARTS + 1), "float32")
        self.turns = turns_of(h)
        self.own = local(self.rows, "float32")
        self.values = local(queries * self.turns, "float32x2")
        self.sums = local(queries * self.turns, "float32")

    def pair(self, turn: int) -> tuple[Expr, Expr, Expr]:
        """(is there one, query head of the part, pair of dimensions) that this thread makes in a turn."""
        half = self.h.dim // 2
        unit = let(self.t + turn * THREADS)
        there, j = unit < self.heads * half, let(tirx.Min(unit // half, self.heads - 1))
        if not isinstance(self.part.skip, int):
            there = tirx.all(there, j >= self.part.skip)
        return there, j, let(unit % half)

    def maximum(self, query: int, head: Expr) -> Expr:
        return self.tops[self.rows * _PARTS + query * self.heads + head]

    def run(self, sequence: Expr, start: Expr, starts: list[Expr], lengths: list[Expr]) -> None:
        """``starts``: of each query's row in q, in vectors of four; ``lengths``: tokens that it sees."""
        limit = lengths[0]
        for length in lengths[1:]:
            limit = tirx.Max(limit, length)
        limit = let(limit)
        table = let(sequence * self.h.columns_of_table + self.column)
        # A token that fell out of a query's window gets no weight; pages that fell out of all of them are not read.
        unseen: list[Expr] = [let(length - self.window) for length in lengths] if self.h.grouped else []
        floor: Expr = 0
        if self.h.grouped:
            floor = let(tirx.Max(self.floor(lengths, limit), start))
        self._score(table, start, starts, lengths, limit, unseen, floor)
        barrier()
        self._softmax()
        barrier()
        first = let((floor - start) // PAGE) if self.h.grouped else 0
        self._weigh(table, start, let(tirx.Min(limit - start, SPAN)), first)
        barrier()

    def floor(self, lengths: list[Expr], limit: Expr) -> Expr:
        """The first token that one of the queries sees. Those of another sequence have length 0."""
        firsts = [tirx.Select(length > 0, length - self.window, limit) for length in lengths]
        out = firsts[0]
        for first in firsts[1:]:
            out = tirx.Min(out, first)
        return out

    def sees(self, start: Expr, length: Expr) -> Expr:
        """Whether a query of so many tokens sees any of the span."""
        if not self.h.grouped:
            return start < length
        return tirx.all(start < length, start + SPAN > length - self.window)

    def _score(
        self, table: Expr, start: Expr, starts: list[Expr], lengths: list[Expr], limit: Expr, unseen: list[Expr],
        floor: Expr,
    ) -> None:  # fmt: skip
        h, part, token = self.h, self.part, let(start + self.t)
        for i in range(self.rows):
            store(self.own, f32(0.0), i)
        with when(tirx.all(token >= floor, token < limit) if unseen else token < limit):
            page = let(self.block_tables[table + token // PAGE] * page_words(h))
            keys = let(page + part.head * (h.dim // 2 * PAGE) + token % PAGE)
            with loop(h.dim // 4) as i:
                k = [let(halves(self.kv[keys + (i * 2 + n) * PAGE])) for n in range(2)]
                for r, first in enumerate(starts):
                    for j in range(self.heads):
                        at = first + (part.head * h.shared + part.first + j) * (h.dim // 4) + i
                        q = let(cast("float32x4", self.q[at]))
                        one = self.own[r * self.heads + j]
                        for d in range(4):
                            one = madd(lane(q, d), lane(k[d // 2], d % 2), one)
                        store(self.own, one, r * self.heads + j)
        for r, length in enumerate(lengths):
            for j in range(self.heads):
                i = r * self.heads + j
                score = let(soft_cap(self.own[i], h.cap)) if h.cap else self.own[i]
                seen = tirx.all(token < length, token >= unseen[r]) if unseen else token < length
                store(self.own, tirx.Select(seen, score, f32(_NEVER)), i)
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

    def _weigh(self, table: Expr, start: Expr, count: Expr, first_page: Expr) -> None:
        half, head = self.h.dim // 2, self.part.head
        for turn in range(self.turns):
            there, j, pair = self.pair(turn)
            mine = range(turn * self.queries, (turn + 1) * self.queries)
            for i in mine:
                store(self.values, splat(0.0, 2), i)
                store(self.sums, f32(0.0), i)
            with when(there), loop((count + (PAGE - 1)) // PAGE, first_page) as p:
                page = let(self.block_tables[table + start // PAGE + p] * page_words(self.h))
                values = let(page + page_words(self.h) // 2 + head * (half * PAGE) + pair)
                with loop(tirx.Min(count - p * PAGE, PAGE)) as i:
                    v = let(halves(self.kv[values + i * half]))
                    for r in range(self.queries):
                        e = let(self.scores[(r * self.heads + j) * SPAN + p * PAGE + i])
                        store(self.values, madd(v, splat(e, 2), self.values[mine[r]]), mine[r])
                        store(self.sums, self.sums[mine[r]] + e, mine[r])


class Merge:
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
