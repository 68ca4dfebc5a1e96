"""Attention of many rows, in tiles (Dao et al., "FlashAttention", 2022): a workgroup takes the heads of some rows of a
sequence through its context, a tile of keys and then of values at a time in workgroup memory.

The arithmetic is `softmax`'s, so a row's bits are those that `attention` makes of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tvm import tirx

from inpage.errors import Unsupported

from ..shared.heads import PAGE, Heads
from .build import (
    Args,
    Buffer,
    Expr,
    barrier,
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
    store,
    u32,
    when,
)
from .pages import page_words, place_scalars, tables
from .softmax import (
    CHAIN,
    NEVER,
    SHARES,
    cleared,
    exponent,
    keys_of,
    masked,
    part_of,
    power,
    quotient,
    scored,
    span_of,
    step_of,
    values_of,
    weights,
)

_TILE_WORDS = 2048  # of keys, or of values: 8 KiB
_MANY = 16  # query heads: with fewer a workgroup takes fewer lines, so that a prompt is enough workgroups


@dataclass(frozen=True)
class Tile:
    """``lines``: query heads times rows of a workgroup; ``tokens``: of a tile; ``heads``: of a key head at once."""

    lines: int
    tokens: int
    heads: int
    threads: int

    @property
    def rows(self) -> int:
        return self.lines // self.heads


def tile_of(h: Heads) -> Tile:
    lines = 32 if h.heads >= _MANY else 16
    tokens = min(32, span_of(h))
    while tokens > PAGE and tokens * h.dim // 2 > _TILE_WORDS:
        tokens //= 2
    if tokens * h.dim // 2 > _TILE_WORDS:
        raise Unsupported(f"head_dim: {h.dim} is more than kernels for WebGPU take", field="head_dim")
    # Of two lines a thread has scores, of four at most their values.
    threads = lines * max(4, -(-h.dim // 32))
    return Tile(lines, tokens, -(-h.shared // -(-h.shared // lines)), threads)


@cache
def attention(h: Heads, dtype: str) -> tirx.PrimFunc:
    """(q, positions, row_sequence, block_tables, kv, rows[, first, window] → y): y[rows, `Heads.columns`].

    Neighbouring rows of one sequence share what is read; a workgroup with rows of several takes one after another."""
    tile = tile_of(h)
    parts = -(-h.shared // tile.heads)
    each, wide = h.kv_heads * parts, h.columns // 4

    def build(a: Args) -> None:
        q = a.buffer("q", f"{dtype}x{2 * step_of(h)}", "x")  # only read, but it lies in the arena that is written
        positions, row_sequence, block_tables = tables(a)
        kv = a.buffer("kv", "uint32x4")
        rows = a.scalar("rows")
        column, window = place_scalars(a, h)
        y = a.buffer("y", f"{dtype}x4", "w")
        with a.workgroups(each, ["ceildiv", "rows", tile.rows], tile.threads) as (unit, by, t):
            head, part, skip = part_of(h, unit, tile.heads)
            first, end = let(by * tile.rows), let(tirx.Min((by + 1) * tile.rows, rows))
            body = _Tiles(a, h, tile, q, kv, block_tables, y, let(head * h.shared + part), head, t, first,
                          let(end - first - 1), skip)  # fmt: skip
            reach = local(2, "int32")  # rows of the sequence, and tokens that the last of them sees
            with loop(end - first) as lead:
                sequence = let(row_sequence[first + lead])
                before = let(row_sequence[tirx.Max(first + lead - 1, 0)])
                with when(tirx.any(lead == 0, before != sequence)):
                    store(reach, i32(0), 0)
                    store(reach, i32(0), 1)
                    low = local(1, "int32")  # the first token that any of them sees
                    store(low, positions[first + lead] + 1, 0)
                    with loop(end - first - lead) as i:
                        row = let(first + lead + i)
                        with when(tirx.all(reach[0] == i, row_sequence[row] == sequence)):
                            store(reach, i + 1, 0)
                            store(reach, tirx.Max(reach[1], positions[row] + 1), 1)
                            store(low, tirx.Min(low[0], positions[row] + 1), 0)
                    count = let(reach[0])
                    with when(t < tile.rows):
                        mine = tirx.all(t >= lead, t < lead + count)
                        row = let(tirx.Min(first + t, rows - 1))
                        store(body.lengths, tirx.Select(mine, positions[row] + 1, 0), t)
                    barrier()
                    table = let(sequence * h.columns_of_table + column)
                    body.walk(table, let(reach[1]), window, let(low[0] - window) if h.grouped else None)
            rest = wide - h.heads * h.dim // 4
            if rest:
                with loop(-(-rest * tile.rows // tile.threads)) as turn:
                    place = let(turn * tile.threads + t)
                    row = let(first + place // rest)
                    with when(tirx.all(unit == each - 1, row < end)):
                        at = row * wide + h.heads * h.dim // 4 + place % rest
                        store(y, cast(f"{dtype}x4", splat(0.0)), at)

    return kernel(f"attention_{h.label}", build)


class _Tiles:
    """A workgroup's way through the context of one sequence. A line is one query head of one row: line i is head
    i % `Tile.heads` of row i // `Tile.heads`."""

    def __init__(
        self, a: Args, h: Heads, tile: Tile, q: Buffer, kv: Buffer, block_tables: Buffer, y: Buffer, query_head: Expr,
        head: Expr, t: Expr, first: Expr, last: Expr, skip: Expr,
    ) -> None:  # fmt: skip
        """``query_head``: the first one; ``first``: row; ``last``: the last one's number from there on; ``skip``: heads
        that another workgroup leaves."""
        self.last, self.skip = last, skip
        self.h, self.tile, self.q, self.kv, self.block_tables, self.y, self.t = h, tile, q, kv, block_tables, y, t
        self.query_head, self.head, self.first = query_head, head, first
        self.used = tile.rows * tile.heads
        self.quads, self.octets = tile.tokens // 4, h.dim // 8
        self.stride = self.quads + 1  # of a line's weights: of threads that read one each, no two meet a bank
        self.memory = a.workgroup(tile.tokens * h.dim // 8, "uint32x4")
        self.weights = a.workgroup(tile.lines * self.stride, "float32x4")
        self.largest = a.workgroup(tile.lines, "float32")
        self.scale = a.workgroup(tile.lines, "float32")
        self.lengths = a.workgroup(tile.rows, "int32")
        # Of the scores a thread has four tokens' of a line, or of several; of the values eight dimensions.
        self.groups = tile.threads // self.octets
        self.own = -(-tile.lines // self.groups)
        self.tops = tile.threads // self.quads

    def walk(self, table: Expr, reach: Expr, window: Expr, unseen: Expr | None) -> None:
        """``reach``: the token that ends what is seen; ``unseen``: the first token that is. Leaves y of all rows with
        a length."""
        h, tile, t = self.h, self.tile, self.t
        with when(t < tile.lines):
            store(self.largest, f32(NEVER), t)
        self.sums, self.spans, self.chains = (cleared(2 * self.own) for _ in range(3))
        self.weight_sums, self.weight_spans, self.weight_chains = (cleared(self.own, "float32") for _ in range(3))
        skipped: Expr = 0 if unseen is None else let(tirx.Max(unseen, 0) // tile.tokens)
        with loop(let((reach + (tile.tokens - 1)) // tile.tokens), skipped) as number:
            start = let(number * tile.tokens)
            self._load(table, start, reach, unseen, values=False)
            barrier()
            scores = self._score(start, window if unseen is not None else None)
            barrier()
            self._find_largest()
            self._load(table, start, reach, unseen, values=True)
            barrier()
            self._weigh(scores)
            barrier()
            self._add()
            with when((number + 1) * tile.tokens % span_of(h) == 0):
                self._end_span()
            barrier()
        self._end_span()
        self._leave()
        barrier()

    def _load(self, table: Expr, start: Expr, reach: Expr, unseen: Expr | None, *, values: bool) -> None:
        """Keys [pair of dimensions][four tokens], or values [token][eight dimensions], 0 where they are masked."""
        h, tile, t = self.h, self.tile, self.t
        count = tile.tokens * h.dim // 8
        pairs, quads = h.dim // 2, self.quads
        for turn in range(-(-count // tile.threads)):
            unit = let(t + turn * tile.threads)
            with when(unit < count):
                # Keys are read in the order that they have in a page, so that neighbours read what is side by side.
                within = unit if values else let(unit % (pairs * 4))
                page = let(unit // (pairs * 4))
                token = let(start + unit // self.octets if values else start + page * PAGE + unit % 4 * 4)
                first = token if values else let(start + page * PAGE)
                seen = first < reach
                if unseen is not None:
                    seen = tirx.all(seen, first + (1 if values else PAGE) > unseen)
                place = unit if values else let(within // 4 * quads + page * 4 + within % 4)
                store(self.memory, splat(u32(0)), place)
                with when(seen):
                    base = let(self.block_tables[table + token // PAGE] * (page_words(h) // 4))
                    if values:
                        at = page_words(h) // 8 + self.head * (self.octets * PAGE) + token % PAGE * self.octets
                        at = at + unit % self.octets
                    else:
                        at = self.head * (pairs * PAGE // 4) + within
                    store(self.memory, self.kv[base + at], place)

    def _lines(self, groups: int, of: int) -> list[Expr]:
        """The lines of a thread, where ``groups`` of them take one each at a time and ``of`` threads share one."""
        return [let(self.t // of + n * groups) for n in range(-(-self.tile.lines // groups))]

    def _score(self, start: Expr, window: Expr | None) -> list[Expr]:
        """Scores of four tokens with each line of the thread, left in the workgroup's memory as well."""
        h, tile, step = self.h, self.tile, step_of(self.h)
        pairs, quad, out = h.dim // 2, let(self.t % self.quads), []
        lines = self._lines(self.tops, self.quads)
        count = len(lines)
        totals, parts = cleared(count), local(count, "float32x4")
        queries = [self._query(line) for line in lines]
        with loop(SHARES) as share:
            for n in range(count):
                store(parts, splat(0.0), n)
            first = let(share * (pairs // SHARES))
            with loop(pairs // SHARES // step) as i:
                pair = let(first + i * step)
                keys = keys_of([let(self.memory[(pair + n) * self.quads + quad]) for n in range(step)])
                for n, query in enumerate(queries):
                    value = let(cast(f"float32x{2 * step}", self.q[query + pair // step]))
                    store(parts, scored(keys, value, parts[n]), n)
            for n in range(count):
                store(totals, totals[n] + parts[n], n)
        for n, line in enumerate(lines):
            length = let(self.lengths[tirx.Min(line, self.used - 1) // tile.heads])
            unseen = None if window is None else let(length - window)
            scores = masked(h, let(totals[n]), let(start + quad * 4), length, unseen)
            with when(line < tile.lines):
                store(self.weights, scores, line * self.stride + quad)
            out.append(scores)
        return out

    def _query(self, line: Expr) -> Expr:
        """Where a line's query begins; that of the last one for lines that are none."""
        h, tile = self.h, self.tile
        line = let(tirx.Min(line, self.used - 1))
        row = let(self.first + tirx.Min(line // tile.heads, self.last))
        return let((row * h.heads + self.query_head + line % tile.heads) * (h.dim // (2 * step_of(h))))

    def _find_largest(self) -> None:
        """M of each line after this tile, and what its sums are scaled by for it."""
        with when(self.t < self.tile.lines):
            top = local(1, "float32x4")
            row = let(self.t * self.stride)
            store(top, self.weights[row], 0)
            with loop(self.quads, 1) as i:
                store(top, tirx.Max(top[0], self.weights[row + i]), 0)
            v, before = let(top[0]), let(self.largest[self.t])
            most = let(tirx.Max(tirx.Max(lane(v, 0), lane(v, 1)), tirx.Max(lane(v, 2), lane(v, 3))))
            after = let(tirx.Max(before, exponent(most)))
            store(self.scale, power(let(before - after)), self.t)
            store(self.largest, after, self.t)

    def _weigh(self, scores: list[Expr]) -> None:
        quad = let(self.t % self.quads)
        for line, score in zip(self._lines(self.tops, self.quads), scores, strict=True):
            with when(line < self.tile.lines):
                store(self.weights, weights(score, let(self.largest[line])), line * self.stride + quad)

    def _add(self) -> None:
        octet = let(self.t % self.octets)
        lines = [let(tirx.Min(line, self.tile.lines - 1)) for line in self._lines(self.groups, self.octets)]
        for n, line in enumerate(lines):
            scale = let(self.scale[line])
            for sums in (self.sums, self.spans):
                for k in range(2):
                    store(sums, sums[2 * n + k] * splat(scale), 2 * n + k)
            for totals in (self.weight_sums, self.weight_spans):
                store(totals, totals[n] * scale, n)
        with loop(self.tile.tokens // CHAIN) as chain:
            for n in range(self.own):
                for k in range(2):
                    store(self.chains, splat(0.0), 2 * n + k)
                store(self.weight_chains, f32(0.0), n)
            with loop(CHAIN // 4) as four:
                quad = let(chain * (CHAIN // 4) + four)
                es = [let(self.weights[line * self.stride + quad]) for line in lines]
                for token in range(4):
                    v = values_of(let(self.memory[(quad * 4 + token) * self.octets + octet]))
                    for n, e in enumerate(es):
                        for k in range(2):
                            total = madd(v[k], splat(lane(e, token)), self.chains[2 * n + k])
                            store(self.chains, total, 2 * n + k)
                        store(self.weight_chains, self.weight_chains[n] + lane(e, token), n)
            for n in range(self.own):
                for k in range(2):
                    store(self.spans, self.spans[2 * n + k] + self.chains[2 * n + k], 2 * n + k)
                store(self.weight_spans, self.weight_spans[n] + self.weight_chains[n], n)

    def _end_span(self) -> None:
        for n in range(self.own):
            for k in range(2):
                store(self.sums, self.sums[2 * n + k] + self.spans[2 * n + k], 2 * n + k)
                store(self.spans, splat(0.0), 2 * n + k)
            store(self.weight_sums, self.weight_sums[n] + self.weight_spans[n], n)
            store(self.weight_spans, f32(0.0), n)

    def _leave(self) -> None:
        h, tile, octet = self.h, self.tile, let(self.t % self.octets)
        dtype = str(self.y.dtype)
        for n, line in enumerate(self._lines(self.groups, self.octets)):
            row = let(line // tile.heads)
            with when(tirx.all(self.t < self.groups * self.octets, line < self.used)):
                with when(tirx.all(self.lengths[row] > 0, line % tile.heads >= self.skip)):
                    at = let((self.first + row) * (h.columns // 4)
                             + (self.query_head + line % tile.heads) * (h.dim // 4) + octet * 2)  # fmt: skip
                    for k in range(2):
                        value = quotient(let(self.sums[2 * n + k]), let(self.weight_sums[n]))
                        store(self.y, cast(dtype, value), at + k)


__all__ = ["Tile", "attention", "tile_of"]
