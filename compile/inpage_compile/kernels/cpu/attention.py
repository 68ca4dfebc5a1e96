"""Attention over KV pages: whole rows at once, or for few rows split by chunk of the context, in two kernels.

Both sum in the order that `softmax` tells."""

from __future__ import annotations

from functools import cache

from tvm import tirx

from ..shared.expressions import Expr, let, loop, store
from ..shared.heads import CHUNK, EVERYTHING, Heads
from ..shared.packed import GROUP
from .build import Args, kernel, local, parallel, share, span
from .isa import Isa
from .quantize import FORM_DTYPE
from .softmax import (
    Inputs,
    Part,
    State,
    attend,
    chunk_count,
    finish,
    first_chunk_of,
    heads_at_once,
    merge,
    parts_of,
    whole_groups,
)


@cache
def attention(isa: Isa, h: Heads, form: str) -> tirx.PrimFunc:
    """(q, positions, row_sequence, block_tables, kv, rows, layer[, first, window] → y, [y_scales]): causal attention of
    each row over its sequence's pages up to its own position. One iteration: query heads of one row that share a key
    head. y has `Heads.columns`. ``form``: quantized only where the heads are `whole_groups`."""
    each = h.kv_heads * parts_of(h)

    def build(a: Args) -> None:
        x = Inputs(a, h)
        y = a.buffer("y", (x.n, h.columns), FORM_DTYPE[form])
        y_scales = None if form == "f32" else a.buffer("y_scales", (x.n, h.columns // GROUP, 2), "float32")
        kv = x.halves()
        # A row's work grows with what it sees: threads share pages, and one that ends within a unit's takes it whole.
        work = local(1, "int32")
        store(work, 0, 0)
        with loop(x.rows) as row:
            store(work, work[0] + x.pages(x.positions[row] + 1) * each, 0)
        with share(work[0]) as (first, last):
            before = local(1, "int32")  # pages of the rows before this one
            store(before, 0, 0)
            with loop(x.rows) as row:
                sequence, length = let(x.row_sequence[row]), let(x.positions[row] + 1)
                pages = let(x.pages(length))
                start, end = (
                    let(tirx.Min(tirx.truncdiv(tirx.Max(edge - before[0], 0) + (pages - 1), pages), each))
                    for edge in (first, last)
                )
                with loop(end - start) as i:
                    part = Part.of(h, let(start + i))
                    state = State(heads_at_once(h), h.dim)
                    state.clear()
                    with loop(chunk_count(length), x.first_chunk(length)) as chunk:
                        attend(isa, h, state, x, kv, row, sequence, part, length, chunk)
                        merge(isa, state)
                    finish(isa, h, form, state, y, y_scales, row, part)
                store(before, before[0] + pages * each, 0)

    return kernel(f"attention_{form}_{h.label}", build)


@cache
def attention_chunks(isa: Isa, h: Heads) -> tirx.PrimFunc:
    """(q, positions, row_sequence, block_tables, kv, rows, layer[, first, window] → parts, sums): the first half of
    `attention` for few rows, split by chunk as well as by head: parts[row, chunk, head, dim] and sums[row, chunk, head,
    (maximum, total)]. `attention_merge` is the other half; the two do what `attention` does, in the same order."""
    vectors, at_once, each = h.dim // 4, heads_at_once(h), h.kv_heads * parts_of(h)

    def build(a: Args) -> None:
        x = Inputs(a, h)
        parts = a.buffer("parts", (x.n, h.chunks, h.heads * h.dim), "float32")
        sums = a.buffer("sums", (x.n, h.chunks, h.heads, 2), "float32")
        kv = x.halves()
        units = local(1, "int32")
        store(units, 0, 0)
        with loop(x.rows) as row:
            length = let(x.positions[row] + 1)
            store(units, units[0] + _runs(length, x.first_chunk(length)) * each, 0)
        with share(units[0]) as (first, last):
            before = local(1, "int32")  # units of the rows before this one
            store(before, 0, 0)
            with loop(x.rows) as row:
                sequence, length = let(x.row_sequence[row]), let(x.positions[row] + 1)
                first_chunk = let(x.first_chunk(length))
                runs = let(_runs(length, first_chunk))
                own = let(runs * each)
                start = let(tirx.Max(first - before[0], 0))
                end = let(tirx.Min(last - before[0], own))
                with loop(tirx.Max(end - start, 0)) as i:
                    unit = let(start + i)
                    run, part = let(unit // each), Part.of(h, let(unit % each))
                    state = State(at_once, h.dim)
                    chunks = let(tirx.Select(run == runs - 1, chunk_count(length) - first_chunk - run, 1))
                    with loop(chunks) as c:
                        chunk = let(first_chunk + run + c)
                        attend(isa, h, state, x, kv, row, sequence, part, length, chunk)
                        skipped = part.skip * vectors
                        with loop(at_once * vectors - skipped) as v:
                            at = skipped + v
                            store(parts, state.chunk[at], row, chunk, span(part.first * h.dim + at * 4))
                        for j in range(at_once):
                            with part.own(j):
                                store(sums, state.chunk_maximum[j], row, chunk, part.first + j, 0)
                                store(sums, state.chunk_total[j], row, chunk, part.first + j, 1)
                store(before, before[0] + own, 0)

    return kernel(f"attention_chunks_{h.label}", build)


def _runs(length: Expr, first_chunk: Expr) -> Expr:
    """Into how many units a row's chunks go: one each, but half a chunk or less at the end goes with the one before."""
    return tirx.Max((length + (CHUNK // 2 - 1)) // CHUNK - first_chunk, 1)


@cache
def attention_merge(isa: Isa, h: Heads, form: str) -> tirx.PrimFunc:
    """(parts, sums, positions, rows[, first, window] → y, [y_scales]): a row's chunks into one, in order, as
    `attention` does."""
    # Heads of one iteration: one where its values can be stored by themselves.
    at_once = 1 if h.dim % GROUP == 0 or not whole_groups(h) else heads_at_once(h)

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        parts = a.buffer("parts", (n, h.chunks, h.heads * h.dim), "float32")
        sums = a.buffer("sums", (n, h.chunks, h.heads, 2), "float32")
        positions = a.buffer("positions", (n,), "int32")
        rows = a.count("rows", n)
        window = (a.scalar("first"), a.scalar("window"))[1] if h.grouped else EVERYTHING
        y = a.buffer("y", (n, h.columns), FORM_DTYPE[form])
        y_scales = None if form == "f32" else a.buffer("y_scales", (n, h.columns // GROUP, 2), "float32")
        each = h.heads // at_once
        with parallel(rows * each) as unit:
            row, first = let(unit // each), let(unit % each * at_once)
            state = State(at_once, h.dim)
            state.clear()
            length = positions[row] + 1
            with loop(chunk_count(length), first_chunk_of(h, length, window)) as chunk:
                for j in range(at_once):
                    store(state.chunk_maximum, sums[row, chunk, first + j, 0], j)
                    store(state.chunk_total, sums[row, chunk, first + j, 1], j)
                with loop(at_once * h.dim // 4) as v:
                    store(state.chunk, parts[row, chunk, span(first * h.dim + v * 4)], v)
                merge(isa, state)
            finish(isa, h, form, state, y, y_scales, row, Part(first // h.shared, first, 0))

    return kernel(f"attention_merge_{form}_{h.label}", build)
