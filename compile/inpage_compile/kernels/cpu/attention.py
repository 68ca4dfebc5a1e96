"""Rotary positions, the append to KV pages, and attention over pages.

A page holds ``PAGE`` tokens of every layer, as 16-bit halves: for each layer first the keys, [kv head][dim][token], so
that a vector holds one dimension of neighbouring tokens, then the values, [kv head][token][dim].

Order of sums: a query's context is cut into chunks of ``CHUNK`` tokens from position 0; each chunk gets its own
softmax (maximum, sum, weighted values), and chunks are merged in order (Milakov & Gimelshein, "Online normalizer
calculation for softmax", 2018). It depends on the query's position alone: not on the batch, the prefill's chunks, or
who shares a page.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from tvm import tirx

from .build import (
    Args,
    Buffer,
    Expr,
    f32,
    kernel,
    let,
    local,
    loop,
    parallel,
    share,
    span,
    splat,
    store,
    view,
)
from .isa import Isa
from .math import F16_SCALE, exp, f16_encode, f16_shifted
from .quantize import FORM_DTYPE, GROUP, horizontal_max, horizontal_sum, lanes_of, store_group

PAGE = 16
CHUNK = 64
_NEVER = -1e30  # a score that no softmax gives weight to


@dataclass(frozen=True)
class Heads:
    """``pages``: how many pages the KV buffer is declared with; ``blocks``: columns of the block table."""

    heads: int
    kv_heads: int
    dim: int
    layers: int
    pages: int
    sequences: int
    blocks: int

    @property
    def shared(self) -> int:
        """Query heads that read the same keys."""
        return self.heads // self.kv_heads

    @property
    def chunks(self) -> int:
        """Of a whole context."""
        return -(-self.blocks * PAGE // CHUNK)

    @property
    def layer_halves(self) -> int:
        return 2 * self.kv_heads * self.dim * PAGE

    @property
    def page_halves(self) -> int:
        return self.layers * self.layer_halves

    def keys(self, page: Expr, layer: Expr, head: Expr) -> Expr:
        return page * self.page_halves + layer * self.layer_halves + head * (self.dim * PAGE)

    def values(self, page: Expr, layer: Expr, head: Expr) -> Expr:
        return self.keys(page, layer, head) + self.kv_heads * self.dim * PAGE


def _tables(a: Args, h: Heads, n: Expr) -> tuple[Buffer, Buffer, Buffer]:
    return (
        a.buffer("positions", (n,), "int32"),
        a.buffer("row_sequence", (n,), "int32"),
        a.buffer("block_tables", (h.sequences, h.blocks), "int32"),
    )


@cache
def rope_append(isa: Isa, h: Heads) -> tirx.PrimFunc:
    """(qkv, table, positions, row_sequence, block_tables, kv, rows, layer → q).

    Rotates queries and keys pairwise by ``table`` (cos, sin), stores keys and values into their pages (``kv``, in
    place), and queries into q[rows, heads · dim], times 1/√dim and the halves' 2^112."""
    width = (h.heads + 2 * h.kv_heads) * h.dim
    factor = f32(h.dim**-0.5 * F16_SCALE)

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        qkv = a.buffer("qkv", (n, width), "float32")
        table = a.buffer("table", (n, h.dim // 2, 2), "float32")
        positions, row_sequence, block_tables = _tables(a, h, n)
        kv = a.buffer("kv", (h.pages, h.page_halves), "int16", in_place=True)
        rows = a.count("rows", n)
        layer = a.scalar("layer")
        q = a.buffer("q", (n, h.heads * h.dim), "float32")
        halves = view(kv, "int16", h.pages * h.page_halves)
        with parallel(rows * h.kv_heads) as unit:
            row, head = let(unit // h.kv_heads), let(unit % h.kv_heads)
            position = let(positions[row])
            page, slot = let(block_tables[row_sequence[row], position // PAGE]), let(position % PAGE)
            keys, values = let(h.keys(page, layer, head)), let(h.values(page, layer, head))
            for j in range(h.shared):
                first = let((head * h.shared + j) * h.dim)
                with loop(h.dim // 2) as i:
                    even, odd = _rotated(qkv, table, row, first, i)
                    store(q, even * factor, row, first + i * 2)
                    store(q, odd * factor, row, first + i * 2 + 1)
            first = let((h.heads + head) * h.dim)
            with loop(h.dim // 4) as four:
                made: list[Expr] = []
                for i in range(2):
                    made += _rotated(qkv, table, row, first, four * 2 + i)
                packed = let(f16_encode(let(_vector(made))))
                for lane, one in enumerate(lanes_of(packed)):
                    store(halves, one, keys + (four * 4 + lane) * PAGE + slot)
            first = let((h.heads + h.kv_heads + head) * h.dim)
            with loop(h.dim // 4) as four:
                packed = let(f16_encode(let(qkv[row, span(first + four * 4)])))
                store(halves, packed, span(values + slot * h.dim + four * 4))

    return kernel(f"rope_append_{h.heads}_{h.kv_heads}_{h.dim}", build)


def _rotated(qkv: Buffer, table: Buffer, row: Expr, first: Expr, pair: Expr) -> tuple[Expr, Expr]:
    a, b = let(qkv[row, first + pair * 2]), let(qkv[row, first + pair * 2 + 1])
    c, s = let(table[row, pair, 0]), let(table[row, pair, 1])
    return a * c - b * s, a * s + b * c


def _vector(scalars: list[Expr]) -> Expr:
    return tirx.Shuffle(scalars, list(range(len(scalars))))


@cache
def attention(isa: Isa, h: Heads, form: str) -> tirx.PrimFunc:
    """(q, positions, row_sequence, block_tables, kv, rows, layer → y, [y_scales]): causal attention of each row over
    its sequence's pages up to its own position. One iteration: the query heads of one row that share a key head."""

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        q = a.buffer("q", (n, h.heads * h.dim), "float32")
        positions, row_sequence, block_tables = _tables(a, h, n)
        kv = a.buffer("kv", (h.pages, h.page_halves), "int16")
        rows = a.count("rows", n)
        layer = a.scalar("layer")
        y = a.buffer("y", (n, h.heads * h.dim), FORM_DTYPE[form])
        y_scales = None if form == "f32" else a.buffer("y_scales", (n, h.heads * h.dim // GROUP, 2), "float32")
        halves = view(kv, "int16", h.pages * h.page_halves)
        with parallel(rows * h.kv_heads) as unit:
            row, head = let(unit // h.kv_heads), let(unit % h.kv_heads)
            sequence, length = let(row_sequence[row]), let(positions[row] + 1)
            state = _State(h)
            state.clear()
            with loop(_chunks(length)) as chunk:
                _chunk(isa, h, state, q, block_tables, halves, layer, row, sequence, head, length, chunk)
                _merge(isa, h, state)
            _finish(isa, form, state, y, y_scales, row, let(head * (h.shared * h.dim // GROUP)))

    return kernel(f"attention_{form}_{h.heads}_{h.kv_heads}_{h.dim}", build)


def _chunks(length: Expr) -> Expr:
    return (length + (CHUNK - 1)) // CHUNK


def _chunk(
    isa: Isa, h: Heads, s: _State, q: Buffer, tables: Buffer, kv: Buffer, layer: Expr, row: Expr, sequence: Expr,
    head: Expr, length: Expr, chunk: Expr,
) -> None:  # fmt: skip
    """The softmax of one chunk: s.chunk, s.chunk_maximum, s.chunk_total."""
    start = let(chunk * CHUNK)
    count = let(tirx.Min(length - start, CHUNK))
    pages = let((count + (PAGE - 1)) // PAGE)
    with loop(pages) as p:
        page = let(tables[sequence, start // PAGE + p])
        _scores(isa, h, s, q, row, head, kv, let(h.keys(page, layer, head)), p)
    _softmax(isa, h, s, count, pages)
    with loop(pages) as p:
        page = let(tables[sequence, start // PAGE + p])
        tokens = let(tirx.Min(count - p * PAGE, PAGE))
        _weigh(isa, h, s, kv, let(h.values(page, layer, head)), p, tokens)


@cache
def attention_chunks(isa: Isa, h: Heads) -> tirx.PrimFunc:
    """(q, positions, row_sequence, block_tables, kv, rows, layer → parts, sums): the first half of `attention` for few
    rows, split by chunk as well as by head: parts[row, chunk, head, dim] and sums[row, chunk, head, (maximum, total)].
    `attention_merge` is the other half; the two do what `attention` does, in the same order."""
    vectors = h.dim // 4

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        q = a.buffer("q", (n, h.heads * h.dim), "float32")
        positions, row_sequence, block_tables = _tables(a, h, n)
        kv = a.buffer("kv", (h.pages, h.page_halves), "int16")
        rows = a.count("rows", n)
        layer = a.scalar("layer")
        parts = a.buffer("parts", (n, h.chunks, h.heads * h.dim), "float32")
        sums = a.buffer("sums", (n, h.chunks, h.heads, 2), "float32")
        halves = view(kv, "int16", h.pages * h.page_halves)
        units = local(1, "int32")
        store(units, 0, 0)
        with loop(rows) as row:
            store(units, units[0] + _chunks(positions[row] + 1) * h.kv_heads, 0)
        with share(units[0]) as (first, last):
            before = local(1, "int32")  # units of the rows before this one
            store(before, 0, 0)
            with loop(rows) as row:
                sequence, length = let(row_sequence[row]), let(positions[row] + 1)
                own = let(_chunks(length) * h.kv_heads)
                start = let(tirx.Max(first - before[0], 0))
                end = let(tirx.Min(last - before[0], own))
                with loop(tirx.Max(end - start, 0)) as i:
                    unit = let(start + i)
                    chunk, head = let(unit // h.kv_heads), let(unit % h.kv_heads)
                    state = _State(h)
                    _chunk(isa, h, state, q, block_tables, halves, layer, row, sequence, head, length, chunk)
                    with loop(h.shared * vectors) as v:
                        store(parts, state.chunk[v], row, chunk, span(head * (h.shared * h.dim) + v * 4))
                    for j in range(h.shared):
                        store(sums, state.chunk_maximum[j], row, chunk, head * h.shared + j, 0)
                        store(sums, state.chunk_total[j], row, chunk, head * h.shared + j, 1)
                store(before, before[0] + own, 0)

    return kernel(f"attention_chunks_{h.heads}_{h.kv_heads}_{h.dim}", build)


@cache
def attention_merge(isa: Isa, h: Heads, form: str) -> tirx.PrimFunc:
    """(parts, sums, positions, rows → y, [y_scales]): a row's chunks into one, in order, as `attention` does."""
    width = h.dim if h.dim % GROUP == 0 else h.shared * h.dim  # of what one iteration makes

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        parts = a.buffer("parts", (n, h.chunks, h.heads * h.dim), "float32")
        sums = a.buffer("sums", (n, h.chunks, h.heads, 2), "float32")
        positions = a.buffer("positions", (n,), "int32")
        rows = a.count("rows", n)
        y = a.buffer("y", (n, h.heads * h.dim), FORM_DTYPE[form])
        y_scales = None if form == "f32" else a.buffer("y_scales", (n, h.heads * h.dim // GROUP, 2), "float32")
        each = h.heads * h.dim // width
        with parallel(rows * each) as unit:
            row, first = let(unit // each), let(unit % each * (width // h.dim))
            state = _State(replace(h, heads=width // h.dim, kv_heads=1))
            state.clear()
            with loop(_chunks(positions[row] + 1)) as chunk:
                for j in range(width // h.dim):
                    store(state.chunk_maximum, sums[row, chunk, first + j, 0], j)
                    store(state.chunk_total, sums[row, chunk, first + j, 1], j)
                with loop(width // 4) as v:
                    store(state.chunk, parts[row, chunk, span(first * h.dim + v * 4)], v)
                _merge(isa, state.h, state)
            _finish(isa, form, state, y, y_scales, row, let(first * h.dim // GROUP))

    return kernel(f"attention_merge_{form}_{h.heads}_{h.kv_heads}_{h.dim}", build)


class _State:
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


def _scores(
    isa: Isa, h: Heads, s: _State, q: Buffer, row: Expr, head: Expr, kv: Buffer, keys: Expr, page: Expr
) -> None:
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


def _softmax(isa: Isa, h: Heads, s: _State, count: Expr, pages: Expr) -> None:
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


def _weigh(isa: Isa, h: Heads, s: _State, kv: Buffer, values: Expr, page: Expr, tokens: Expr) -> None:
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


def _merge(isa: Isa, h: Heads, s: _State) -> None:
    """Fold the chunk into the running softmax."""
    for j in range(h.shared):
        maximum = let(tirx.Max(s.maximum[j], s.chunk_maximum[j]))
        both = _vector([s.maximum[j] - maximum, s.chunk_maximum[j] - maximum, f32(0.0), f32(0.0)])
        factors = let(exp(isa, let(both)))
        old, new = (let(lane) for lane in lanes_of(factors)[:2])
        store(s.total, s.total[j] * old + s.chunk_total[j] * new, j)
        store(s.maximum, maximum, j)
        with loop(h.dim // 4) as i:
            at = let(j * (h.dim // 4) + i)
            store(s.out, isa.madd(s.chunk[at], splat(new), s.out[at] * splat(old)), at)


def _finish(isa: Isa, form: str, s: _State, y: Buffer, y_scales: Buffer | None, row: Expr, first: Expr) -> None:
    """Divide by the sums, and store from group ``first`` of the row on in the next layer's form."""
    for j in range(s.h.shared):
        store(s.scratch, f32(1.0) / s.total[j], j)
    for group in range(s.h.shared * s.h.dim // GROUP):
        made = []
        for i in range(8):
            at = group * GROUP + i * 4
            made.append(let(s.out[at // 4] * splat(s.scratch[at // s.h.dim])))
        store_group(isa, form, made, y, y_scales, row, first + group)


__all__ = ["CHUNK", "PAGE", "Heads", "attention", "attention_chunks", "attention_merge", "rope_append"]
