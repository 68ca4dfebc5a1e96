"""Blocks of GGML's types for tests. What a test takes for true is the `gguf` package's dequantization of them."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type

Array = npt.NDArray[Any]
_WITH_MINIMA = (Type.Q4_1, Type.Q5_1, Type.Q2_K, Type.Q4_K, Type.Q5_K)
BEHIND = {Type.Q2_K: 80, Type.Q3_K: 108, Type.Q6_K: 208}  # where their f16 scales begin; others' stand in front


def random_blocks(rng: np.random.Generator, kind: Type, rows: int, columns: int) -> tuple[Array, Array]:
    """uint8 [rows, bytes], any bits but for f16 scales, and what the `gguf` package says they are."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    if kind in (Type.F32, Type.F16, Type.BF16):
        values = rng.standard_normal((rows, columns)).astype(np.float32)
        raw = gguf.quants.quantize(values, kind).view(np.uint8)
    else:
        raw = rng.integers(0, 256, (rows, columns // block, size), np.uint8)
        if kind == Type.MXFP4:
            raw[:, :, 0] = rng.integers(110, 130, raw.shape[:2])
            raw = raw.reshape(rows, -1)
            return raw, gguf.quants.dequantize(raw, kind).reshape(rows, columns)
        shape = (rows, columns // block, 2 if kind in _WITH_MINIMA else 1)
        scales = rng.standard_normal(shape) * 10.0 ** rng.integers(-4, 1, shape)
        scales.flat[0], scales.flat[-1] = 0, 3e-7
        at = BEHIND.get(kind, 0)
        raw[:, :, at : at + 2 * shape[2]] = scales.astype(np.float16).view(np.uint8)
        raw = raw.reshape(rows, -1)
    return raw, gguf.quants.dequantize(raw, kind).reshape(rows, columns)
