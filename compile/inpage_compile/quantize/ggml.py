"""GGML's blocks of 32 along a row, taken apart into quants, scales and minima, and back to float32.

Scales stay uint16 bit patterns (of f16) all the way: nothing is rounded, NaN payloads and denormals included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .formats import FORMATS

Array = npt.NDArray[Any]

BLOCK = 32


@dataclass(frozen=True, slots=True)
class Groups:
    """A [rows, columns] matrix in one of `FORMATS`.

    ``q``: quants [rows, columns], uint8 or int8; for a float format the values, as bit patterns (uint32, uint16).
    ``d``, ``m``: f16 bit patterns, uint16 [rows, columns / group]; None where the format has none."""

    format: str
    q: Array
    d: Array | None = None
    m: Array | None = None

    def rows(self, change: Callable[[Array], Array]) -> Groups:
        """The matrix with other rows: ``change`` is done to quants, scales and minima alike."""
        q, d, m = (None if part is None else change(part) for part in (self.q, self.d, self.m))
        assert q is not None
        return Groups(self.format, q, d, m)

    def to_float32(self) -> npt.NDArray[np.float32]:
        """The exact values, float32 [rows, columns], computed in the order that ggml uses: d * q + m."""
        fmt = FORMATS[self.format]
        if fmt.type == "float":
            if fmt.bits == 32:
                return self.q.view(np.float32)
            return self.q.view(np.float16).astype(np.float32)
        rows, columns = self.q.shape
        q = self.q.astype(np.float32).reshape(rows, columns // fmt.group, fmt.group) - np.float32(fmt.zero)
        assert self.d is not None
        with np.errstate(over="ignore", invalid="ignore"):
            out = q * self.d.view(np.float16).astype(np.float32)[:, :, None]
            if self.m is not None:
                out = out + self.m.view(np.float16).astype(np.float32)[:, :, None]
        return out.reshape(rows, columns)


def read_groups(raw: Array, format: str, rows: int, columns: int) -> Groups:
    """Take GGML data apart. ``raw``: any array over the tensor's bytes. Raises ValueError where sizes disagree."""
    data = np.ascontiguousarray(raw).view(np.uint8).reshape(-1)
    if format in ("f32", "f16"):
        dtype = np.uint32 if format == "f32" else np.uint16
        return Groups(format, data.view(dtype).reshape(rows, columns))
    if columns % BLOCK:
        raise ValueError(f"{columns} columns are not a multiple of {BLOCK}")
    groups = columns // BLOCK
    blocks = data.reshape(rows, groups, -1)

    def half(at: int) -> Array:
        return np.ascontiguousarray(blocks[:, :, at : at + 2]).view(np.uint16)[:, :, 0]

    if format == "q8_0":
        return Groups(format, blocks[:, :, 2:].view(np.int8).reshape(rows, columns), half(0))
    if format == "q4_0":
        return Groups(format, _nibbles(blocks[:, :, 2:], rows, columns), half(0))
    if format == "q4_1":
        return Groups(format, _nibbles(blocks[:, :, 4:], rows, columns), half(0), half(2))
    raise ValueError(f"no converter for {format}")


def dequantize(raw: Array, format: str, rows: int, columns: int) -> npt.NDArray[np.float32]:
    """GGML data as float32 [rows, columns], exactly."""
    return read_groups(raw, format, rows, columns).to_float32()


def _nibbles(packed: Array, rows: int, columns: int) -> Array:
    """16 bytes hold 32 quants: the low nibbles are columns 0-15, the high nibbles columns 16-31."""
    if packed.shape[-1] != BLOCK // 2:
        raise ValueError(f"a block of {packed.shape[-1]} quant bytes, expected {BLOCK // 2}")
    out = np.empty((*packed.shape[:2], BLOCK), np.uint8)
    np.bitwise_and(packed, 15, out=out[:, :, : BLOCK // 2])
    np.right_shift(packed, 4, out=out[:, :, BLOCK // 2 :])
    return out.reshape(rows, columns)
