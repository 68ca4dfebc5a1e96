"""GGML's K-quants and IQ4_XS: super-blocks of 256 columns, whose groups have whole sub-scales under one or two floats.

Each reader takes blocks [rows, blocks, bytes] and leaves both levels as they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .blocks import halves, nibbles, nibbles_in_order
from .groups import Groups

Array = npt.NDArray[Any]


def q2_k(b: Array) -> Groups:
    """16 bytes, each a sub-scale in its low nibble and a sub-minimum in the high one; 64 of bit pairs (32 bytes are 128
    columns); d, dmin."""
    sub = b[..., :16]
    return Groups("q2_k", _pairs(b[..., 16:80]), halves(b, 80), halves(b, 82), sub & 15, sub >> 4)


def q3_k(b: Array) -> Groups:
    """32 bytes of third bits, as the fifth ones of `q5_k`; 64 of bit pairs; 12 of sub-scales: the low nibbles of bytes
    0-7 belong to the first eight, the high ones to the others, and bytes 8-11 hold the two upper bits of all; d."""
    low = b[..., 96:104]
    high = np.concatenate([b[..., 104:108] >> shift & 3 for shift in (0, 2, 4, 6)], axis=2)
    sub = np.concatenate([low & 15, low >> 4], axis=2) | (high << 4)
    return Groups("q3_k", _pairs(b[..., 32:96]) | (_planes(b[..., :32], 1) << 2), halves(b, 108), sub_d=sub)


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
    quants = nibbles(b[..., :128], 64) | (_pairs(b[..., 128:192]) << 4)
    return Groups("q6_k", quants, halves(b, 208), sub_d=b[..., 192:208].view(np.int8))


def iq4_xs(b: Array) -> Groups:
    """d, 2 bytes of the sub-scales' upper bit pairs, 4 of their low nibbles, 128 of places in the table: those of 16
    bytes are 32 columns."""
    upper = np.ascontiguousarray(b[..., 2:4]).view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    sub = nibbles_in_order(b[..., 4:8]) | (upper.astype(np.uint8) << 4)
    return Groups("iq4_xs", nibbles(b[..., 8:], 16), halves(b, 0), sub_d=sub)


def _pairs(packed: Array) -> Array:
    """Bit pairs in 64 bytes: 32 of them are 128 columns."""
    parts = packed.reshape(*packed.shape[:2], 2, 32)
    return np.concatenate([_planes(parts[:, :, i], 2) for i in range(2)], axis=2)


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
