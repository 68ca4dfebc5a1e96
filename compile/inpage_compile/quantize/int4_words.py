"""MLC's 4-bit groups (q4f16_1, q4f32_1): along a row, 8 quants in a uint32, the first in the lowest bits, a scale for
32 of them, and 7 for zero. One more than each quant is Q4_0's, whose zero is 8: nothing is rounded."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from inpage.errors import SourceInvalid

from .groups import Groups
from .tensor import SourceTensor

GROUP = 32
_MOST = 14  # quants are 0 to 14, as -7 to 7 have no -8


@dataclass(frozen=True, slots=True)
class Int4Words(SourceTensor):
    """``data``: the words, uint8; ``scales``: float16 or float32 [rows, columns / 32]. Raises `SourceInvalid` where it
    is taken apart, for quants or scales that a Q4_0 cannot hold."""

    scales: npt.NDArray[Any] = field(default_factory=lambda: np.zeros((0, 0), np.float16), repr=False)

    def rows(self, which: npt.NDArray[np.intp] | slice) -> Self:
        return replace(SourceTensor.rows(self, which), scales=self.scales[which])

    def stored(self) -> Groups:
        rows, columns = self.shape
        pairs = np.ascontiguousarray(self.data).reshape(rows, columns // 2)
        q = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(rows, columns)
        if q.size and q.max() > _MOST:
            raise SourceInvalid(f"{self.name}: a quant of 15, which this format does not have", field=self.name)
        with np.errstate(over="ignore"):
            d = self.scales.astype(np.float16)
        if not np.array_equal(d.astype(np.float32), self.scales.astype(np.float32)):
            raise SourceInvalid(f"{self.name}: a scale that is no float16 number", field=self.name)
        return Groups("q4_0", (q + 1).astype(np.uint8), np.ascontiguousarray(d).view(np.uint16))
