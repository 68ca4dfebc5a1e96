"""Rotary positions of the tiny models in numpy, by Hugging Face's names (``rope_parameters``): what files say of them,
and what frequencies they come to. `tiny.json` holds it against transformers' own code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def llama3_factors(rope: Mapping[str, Any], head_dim: int, theta: float) -> npt.NDArray[np.float32]:
    """What llama.cpp's converter writes as ``rope_freqs.weight``, float32 [head_dim / 2]."""
    factor, original = rope["factor"], rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    turns = original * theta ** (-np.arange(0, head_dim, 2) / head_dim) / (2 * math.pi)
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - smooth) / factor + smooth), np.float32)


def turns(rope: Mapping[str, Any], head_dim: int, theta: float) -> tuple[Array, float]:
    """Radians a position, float64 [head_dim / 2], and what cos and sin are multiplied by."""
    plain = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        return plain / rope["factor"], 1.0
    if kind == "llama3":
        return plain / llama3_factors(rope, head_dim, theta).astype(np.float64), 1.0
    if kind == "longrope":
        return plain / np.array(rope["long_factor"]), _longrope_scale(rope)
    if kind != "yarn":
        return plain, 1.0
    factor = rope["factor"]
    fast, slow = (
        head_dim / 2 * math.log(rope["original_max_position_embeddings"] / (2 * math.pi * beta)) / math.log(theta)
        for beta in (rope.get("beta_fast", 32), rope.get("beta_slow", 1))
    )
    low, high = max(math.floor(fast), 0), math.ceil(slow)
    stretched = np.interp(np.arange(head_dim // 2), [low, high], [0, 1])
    return (
        plain * (1 - stretched) + plain / factor * stretched,
        rope.get("attention_factor", 0.1 * math.log(factor) + 1),
    )


def _longrope_scale(rope: Mapping[str, Any]) -> float:
    return math.sqrt(1 + math.log(rope["factor"]) / math.log(rope["original_max_position_embeddings"]))


def write(writer: gguf.GGUFWriter, rope: Mapping[str, Any]) -> None:
    """The keys that llama.cpp's converter makes of ``rope_parameters``."""
    kind = rope.get("rope_type")
    if kind == "longrope":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_attn_factors(_longrope_scale(rope))
    if kind not in ("linear", "yarn"):
        return
    writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
    writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for name, add in (
            ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
            ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
            ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
        ):
            if name in rope:
                add(rope[name])
