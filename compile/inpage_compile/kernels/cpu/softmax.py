"""The softmax of one query's context, chunk by chunk.

Order of sums: a query's context is cut into chunks of ``CHUNK`` tokens from position 0; each chunk gets its own
softmax (maximum, sum, weighted values), and chunks are merged in order (Milakov & Gimelshein, "Online normalizer
calculation for softmax", 2018). It depends on the query's position alone: not on the batch, the prefill's chunks, or
who shares a page.
"""

from __future__ import annotations

from tvm import tirx

from .build import Args, Buffer, Expr, divide_up, f32, let, local, loop, span, splat, store, vector, view
from .isa import Isa
from .math import F16_SCALE, exp, f16_shifted
from .pages import CHUNK, PAGE, Heads, tables
from .quantize import GROUP, horizontal_max, horizontal_sum, lanes_of, store_group

_NEVER = -1e30  # a score that no softmax gives weight to


def chunk_count(length: Expr) -> Expr:
    """Of a context of so many tokens."""
    return divide_up(length, CHUNK)


class Inputs:
    """What attention reads, declared in the order of its kernels' arguments: the queries, where each row stands and
    whose it is, the pages, and which layer of them."""

    def __init__(self, a: Args, h: Heads) -> None:
        self.n = tirx.Var("rows", "int64")
        self.q = a.buffer("q", (self.n, h.heads * h.dim), "float32")
        self.positions, self.row_sequence, self.block_tables = tables(a, h, self.n)
        self.kv = a.buffer("kv", (h.pages, h.page_halves), "int16")
        self.rows = a.count("rows", self.n)
        self.layer = a.scalar("layer")
        self._halves = h.pages * h.page_halves

    def halves(self) -> Buffer:
        """The pages by number of a half. To be asked for when all arguments are declared."""
        return view(self.kv, "int16", self._halves)


class State:
    """Per-iteration scratch: a chunk's weights and sums, and the running softmax of each query head."""

    def __init__(self, h: Heads) -> None:
        self.h = h
        vectors = h.shared * h.dim // 4
        self.weights = local(h.shared * CHUNK, "float32")
        self.chunk = local(vectors, "float32x4")
        self.out = local(vectors, "float32x4")
        self.maximum = local(h.shared, "float32")
        self.total = local(h.shared, "float32")
        self.chunk_maximum = local(h.shared, "float32")
        self.chunk_total = local(h.shared, "float32")
        self.scratch = local(h.shared, "float32")

    def clear(self) -> None:
        with loop(self.h.shared * self.h.dim // 4) as i:
            store(self.out, splat(0.0), i)
        for j in range(self.h.shared):
            store(self.maximum, f32(_NEVER), j)
            store(self.total, f32(0.0), j)


def attend(
    isa: Isa, s: State, x: Inputs, kv: Buffer, row: Expr, sequence: Expr, head: Expr, length: Expr, chunk: Expr
) -> None:
    """The softmax of one chunk: s.chunk, s.chunk_maximum, s.chunk_total."""
    h = s.h
    start = let(chunk * CHUNK)
    count = let(tirx.Min(length - start, CHUNK))
    pages = let(divide_up(count, PAGE))
    with loop(pages) as p:
        page = let(x.block_tables[sequence, start // PAGE + p])
        _scores(isa, h, s, x.q, row, head, kv, let(h.keys(page, x.layer, head)), p)
    _softmax(isa, h, s, count, pages)
    with loop(pages) as p:
        page = let(x.block_tables[sequence, start // PAGE + p])
        tokens = let(tirx.Min(count - p * PAGE, PAGE))
        _weigh(isa, h, s, kv, let(h.values(page, x.layer, head)), p, tokens)


def merge(isa: Isa, s: State) -> None:
    """Fold the chunk into the running softmax."""
    h = s.h
    for j in range(h.shared):
        maximum = let(tirx.Max(s.maximum[j], s.chunk_maximum[j]))
        both = vector([s.maximum[j] - maximum, s.chunk_maximum[j] - maximum, f32(0.0), f32(0.0)])
        factors = let(exp(isa, let(both)))
        old, new = (let(lane) for lane in lanes_of(factors)[:2])
        store(s.total, s.total[j] * old + s.chunk_total[j] * new, j)
        store(s.maximum, maximum, j)
        with loop(h.dim // 4) as i:
            at = let(j * (h.dim // 4) + i)
            store(s.out, isa.madd(s.chunk[at], splat(new), s.out[at] * splat(old)), at)


def finish(isa: Isa, form: str, s: State, y: Buffer, y_scales: Buffer | None, row: Expr, first: Expr) -> None:
    """Divide by the sums, and store from group ``first`` of the row on in the next layer's form."""
    for j in range(s.h.shared):
        store(s.scratch, f32(1.0) / s.total[j], j)
    for group in range(s.h.shared * s.h.dim // GROUP):
        made = []
        for i in range(8):
            at = group * GROUP + i * 4
            made.append(let(s.out[at // 4] * splat(s.scratch[at // s.h.dim])))
        store_group(isa, form, made, y, y_scales, row, first + group)


def _scores(isa: Isa, h: Heads, s: State, q: Buffer, row: Expr, head: Expr, kv: Buffer, keys: Expr, page: Expr) -> None:
    """weights[head][token] = q · k for the 16 tokens of a page, eight at a time."""
    for half in range(2):
        acc = local(h.shared * 2, "float32x4")
        for i in range(h.shared * 2):
            store(acc, splat(0.0), i)
        with loop(h.dim) as d:
            k = [let(f16_shifted(kv[span(keys + d * PAGE + half * 8 + i * 4)])) for i in range(2)]
            for j in range(h.shared):
                one = let(splat(q[row, (head * h.shared + j) * h.dim + d]))
                for i in range(2):
                    store(acc, isa.madd(one, k[i], acc[j * 2 + i]), j * 2 + i)
        for j in range(h.shared):
            for i in range(2):
                store(s.weights, acc[j * 2 + i], span(j * CHUNK + page * PAGE + half * 8 + i * 4))


def _softmax(isa: Isa, h: Heads, s: State, count: Expr, pages: Expr) -> None:
    """weights → e^(score - maximum) · 2^112, 0 past ``count``; chunk_maximum, chunk_total."""
    for j in range(h.shared):
        top = local(1, "float32x4")
        store(top, splat(_NEVER), 0)
        with loop(pages * (PAGE // 4)) as i:
            at = span(j * CHUNK + i * 4)
            lane = tirx.Ramp(i * 4, 1, 4)
            masked = let(tirx.Select(lane < splat(count, 4), s.weights[at], splat(_NEVER)))
            store(s.weights, masked, at)
            store(top, tirx.Max(top[0], masked), 0)
        maximum = let(horizontal_max(let(top[0])))
        store(s.chunk_maximum, maximum, j)
        store(top, splat(0.0), 0)
        with loop(pages * (PAGE // 4)) as i:
            at = span(j * CHUNK + i * 4)
            e = let(exp(isa, s.weights[at] - splat(maximum)))
            store(s.weights, e * splat(F16_SCALE), at)
            store(top, top[0] + e, 0)
        store(s.chunk_total, horizontal_sum(let(top[0])), j)
    with loop(h.shared * h.dim // 4) as i:
        store(s.chunk, splat(0.0), i)


def _weigh(isa: Isa, h: Heads, s: State, kv: Buffer, values: Expr, page: Expr, tokens: Expr) -> None:
    """chunk[head][dim] += weight · value over the tokens of a page, eight dimensions at a time."""
    with loop(h.dim // 8) as tile:
        acc = local(h.shared * 2, "float32x4")
        for j in range(h.shared):
            for i in range(2):
                store(acc, s.chunk[j * (h.dim // 4) + tile * 2 + i], j * 2 + i)
        with loop(tokens) as t:
            v = [let(f16_shifted(kv[span(values + t * h.dim + tile * 8 + i * 4)])) for i in range(2)]
            for j in range(h.shared):
                one = let(splat(s.weights[j * CHUNK + page * PAGE + t]))
                for i in range(2):
                    store(acc, isa.madd(one, v[i], acc[j * 2 + i]), j * 2 + i)
        for j in range(h.shared):
            for i in range(2):
                store(s.chunk, acc[j * 2 + i], j * (h.dim // 4) + tile * 2 + i)
