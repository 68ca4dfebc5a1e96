"""Floats to any format that levels are made of: K-quants here, the others by the `gguf` package as ggml rounds them."""

from __future__ import annotations

import gguf
import numpy as np
import numpy.typing as npt

from .formats import FORMATS
from .ggml import read_groups
from .groups import Groups
from .k_quantize import TYPES, quantize_k


def quantize(values: npt.NDArray[np.float32], format: str) -> Groups:
    """``values``: float32 [rows, columns], columns a multiple of the format's `Format.span`. Raises ValueError where
    they are not finite, or larger than the format's float16 numbers reach."""
    values = np.ascontiguousarray(values)
    if format in TYPES:
        groups = quantize_k(values, format)
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            raw = gguf.quants.quantize(values, gguf.GGMLQuantizationType[format.upper()])
        groups = read_groups(raw, format, *values.shape)
    fmt = FORMATS[format]
    for part in (groups.q,) if fmt.is_float else (groups.d, groups.m):
        if part is not None and not np.isfinite(part.view(np.float32 if fmt.bits == 32 else np.float16)).all():
            raise ValueError(f"holds numbers that are not finite, or too large for {format}")
    return groups
