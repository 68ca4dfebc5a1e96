"""Floats to K-quants, as llama.cpp makes them without an importance matrix (ggml-quants.c, ``quantize_row_q4_K_ref``
and its like): the scale of each group is searched, scales and minima are rounded to the super-block's second level,
and the numbers to what that leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from inpage.format.schema import Format, SuperBlock

from . import searches
from .formats import FORMATS
from .groups import Groups, joined

Array = npt.NDArray[Any]

TYPES = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k")
_SLICE = 128  # super-blocks at a time: what the searches hold of them stays in a core's cache
# Candidates of the searches: how far beyond the largest quant the largest number is rounded to. The ranges are
# llama.cpp's, in twice its steps: a second sweep, from the first one's best minimum, has the others.
_SWEEPS = {
    "q2_k": ([-0.5, -0.2, 0.1, 0.4, 0.7], [-0.3, 0.0, 0.3, 0.6]),
    "q4_k": ([-0.9, -0.7, -0.5, -0.3, -0.1, 0.1, 0.3, 0.5], [-0.8, -0.6, -0.4, -0.2, 0.0, 0.2, 0.4]),
    "q5_k": ([-0.5, -0.3, -0.1, 0.1, 0.3, 0.5, 0.7], [-0.4, -0.2, 0.0, 0.2, 0.4, 0.6]),
}
_OFFSETS = {
    "q3_k": [-0.4, -0.2, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
    "q6_k": [-0.9, -0.7, -0.5, -0.3, -0.1, 0.1, 0.3, 0.5, 0.7, 0.9],
}


def quantize_k(values: npt.NDArray[np.float32], format: str) -> Groups:
    """``values``: float32 [rows, columns], columns a multiple of 256; ``format``: one of `TYPES`. Where numbers are not
    finite or beyond what a float16 scale reaches, scales are not finite either."""
    make = _with_minima if format in _SWEEPS else _symmetric
    blocks = np.ascontiguousarray(values).reshape(-1, FORMATS[format].span)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        parts = [make(blocks[at : at + _SLICE], format) for at in range(0, len(blocks), _SLICE)]
    return joined(parts, np.concatenate).rows(lambda part: part.reshape(len(values), -1))


def _with_minima(blocks: Array, format: str) -> Groups:
    fmt, sup = _parts(format)
    top, most = (1 << fmt.bits) - 1, (1 << sup.scale_bits) - 1
    x = _columns(blocks, fmt.group)
    weights = np.abs(x)
    if format != "q2_k":
        weights += np.sqrt(np.einsum("ij,ij->j", x, x) / np.float32(fmt.group))
    scale, low = searches.affine(x, weights, top, _SWEEPS[format], absolute=format == "q2_k")
    d, sub_d = _second_level(scale.reshape(len(blocks), -1), most)
    m, sub_m = _second_level(-low.reshape(len(blocks), -1), most)
    x += (m * sub_m).reshape(-1)
    q = np.clip(_quotients(x, d * sub_d), 0, top)
    return Groups(format, _rows(q, blocks), _half(d), _half(m), sub_d.astype(np.uint8), sub_m.astype(np.uint8))


def _symmetric(blocks: Array, format: str) -> Groups:
    fmt, sup = _parts(format)
    least = -(1 << sup.scale_bits - 1)
    x = _columns(blocks, fmt.group)
    scale = searches.symmetric(x, fmt.zero, _OFFSETS[format]).reshape(len(blocks), -1)
    largest = np.take_along_axis(scale, np.argmax(np.abs(scale), axis=1)[:, None], axis=1)
    d = (largest / least).astype(np.float16).astype(np.float32)
    sub = np.clip(np.rint(_over(scale, largest) * least), least, -least - 1)
    q = np.clip(_quotients(x, d * sub), -fmt.zero, fmt.zero - 1) + fmt.zero
    stored = (sub + sup.zero).astype(np.int8 if sup.signed else np.uint8)
    return Groups(format, _rows(q, blocks), _half(d), sub_d=stored)


def _parts(format: str) -> tuple[Format, SuperBlock]:
    fmt = FORMATS[format]
    assert fmt.super is not None
    return fmt, fmt.super


def _second_level(values: Array, most: int) -> tuple[Array, Array]:
    """Of numbers that are 0 or more [super-blocks, groups]: the scale that they share, as a float16 number, and their
    whole numbers of 0 to ``most`` under it."""
    largest = values.max(axis=1, keepdims=True)
    return (largest / most).astype(np.float16).astype(np.float32), np.rint(_over(values, largest) * most)


def _over(values: Array, largest: Array) -> Array:
    shares: Array = np.divide(values, largest, out=np.zeros_like(values), where=largest != 0)
    return shares


def _quotients(x: Array, scale: Array) -> Array:
    """Whole numbers of columns by their groups' scales; zeros where that is 0."""
    scale = scale.reshape(-1)
    quotients: Array = np.rint(x * np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0))
    return quotients


def _columns(blocks: Array, group: int) -> Array:
    return np.ascontiguousarray(blocks.reshape(-1, group).T)


def _rows(q: Array, blocks: Array) -> Array:
    return np.ascontiguousarray(q.astype(np.uint8).T).reshape(blocks.shape)


def _half(values: Array) -> Array:
    return values.astype(np.float16).view(np.uint16)
