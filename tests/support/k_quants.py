"""Matrices and models that llama.cpp's quantization and ours are held against: see tests/reference/make_k_quants.py."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from inpage_compile.sources import dequantize, open_source

from .tiny import Tiny

Matrix = npt.NDArray[np.float32]
# Levels, as llama.cpp numbers them (``llama_ftype``).
FILE_TYPES = {
    "q8_0": 7, "q6_k": 18, "q5_k_m": 17, "q4_k_m": 15, "q4_1": 3, "q4_0": 2, "q3_k_m": 12, "q2_k": 10,
}  # fmt: skip
# Models whose rows 256 divides, some or none: enough layers for every rule, few and many heads a key head, and layers
# that do not attend.
SHAPES = {
    "tied": Tiny(hidden=256, layers=17, heads=4, kv_heads=2, head_dim=64, ffn=288),
    "untied": Tiny(hidden=256, layers=16, heads=4, kv_heads=1, head_dim=64, ffn=256, tied=False),
    "narrow": Tiny(layers=9),
    "convolutions": Tiny(
        family="lfm2", hidden=256, layers=17, heads=4, kv_heads=1, head_dim=64, ffn=256, numbers=(("conv_taps", 3),)
    ),
}


def heavy() -> Matrix:
    """Tails far heavier than a normal distribution's: float32 [256, 2048]."""
    return np.random.default_rng(20).standard_normal((256, 2048), np.float32) ** 3 * np.float32(0.02)


def ffn_down() -> Matrix:
    """Of SmolLM2's sixth layer, float32 [576, 1536]."""
    return dequantize(open_source("smollm2-135m-instruct").tensors["blk.5.ffn_down"])


MATRICES = {"heavy": heavy, "ffn_down": ffn_down}


def rms(values: Matrix, rounded: Matrix) -> float:
    return float(np.sqrt(np.mean((rounded.astype(np.float64) - values) ** 2)))


def matrices(tiny: Tiny) -> dict[str, tuple[int, ...]]:
    """Their sizes; convolution taps, which are never quantized, are left out."""
    return {name: size for name, size in tiny.shapes().items() if len(size) == 2 and not name.endswith(".conv")}


def by_kind(types: Mapping[str, str]) -> dict[str, str]:
    """Of each kind of matrix its type, or its types layer by layer. ``types``: by tensor."""
    found: dict[str, dict[int, str]] = {}
    for name, kind in types.items():
        head, _, rest = name.partition(".")
        layer, _, last = rest.partition(".")
        found.setdefault(last or head, {})[int(layer or 0)] = kind
    in_order = {name: [layers[i] for i in sorted(layers)] for name, layers in sorted(found.items())}
    return {name: kinds[0] if len(set(kinds)) == 1 else " ".join(kinds) for name, kinds in in_order.items()}
