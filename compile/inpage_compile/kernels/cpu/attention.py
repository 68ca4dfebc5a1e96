"""Attention over KV pages: whole rows at once, or for few rows split by chunk of the context, in two kernels.

Both sum in the order that `softmax` tells."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from tvm import tirx

from .build import Args, kernel, let, local, loop, parallel, share, span, store
from .isa import Isa
from .pages import Heads
from .quantize import FORM_DTYPE, GROUP
from .softmax import Inputs, State, attend, chunk_count, finish, merge


@cache
def attention(isa: Isa, h: Heads, form: str) -> tirx.PrimFunc:
    """(q, positions, row_sequence, block_tables, kv, rows, layer → y, [y_scales]): causal attention of each row over
    its sequence's pages up to its own position. One iteration: the query heads of one row that share a key head."""

    def build(a: Args) -> None:
        x = Inputs(a, h)
        y = a.buffer("y", (x.n, h.heads * h.dim), FORM_DTYPE[form])
        y_scales = None if form == "f32" else a.buffer("y_scales", (x.n, h.heads * h.dim // GROUP, 2), "float32")
        kv = x.halves()
        with parallel(x.rows * h.kv_heads) as unit:
            row, head = let(unit // h.kv_heads), let(unit % h.kv_heads)
            sequence, length = let(x.row_sequence[row]), let(x.positions[row] + 1)
            state = State(h)
            state.clear()
            with loop(chunk_count(length)) as chunk:
                attend(isa, state, x, kv, row, sequence, head, length, chunk)
                merge(isa, state)
            finish(isa, form, state, y, y_scales, row, let(head * (h.shared * h.dim // GROUP)))

    return kernel(f"attention_{form}_{h.heads}_{h.kv_heads}_{h.dim}", build)


@cache
def attention_chunks(isa: Isa, h: Heads) -> tirx.PrimFunc:
    """(q, positions, row_sequence, block_tables, kv, rows, layer → parts, sums): the first half of `attention` for few
    rows, split by chunk as well as by head: parts[row, chunk, head, dim] and sums[row, chunk, head, (maximum, total)].
    `attention_merge` is the other half; the two do what `attention` does, in the same order."""
    vectors = h.dim // 4

    def build(a: Args) -> None:
        x = Inputs(a, h)
        parts = a.buffer("parts", (x.n, h.chunks, h.heads * h.dim), "float32")
        sums = a.buffer("sums", (x.n, h.chunks, h.heads, 2), "float32")
        kv = x.halves()
        units = local(1, "int32")
        store(units, 0, 0)
        with loop(x.rows) as row:
            store(units, units[0] + chunk_count(x.positions[row] + 1) * h.kv_heads, 0)
        with share(units[0]) as (first, last):
            before = local(1, "int32")  # units of the rows before this one
            store(before, 0, 0)
            with loop(x.rows) as row:
                sequence, length = let(x.row_sequence[row]), let(x.positions[row] + 1)
                own = let(chunk_count(length) * h.kv_heads)
                start = let(tirx.Max(first - before[0], 0))
                end = let(tirx.Min(last - before[0], own))
                with loop(tirx.Max(end - start, 0)) as i:
                    unit = let(start + i)
                    chunk, head = let(unit // h.kv_heads), let(unit % h.kv_heads)
                    state = State(h)
                    attend(isa, state, x, kv, row, sequence, head, length, chunk)
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
            state = State(replace(h, heads=width // h.dim, kv_heads=1))
            state.clear()
            with loop(chunk_count(positions[row] + 1)) as chunk:
                for j in range(width // h.dim):
                    store(state.chunk_maximum, sums[row, chunk, first + j, 0], j)
                    store(state.chunk_total, sums[row, chunk, first + j, 1], j)
                with loop(width // 4) as v:
                    store(state.chunk, parts[row, chunk, span(first * h.dim + v * 4)], v)
                merge(isa, state)
            finish(isa, form, state, y, y_scales, row, let(first * h.dim // GROUP))

    return kernel(f"attention_merge_{form}_{h.heads}_{h.kv_heads}_{h.dim}", build)
