"""GGML's blocks along a row, taken apart into quants, scales and minima."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from inpage.format.schema import tensor_bytes

from . import k_quants
from .blocks import halves, high_bits, nibbles
from .formats import FORMATS
from .groups import Groups

Array = npt.NDArray[Any]


def read_groups(raw: Array, format: str, rows: int, columns: int) -> Groups:
    """Take GGML data apart. ``raw``: any array over the tensor's bytes. Raises ValueError where sizes disagree."""
    data = np.ascontiguousarray(raw).view(np.uint8).reshape(-1)
    fmt = FORMATS[format]
    if fmt.is_float:
        return Groups(format, data.view(np.uint32 if fmt.bits == 32 else np.uint16).reshape(rows, columns))
    if format not in _READERS:
        raise ValueError(f"no converter for {format}")
    if columns % fmt.span:
        raise ValueError(f"{columns} columns are not a multiple of {fmt.span}")
    blocks = data.reshape(rows, columns // fmt.span, -1)
    if rows and blocks.shape[2] != _SIZES[format]:
        raise ValueError(f"a block of {blocks.shape[2]} bytes, expected {_SIZES[format]}")
    return _READERS[format](blocks).rows(lambda part: np.ascontiguousarray(part).reshape(rows, -1))


def dequantize(raw: Array, format: str, rows: int, columns: int) -> npt.NDArray[np.float32]:
    """GGML data as float32 [rows, columns], exactly."""
    return read_groups(raw, format, rows, columns).to_float32()


def _q8_0(b: Array) -> Groups:
    return Groups("q8_0", b[..., 2:].view(np.int8), halves(b, 0))


def _q4_0(b: Array) -> Groups:
    return Groups("q4_0", nibbles(b[..., 2:], 16), halves(b, 0))


def _q4_1(b: Array) -> Groups:
    return Groups("q4_1", nibbles(b[..., 4:], 16), halves(b, 0), halves(b, 2))


def _q5_0(b: Array) -> Groups:
    return Groups("q5_0", nibbles(b[..., 6:], 16) | high_bits(b[..., 2:6]), halves(b, 0))


def _q5_1(b: Array) -> Groups:
    return Groups("q5_1", nibbles(b[..., 8:], 16) | high_bits(b[..., 4:8]), halves(b, 0), halves(b, 2))


def _iq4_nl(b: Array) -> Groups:
    return Groups("iq4_nl", nibbles(b[..., 2:], 16), halves(b, 0))


def _mxfp4(b: Array) -> Groups:
    return Groups("mxfp4", nibbles(b[..., 1:], 16), b[..., :1])


_SIZES = {name: tensor_bytes(FORMATS[name], "rows16", (16, FORMATS[name].span)) // 16 for name in FORMATS}
_READERS: dict[str, Callable[[Array], Groups]] = {
    "q8_0": _q8_0,
    "q4_0": _q4_0,
    "q4_1": _q4_1,
    "q5_0": _q5_0,
    "q5_1": _q5_1,
    "q2_k": k_quants.q2_k,
    "q3_k": k_quants.q3_k,
    "q4_k": k_quants.q4_k,
    "q5_k": k_quants.q5_k,
    "q6_k": k_quants.q6_k,
    "iq4_nl": _iq4_nl,
    "iq4_xs": k_quants.iq4_xs,
    "mxfp4": _mxfp4,
}
