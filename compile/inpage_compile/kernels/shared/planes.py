"""The planes of layout rows16: which bits of a quant each holds, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass

from inpage.format.schema import Format

from .packed import GROUP


@dataclass(frozen=True)
class Plane:
    """Part of each quant: ``width`` bits, ``low`` is their place in it. ``at``: where it begins in a group's quants."""

    width: int
    low: int
    at: int

    @property
    def mask(self) -> int:
        return ((1 << self.width) - 1) << self.low

    @property
    def columns(self) -> int:
        """That one 32-bit word of a row holds."""
        return 32 // self.width


def planes_of(format: Format) -> list[Plane]:
    """The lowest bits first."""
    out, low = [], 0
    for width in format.planes:
        out.append(Plane(width, low, 16 * GROUP * low // 8))
        low += width
    return out


__all__ = ["Plane", "planes_of"]
