"""GGML's K-quants: super-blocks of 256 columns, whose groups have whole sub-scales under one or two floats.

Each reader takes blocks [rows, blocks, bytes] and leaves both levels as they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .blocks import halves, nibbles
from .groups import Groups

Array = npt.NDArray[Any]


def q4_k(b: Array) -> Groups:
    """d, dmin, 12 bytes of sub-scales, 128 of nibbles: those of 32 bytes are 64 columns."""
    scales, minima = _six_bits(b[..., 4:16])
    return Groups("q4_k", nibbles(b[..., 16:], 32), halves(b, 0), halves(b, 2), scales, minima)


def q5_k(b: Array) -> Groups:
    """As `q4_k`, and before the nibbles 32 bytes of fifth bits: bit i of byte j is column 32 · i + j's."""
    scales, minima = _six_bits(b[..., 4:16])
    fifth = _planes(b[..., 16:48], 1) << 4
    return Groups("q5_k", nibbles(b[..., 48:], 32) | fifth, halves(b, 0), halves(b, 2), scales, minima)


def q6_k(b: Array) -> Groups:
    """128 bytes of nibbles (those of 64 bytes are 128 columns), 64 of upper bit pairs (32 bytes for 128 columns), 16
    signed sub-scales, d."""
    low = nibbles(b[..., :128], 64)
    upper = b[..., 128:192].reshape(*b.shape[:2], 2, 32)
    high = np.concatenate([_planes(upper[:, :, i], 2) for i in range(2)], axis=2) << 4
    return Groups("q6_k", low | high, halves(b, 208), sub_d=b[..., 192:208].view(np.int8))


def _planes(packed: Array, width: int) -> Array:
    """Bits i · width and up of byte j are column (bytes · i + j)'s."""
    shifts = np.arange(0, 8, width, dtype=np.uint8)[:, None]
    return ((packed[:, :, None, :] >> shifts) & ((1 << width) - 1)).reshape(*packed.shape[:2], -1)


def _six_bits(packed: Array) -> tuple[Array, Array]:
    """8 sub-scales and 8 sub-minima in 12 bytes: the first four of each in the low bits of bytes 0-3 and 4-7; of the
    others the low nibbles in bytes 8-11 (scales low, minima high), their two upper bits on top of bytes 0-7."""
    first, second, third = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=2)
    minima = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=2)
    return scales, minima
