"""What encoders compute beside packed matrices, on CPUs: sums of embeddings, layer norms, rotary positions and
attention within the sequences of a step, GELU with its bias, pooling.

The order of every sum depends on the sequence alone: keys are stored by the step's rows in blocks of 16, but a query's
scores are moved to where its sequence begins before anything is added up.
"""

from __future__ import annotations

import math
from functools import cache

from tvm import tirx

from inpage.format.plan import ENCODER_COLUMNS

from ..shared.encoder import BLOCK, Packing
from ..shared.expressions import Buffer, Expr, cast, f32, i32, let, loop, store
from ..shared.packed import GROUP, groups_of
from .build import Args, kernel, local, parallel, span, splat, view
from .isa import Isa
from .math import activate, exp
from .quantize import FORM_DTYPE, horizontal_max, horizontal_sum, store_group

_NEVER = -1e30  # a score that no softmax gives weight to
# Abramowitz & Stegun, "Handbook of Mathematical Functions", 7.1.26: erf within 1.5e-7.
_ERF_P = 0.3275911
_ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


def gelu_erf(isa: Isa, x: Expr) -> Expr:
    """float32x4 → x/2 · (1 + erf(x/√2))."""
    size = let(tirx.Max(x, splat(0.0) - x) * splat(math.sqrt(0.5)))
    t = let(splat(1.0) / let(isa.madd(splat(_ERF_P), size, splat(1.0))))
    p: Expr = splat(_ERF[0])
    for c in _ERF[1:]:
        p = isa.madd(p, t, splat(c))
    rest = let(p * t * exp(isa, splat(0.0) - size * size))  # 1 - erf(|x|/√2)
    return x * splat(0.5) * tirx.Select(x < splat(0.0), rest, splat(2.0) - rest)


def _act(isa: Isa, activation: str, x: Expr) -> Expr:
    if activation == "tanh":  # within 2^-22
        return splat(1.0) - splat(2.0) / (exp(isa, x * splat(2.0)) + splat(1.0))
    return gelu_erf(isa, x) if activation == "gelu_erf" else activate(isa, activation, x)


def most_of(form: str) -> int:
    """What the largest state of a group becomes where it is quantized. States behind a layer norm have columns that are
    many times larger than the others of their group, which 8 bits would leave little of. Where a dot product takes 16
    bits anyway they get 12: 32 products with a byte still fit a float32's mantissa."""
    return 2047 if form == "i16" else 127


class Where:
    """Declares whose each row is, and where sequences lie among the rows."""

    def __init__(self, a: Args, p: Packing, n: Expr) -> None:
        self.row_sequence = a.buffer("row_sequence", (n,), "int32")
        self.tables = a.buffer("block_tables", (p.sequences, ENCODER_COLUMNS), "int32")

    def sequence(self, row: Expr) -> tuple[Expr, Expr, Expr]:
        """Of a row: the first one of its sequence, how many that has, and how many before the second segment."""
        s = let(self.row_sequence[row])
        first, count, segment = (let(self.tables[s, i]) for i in range(ENCODER_COLUMNS))
        return first, count, segment


class _Norm:
    """A layer norm of rows of x in place, and what the next linear layer reads of them. To be made where x, weight and
    bias are declared, `outputs` where the results are."""

    def __init__(self, isa: Isa, columns: int, epsilon: float, form: str) -> None:
        self.isa, self.columns, self.epsilon, self.form = isa, columns, epsilon, form
        self.groups = groups_of(columns)

    def inputs(self, a: Args) -> None:
        self.weight = a.buffer("weight", (self.columns,), "float32")
        self.bias = a.buffer("bias", (self.columns,), "float32")

    def outputs(self, a: Args, n: Expr) -> None:
        self.y = self.scales = None
        if self.form != "f32":
            self.y = a.buffer("y", (n, self.columns), FORM_DTYPE[self.form])
            self.scales = a.buffer("y_scales", (n, self.groups, 2), "float32")

    def row(self, x: Buffer, row: Expr) -> None:
        isa, total = self.isa, local(1, "float32x4")
        store(total, splat(0.0), 0)
        with loop(self.columns // 4) as i:
            store(total, total[0] + x[row, span(i * 4)], 0)
        mean = let(splat(horizontal_sum(let(total[0])) * f32(1.0 / self.columns)))
        store(total, splat(0.0), 0)
        with loop(self.columns // 4) as i:
            v = let(x[row, span(i * 4)] - mean)
            store(total, isa.madd(v, v, total[0]), 0)
        variance = let(horizontal_sum(let(total[0])) * f32(1.0 / self.columns) + f32(self.epsilon))
        inverse = let(splat(f32(1.0) / tirx.sqrt(variance)))
        with loop(self.groups) as group:
            made = []
            for i in range(8):
                at = span(group * GROUP + i * 4)
                made.append(let((x[row, at] - mean) * inverse * self.weight[at] + self.bias[at]))
            store_group(isa, "f32", made, x, None, row, group)
            if self.y is not None:
                store_group(isa, self.form, made, self.y, self.scales, row, group, most_of(self.form))


@cache
def embed_norm(
    isa: Isa, p: Packing, columns: int, placed: bool, types: int, epsilon: float, form: str
) -> tirx.PrimFunc:
    """(x, positions, row_sequence, block_tables, [position_embd], [token_types], weight, bias, rows → [y, y_scales]):
    in place x = the layer norm of x + the position's row, where positions are ``placed`` so, + the segment's; y the
    same in the next layer's form."""

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        norm = _Norm(isa, columns, epsilon, form)
        x = a.buffer("x", (n, columns), "float32", in_place=True)
        positions = a.buffer("positions", (n,), "int32")
        where = Where(a, p, n)
        table = a.buffer("position_embd", (p.context * columns,), "float32") if placed else None
        segments = a.buffer("token_types", (types * columns,), "float32") if types else None
        norm.inputs(a)
        rows = a.count("rows", n)
        norm.outputs(a, n)
        with parallel(rows) as row:
            at = let(positions[row] * columns)
            first, _, segment = where.sequence(row)
            second = let(cast("int32", row - first >= segment) * columns) if types > 1 else i32(0)
            with loop(columns // 4) as i:
                v = let(x[row, span(i * 4)])
                if table is not None:
                    v = let(v + table[span(at + i * 4)])
                if segments is not None:
                    v = let(v + segments[span(second + i * 4)])
                store(x, v, row, span(i * 4))
            norm.row(x, row)

    mark = "" if placed else "_unplaced"
    return kernel(f"embed_norm_{form}_{columns}_{p.context}_{types}{mark}", build)


@cache
def layer_norm(isa: Isa, columns: int, biased: bool, epsilon: float, form: str) -> tirx.PrimFunc:
    """(x, [before], weight, bias, rows → [y, y_scales]): in place x = the layer norm of x + ``before`` (the bias of
    what was added to x last, where it is ``biased``); y the same in the next layer's form."""

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        norm = _Norm(isa, columns, epsilon, form)
        x = a.buffer("x", (n, columns), "float32", in_place=True)
        before = a.buffer("before", (columns,), "float32") if biased else None
        norm.inputs(a)
        rows = a.count("rows", n)
        norm.outputs(a, n)
        with parallel(rows) as row:
            if before is not None:
                with loop(columns // 4) as i:
                    store(x, x[row, span(i * 4)] + before[span(i * 4)], row, span(i * 4))
            norm.row(x, row)

    return kernel(f"layer_norm_{form}_{columns}" + ("" if biased else "_plain"), build)


@cache
def bias_act(isa: Isa, width: int, form: str, activation: str) -> tirx.PrimFunc:
    """(x, bias, rows → y, [y_scales]): y = activation(x + bias), in the next layer's form."""
    groups = groups_of(width)

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        x = a.buffer("x", (n, width), "float32")
        bias = a.buffer("bias", (width,), "float32")
        rows = a.count("rows", n)
        y = a.buffer("y", (n, width), FORM_DTYPE[form])
        scales = None if form == "f32" else a.buffer("y_scales", (n, groups, 2), "float32")
        with parallel(rows * groups) as unit:
            row, group = let(unit // groups), let(unit % groups)
            made = []
            for i in range(8):
                at = span(group * GROUP + i * 4)
                made.append(let(_act(isa, activation, let(x[row, at] + bias[at]))))
            store_group(isa, form, made, y, scales, row, group, most_of(form))

    return kernel(f"bias_{activation}_{form}_{width}", build)


class _Joined:
    """Declares queries, keys and values side by side, and the bias that they may lack."""

    def __init__(self, a: Args, p: Packing, n: Expr) -> None:
        self.qkv = a.buffer("qkv", (n, p.joined), "float32")
        self.bias = a.buffer("bias", (p.joined,), "float32") if p.biased else None

    def at(self, row: Expr, column: Expr) -> Expr:
        """A number, or a vector."""
        found = self.qkv[row, column]
        return found if self.bias is None else found + self.bias[column]


@cache
def rotate(p: Packing) -> tirx.PrimFunc:
    """(qkv, table, rows): queries and keys turn pairwise by table[rows, dim / 2, (cos, sin)], in place."""
    heads, dim = p.heads + p.kv_heads, p.dim

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        qkv = a.buffer("qkv", (n, p.joined), "float32", in_place=True)
        table = a.buffer("table", (n, dim // 2, 2), "float32")
        rows = a.count("rows", n)
        with parallel(rows * heads) as unit:
            row, first = let(unit // heads), let(unit % heads * dim)
            with loop(dim // 2) as i:
                x, y = let(qkv[row, first + i * 2]), let(qkv[row, first + i * 2 + 1])
                cosine, sine = let(table[row, i, 0]), let(table[row, i, 1])
                store(qkv, x * cosine - y * sine, row, first + i * 2)
                store(qkv, x * sine + y * cosine, row, first + i * 2 + 1)

    return kernel(f"rotate_{p.shape}", build)


@cache
def split_heads(p: Packing) -> tirx.PrimFunc:
    """(qkv, [bias], rows → keys, values): the keys by blocks of `BLOCK` rows, [block][head, element][row of the block],
    so that a query meets four at once; the values by head, [head][row][element]. Both with their biases. Rows come in
    steps of up to a multiple of `BLOCK`, so that the keys' last block has room."""
    heads, dim, width = p.kv_heads, p.dim, p.kv_width

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        x = _Joined(a, p, n)
        rows = a.count("rows", n)
        keys = a.buffer("keys", (n, width), "float32")
        values = a.buffer("values", (n, width), "float32")
        by_block, by_head = view(keys, "float32", n * width), view(values, "float32", n * width)
        with parallel(rows * heads) as unit:
            row, head = let(unit // heads), let(unit % heads)
            to, first = let((row // BLOCK * width + head * dim) * BLOCK + row % BLOCK), let(head * dim)
            with loop(dim) as d:
                store(by_block, x.at(row, p.width + first + d), to + d * BLOCK)
            start = let((head * rows + row) * dim)
            with loop(dim // 4) as i:
                store(by_head, x.at(row, span(p.width + width + first + i * 4)), span(start + i * 4))

    return kernel(f"split_heads_{p.shape}", build)


@cache
def attention(isa: Isa, p: Packing, scale: float, form: str) -> tirx.PrimFunc:
    """(qkv, [bias], keys, values, row_sequence, block_tables, rows → y, [y_scales]): every row over those of its
    sequence that it sees. ``keys``, ``values``: as `split_heads` leaves them; ``form``: quantized only where a head is
    whole groups."""
    heads, dim, tile = p.heads, p.dim, GROUP if p.dim % GROUP == 0 else 8
    lanes = tile // 4

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        x = _Joined(a, p, n)
        keys = a.buffer("keys", (n, p.kv_width), "float32")
        values = a.buffer("values", (n, p.kv_width), "float32")
        where = Where(a, p, n)
        rows = a.count("rows", n)
        y = a.buffer("y", (n, p.width), FORM_DTYPE[form])
        scales = None if form == "f32" else a.buffer("y_scales", (n, p.width // GROUP, 2), "float32")
        by_block, by_head = view(keys, "float32", n * p.kv_width), view(values, "float32", n * p.kv_width)
        with parallel(rows * heads) as unit:  # a head's rows one after another: its keys and values stay in the cache
            head, row = let(unit // rows), let(unit % rows)
            kv_head = let(head // p.shared)
            whole_first, whole_count, _ = where.sequence(row)
            first, count = p.seen(row, whole_first, whole_count)
            q, weights = local(dim, "float32"), local(p.context + 2 * BLOCK + 4, "float32")
            with loop(dim) as d:
                store(q, x.at(row, let(head * dim + d)) * f32(scale), d)
            start = let(first // BLOCK)
            with loop((first + count - 1) // BLOCK - start + 1) as b:
                base = let(((start + b) * p.kv_width + kv_head * dim) * BLOCK)
                acc = local(4, "float32x4")
                for i in range(4):
                    store(acc, splat(0.0), i)
                with loop(dim) as d:
                    one = let(splat(q[d]))
                    for i in range(4):
                        store(acc, isa.madd(one, by_block[span(base + d * BLOCK + i * 4)], acc[i]), i)
                to = let((start + b) * BLOCK - first + BLOCK)  # the first token that is seen stands at BLOCK
                for i in range(4):
                    store(weights, acc[i], span(to + i * 4))
            inverse = _softmax(isa, weights, count)
            with loop(dim // tile) as part:
                base = let(kv_head * rows * dim + first * dim + part * tile)
                total = local(lanes, "float32x4")
                for i in range(lanes):
                    store(total, splat(0.0), i)
                with loop(count) as t:
                    one, at = let(splat(weights[BLOCK + t])), let(base + t * dim)
                    for i in range(lanes):
                        store(total, isa.madd(one, by_head[span(at + i * 4)], total[i]), i)
                made = [let(total[i] * inverse) for i in range(lanes)]
                if tile == GROUP:
                    store_group(isa, form, made, y, scales, row, head * (dim // GROUP) + part, most_of(form))
                else:
                    for i, four in enumerate(made):
                        store(y, four, row, span(head * dim + part * tile + i * 4))

    return kernel(f"attend_{form}_{p.label}", build)


def _softmax(isa: Isa, weights: Buffer, count: Expr) -> Expr:
    """Scores of ``count`` tokens, in place, to e^(score - maximum), 0 in the last vector's rest; 1 / their sum."""
    vectors, top = let((count + 3) // 4), local(1, "float32x4")
    store(top, splat(_NEVER), 0)
    with loop(vectors) as i:
        at, lane = span(i * 4 + BLOCK), tirx.Ramp(i * 4, 1, 4)
        masked = let(tirx.Select(lane < splat(count, 4), weights[at], splat(_NEVER)))
        store(weights, masked, at)
        store(top, tirx.Max(top[0], masked), 0)
    maximum = let(splat(horizontal_max(let(top[0]))))
    store(top, splat(0.0), 0)
    with loop(vectors) as i:
        at = span(i * 4 + BLOCK)
        e = let(exp(isa, weights[at] - maximum))
        store(weights, e, at)
        store(top, top[0] + e, 0)
    return let(splat(f32(1.0) / let(horizontal_sum(let(top[0])))))


@cache
def pool(isa: Isa, p: Packing, columns: int, pooling: str, normalized: bool) -> tirx.PrimFunc:
    """(x, row_sequence, block_tables, logit_rows, rows, logit_rows → y): one vector for the sequence of each row that
    is asked for: the mean of its rows, its first or its last; of length 1 where it is ``normalized``."""

    def build(a: Args) -> None:
        n, m = tirx.Var("rows", "int64"), tirx.Var("logit_rows", "int64")
        x = a.buffer("x", (n, columns), "float32")
        where = Where(a, p, n)
        index = a.buffer("row_index", (m,), "int32")
        a.count("rows", n)
        asked = a.count("logit_rows", m)
        y = a.buffer("y", (m, columns), "float32")
        with parallel(asked) as i:
            first, count, _ = where.sequence(let(index[i]))
            squares = local(2, "float32x4")
            store(squares, splat(0.0), 0)
            with loop(columns // 4) as v:
                at = span(v * 4)
                if pooling == "mean":
                    store(squares, splat(0.0), 1)
                    with loop(count) as t:
                        store(squares, squares[1] + x[first + t, at], 1)
                    value = let(squares[1] * splat(f32(1.0) / let(cast("float32", count))))
                else:
                    value = let(x[first if pooling == "cls" else first + count - 1, at])
                store(y, value, i, at)
                store(squares, isa.madd(value, value, squares[0]), 0)
            if normalized:
                length = let(tirx.sqrt(horizontal_sum(let(squares[0]))))
                inverse = let(splat(f32(1.0) / tirx.Max(length, f32(1e-12))))
                with loop(columns // 4) as v:
                    store(y, y[i, span(v * 4)] * inverse, i, span(v * 4))

    return kernel(f"pool_{pooling}_{columns}" + ("_normalized" if normalized else ""), build)


__all__ = ["BLOCK", "attention", "bias_act", "embed_norm", "layer_norm", "most_of", "pool", "rotate", "split_heads"]
