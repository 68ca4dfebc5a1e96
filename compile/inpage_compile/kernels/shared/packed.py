"""Packed weight matrices: the artifact's 16-row records by groups of 32 columns."""

from __future__ import annotations

from dataclasses import dataclass

from inpage.errors import Unsupported
from inpage.format.schema import Format

from ...quantize import NAMES

GROUP = 32


def groups_of(width: int, field: str = "columns") -> int:
    """How many groups a row of ``width`` is. Every kernel that walks a row by groups counts them here, so that none
    leaves a rest out. Raises `Unsupported` naming ``field`` where there would be one."""
    if width % GROUP:
        raise Unsupported(f"{field}: {width} is not a multiple of {GROUP}, which the kernels need", field=field)
    return width // GROUP


@dataclass(frozen=True)
class PackedMatrix:
    """A packed [rows, columns] matrix in layout rows16. Kernels ask its format for what they need, never for its name.

    Raises `Unsupported` for a format that no kernel reads yet, and where a row is not whole groups or super-blocks, in
    any format: kernels walk floats by groups as well."""

    format: Format
    rows: int
    columns: int

    def __post_init__(self) -> None:
        f = self.format
        if not (f.is_float or _read(f)):
            why = f"no kernel reads {self.label} yet: a group of {f.group} columns, {f.bits} bits, {f.type}"
            raise Unsupported(why, field="format")
        groups_of(self.columns)
        if self.columns % f.span:
            why = f"columns: {self.columns} are not a multiple of {f.span}, which {self.label} needs"
            raise Unsupported(why, field="columns")

    @property
    def label(self) -> str:
        """The format's name, for the names of kernels."""
        return NAMES[self.format]

    @property
    def bits(self) -> int:
        return self.format.bits

    @property
    def minimum(self) -> bool:
        """Whether a group has a minimum: a second f16, which is added."""
        return self.format.min is not None

    @property
    def zero(self) -> int:
        """What is subtracted from the quants."""
        return self.format.zero

    @property
    def blocks(self) -> int:
        return (self.rows + 15) // 16

    @property
    def step(self) -> int:
        """Bytes of the quants of 16 rows × 32 columns: their planes."""
        return 16 * GROUP * self.bits // 8

    @property
    def header(self) -> int:
        """Bytes of a super-block's scales and sub-scales, which come before its quants."""
        sup = self.format.super
        if sup is None:
            return 0
        return self.sub_scales + sup.size // self.format.group * (sup.scale_bits + sup.min_bits) * 2

    @property
    def sub_scales(self) -> int:
        """Where a super-block's sub-scales begin, in bytes: behind its f16 scales."""
        sup = self.format.super
        return 0 if sup is None else 64 if sup.min is not None else 32

    @property
    def record(self) -> int:
        """Bytes of 16 rows × 32 columns, or of 16 rows of a super-block."""
        sup = self.format.super
        if sup is not None:
            return self.header + sup.size // GROUP * self.step
        scale = 0 if self.format.is_float else 16 if self.format.scale == "e8m0" else 32
        return self.step + scale * (2 if self.minimum else 1)

    @property
    def words(self) -> int:
        records = self.columns // self.format.super.size if self.format.super else groups_of(self.columns)
        return self.blocks * records * self.record // 4


def _read(f: Format) -> bool:
    """Whether there are dot products for such quants."""
    sup = f.super
    if f.table is not None and f.bits != 4:
        return False
    if sup is None:
        known = f.table is not None or f.scale == "f16"
        return known and f.group == GROUP and (f.type, f.bits) in {("uint", 4), ("uint", 5), ("int", 8)}
    if f.bits > 6 or f.group not in (GROUP, GROUP // 2):
        return False
    if sup.signed:  # a byte for each half of a group
        return f.group < GROUP and f.table is None and sup.min is None and not sup.zero
    # A minimum belongs to plain quants and scales: there is one sum of activations for both.
    return sup.scale_bits in (4, 6) and not (sup.min is not None and (f.zero or sup.zero or f.table))
