"""Which format each matrix of a level has: llama.cpp's mixtures (llama-quant.cpp, ``llama_tensor_get_type``) under the
same names. More bits go where an error costs most: the head, values, what comes out of the feed-forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .formats import FORMATS

# Level → the format of most matrices.
MIXTURES = {
    "f32": "f32", "f16": "f16", "q8_0": "q8_0", "q6_k": "q6_k", "q5_k_m": "q5_k", "q4_k_m": "q4_k", "q4_1": "q4_1",
    "q4_0": "q4_0", "q3_k_m": "q3_k", "q2_k": "q2_k",
}  # fmt: skip
# What stands in for a format where its groups do not divide a row.
_FALLBACKS = {"q2_k": "q4_0", "q3_k": "q4_0", "q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0"}


@dataclass(frozen=True, slots=True)
class Model:
    """What a mixture goes by. ``attending``: the layers that attend, in order; ``grouping``: heads that share a key
    head; ``tied``: the embedding is the head too."""

    layers: int
    attending: Sequence[int]
    grouping: int
    tied: bool


def format_in(level: str, tensor: str, model: Model) -> str:
    """The format of a matrix, by its GGUF name without ``.weight``, if its rows are long enough for any."""
    base = MIXTURES[level]
    if FORMATS[base].is_float:
        return base
    if tensor == "output" or (model.tied and tensor == "token_embd"):
        return base if base == "q8_0" else "q6_k"
    _, _, rest = tensor.partition(".")
    layer, _, name = rest.partition(".")
    at, count = int(layer) if layer.isdigit() else 0, model.layers
    if name == "attn_v":  # counted where there are any
        at, count = model.attending.index(at), len(model.attending)
    if level == "q2_k":
        # llama.cpp takes the grouping of the first layer, which is none where that does not attend.
        values = "q4_k" if model.grouping >= 4 and 0 in model.attending else "q3_k"
        return {"attn_v": values, "attn_output": "q3_k", "ffn_down": "q3_k"}.get(name, base)
    if level == "q3_k_m":
        few = {"attn_v": 2, "ffn_down": model.layers // 16}
        if name in few:
            return "q5_k" if at < few[name] else "q4_k"
        return "q4_k" if name == "attn_output" else base
    if level in ("q4_k_m", "q5_k_m") and name in ("attn_v", "ffn_down") and _more_bits(at, count):
        return "q6_k"
    return base


def fitting(format: str, columns: int) -> str:
    """``format``, or what stands in for it in rows of so many columns."""
    if columns % FORMATS[format].span == 0:
        return format
    instead = _FALLBACKS.get(format, "f16")
    return instead if columns % FORMATS[instead].span == 0 else "f16"


def _more_bits(layer: int, layers: int) -> bool:
    """The first and the last eighth of the layers, and every third one between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
