"""Packed weight matrices as kernels see them: the artifact's 16-row records, their parts and their activation forms."""

from __future__ import annotations

from inpage.format.schema import Format

from ..shared.expressions import Buffer, Expr, let
from ..shared.packed import GROUP, PackedMatrix, groups_of
from .build import span, splat, view
from .isa import Isa
from .math import f16_decode


def form_for(isa: Isa, format: Format, activations: str) -> str:
    """The activation form that a weight format wants; ``activations``: "int8", or "f32" to leave them unquantized."""
    if activations == "f32" or format.is_float or isa.name == "portable":
        return "f32"
    return isa.nibble_form if format.bits == 4 else "i16"


class Records:
    """The weight buffer seen as the types that its parts have."""

    def __init__(self, weights: PackedMatrix, buffer: Buffer) -> None:
        self.w = weights
        self.groups = groups_of(weights.columns)
        self.bytes = view(buffer, "int8", weights.words * 4)
        self.halves = view(buffer, "int16", weights.words * 2)
        self.words = buffer
        self.floats = view(buffer, "float32", weights.words)

    def base(self, block: Expr, group: Expr) -> Expr:
        """Byte offset of a record."""
        return (block * self.groups + group) * self.w.record

    def scale(self, base: Expr, quad: int, which: int = 0) -> Expr:
        at = (base >> 1) + (8 * GROUP * self.w.bits // 8 + which * 16 + quad * 4)
        return let(f16_decode(self.halves[span(at)]))


def piece_of(bits: int, k: int) -> int:
    """Which 64-byte piece of a record holds column k."""
    return k // 8 if bits == 4 else k // 4


def quant_of(bits: int, words: Expr, k: int) -> Expr:
    """Column k's quant out of each row's 32-bit word."""
    if bits == 4:
        return (words >> splat(8 * (k % 4) + 4 * (k % 8 // 4), dtype="int32")) & splat(15, dtype="int32")
    return (words << splat(24 - 8 * (k % 4), dtype="int32")) >> splat(24, dtype="int32")
