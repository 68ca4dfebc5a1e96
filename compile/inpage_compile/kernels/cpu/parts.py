"""What stands in for a fused kernel where its tensors do not allow fusing: joining outputs, and the gate by itself; and
what only some families have: a bias."""

from __future__ import annotations

from functools import cache

from tvm import tirx

from ..shared.expressions import let, loop, store, when
from ..shared.packed import GROUP, groups_of
from .build import Args, kernel, parallel, span, splat
from .isa import Isa
from .math import activate, soft_cap
from .quantize import FORM_DTYPE, lanes_of, store_group


@cache
def join(widths: tuple[int, ...]) -> tirx.PrimFunc:
    """(part 0, part 1, …, rows → y): the parts side by side in y[rows, sum of widths], float32."""

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        parts = [a.buffer(f"part{i}", (n, width), "float32") for i, width in enumerate(widths)]
        rows = a.count("rows", n)
        y = a.buffer("y", (n, sum(widths)), "float32")
        with parallel(rows) as row:
            first = 0
            for part, width in zip(parts, widths, strict=True):
                with loop(width) as i:
                    store(y, part[row, i], row, first + i)
                first += width

    return kernel("join_" + "_".join(map(str, widths)), build, sum(widths))


@cache
def add_bias(width: int) -> tirx.PrimFunc:
    """(x, bias, rows): x[rows, width] += bias, float32, in place."""

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        x = a.buffer("x", (n, width), "float32", in_place=True)
        bias = a.buffer("bias", (width,), "float32")
        rows = a.count("rows", n)
        with parallel(rows) as row, loop(width) as i:
            store(x, x[row, i] + bias[i], row, i)

    return kernel(f"add_bias_{width}", build, width)


@cache
def gate(isa: Isa, width: int, form: str, activation: str = "silu") -> tirx.PrimFunc:
    """(gate, up, rows → h, [h_scales]): h = activation(gate) · up, in the next layer's form."""
    groups = groups_of(width)

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        gates = a.buffer("gate", (n, width), "float32")
        ups = a.buffer("up", (n, width), "float32")
        rows = a.count("rows", n)
        h = a.buffer("h", (n, width), FORM_DTYPE[form])
        scales = None if form == "f32" else a.buffer("h_scales", (n, groups, 2), "float32")
        with parallel(rows * groups) as unit:
            row, group = let(unit // groups), let(unit % groups)
            made = []
            for i in range(8):
                at = span(group * GROUP + i * 4)
                g = let(gates[row, at])
                made.append(let(activate(isa, activation, g) * ups[row, at]))
            store_group(isa, form, made, h, scales, row, group)

    mark = "" if activation == "silu" else f"_{activation}"
    return kernel(f"gate{mark}_{form}_{width}", build)


@cache
def cap(isa: Isa, width: int, size: float) -> tirx.PrimFunc:
    """(x, rows): x[rows, width] = size · tanh(x / size), float32, in place."""
    vectors = width // 4

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        x = a.buffer("x", (n, width), "float32", in_place=True)
        rows = a.count("rows", n)
        with parallel(rows * (vectors + 1)) as unit:
            row, at = let(unit // (vectors + 1)), let(unit % (vectors + 1))
            with when(at < vectors):
                place = span(at * 4)
                store(x, soft_cap(isa, x[row, place], size), row, place)
            if width % 4:
                with when(at == vectors), loop(width % 4) as i:
                    column = let(vectors * 4 + i)
                    four = let(soft_cap(isa, splat(x[row, column]), size))
                    store(x, lanes_of(four)[0], row, column)

    return kernel(f"cap_{width}", build)


@cache
def requantize(isa: Isa, width: int, form: str, most: int = 127) -> tirx.PrimFunc:
    """(x, rows → y, y_scales): float32 activations to a quantized form, the largest of a group to ``most``."""
    groups = groups_of(width)

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        x = a.buffer("x", (n, width), "float32")
        rows = a.count("rows", n)
        y = a.buffer("y", (n, width), FORM_DTYPE[form])
        scales = a.buffer("y_scales", (n, groups, 2), "float32")
        with parallel(rows * groups) as unit:
            row, group = let(unit // groups), let(unit % groups)
            made = [let(x[row, span(group * GROUP + i * 4)]) for i in range(8)]
            store_group(isa, form, made, y, scales, row, group, most)

    return kernel(f"quantize_{form}_{width}" + ("" if most == 127 else f"_to{most}"), build, width)
