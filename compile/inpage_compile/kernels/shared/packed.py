"""Packed weight matrices: the artifact's 16-row records by groups of 32 columns."""

from __future__ import annotations

from dataclasses import dataclass

from inpage.errors import Unsupported
from inpage.format.schema import Format

from ...quantize import NAMES

GROUP = 32
_QUANTS = {("uint", 4), ("int", 8)}  # that have a dot product


def groups_of(width: int, field: str = "columns") -> int:
    """How many groups a row of ``width`` is. Every kernel that walks a row by groups counts them here, so that none
    leaves a rest out. Raises `Unsupported` naming ``field`` where there would be one."""
    if width % GROUP:
        raise Unsupported(f"{field}: {width} is not a multiple of {GROUP}, which the kernels need", field=field)
    return width // GROUP


@dataclass(frozen=True)
class PackedMatrix:
    """A packed [rows, columns] matrix. Kernels ask its format for what they need, never for its name.

    Raises `Unsupported` for a format that no kernel reads yet, and where a row is not whole groups, in any format:
    kernels walk floats by groups as well."""

    format: Format
    rows: int
    columns: int

    def __post_init__(self) -> None:
        f = self.format
        if (
            f.type == "bfloat"
            or f.scale == "e8m0"
            or f.table is not None
            or (not f.is_float and (f.super is not None or f.group != GROUP or (f.type, f.bits) not in _QUANTS))
        ):
            why = f"no kernel reads {self.label} yet: a group of {f.group} columns, {f.bits} bits, {f.type}"
            raise Unsupported(why, field="format")
        groups_of(self.columns)

    @property
    def label(self) -> str:
        """The format's name, for the names of kernels."""
        return NAMES[self.format]

    @property
    def bits(self) -> int:
        return self.format.bits

    @property
    def minimum(self) -> bool:
        """Whether a group has a second f16, which is added."""
        return self.format.min is not None

    @property
    def zero(self) -> int:
        """What is subtracted from the quants."""
        return self.format.zero

    @property
    def blocks(self) -> int:
        return (self.rows + 15) // 16

    @property
    def record(self) -> int:
        """Bytes of 16 rows × 32 columns."""
        scales = 0 if self.format.is_float else 32 * (2 if self.minimum else 1)
        return 16 * 32 * self.bits // 8 + scales

    @property
    def words(self) -> int:
        return self.blocks * groups_of(self.columns) * self.record // 4
