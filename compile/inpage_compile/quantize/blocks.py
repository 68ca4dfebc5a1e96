"""Parts that GGML's blocks are made of: uint8 arrays [rows, blocks, bytes]."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def halves(blocks: Array, at: int) -> Array:
    """The f16 that begins at byte ``at`` of each block, as bit patterns [rows, blocks, 1]."""
    return np.ascontiguousarray(blocks[..., at : at + 2]).view(np.uint16)


def nibbles(packed: Array, run: int) -> Array:
    """Each ``run`` of bytes holds 2 · run values of 4 bits: the low nibbles come first, then the high ones."""
    runs = packed.reshape(*packed.shape[:2], -1, run)
    return np.stack([runs & 15, runs >> 4], axis=3).reshape(*packed.shape[:2], -1)


def nibbles_in_order(packed: Array) -> Array:
    """Each byte holds two neighbours, the first one in its low nibble."""
    return nibbles(packed, 1)


def high_bits(packed: Array) -> Array:
    """32 bits in 4 bytes, the first column's lowest: each one as the fifth bit of a quant."""
    return np.unpackbits(packed, axis=2, bitorder="little") << 4
