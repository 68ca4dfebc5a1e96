"""The integer sums of a group of 32 columns, in every activation form that is quantized. They are exact."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tvm import tirx

from ..shared.expressions import Expr, cast, i32, let
from ..shared.packed import GROUP
from .build import bits, span, splat
from .isa import Isa
from .quads import Quads
from .quantize import byte_splat
from .sub_scales import SubScales, doubled, widened
from .weights import bytes_of, lanes_of_pairs

Sums = dict[int, Expr]  # by quad of output rows: int32x4 or int16x8


def _centre(p: Quads) -> int:
    """What is subtracted from quants before they are multiplied. Without super-blocks nothing is: a group's zero is
    then a minimum, which the activations' sum is multiplied by. There is no such sum for half a group."""
    return p.reader.w.zero if p.reader.super_groups else 0


@dataclass(frozen=True)
class _Products:
    """How a form multiplies eight columns at a time. ``xs``: a piece's activations; ``ws``: a quad's weights, one for
    each of these; ``constant``: a weight that is the same everywhere; ``add``: a sum and the products of both, where
    None is no sum yet. Without ``ws`` every weight is 1."""

    xs: Callable[[Quads, int], Sequence[Expr]]
    ws: Callable[[Quads, int, int], Sequence[Expr]] | None
    constant: Callable[[int], Expr]
    add: Callable[[Isa, Expr | None, Sequence[Expr], Sequence[Expr]], Expr]


class GroupSums(ABC):
    """A group's integer sums, int32x4 a quad, by its sub-scales."""

    @abstractmethod
    def __call__(self, p: Quads) -> Sums: ...

    @abstractmethod
    def hold(self, p: Quads) -> None:
        """Make the weights of the part's quads, for the rows that follow."""

    def offsets(self, p: Quads) -> list[Expr]:
        """What is subtracted from every quad's sums of this row, in the order of columns."""
        return []

    def offsets_of(self, p: Quads) -> tuple[int, str]:
        """How many these are, and of which type."""
        return 0, ""


class _Sums(GroupSums):
    dtype = "int32x4"  # of sums by piece

    def __init__(self, products: _Products) -> None:
        self._products = products

    @abstractmethod
    def pieces(self, p: Quads) -> int:
        """So many are added up before `scaled`."""

    @abstractmethod
    def scaled(self, p: Quads, value: Expr, start: int, q: int) -> Expr:
        """The sum of the pieces from ``start`` on, in 32 bits, by the sub-scales."""

    def __call__(self, p: Quads) -> Sums:
        products, pieces = self._products, self.pieces(p)
        centre = self._centre(p)
        out: Sums = {}
        for i, start in enumerate(range(0, 4, pieces)):
            part: Sums = {}
            if centre and "offsets" not in p.held:
                p.held["offsets"] = self.offsets(p)
            for piece in range(start, start + pieces):
                xs = products.xs(p, piece)
                for q in p.quads:
                    part[q] = products.add(p.isa, part.get(q), xs, self._weights(p, q, piece))
            for q, value in part.items():
                own = self.scaled(p, value - p.held["offsets"][i] if centre else value, start, q)
                out[q] = let(out[q] + own if q in out else own)
        return out

    def _weights(self, p: Quads, q: int, piece: int) -> Sequence[Expr]:
        ws, constant = self._products.ws, self._products.constant
        made: Sequence[Expr] = p.once((ws, q, piece), lambda: ws(p, q, piece) if ws else [constant(1)] * 4)
        return made

    def hold(self, p: Quads) -> None:
        for q in p.quads:
            for piece in range(4):
                self._weights(p, q, piece)

    def offsets_of(self, p: Quads) -> tuple[int, str]:
        return (4 // self.pieces(p) if self._centre(p) else 0), self.dtype

    def _centre(self, p: Quads) -> int:
        return 0 if self._products.ws is None else _centre(p)

    def offsets(self, p: Quads) -> list[Expr]:
        centre, pieces = self._centre(p), self.pieces(p)
        out = []
        for start in range(0, 4, pieces) if centre else ():
            total: Expr | None = None
            for piece in range(start, start + pieces):
                xs = self._products.xs(p, piece)
                total = self._products.add(p.isa, total, xs, [self._products.constant(centre)] * len(xs))
            assert total is not None
            out.append(total)
        return out


class _PairSums(_Sums):
    """Signed bytes × unsigned ones into 16-bit pair sums, for as many columns as these are exact; then into 32 bits."""

    dtype = "int16x8"

    def __init__(self, products: _Products, subs: SubScales | None) -> None:
        super().__init__(products)
        self._factors = [doubled(s) for s in subs.scales] if subs is not None else [[splat(1, 8, "int16")] * 4]

    def pieces(self, p: Quads) -> int:
        """How many a 16-bit lane holds the exact products of: four products a piece."""
        centre = _centre(p)
        largest = max(centre, (1 << p.reader.w.bits) - 1 - centre)
        return 4 if 16 * 127 * largest < 1 << 15 and p.reader.w.format.group == GROUP else 2

    def scaled(self, p: Quads, value: Expr, start: int, q: int) -> Expr:
        return p.isa.dot16(value, self._factors[start // 2 % len(self._factors)][q])


class _WholeSums(_Sums):
    """Sums that are in 32 bits from the beginning."""

    def __init__(self, products: _Products, subs: SubScales | None) -> None:
        super().__init__(products)
        self._factors = [widened(s) for s in subs.scales] if subs is not None else None

    def pieces(self, p: Quads) -> int:
        return 4 // len(self._factors or [None])

    def scaled(self, p: Quads, value: Expr, start: int, q: int) -> Expr:
        return value if self._factors is None else value * self._factors[start // self.pieces(p)][q]


def _fours(p: Quads, piece: int) -> Sequence[Expr]:
    """Two times four columns of activations, each repeated over the vector."""
    return [let(byte_splat(p.x.words, piece * 2 + i)) for i in range(2)]


def _twos(p: Quads, piece: int) -> Sequence[Expr]:
    """Four times two columns of activations, each repeated over the vector."""
    return [let(bits("int16x8", splat(p.x.words[piece * 4 + j], 4))) for j in range(4)]


def _bytes_of(p: Quads, q: int, piece: int) -> Sequence[Expr]:
    return bytes_of(p.reader, p.base, q, piece)


def _add_pairs(isa: Isa, sum: Expr | None, xs: Sequence[Expr], ws: Sequence[Expr]) -> Expr:
    """Neighbours' products into 16 bits."""
    low, high = (isa.pair_dot(x, w) for x, w in zip(xs, ws, strict=False))
    return let((low if sum is None else sum + low) + high)


def _add_quads(isa: Isa, sum: Expr | None, xs: Sequence[Expr], ws: Sequence[Expr]) -> Expr:
    """Four neighbours' products straight into 32 bits."""
    total = splat(0, dtype="int32") if sum is None else sum
    for x, w in zip(xs, ws, strict=False):
        total = let(isa.quad_dot(x, w, total))
    return total


def _add_lanes(isa: Isa, sum: Expr | None, xs: Sequence[Expr], ws: Sequence[Expr]) -> Expr:
    """Products of 16-bit lanes, neighbours' into 32 bits."""
    first, *others = (isa.dot16(w, x) for x, w in zip(xs, ws, strict=False))
    total = first if sum is None else let(sum + first)
    for own in others:
        total = let(total + own)
    return total


_PAIRS = _Products(_fours, _bytes_of, lambda n: splat(n, 16, "int8"), _add_pairs)
_QUADS = replace(_PAIRS, add=_add_quads)
# Quants masked out in place: columns (0,2) (1,3) (4,6) (5,7) of every eight.
_LANES = _Products(
    _twos, lambda p, q, piece: lanes_of_pairs(p.reader, p.base, q, piece), lambda n: splat(n, 8, "int16"), _add_lanes
)


class _WideSums(GroupSums):
    """Signed bytes widened to 16 bits; each dot leaves two neighbouring sums a row, which are joined at the end."""

    def __init__(self, subs: SubScales | None) -> None:
        self._factors = widened(subs.scales[0]) if subs is not None else None

    def __call__(self, p: Quads) -> Sums:
        halves: dict[tuple[int, int], Expr] = {}
        for piece in range(8):
            four = let(bits("int16x8", splat(p.x.words[piece], 2)))
            for q in p.quads:
                for half in range(2):
                    part = p.isa.dot16(_wide(p, piece, q, half), four)
                    halves[q, half] = part if piece == 0 else let(halves[q, half] + part)
        out: Sums = {}
        for q in p.quads:
            both = [halves[q, 0], halves[q, 1]]
            even = tirx.Shuffle(both, [i32(j) for j in (0, 2, 4, 6)])
            odd = tirx.Shuffle(both, [i32(j) for j in (1, 3, 5, 7)])
            own = let(even + odd)
            out[q] = own if self._factors is None else let(own * self._factors[q])
        return out

    def hold(self, p: Quads) -> None:
        for q in p.quads:
            for piece in range(8):
                for half in range(2):
                    _wide(p, piece, q, half)


def _wide(p: Quads, piece: int, q: int, half: int) -> Expr:
    """Four columns of half a quad's rows, int16x8."""
    table = p.reader.w.format.table

    def looked_up() -> list[Expr]:
        return [let(p.isa.lookup(table or (), place)) for place in bytes_of(p.reader, p.base, q, piece // 2)]

    def make() -> Expr:
        if table is None:
            at = p.base + piece * 64 + p.reader.at(q) * 16 + half * 8
            return let(cast("int16x8", p.reader.bytes[span(at, 8)]))
        numbers = p.once(("numbers", q, piece // 2), looked_up)[piece % 2]
        return let(cast("int16x8", tirx.Shuffle([numbers], [i32(half * 8 + i) for i in range(8)])))

    made: Expr = p.once(("wide", q, piece, half), make)
    return made


def sums_of(form: str, quad: bool, subs: SubScales | None = None, ones: bool = False) -> GroupSums:
    """Integer sums of a group by its sub-scales. ``ones``: as if every quant were 1."""
    if form == "i16":
        return _WideSums(subs)
    sums, products = (_WholeSums, _LANES) if form == "i16p" else (_WholeSums, _QUADS) if quad else (_PairSums, _PAIRS)
    return sums(replace(products, ws=None) if ones else products, subs)
