"""A matrix taken apart into quants, scales and minima, whatever its number format, and back to float32.

Scales stay bit patterns of f16, and sub-scales the whole numbers that they are, all the way: nothing is rounded, NaN
payloads and denormals included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .formats import FORMATS

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Groups:
    """A [rows, columns] matrix in one of `FORMATS`.

    ``q``: quants [rows, columns], uint8 or int8; for a float format the values, as bit patterns (uint32, uint16).
    ``d``, ``m``: f16 bit patterns, uint16 [rows, columns / span], one for each group, or for each super-block where the
    format has them; for e8m0 scales the byte, uint8. None where the format has none.
    ``sub_d``, ``sub_m``: a super-block's sub-scales and sub-minima as they are stored, before `SuperBlock.zero` is
    subtracted: uint8 or int8 [rows, columns / group]."""

    format: str
    q: Array
    d: Array | None = None
    m: Array | None = None
    sub_d: Array | None = None
    sub_m: Array | None = None

    def rows(self, change: Callable[[Array], Array]) -> Groups:
        """The matrix with other rows: ``change`` is done to quants, scales and minima alike."""
        return joined([self], lambda parts: change(parts[0]))

    def to_float32(self) -> npt.NDArray[np.float32]:
        """The exact values, float32 [rows, columns], computed in the order that ggml uses: d * q + m."""
        fmt = FORMATS[self.format]
        if fmt.type == "bfloat":
            return (self.q.astype(np.uint32) << 16).view(np.float32)
        if fmt.is_float:
            return self.q.view(np.float32) if fmt.bits == 32 else self.q.view(np.float16).astype(np.float32)
        rows, columns = self.q.shape
        if fmt.table is None:
            q = self.q.astype(np.float32) - np.float32(fmt.zero)
        else:
            q = np.array(fmt.table, np.float32)[self.q]
        q = q.reshape(rows, columns // fmt.group, fmt.group)
        with np.errstate(over="ignore", invalid="ignore"):
            out = self._scales()[:, :, None] * q
            if self.sub_m is not None:
                out = out - self._second_level(self.m, self.sub_m)[:, :, None]
            elif self.m is not None:
                out = out + self.m.view(np.float16).astype(np.float32)[:, :, None]
        values: npt.NDArray[np.float32] = out.reshape(rows, columns)
        return values

    def _scales(self) -> Array:
        """Of each group, float32."""
        fmt = FORMATS[self.format]
        assert self.d is not None
        if fmt.super is not None:
            assert self.sub_d is not None
            return self._second_level(self.d, self.sub_d.astype(np.int32) - fmt.super.zero)
        if fmt.scale == "e8m0":
            return np.ldexp(np.float32(1), self.d.astype(np.int32) - 128)
        return self.d.view(np.float16).astype(np.float32)

    def _second_level(self, d: Array | None, sub: Array) -> Array:
        assert d is not None
        by_block = sub.astype(np.float32).reshape(*d.shape, -1)
        return (d.view(np.float16).astype(np.float32)[:, :, None] * by_block).reshape(sub.shape)


def joined(parts: Sequence[Groups], join: Callable[[Sequence[Array]], Array]) -> Groups:
    """Matrices of one format as one: ``join`` is done to their quants, scales and minima alike."""

    def one(arrays: Sequence[Array | None]) -> Array | None:
        given = [a for a in arrays if a is not None]
        return join(given) if given else None

    return Groups(
        parts[0].format,
        join([p.q for p in parts]),
        one([p.d for p in parts]),
        one([p.m for p in parts]),
        one([p.sub_d for p in parts]),
        one([p.sub_m for p in parts]),
    )
