"""Attention of few rows: each span of each row's context is a workgroup's, and the last one to arrive adds them up.

The query heads of a key head are one workgroup's, as far as their registers go, so that every key and value is read
once. `attention_tiles` makes the same bits for many rows. The arithmetic is `softmax`'s.

What spans leave passes from workgroup to workgroup within a dispatch. WGSL orders nothing between workgroups but what
happens to one atomic word, so every word is one, and says by itself whether it is there: 0 is not. The last to arrive,
by a counter, reads each word until it is, adds in the order of spans, and leaves zeros for the next layer. It waits for
nobody: all words were stored before the counter grew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from tvm import tirx

from inpage.format.limits import BINDING_BYTES, WORKGROUPS

from ..shared.heads import PAGE, Heads
from .build import (
    Args,
    Buffer,
    Expr,
    T,
    atomic,
    barrier,
    bits,
    call,
    cast,
    f32,
    i32,
    kernel,
    lane,
    let,
    local,
    loop,
    madd,
    splat,
    storage_barrier,
    store,
    u32,
    vector,
    when,
)
from .pages import page_words, place_scalars, rope_append, tables
from .softmax import (
    CHAIN,
    NEVER,
    SHARES,
    Merge,
    cleared,
    exponent,
    keys_of,
    masked,
    part_of,
    quotient,
    scored,
    span_of,
    step_of,
    values_of,
    weights,
)

_POOL = 768  # vectors of workgroup memory at most, 12 KiB
_HEADS = 8  # whose sums a thread has in registers
_NAN = 0x7FC00000  # what a word that is not there yet stands for: 0 with these bits turned
_TRIES = 1 << 14  # of a merge to find its words there, lest a broken driver hangs: then the result is no number
_BATCH = 4  # spans that are waited for at once


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


def _counters(h: Heads) -> int:
    return h.kv_heads * parts_of(h)


def _span_words(h: Heads) -> int:
    """Of each query head its values, M and sum."""
    return h.heads * (h.dim + 2)


def row_words(h: Heads) -> int:
    """Of ``state`` for a row: counters of workgroups that have arrived, then what each span leaves."""
    return _counters(h) + spans(h) * _span_words(h)


def spans_fit(h: Heads, rows: int) -> bool:
    """Whether WebGPU could launch `attention_spans` of so many rows, and bind what they leave. `attention_tiles`, which
    makes the same bits, always fits."""
    left = rows * row_words(h) * 4
    return left <= BINDING_BYTES and spans(h) * h.kv_heads * parts_of(h) <= WORKGROUPS


@cache
def clear_state(h: Heads) -> tirx.PrimFunc:
    """(positions, rows → state): zeros for `attention_spans`, once a step, as far as the rows reach."""
    threads, each = 64, 16

    def build(a: Args) -> None:
        positions = a.buffer("positions", "int32")
        a.scalar("rows")
        state = a.buffer("state", "uint32", "w")
        with a.workgroups(-(-row_words(h) // (threads * each)), "rows", threads) as (bx, row, t):
            end = let(_counters(h) + (positions[row] // span_of(h) + 1) * _span_words(h))
            with loop(each) as i:
                at = let((bx * each + i) * threads + t)
                with when(at < end):
                    store(state, u32(0), row * row_words(h) + at)

    return kernel(f"clear_state_{h.label}", build)


@cache
def attention_spans(h: Heads, dtype: str, subgroups: bool = False) -> tirx.PrimFunc:
    """(q, positions, row_sequence, block_tables, kv, state, rows[, first, window] → y): y[rows, `Heads.columns`].

    state: uint32 [rows, `row_words`], zeros before and after. ``subgroups``: for adapters that have them, to the same
    bits: threads find the largest of a head's scores out of each other's registers, not all of them one by one."""
    each, size, step = h.kv_heads * parts_of(h), span_of(h), step_of(h)
    wide, rest = h.columns // 4, (h.columns - h.heads * h.dim) // 4

    def build(a: Args) -> None:
        q = a.buffer("q", f"{dtype}x{2 * step}", "x")  # only read, but it lies in the arena that is written
        positions, row_sequence, block_tables = tables(a)
        kv, state = a.buffer("kv", "uint32x4"), a.buffer("state", "uint32", "x")
        a.scalar("rows")
        column, window = place_scalars(a, h)
        y = a.buffer("y", f"{dtype}x4", "w")
        with a.workgroups(spans(h) * each, "rows", threads_of(h)) as (bx, row, t):
            unit, span = let(bx % each), let(bx // each)
            head, first, skip = part_of(h, unit, heads_at_once(h))
            length, last = let(positions[row] + 1), let(positions[row] // size)
            unseen = let(length - window) if h.grouped else None
            low = 0 if unseen is None else let(tirx.Max(unseen, 0) // size)
            with when(tirx.all(span >= low, span <= last)):
                start = let(span * size)
                table = let(row_sequence[row] * h.columns_of_table + column + start // PAGE)
                kind = _SubgroupSpan if subgroups else _Span
                one = kind(a, h, kv, block_tables, table, head, t, start, length, unseen)
                one.score(q, let((row * h.heads + head * h.shared + first) * (h.dim // (2 * step))))
                one.weigh()
                one.add()
                of_head = let(head * h.shared + first)
                own = let(row * row_words(h) + _counters(h))
                ends = _Ends(h, state, own, of_head, low, last)

                def result(j: Expr, quad: Expr, value: Expr) -> None:
                    store(y, cast(f"{dtype}x4", value), row * wide + (of_head + j) * (h.dim // 4) + quad)

                def leave(j: Expr, quad: Expr, value: Expr, total: Expr) -> None:
                    with when(tirx.all(j >= skip, low == last)):
                        result(j, quad, quotient(value, total))
                    with when(tirx.all(j >= skip, low < last)):
                        ends.put(span, j, quad, value, one.tops[j], total)

                one.gather(leave)
                if rest:
                    with when(tirx.all(unit == each - 1, span == last, t < rest)):
                        store(y, cast(f"{dtype}x4", splat(0.0)), row * wide + h.heads * h.dim // 4 + t)
                with when(low < last):
                    counter = let(row * row_words(h) + unit)
                    arrived = a.workgroup(1, "uint32")
                    storage_barrier()
                    with when(t == 0):
                        store(arrived, atomic("uint32", "Add", state[counter], u32(1)), 0)
                    before = let(tirx.call_extern("uint32", "workgroupUniformLoad", arrived[0]))
                    with when(before == cast("uint32", last - low)):
                        ends.merge(t, skip, result)
                        storage_barrier()
                        ends.clear(t, skip)
                        with when(t == 0):
                            T.evaluate(atomic("void", "Store", state[counter], u32(0)))

    return kernel(f"attention_spans_{h.label}" + ("_subgroups" if subgroups else ""), build)


class _Ends:
    """What spans of a row leave of one workgroup's heads: in each span's part of ``state``, for each query head."""

    def __init__(self, h: Heads, state: Buffer, own: Expr, first: Expr, low: Expr, last: Expr) -> None:
        """``own``: where the row's first span begins; ``first``: query head; ``low``, ``last``: spans."""
        self.h, self.state, self.own, self.first, self.low, self.last = h, state, own, first, low, last
        self.heads, self.threads = heads_at_once(h), threads_of(h)

    def _at(self, span: Expr, j: Expr) -> Expr:
        return let(self.own + span * _span_words(self.h) + (self.first + j) * (self.h.dim + 2))

    def put(self, span: Expr, j: Expr, quad: Expr, value: Expr, largest: Expr, total: Expr) -> None:
        at = self._at(span, j)
        for i in range(4):
            self._store(at + quad * 4 + i, lane(value, i))
        with when(quad == 0):
            self._store(at + self.h.dim, largest)
            self._store(at + (self.h.dim + 1), total)

    def _store(self, at: Expr, value: Expr) -> None:
        word = let(bits("uint32", value) ^ u32(_NAN))
        T.evaluate(atomic("void", "Store", self.state[at], tirx.Max(word, u32(1))))

    @contextmanager
    def _units(self, t: Expr, skip: Expr) -> Iterator[tuple[Expr, Expr]]:
        """Of this thread: (head, four of its dimensions)."""
        quads = self.h.dim // 4
        with loop(-(-self.heads * quads // self.threads)) as turn:
            unit = let(turn * self.threads + t)
            j = let(unit // quads)
            with when(tirx.all(j < self.heads, j >= skip)):
                yield j, let(unit % quads)

    def merge(self, t: Expr, skip: Expr, result: Callable[[Expr, Expr, Expr], None]) -> None:
        dim = self.h.dim
        with self._units(t, skip) as (j, quad):
            state = Merge()
            state.clear()
            words, tries = local(6 * _BATCH, "uint32"), local(2, "int32")
            store(tries, i32(_TRIES), 1)
            with loop((self.last - self.low + _BATCH) // _BATCH) as batch:
                first = let(self.low + batch * _BATCH)
                store(tries, i32(0), 0)
                with T.While(tirx.all(tries[0] == 0, tries[1] > 0)):
                    for i in range(_BATCH):
                        at = self._at(tirx.Min(first + i, self.last), j)
                        places = [*(at + quad * 4 + n for n in range(4)), at + dim, at + (dim + 1)]
                        for n, place in enumerate(places):
                            store(words, atomic("uint32", "Load", self.state[place]), 6 * i + n)
                    least = words[0]
                    for i in range(1, 6 * _BATCH):
                        least = tirx.Min(least, words[i])
                    store(tries, tirx.Select(least == u32(0), i32(0), i32(1)), 0)
                    store(tries, tries[1] - 1, 1)
                for i in range(_BATCH):
                    with when(first + i <= self.last):
                        value = [let(bits("float32", words[6 * i + n] ^ u32(_NAN))) for n in range(6)]
                        state.fold(value[4], value[5], let(vector(*value[:4])))
            result(j, quad, state.result())

    def clear(self, t: Expr, skip: Expr) -> None:
        with self._units(t, skip) as (j, quad), loop(self.last - self.low + 1) as i:
            at = self._at(self.low + i, j)
            for n in range(4):
                T.evaluate(atomic("void", "Store", self.state[at + quad * 4 + n], u32(0)))
            with when(quad == 0):
                for n in range(2):
                    T.evaluate(atomic("void", "Store", self.state[at + (self.h.dim + n)], u32(0)))


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
        # As little as one round of `gather` wants: drivers clear it in every workgroup, of masked spans too.
        self.room = max(self.heads * self.size, min(_POOL, 2 * self.chains * self.heads * self.octets))
        self.pool = a.workgroup(self.room, "float32x4")
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
                    words = keys_of([let(self.kv[keys + (pair + n) * (PAGE // 4)]) for n in range(step)])
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
        places = self._places()
        for unit in places:
            with when(unit < units):
                store(self.pool, self._scores(unit), unit)
        barrier()
        for unit in places:
            with when(unit < units):
                top = local(1, "float32x4")
                row = let(unit // self.quads * self.quads)
                store(top, self.pool[row], 0)
                with loop(self.quads, 1) as i:
                    store(top, tirx.Max(top[0], self.pool[row + i]), 0)
                self._leave_weights(unit, let(self.pool[unit]), _largest(let(top[0])))
        barrier()

    def _places(self) -> list[Expr]:
        """Which heads' which four tokens this thread weighs."""
        return [let(self.t + k * self.threads) for k in range(-(-self.heads * self.quads // self.threads))]

    def _scores(self, unit: Expr) -> Expr:
        """The shares of four tokens' scores together, float32x4."""
        total = self.pool[unit]
        for share in range(1, SHARES):
            total = total + self.pool[share * self.heads * self.quads + unit]
        token = let(self.start + unit % self.quads * 4)
        return masked(self.h, let(total), token, self.length, self.unseen)

    def _leave_weights(self, unit: Expr, scores: Expr, top: Expr) -> None:
        largest = exponent(top)
        store(self.pool, weights(scores, largest), self.heads * self.quads + unit)
        with when(unit % self.quads == 0):
            store(self.tops, largest, unit // self.quads)

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
        at_once = min(entries, self.room // (2 * self.chains))
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


class _SubgroupSpan(_Span):
    """The same, where threads see each other's registers."""

    def __init__(self, a: Args, h: Heads, *args: Any) -> None:
        super().__init__(a, h, *args)
        self.together = let(tirx.Min(cast("int32", a.subgroup_size()), i32(self.quads)))
        self.parts = a.workgroup(self.heads * self.quads, "float32")

    def weigh(self) -> None:
        units, places = self.heads * self.quads, self._places()
        scores, top = (local(len(places), dtype) for dtype in ("float32x4", "float32"))
        for k, unit in enumerate(places):
            store(top, f32(NEVER), k)
            with when(unit < units):
                store(scores, self._scores(unit), k)
                store(top, _largest(let(scores[k])), k)
            for distance in (1 << n for n in range(self.quads.bit_length() - 1)):
                with when(self.together > distance):
                    other = let(call("float32", "subgroupShuffleXor", top[k], u32(distance)))
                    store(top, tirx.Max(top[k], other), k)
            with when(unit < units):
                store(self.parts, top[k], unit)
        barrier()
        for k, unit in enumerate(places):
            with when(unit < units):
                row = let(unit // self.quads * self.quads)
                with loop(self.quads // self.together) as i:  # one, where a subgroup has room for a head
                    store(top, tirx.Max(top[k], self.parts[row + i * self.together]), k)
                self._leave_weights(unit, let(scores[k]), let(top[k]))
        barrier()


def _largest(v: Expr) -> Expr:
    """Of four lanes."""
    return let(tirx.Max(tirx.Max(lane(v, 0), lane(v, 1)), tirx.Max(lane(v, 2), lane(v, 3))))


__all__ = [
    "attention_spans", "clear_state", "heads_at_once", "page_words", "parts_of", "rope_append", "row_words", "spans",
    "spans_fit",
]  # fmt: skip
