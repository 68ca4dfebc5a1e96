"""Dot products of packed weights with activations: one group of 32 columns at a time, in every activation form.

Integer sums are exact within a group; groups are then added up in float32, in order. A row of activations therefore
gets the same bits whether it is alone or one of many: tiles of rows only share the unpacking of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..shared.expressions import Buffer, Expr, cast, let, loop, store
from .build import local, splat
from .floats import floats
from .isa import Isa
from .quads import InputGroup, InputView, Made, Quads
from .sub_scales import SubScales, read_sub_scales, widened
from .sums import GroupSums, Sums, sums_of
from .weights import Records


def accumulate(
    isa: Isa, form: str, reader: Records, x: InputView, blocks: Sequence[Expr], row: Expr,
    quad: bool = False, quads: int = 4,
) -> Buffer:  # fmt: skip
    """float32x4 [block][quad]: 16 output rows a block for one row of activations. ``quads``: fewer of a block, from the
    one on that the reader begins with (`Records.quad`).

    Group by group through all the blocks: each block is a stream through memory that the processor fetches ahead.
    Everything here is unrolled, so that every index of the sums is a constant and they stay in registers.
    ``quad``: bytes through `Isa.quad_dot`."""
    acc = local(len(blocks) * quads, "float32x4")
    # One stream LLVM walks well by itself, and bytes that are widened need few addresses.
    by_offset = len(blocks) > 1 and form != "i16"
    for i in range(len(blocks) * quads):
        store(acc, splat(0.0), i)

    def part(b: int, base: Expr, own: InputGroup, place: tuple[Expr, Expr] | None = None) -> Quads:
        records, start = (reader.placed(base), 0) if by_offset and place is None else (reader, base)
        return Quads(isa, records, start, range(quads), acc, lambda q: b * quads + q, place, own)

    if reader.super_groups and form != "f32":
        _accumulate_supers(
            isa, form, reader, blocks, lambda group: InputGroup(x, row, group, by_offset), acc, quad, part
        )
        return acc
    group_dot = floats if form == "f32" else _group_sums(form, quad)
    with loop(reader.groups) as group:
        own = InputGroup(x, row, group, by_offset)
        for b, block in enumerate(blocks):
            place = reader.super_of(block, group)
            base = let(reader.base(block, group))
            p = part(b, base, own, place)
            for q, value in list(group_dot(p)):
                store(acc, value, p.at(q))
    return acc


def _accumulate_supers(
    isa: Isa, form: str, reader: Records, blocks: Sequence[Expr], input: Callable[[Expr], InputGroup],
    acc: Buffer, quad: bool, part: Callable[..., Quads],
) -> None:  # fmt: skip
    """Within a super-block, scales are whole numbers: integer sums by sub-scale stay below 2^24, so that float32 holds
    each one exactly. They are added up with the activations' scales, and so are the minima; then each sum is
    multiplied with the super-block's own scale once."""
    sup = reader.w.format.super
    assert sup is not None
    dots = local(len(blocks) * 4, "float32x4")
    minima: Buffer = local(len(blocks) * 4, "float32x4") if sup.min is not None else None
    with loop(reader.supers) as index:
        records = [let(reader.record(block, index)) for block in blocks]
        for i in range(len(blocks) * 4):
            store(dots, splat(0.0), i)
            if minima is not None:
                store(minima, splat(0.0), i)
        with loop(reader.super_groups) as within:
            x = input(let(index * reader.super_groups + within))
            for b, record in enumerate(records):
                subs = read_sub_scales(reader, record, within)
                base = let(record + (reader.w.header + within * reader.w.step))
                sums, least = sums_of(form, quad, subs), least_of(form, quad, subs)
                add_group(part(b, base, x), sums, least, dots, minima)
        for b, record in enumerate(records):
            for q in range(4):
                i = b * 4 + q
                store(acc, isa.madd(dots[i], reader.super_scale(record, q), acc[i]), i)
                if minima is not None:
                    m = let(splat(0.0) - reader.super_scale(record, q, 1))
                    store(acc, isa.madd(minima[i], m, acc[i]), i)


def add_group(p: Quads, sums: GroupSums, least: Least | None, dots: Buffer, minima: Buffer) -> None:
    """dots += sums by sub-scale · activations' scale, and the minima so as well."""
    made = sums(p)
    scale = let(splat(p.x.scales[0]))
    for q in p.quads:
        store(dots, p.isa.madd(cast("float32x4", made[q]), scale, dots[p.at(q)]), p.at(q))
    if least is not None:
        for q, m, total in least(p, scale):
            store(minima, p.isa.madd(m, total, minima[p.at(q)]), p.at(q))


class Least:
    """What a group's sub-minima add: for each quad a number, float32x4, and what that is multiplied by."""

    def __init__(self, form: str, quad: bool, subs: SubScales) -> None:
        # Activations have one sum for 32 columns; that of each half is their dot product with ones.
        halves = len(subs.minima) > 1
        self._sums = sums_of(form, quad, SubScales(subs.minima), ones=True) if halves else None
        self._widths = [] if halves else widened(subs.minima[0])

    def hold(self, p: Quads) -> None:
        for q in p.quads if self._widths else ():
            self._whole(p, q)

    def _whole(self, p: Quads, q: int) -> Expr:
        made: Expr = p.once(("m", q), lambda: let(cast("float32x4", self._widths[q])))
        return made

    def __call__(self, p: Quads, scale: Expr) -> Iterator[tuple[int, Expr, Expr]]:
        if self._sums is not None:
            for q, value in self._sums(p).items():
                yield q, let(cast("float32x4", value)), scale
            return
        total = let(splat(p.x.scales[1]))
        for q in p.quads:
            yield q, self._whole(p, q), total


def least_of(form: str, quad: bool, subs: SubScales) -> Least | None:
    return Least(form, quad, subs) if len(subs.minima) else None


def affine(p: Quads, sums: Sums) -> Made:
    """acc + s·(d·Σwq) + m·(s·Σq) for integer sums of one group."""
    scale, total = let(splat(p.x.scales[0])), let(splat(p.x.scales[1]))
    for q in p.quads:
        d, m = group_scales(p, q)
        value = p.acc[p.at(q)]
        if m is not None:
            value = p.isa.madd(m, total, value)
        yield q, p.isa.madd(cast("float32x4", sums[q]) * d, scale, value)


def group_scales(p: Quads, q: int) -> tuple[Expr, Expr | None]:
    """A quad's scale, and what the activations' sum is multiplied by."""

    def make() -> tuple[Expr, Expr | None]:
        d = p.reader.scale(p.base, q)
        if p.reader.w.minimum:
            return d, p.reader.scale(p.base, q, 1)
        return d, let(d * splat(-float(p.reader.w.zero))) if p.reader.w.zero else None

    made: tuple[Expr, Expr | None] = p.once(("scales", q), make)
    return made


def _group_sums(form: str, quad: bool) -> Callable[[Quads], Made]:
    """The dot of one group that has floats for scales."""
    return lambda p: affine(p, sums_of(form, quad)(p))
