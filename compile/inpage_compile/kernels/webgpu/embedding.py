"""The rows of a packed matrix that tokens ask for, dequantized."""

from __future__ import annotations

from functools import cache

from tvm import tirx

from ..shared.packed import GROUP, PackedMatrix, groups_of
from ..shared.planes import planes_of
from .build import (
    Args,
    Buffer,
    Expr,
    bits,
    call,
    cast,
    exact,
    f32,
    halves,
    i32,
    kernel,
    lane,
    let,
    madd,
    quads_of,
    splat,
    store,
    u32,
    vector,
    when,
)
from .weights import BYTES, bfloats, check_format, e8m0, table_number

THREADS = 64


@cache
def embed(weights: PackedMatrix, first: int, again: bool, scale: float = 1.0) -> tirx.PrimFunc:
    """(token_ids, w, [y], rows → [y]): y[rows, K] = the tokens' rows, dequantized to float32, of a matrix that begins
    at token ``first``, times ``scale``. ``again``: y is there already, and the rows of other tokens stay as they are.

    The values are ggml's to the last bit: a quant times its scales is exact, and a minimum's addition rounds once."""
    check_format(weights.format)
    quads = quads_of(weights.columns)

    def build(a: Args) -> None:
        ids = a.buffer("token_ids", "int32")
        w = a.buffer("w", "uint32")
        y = a.buffer("y", "float32x4", "x") if again else None
        a.scalar("rows")
        if y is None:
            y = a.buffer("y", "float32x4", "w")
        with a.workgroups(-(-quads // THREADS), "rows", THREADS) as (bx, row, t):
            token, quad = let(ids[row] - first), let(bx * THREADS + t)
            with when(tirx.all(quad < quads, token >= 0, token < weights.rows)):
                columns = _Row(weights, w, token, quad // 8).columns(quad % 8)
                four = vector(*columns) if scale == 1 else vector(*columns) * splat(exact(scale))
                store(y, four, row * quads + quad)

    mark = (f"_at{first}" if first else "") + ("_again" if again else "") + ("" if scale == 1 else "_scaled")
    return kernel(f"embed_{weights.label}_{weights.rows}x{weights.columns}{mark}", build)


class _Row:
    """Which 32 columns (``group``) of one row of the weight buffer, array<u32>. Places are in words."""

    def __init__(self, weights: PackedMatrix, w: Buffer, token: Expr, group: Expr) -> None:
        self.weights, self.w, self.row = weights, w, token % 16
        self.format = weights.format
        sup = self.format.super
        groups, self.step = groups_of(weights.columns), 0
        if sup is not None:
            steps = sup.size // GROUP
            group, self.step, groups = group // steps, let(group % steps), groups // steps
        self.record = let((token // 16 * groups + group) * (weights.record // 4))
        self.quants = self.record
        if sup is not None:
            self.quants = let(self.record + self.step * (weights.step // 4) + weights.header // 4)

    def columns(self, four: Expr) -> list[Expr]:
        """Four neighbouring ones, float32."""
        weights, w = self.weights, self.w
        if self.format.is_float:
            places = (let((four * 4 + k) * 16 + self.row) for k in range(4))
            if weights.bits == 32:
                return [let(bits("float32", w[self.record + at])) for at in places]
            return [self._half(self.record, at) for at in places]
        word = self._word(four)
        d, m = self._scales(four)
        out = []
        for k in range(4):
            if self.format.table is not None:
                number = table_number(self.format.table, let((word >> u32(8 * k)) & u32(15)), u32)
                out.append(let(cast("float32", bits("int32", number << u32(24)) >> i32(24)) * d))
                continue
            quant = cast("float32", call("int32" if weights.bits == 8 else "uint32", "extractBits", word, u32(8 * k),
                                         u32(weights.bits)))  # fmt: skip
            value = quant - f32(float(weights.zero)) if weights.zero else quant
            out.append(let(madd(value, d, m) if m is not None else value * d))
        return out

    def _word(self, four: Expr) -> Expr:
        """The quants of four columns, a byte each."""
        out: Expr = None
        for plane in planes_of(self.format):
            at = self.quants + plane.at // 4
            if plane.width == 8:
                return let(bits("int32", self.w[at + four * 16 + self.row]))
            fours = plane.columns // 4
            word = let(self.w[at + four // fours * 16 + self.row] >> cast("uint32", four % fours * plane.width))
            if out is None:
                out = word  # its upper bits are those of other columns
            else:
                below = u32(((1 << plane.low) - 1) * BYTES)
                out = let((out & below) | ((word << u32(plane.low)) & u32(plane.mask * BYTES)))
        return out

    def _scales(self, four: Expr) -> tuple[Expr, Expr | None]:
        """Of the group of four columns the scale, and what is added."""
        weights, sup = self.weights, self.format.super
        if sup is None:
            scale = self.record + weights.step // 4
            if self.format.scale == "e8m0":
                return let(e8m0(self._byte(scale))), None
            return self._half(scale, self.row), self._half(scale + 8, self.row) if weights.minimum else None
        number = let(self.step * (GROUP // self.format.group) + four * 4 // self.format.group)
        subs, d = self.record + weights.sub_scales // 4, self._half(self.record, self.row)
        if sup.signed:
            return let(d * (cast("float32", self._byte(subs + number * 4) ^ u32(0x80)) - f32(128.0))), None
        pairs = sup.size // self.format.group
        if sup.min is None:
            first, second = self._pair(subs, let(number // 2), pairs // 2)
            own = tirx.Select(number % 2 == 1, second, first)
            return let(d * (cast("float32", own) - f32(float(sup.zero)))), None
        first, second = self._pair(subs, number, pairs)
        least = self._half(self.record + 8, self.row) * cast("float32", second)
        return let(d * cast("float32", first)), let(-least)

    def _pair(self, subs: Expr, number: Expr, pairs: int) -> tuple[Expr, Expr]:
        """Both numbers of a pair. ``subs``: where the pairs begin, of which there are ``pairs``."""
        low = self._byte(subs + number * 4)
        first, second = low & u32(15), low >> u32(4)
        if self.format.super is not None and self.format.super.scale_bits == 4:
            return first, second
        high = let(self.w[subs + pairs * 4 + number * 2 + self.row % 8 // 4])
        high = let(high >> cast("uint32", self.row % 4 * 8 + self.row // 8 * 4))
        return first | ((high & u32(3)) << u32(4)), second | ((high >> u32(2) & u32(3)) << u32(4))

    def _byte(self, start: Expr) -> Expr:
        """The row's byte of 16 that begin there."""
        return let((self.w[start + self.row // 4] >> cast("uint32", self.row % 4 * 8)) & u32(255))

    def _half(self, start: Expr, index: Expr) -> Expr:
        word = self.w[start + index // 2]
        pair = bfloats(let(word)) if self.format.type == "bfloat" else None
        if pair is None:
            both = let(halves(word))
            pair = lane(both, 0), lane(both, 1)
        return let(tirx.Select(index % 2 == 1, pair[1], pair[0]))


__all__ = ["embed"]
