"""The softmax of one query's context, chunk by chunk.

Order of sums: a query's context is cut into chunks of ``CHUNK`` tokens from position 0; each chunk gets its own
softmax (maximum, sum, weighted values), and chunks are merged in order (Milakov & Gimelshein, "Online normalizer
calculation for softmax", 2018). It depends on the query's position alone: not on the batch, the prefill's chunks, or
who shares a page.

Query heads that share a key head are made side by side, `heads_at_once`, each by itself: how many changes no bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tvm import tirx

from ..shared.expressions import Buffer, Expr, f32, let, loop, store, when
from ..shared.heads import CHUNK, PAGE, Heads
from ..shared.packed import GROUP
from .build import Args, divide_up, local, span, splat, vector, view
from .isa import Isa
from .math import F16_SCALE, exp, f16_shifted, soft_cap
from .pages import place_scalars, tables
from .quantize import horizontal_max, horizontal_sum, lanes_of, store_group

_NEVER = -1e30  # a score that no softmax gives weight to
_HEADS = 8  # side by side at most: more do not fit into registers, and each unrolls the code once more
_VALUES = 4096  # of them together at most: two sums of each lie on the stack, which is 64 KiB in the page
_UNROLLED = 8  # groups that are stored one after another; more, in a loop, compile in a tenth of the time


def heads_at_once(h: Heads) -> int:
    """Query heads of one iteration: the key head's, in as many parts of a size as it takes."""
    return -(-h.shared // parts_of(h))


def parts_of(h: Heads) -> int:
    """Iterations of one key head."""
    return -(-h.shared // max(1, min(_HEADS, _VALUES // h.dim)))


def whole_groups(h: Heads) -> bool:
    """Whether what an iteration makes is whole groups, so that it can be stored quantized. Else attention leaves
    float32."""
    at_once = heads_at_once(h)
    return h.dim % GROUP == 0 or (h.shared % at_once == 0 and at_once * h.dim % GROUP == 0)


@dataclass(frozen=True)
class Part:
    """The query heads of one iteration: `heads_at_once` of them from ``first`` on, which read key head ``head``. The
    ``skip`` first ones are the part's before as well, where the heads do not divide evenly; that part stores them."""

    head: Expr
    first: Expr
    skip: Expr

    @classmethod
    def of(cls, h: Heads, unit: Expr) -> Part:
        """``unit``: below kv_heads · `parts_of`."""
        parts, at_once = parts_of(h), heads_at_once(h)
        if parts == 1:
            return cls(unit, unit * h.shared, 0)
        head, start = let(unit // parts), let(unit % parts * at_once)
        if h.shared % at_once == 0:
            return cls(head, let(head * h.shared + start), 0)
        moved = let(tirx.Min(start, h.shared - at_once))
        return cls(head, let(head * h.shared + moved), let(start - moved))

    @contextmanager
    def own(self, j: int) -> Iterator[None]:
        """Where head ``j`` of the part is this part's to store."""
        if isinstance(self.skip, int):
            yield
        else:
            with when(self.skip <= j):
                yield


def chunk_count(length: Expr) -> Expr:
    """Of a context of so many tokens."""
    return divide_up(length, CHUNK)


def first_chunk_of(h: Heads, length: Expr, window: Expr) -> Expr:
    """The chunk with the first token that a query sees, the last of ``length``."""
    return let(tirx.Max(length - window, 0) // CHUNK) if h.grouped else 0


class Inputs:
    """What attention reads, declared in the order of its kernels' arguments: the queries, where each row stands and
    whose it is, the pages, and the layer's `Place`."""

    def __init__(self, a: Args, h: Heads) -> None:
        self.n = tirx.Var("rows", "int64")
        self.q = a.buffer("q", (self.n, h.heads * h.dim), "float32")
        self.positions, self.row_sequence, self.block_tables = tables(a, h, self.n)
        self.kv = a.buffer("kv", (h.pages, h.page_halves), "int16")
        self.rows = a.count("rows", self.n)
        self.layer, self.column, self.window = place_scalars(a, h)
        self._heads, self._halves = h, h.pages * h.page_halves

    def halves(self) -> Buffer:
        """The pages by number of a half. To be asked for when all arguments are declared."""
        return view(self.kv, "int16", self._halves)

    def first_chunk(self, length: Expr) -> Expr:
        return first_chunk_of(self._heads, length, self.window)

    def pages(self, length: Expr) -> Expr:
        """How many pages a query reads, the last of ``length`` tokens; with a window, about."""
        return divide_up(tirx.Min(length, self.window) if self._heads.grouped else length, PAGE)


class State:
    """Per-iteration scratch for ``heads`` query heads: a chunk's weights and sums, and each head's running softmax."""

    def __init__(self, heads: int, dim: int) -> None:
        self.heads, self.dim = heads, dim
        vectors = heads * dim // 4
        self.weights = local(heads * CHUNK, "float32")
        self.chunk = local(vectors, "float32x4")
        self.out = local(vectors, "float32x4")
        self.maximum = local(heads, "float32")
        self.total = local(heads, "float32")
        self.chunk_maximum = local(heads, "float32")
        self.chunk_total = local(heads, "float32")
        self.scratch = local(heads, "float32")

    def clear(self) -> None:
        with loop(self.heads * self.dim // 4) as i:
            store(self.out, splat(0.0), i)
        for j in range(self.heads):
            store(self.maximum, f32(_NEVER), j)
            store(self.total, f32(0.0), j)


def attend(
    isa: Isa, h: Heads, s: State, x: Inputs, kv: Buffer, row: Expr, sequence: Expr, part: Part, length: Expr,
    chunk: Expr,
) -> None:  # fmt: skip
    """The softmax of one chunk: s.chunk, s.chunk_maximum, s.chunk_total."""
    start = let(chunk * CHUNK)
    count = let(tirx.Min(length - start, CHUNK))
    pages = let(divide_up(count, PAGE))
    # Tokens that fell out of the window: of a page that has others too they get no weight; a page of them alone is not
    # read, and may be another sequence's by now.
    unseen = let(tirx.Max(length - x.window - start, 0)) if h.grouped else 0
    first_page = let(unseen // PAGE) if h.grouped else 0
    with loop(pages, first_page) as p:
        page = let(x.block_tables[sequence, start // PAGE + p + x.column])
        _scores(isa, s, x.q, row, part.first, kv, let(h.keys(page, x.layer, part.head)), p)
    _softmax(isa, s, h.cap, count, pages, unseen, first_page)
    with loop(pages, first_page) as p:
        page = let(x.block_tables[sequence, start // PAGE + p + x.column])
        tokens = let(tirx.Min(count - p * PAGE, PAGE))
        _weigh(isa, s, kv, let(h.values(page, x.layer, part.head)), p, tokens)


def merge(isa: Isa, s: State) -> None:
    """Fold the chunk into the running softmax."""
    for j in range(s.heads):
        maximum = let(tirx.Max(s.maximum[j], s.chunk_maximum[j]))
        both = vector([s.maximum[j] - maximum, s.chunk_maximum[j] - maximum, f32(0.0), f32(0.0)])
        factors = let(exp(isa, let(both)))
        old, new = (let(lane) for lane in lanes_of(factors)[:2])
        store(s.total, s.total[j] * old + s.chunk_total[j] * new, j)
        store(s.maximum, maximum, j)
        with loop(s.dim // 4) as i:
            at = let(j * (s.dim // 4) + i)
            store(s.out, isa.madd(s.chunk[at], splat(new), s.out[at] * splat(old)), at)


def finish(isa: Isa, h: Heads, form: str, s: State, y: Buffer, y_scales: Buffer | None, row: Expr, part: Part) -> None:
    """Divide by the sums, and store the part's heads in the next layer's form; after the last one the row's rest."""
    for j in range(s.heads):
        store(s.scratch, f32(1.0) / s.total[j], j)
    if not whole_groups(h):
        if form != "f32":
            raise ValueError(f"{h.shared} heads of {h.dim} on a key head are no whole groups: float32, not {form}")
        _finish_floats(h, s, y, row, part)
        return
    first = let(part.first * h.dim // GROUP)
    groups, each = s.heads * s.dim // GROUP, s.dim // GROUP
    if s.dim % GROUP == 0 and groups > _UNROLLED:
        for j in range(s.heads):
            with part.own(j), loop(each) as group:
                made = [let(s.out[(j * each + group) * 8 + i] * splat(s.scratch[j])) for i in range(8)]
                store_group(isa, form, made, y, y_scales, row, first + (j * each + group))
        return
    for group in range(groups):
        with part.own(group * GROUP // s.dim):
            made = []
            for i in range(8):
                at = group * GROUP + i * 4
                made.append(let(s.out[at // 4] * splat(s.scratch[at // s.dim])))
            store_group(isa, form, made, y, y_scales, row, first + group)


def _finish_floats(h: Heads, s: State, y: Buffer, row: Expr, part: Part) -> None:
    for j in range(s.heads):
        first = let((part.first + j) * h.dim)
        with part.own(j), loop(h.dim // 4) as i:
            store(y, s.out[j * (h.dim // 4) + i] * splat(s.scratch[j]), row, span(first + i * 4))
    width = h.heads * h.dim
    if h.columns > width:
        with when(part.first + s.heads == h.heads), loop((h.columns - width) // 4) as i:
            store(y, splat(0.0), row, span(width + i * 4))


def _scores(isa: Isa, s: State, q: Buffer, row: Expr, first: Expr, kv: Buffer, keys: Expr, page: Expr) -> None:
    """weights[head][token] = q · k for the 16 tokens of a page, eight at a time."""
    for half in range(2):
        acc = local(s.heads * 2, "float32x4")
        for i in range(s.heads * 2):
            store(acc, splat(0.0), i)
        with loop(s.dim) as d:
            k = [let(f16_shifted(kv[span(keys + d * PAGE + half * 8 + i * 4)])) for i in range(2)]
            for j in range(s.heads):
                one = let(splat(q[row, (first + j) * s.dim + d]))
                for i in range(2):
                    store(acc, isa.madd(one, k[i], acc[j * 2 + i]), j * 2 + i)
        for j in range(s.heads):
            for i in range(2):
                store(s.weights, acc[j * 2 + i], span(j * CHUNK + page * PAGE + half * 8 + i * 4))


def _softmax(isa: Isa, s: State, cap: float, count: Expr, pages: Expr, unseen: Expr, first_page: Expr) -> None:
    """weights → e^(score - maximum) · 2^112, 0 before ``unseen`` and past ``count``; chunk_maximum, chunk_total."""
    for j in range(s.heads):
        top = local(1, "float32x4")
        store(top, splat(_NEVER), 0)
        with loop(pages * (PAGE // 4), first_page * (PAGE // 4)) as i:
            at = span(j * CHUNK + i * 4)
            lane = tirx.Ramp(i * 4, 1, 4)
            score = let(soft_cap(isa, s.weights[at], cap)) if cap else s.weights[at]
            masked = let(tirx.Select(lane < splat(count, 4), score, splat(_NEVER)))
            if not isinstance(unseen, int):
                masked = let(tirx.Select(lane < splat(unseen, 4), splat(_NEVER), masked))
            store(s.weights, masked, at)
            store(top, tirx.Max(top[0], masked), 0)
        maximum = let(horizontal_max(let(top[0])))
        store(s.chunk_maximum, maximum, j)
        store(top, splat(0.0), 0)
        with loop(pages * (PAGE // 4), first_page * (PAGE // 4)) as i:
            at = span(j * CHUNK + i * 4)
            e = let(exp(isa, s.weights[at] - splat(maximum)))
            store(s.weights, e * splat(F16_SCALE), at)
            store(top, top[0] + e, 0)
        store(s.chunk_total, horizontal_sum(let(top[0])), j)
    with loop(s.heads * s.dim // 4) as i:
        store(s.chunk, splat(0.0), i)


def _weigh(isa: Isa, s: State, kv: Buffer, values: Expr, page: Expr, tokens: Expr) -> None:
    """chunk[head][dim] += weight · value over the tokens of a page, eight dimensions at a time."""
    with loop(s.dim // 8) as tile:
        acc = local(s.heads * 2, "float32x4")
        for j in range(s.heads):
            for i in range(2):
                store(acc, s.chunk[j * (s.dim // 4) + tile * 2 + i], j * 2 + i)
        with loop(tokens) as t:
            v = [let(f16_shifted(kv[span(values + t * s.dim + tile * 8 + i * 4)])) for i in range(2)]
            for j in range(s.heads):
                one = let(splat(s.weights[j * CHUNK + page * PAGE + t]))
                for i in range(2):
                    store(acc, isa.madd(one, v[i], acc[j * 2 + i]), j * 2 + i)
        for j in range(s.heads):
            for i in range(2):
                store(s.chunk, acc[j * 2 + i], j * (s.dim // 4) + tile * 2 + i)
