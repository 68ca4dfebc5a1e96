"""Blocks of GGML's types for tests. What a test takes for true is the `gguf` package's dequantization of them."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type

from inpage_compile.quantize import Groups

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


def k_blocks(groups: Groups) -> Array:
    """The bytes, [rows, bytes of a row], of a matrix in a K-type, written after ggml-common.h's ``block_q2_K`` to
    ``block_q6_K``. Raises AssertionError for a part that its bits do not hold."""
    q = groups.q.reshape(-1, 256)
    assert groups.d is not None and groups.sub_d is not None
    d = groups.d.reshape(-1, 1).view(np.uint8)
    sub = groups.sub_d.view(np.uint8).reshape(len(q), -1)
    assert q.max() < {"q2_k": 4, "q3_k": 8, "q4_k": 16, "q5_k": 32, "q6_k": 64}[groups.format]
    pairs = (q & 3).reshape(-1, 2, 4, 32)  # of the lowest two bits, four lie in a byte, 32 columns apart
    low = (pairs << np.arange(0, 8, 2, dtype=np.uint8)[:, None]).sum(axis=2, dtype=np.uint8).reshape(len(q), -1)
    nibbles = (q & 15).reshape(-1, 4, 2, 32)
    halves = (nibbles[:, :, 0] | nibbles[:, :, 1] << 4).reshape(len(q), -1)
    top = (q >> (2 if groups.format == "q3_k" else 4) & 1).reshape(-1, 8, 32)  # a byte has bits 32 columns apart
    bits = (top << np.arange(8, dtype=np.uint8)[:, None]).sum(axis=1, dtype=np.uint8)
    if groups.format in ("q2_k", "q4_k", "q5_k"):
        assert groups.m is not None and groups.sub_m is not None
        m, sub_m = groups.m.reshape(-1, 1).view(np.uint8), groups.sub_m.reshape(len(q), -1)
        assert max(sub.max(), sub_m.max()) < (16 if groups.format == "q2_k" else 64)
        if groups.format == "q2_k":
            return np.concatenate([sub | sub_m << 4, low, d, m], axis=1).reshape(len(groups.q), -1)
        first = [part[:, :4] | part[:, 4:] >> 4 << 6 for part in (sub, sub_m)]
        scales = np.concatenate([*first, (sub[:, 4:] & 15) | (sub_m[:, 4:] << 4)], axis=1)
        fifth = [bits] if groups.format == "q5_k" else []
        return np.concatenate([d, m, scales, *fifth, halves], axis=1).reshape(len(groups.q), -1)
    if groups.format == "q3_k":
        assert sub.max() < 64
        upper = (sub >> 4).reshape(-1, 4, 4) << np.arange(0, 8, 2, dtype=np.uint8)[:, None]
        scales = np.concatenate([(sub[:, :8] & 15) | (sub[:, 8:] << 4), upper.sum(axis=1, dtype=np.uint8)], axis=1)
        return np.concatenate([bits, low, scales, d], axis=1).reshape(len(groups.q), -1)
    lower = (q & 15).reshape(-1, 2, 2, 64)
    upper = (q >> 4).reshape(-1, 2, 4, 32) << np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    parts = [(lower[:, :, 0] | lower[:, :, 1] << 4).reshape(len(q), -1), upper.sum(axis=2, dtype=np.uint8)]
    return np.concatenate([parts[0], parts[1].reshape(len(q), -1), sub, d], axis=1).reshape(len(groups.q), -1)
