"""The gated short convolution: y = C · Σ w[k] · (B·x)[position - taps + 1 + k], channel by channel.

One kernel stores B·x of all rows of a step into their pages, the next reads those before a token back from there,
whether a step before wrote them or this one: which tokens come together changes no bit."""

from __future__ import annotations

from functools import cache

from tvm import tirx

from ..shared.expressions import Buffer, Expr, let, loop, store, when
from ..shared.packed import GROUP, groups_of
from ..shared.short_conv import ShortConv
from .build import Args, kernel, local, parallel, span, splat, view
from .isa import Isa
from .pages import tables
from .quantize import FORM_DTYPE, store_group

_FOURS = GROUP // 4


@cache
def conv_append(c: ShortConv) -> tirx.PrimFunc:
    """(bcx, positions, row_sequence, block_tables, kv, rows, layer, first): B·x of bcx[rows, 3 · width] = B, C, x
    into the rows' pages (``kv``, in place)."""
    h, groups = c.heads, groups_of(c.width)

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        bcx = a.buffer("bcx", (n, 3 * c.width), "float32")
        positions, row_sequence, block_tables = tables(a, h, n)
        kv = a.buffer("kv", (h.pages, h.page_halves), "int16", in_place=True)
        rows = a.count("rows", n)
        layer, column = a.scalar("layer"), a.scalar("first")
        floats = view(kv, "float32", h.pages * h.page_halves // 2)
        with parallel(rows * groups) as unit:
            row, first = let(unit // groups), let(unit % groups * GROUP)
            position = let(positions[row])
            page = let(block_tables[row_sequence[row], position // c.tokens + column])
            place = let(c.row(page, layer, position) + first)
            with loop(_FOURS) as four:
                store(floats, _gated(c, bcx, row, first + four * 4), span(place + four * 4))

    return kernel(f"conv_append_{c.label}", build, c.width)


@cache
def short_conv(isa: Isa, c: ShortConv, form: str) -> tirx.PrimFunc:
    """(bcx, weight, positions, row_sequence, block_tables, kv, rows, layer, first → y, [y_scales]): the convolution of
    every row, in the next layer's form. ``weight``: [taps, width], the own token's last. ``kv``: as `conv_append` left
    it; before a sequence's first token stand zeros."""
    h, groups = c.heads, groups_of(c.width)

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        bcx = a.buffer("bcx", (n, 3 * c.width), "float32")
        weight = a.buffer("weight", (c.taps * c.width,), "float32")
        positions, row_sequence, block_tables = tables(a, h, n)
        kv = a.buffer("kv", (h.pages, h.page_halves), "int16")
        rows = a.count("rows", n)
        layer, column = a.scalar("layer"), a.scalar("first")
        y = a.buffer("y", (n, c.width), FORM_DTYPE[form])
        scales = None if form == "f32" else a.buffer("y_scales", (n, groups, 2), "float32")
        floats = view(kv, "float32", h.pages * h.page_halves // 2)
        with parallel(rows * groups) as unit:
            row, group = let(unit // groups), let(unit % groups)
            first, position = let(group * GROUP), let(positions[row])
            sums = local(_FOURS, "float32x4")
            for i in range(_FOURS):
                own = let(_gated(c, bcx, row, first + i * 4))
                store(sums, own * weight[span((c.taps - 1) * c.width + first + i * 4)], i)
            for back in range(1, c.taps):
                with when(position >= back):
                    seen = let(position - back)
                    page = let(block_tables[row_sequence[row], seen // c.tokens + column])
                    place = let(c.row(page, layer, seen) + first)
                    tap = (c.taps - 1 - back) * c.width
                    for i in range(_FOURS):
                        before, by = floats[span(place + i * 4)], weight[span(tap + first + i * 4)]
                        store(sums, isa.madd(before, by, sums[i]), i)
            made = [let(sums[i] * bcx[row, span(c.width + first + i * 4)]) for i in range(_FOURS)]
            store_group(isa, form, made, y, scales, row, group)

    return kernel(f"short_conv_{form}_{c.label}", build, c.taps * c.width)


def _gated(c: ShortConv, bcx: Buffer, row: Expr, column: Expr) -> Expr:
    """Four channels of B·x."""
    return bcx[row, span(column)] * bcx[row, span(2 * c.width + column)]


__all__ = ["conv_append", "short_conv"]
