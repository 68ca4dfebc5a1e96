"""The kinds of rotary positions: what frequencies are divided by, and what cos and sin are multiplied by.

All kinds become numbers here, in float64: frequencies are a tensor of the artifact, and only YaRN's magnitude reaches a
kernel. Llama 3's kind needs no key: its divisors lie in the file as ``rope_freqs.weight``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from inpage.errors import SourceInvalid
from inpage.format.schema import Architecture

from ..quantize.tensor import SourceTensor, dequantize
from .keys import Keys

# The artifact's tensors of frequencies: of layers that see everything, of those with a window, of those without
# rotation.
TABLE, LOCAL, PLAIN = "rope_freqs", "rope_freqs_local", "rope_freqs_none"
# A file's tensors of divisors: Llama 3's, and LongRoPE's within the original context and beyond it.
FACTORS, SHORT, LONG = "rope_freqs", "rope_factors_short", "rope_factors_long"
KINDS = ("none", "linear", "yarn", "longrope")


@dataclass(frozen=True, slots=True)
class Rope:
    """``divisors``: of each frequency, float64 [turning / 2]. ``turning``: elements of a head that turn. ``scale``: of
    cos and sin. ``local_theta``: base of layers with a window, whose frequencies nothing divides; None: they are as
    the others. ``long``: divisors of contexts beyond ``original``."""

    divisors: npt.NDArray[np.float64]
    scale: float = 1.0
    turning: int = 0
    local_theta: float | None = None
    long: npt.NDArray[np.float64] | None = None
    original: int = 0

    def tables(self, a: Architecture) -> dict[str, npt.NDArray[np.float32]]:
        """The artifact's tensors: radians a position, float32 [head_dim / 2], 0 for what does not turn."""
        long = self.long is not None and a.context > self.original
        out = {TABLE: _radians(a.rope_theta, self.turning, a.head_dim, self.long if long else self.divisors)}
        if a.local_rope and self.local_theta is not None:
            out[LOCAL] = _radians(self.local_theta, self.turning, a.head_dim, np.ones(self.turning // 2))
        if a.plain_layers:
            out[PLAIN] = np.zeros(a.head_dim // 2, np.float32)
        return out


def table_of(a: Architecture, layer: int) -> str:
    """Which table of frequencies a layer has."""
    if layer in a.plain_layers:
        return PLAIN
    return LOCAL if a.local_rope and layer not in a.whole_layers else TABLE


def _radians(theta: float, turning: int, head_dim: int, divisors: Any) -> npt.NDArray[np.float32]:
    """theta^(-2j / turning) / divisor."""
    j = np.arange(turning // 2, dtype=np.float64)
    turned = theta ** (-2.0 * j / turning) / divisors
    return np.concatenate([turned, np.zeros((head_dim - turning) // 2)]).astype(np.float32)


def read_rope(keys: Keys, head_dim: int, theta: float, context: int, factors: Mapping[str, SourceTensor]) -> Rope:
    """``factors``: the file's tensors of divisors. Raises `SourceInvalid`, naming the key, for a kind that is not
    known and for numbers out of range."""
    kind = keys.text("rope_kind", "linear")  # where a factor stands alone, as llama.cpp has it
    if kind not in KINDS:
        raise keys.wrong("rope_kind", f"rope scaling {kind[:40]!r} is not supported; supported: {', '.join(KINDS)}")
    turning = keys.integer("rope_dim", head_dim)
    if not 0 < turning <= head_dim or turning % 2:
        raise keys.wrong("rope_dim", f"{turning} of a head's {head_dim} elements would turn; expected an even number")
    own = factors.get(SHORT) if SHORT in factors else factors.get(FACTORS)
    rope = Rope(_divisors(turning, own), keys.number("rope_attn_factor", 1.0), turning)
    if LONG in factors or SHORT in factors or kind == "longrope":
        rope = _longrope(keys, context, rope, factors)
    elif kind == "linear":
        rope = replace(rope, divisors=rope.divisors * _factor(keys))
    elif kind == "yarn":
        rope = _yarn(keys, turning, theta, context, rope)
    if not math.isfinite(np.float32(rope.scale)) or np.float32(rope.scale) <= 0:
        raise keys.wrong("rope_attn_factor", f"rotary positions would be scaled by {rope.scale}")
    return rope


def _divisors(turning: int, tensor: SourceTensor | None) -> npt.NDArray[np.float64]:
    if tensor is None:
        return np.ones(turning // 2)
    name = tensor.name
    if tensor.shape != (turning // 2,):
        raise SourceInvalid(f"{name}: shape {list(tensor.shape)}, expected {[turning // 2]}", field=name)
    values = dequantize(tensor).astype(np.float64)
    if not np.all(np.isfinite(values)) or not np.all(values > 0):
        raise SourceInvalid(f"{name}: factors must be positive", field=name)
    return values


def _longrope(keys: Keys, context: int, rope: Rope, factors: Mapping[str, SourceTensor]) -> Rope:
    """LongRoPE (Ding et al., 2024, arXiv:2402.13753), as llama.cpp computes it: which divisors hold is decided once,
    by the context that a model is compiled for, and not by the length of each text."""
    for name in (SHORT, LONG):
        if name not in factors:
            raise SourceInvalid(f"tensor {name}.weight is missing, which rope scaling longrope needs", field=name)
    original = keys.integer("rope_original_context", context)
    if original < 1:
        raise keys.wrong("rope_original_context", f"must be positive, is {original}")
    return replace(rope, long=_divisors(rope.turning, factors[LONG]), original=original)


def _factor(keys: Keys) -> float:
    """How much longer the context became; 0 means 1, as llama.cpp reads and writes it."""
    name = "rope_factor" if keys.has("rope_factor") or not keys.has("rope_factor_old") else "rope_factor_old"
    factor = keys.real(name, 0.0) or 1.0
    if factor < 0:
        raise keys.wrong(name, f"must not be negative, is {factor}")
    return factor


def _yarn(keys: Keys, turning: int, theta: float, context: int, rope: Rope) -> Rope:
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
        return turning * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = max(math.floor(pair_of(fast)), 0), min(math.ceil(pair_of(slow)), turning - 1)
    ramp = np.clip((np.arange(turning // 2) - low) / max(high - low, 0.001), 0, 1)
    kept = (1 - ramp) * extrapolated
    divisors = rope.divisors / (kept + (1 - kept) / factor)
    if keys.has("yarn_attn_factor"):
        magnitude = keys.number("yarn_attn_factor")
    elif extrapolated == 0:
        magnitude = 1.0
    else:
        magnitude = _magnitude(factor, 1.0) / _magnitude(factor, keys.real("yarn_log_multiplier", 0.0))
    return replace(rope, divisors=divisors, scale=rope.scale * magnitude)


def _magnitude(factor: float, multiplier: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * multiplier * math.log(factor) + 1.0
