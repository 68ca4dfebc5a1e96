"""The kinds of rotary positions: what frequencies are divided by, and what cos and sin are multiplied by.

All kinds become numbers here, in float64: frequencies are a tensor of the artifact, and only YaRN's magnitude reaches a
kernel. Llama 3's kind needs no key: its divisors lie in the file as ``rope_freqs.weight``."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from inpage.errors import SourceInvalid

from ..quantize.tensor import SourceTensor, dequantize
from .keys import Keys

FACTORS = "rope_freqs"
KINDS = ("none", "linear", "yarn")


@dataclass(frozen=True, slots=True)
class Rope:
    """``divisors``: of each frequency, float64 [head_dim / 2]. ``scale``: of cos and sin."""

    divisors: npt.NDArray[np.float64]
    scale: float = 1.0


def read_rope(keys: Keys, head_dim: int, theta: float, context: int, factors: SourceTensor | None) -> Rope:
    """``factors``: the file's ``rope_freqs`` tensor. Raises `SourceInvalid`, naming the key, for a kind that is not
    known and for numbers out of range."""
    kind = keys.text("rope_kind", "linear")  # where a factor stands alone, as llama.cpp has it
    if kind not in KINDS:
        raise keys.wrong("rope_kind", f"rope scaling {kind[:40]!r} is not supported; supported: {', '.join(KINDS)}")
    rope = Rope(_divisors(head_dim, factors), keys.number("rope_attn_factor", 1.0))
    if kind == "linear":
        rope = replace(rope, divisors=rope.divisors * _factor(keys))
    elif kind == "yarn":
        rope = _yarn(keys, head_dim, theta, context, rope)
    if not math.isfinite(np.float32(rope.scale)) or np.float32(rope.scale) <= 0:
        raise keys.wrong("rope_attn_factor", f"rotary positions would be scaled by {rope.scale}")
    return rope


def _divisors(head_dim: int, tensor: SourceTensor | None) -> npt.NDArray[np.float64]:
    if tensor is None:
        return np.ones(head_dim // 2)
    if tensor.shape != (head_dim // 2,):
        raise SourceInvalid(f"{FACTORS}: shape {list(tensor.shape)}, expected {[head_dim // 2]}", field=FACTORS)
    values = dequantize(tensor).astype(np.float64)
    if not np.all(np.isfinite(values)) or not np.all(values > 0):
        raise SourceInvalid(f"{FACTORS}: factors must be positive", field=FACTORS)
    return values


def _factor(keys: Keys) -> float:
    """How much longer the context became; 0 means 1, as llama.cpp reads and writes it."""
    name = "rope_factor" if keys.has("rope_factor") or not keys.has("rope_factor_old") else "rope_factor_old"
    factor = keys.real(name, 0.0) or 1.0
    if factor < 0:
        raise keys.wrong(name, f"must not be negative, is {factor}")
    return factor


def _yarn(keys: Keys, head_dim: int, theta: float, context: int, rope: Rope) -> Rope:
    """YaRN (Peng et al., 2023, arXiv:2309.00071), as Hugging Face computes it: frequencies that turn more than
    ``beta_fast`` times within the original context stay, those below ``beta_slow`` are divided by the factor, a ramp
    lies between. ``yarn_attn_factor`` is Hugging Face's ``attention_factor``, which converters put there: the whole
    magnitude. (llama.cpp does not read the ``yarn_`` keys of these families.)"""
    factor, original = _factor(keys), keys.integer("rope_original_context", context)
    fast, slow = keys.number("yarn_beta_fast", 32.0), keys.number("yarn_beta_slow", 1.0)
    if original < 1:
        raise keys.wrong("rope_original_context", f"must be positive, is {original}")
    if theta <= 1:
        raise keys.wrong("rope_theta", f"YaRN needs more than 1, is {theta}")
    if fast <= slow:
        raise keys.wrong("yarn_beta_fast", f"{fast} is not above yarn_beta_slow, {slow}")
    extrapolated = keys.real("yarn_ext_factor", -1.0)
    if extrapolated > 1:
        raise keys.wrong("yarn_ext_factor", f"must be 1 at most, is {extrapolated}")
    extrapolated = 1.0 if extrapolated < 0 else extrapolated  # negative: not set

    def pair_of(turns: float) -> float:
        """Which pair turns so many times within the original context."""
        return head_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = max(math.floor(pair_of(fast)), 0), min(math.ceil(pair_of(slow)), head_dim - 1)
    ramp = np.clip((np.arange(head_dim // 2) - low) / max(high - low, 0.001), 0, 1)
    kept = (1 - ramp) * extrapolated
    divisors = rope.divisors / (kept + (1 - kept) / factor)
    if keys.has("yarn_attn_factor"):
        magnitude = keys.number("yarn_attn_factor")
    elif extrapolated == 0:
        magnitude = 1.0
    else:
        magnitude = _magnitude(factor, 1.0) / _magnitude(factor, keys.real("yarn_log_multiplier", 0.0))
    return Rope(divisors, rope.scale * magnitude)


def _magnitude(factor: float, multiplier: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * multiplier * math.log(factor) + 1.0
