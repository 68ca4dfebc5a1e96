"""Packed weight matrices: the artifact's 16-row records by groups of 32 columns."""

from __future__ import annotations

from dataclasses import dataclass

from inpage.errors import Unsupported

GROUP = 32


def groups_of(width: int, field: str = "columns") -> int:
    """How many groups a row of ``width`` is. Every kernel that walks a row by groups counts them here, so that none
    leaves a rest out. Raises `Unsupported` naming ``field`` where there would be one."""
    if width % GROUP:
        raise Unsupported(f"{field}: {width} is not a multiple of {GROUP}, which the kernels need", field=field)
    return width // GROUP


@dataclass(frozen=True)
class PackedMatrix:
    """A packed [rows, columns] matrix. ``zero`` is subtracted from the quants; ``minimum``: a second f16 a group.

    Raises `Unsupported` where a row is not whole groups, in any format: kernels walk floats by groups as well."""

    format: str
    rows: int
    columns: int

    def __post_init__(self) -> None:
        groups_of(self.columns)

    @property
    def bits(self) -> int:
        return {"q4": 4, "q8": 8, "f1": 16, "f3": 32}[self.format[:2]]

    @property
    def minimum(self) -> bool:
        return self.format == "q4_1"

    @property
    def zero(self) -> int:
        return 8 if self.format == "q4_0" else 0

    @property
    def blocks(self) -> int:
        return (self.rows + 15) // 16

    @property
    def record(self) -> int:
        """Bytes of 16 rows × 32 columns."""
        scales = 0 if self.bits >= 16 else 32 * (2 if self.minimum else 1)
        return 16 * 32 * self.bits // 8 + scales

    @property
    def words(self) -> int:
        return self.blocks * groups_of(self.columns) * self.record // 4
