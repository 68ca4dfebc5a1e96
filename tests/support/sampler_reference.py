"""The sampler in plain numpy, with a full sort: what the C runtime and the WebGPU kernels must choose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from inpage.engines.protocol import Sampling

from .runtime import Floats


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 as in Salmon et al., SC11."""
    k0, k1 = key
    c = list(counter)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k1, p0 & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c[0], c[1], c[2], c[3]


def uniform(seed: int, position: int) -> float:
    r = philox((seed & 0xFFFFFFFF, seed >> 32), (position, 0, 0, 0))
    return ((r[0] >> 5) * 67108864 + (r[1] >> 6)) / 2**53


def clean(x: Floats) -> Floats:
    return np.where(np.isnan(x), -np.inf, np.minimum(x, np.finfo(np.float32).max)).astype(np.float32)


def modified(x: Floats, s: Sampling, history: list[int], allowed: npt.NDArray[np.bool_] | None) -> Floats:
    """Bias, mask and penalties."""
    x = x.copy()
    for token, value in s.logit_bias:
        x[token] += np.float32(value)
    for token in set(history):
        n = np.float32(history.count(token))
        penalty = np.float32(s.repetition_penalty)
        x[token] = x[token] * penalty if x[token] <= 0 else x[token] / penalty
        x[token] -= n * np.float32(s.frequency_penalty) + np.float32(s.presence_penalty)
    x = clean(x)
    return x if allowed is None else np.where(allowed, x, -np.inf).astype(np.float32)


def kept(x: Floats, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> list[int]:
    """The ids that stay, best first: a full sort, what the C code avoids."""
    order = [int(i) for i in np.lexsort((np.arange(x.size), -x.astype(np.float64))) if x[i] > -np.inf]
    best = np.float64(x[order[0]])
    if 0 < top_k < x.size:
        order = order[:top_k]
    if top_p < 1:
        w = np.exp(x[order].astype(np.float64) - best)
        reached = np.cumsum(w) >= float(np.float32(top_p)) * w.sum()
        order = order[: int(np.argmax(reached)) + 1] if reached.any() else order
    if min_p > 0:
        least = min(best, np.float32(best + np.log(np.float64(np.float32(min_p)))))
        order = [i for i in order if x[i] >= least]
    return order


def choose(x: Floats, s: Sampling, position: int, shift: float = 0.0) -> int:
    """The token that the sampler must choose from modified logits; ``position`` is the token's own. ``shift`` moves the
    uniform number a little, to see which choices hang on rounding."""
    if s.temperature <= 0:
        return int(np.argmax(x))
    ids = sorted(kept(x, s.top_k, s.top_p, s.min_p))
    w = np.exp((x[ids].astype(np.float64) - np.float64(x.max())) / np.float32(s.temperature))
    u = min(max(uniform(s.seed, position) + shift, 0.0), 1 - 1e-12)
    return ids[int(np.searchsorted(np.cumsum(w), u * w.sum(), side="right"))]


def rows_of_logits(vocab: int, rng: np.random.Generator, n: int) -> Floats:
    """Peaked, flat, coarse (many ties) and wide rows."""
    shapes: list[Callable[[], Any]] = [
        lambda: rng.normal(0, 3, vocab),
        lambda: rng.normal(0, 0.01, vocab),
        lambda: np.round(rng.normal(0, 2, vocab)),
        lambda: rng.normal(0, 1, vocab) * 30,
        lambda: np.where(rng.random(vocab) < 0.01, rng.normal(8, 2, vocab), rng.normal(-5, 1, vocab)),
    ]
    return np.array([shapes[i % len(shapes)]() for i in range(n)]).astype(np.float32)


EDGES: list[dict[str, Any]] = [
    {},
    {"top_k": 1},
    {"top_k": 2},
    {"top_k": 40},
    {"top_k": 1024},
    {"top_k": 1500},
    {"top_k": 2002},
    {"top_k": 2003},
    {"top_k": 2008},
    {"top_p": 0.0},
    {"top_p": 1e-6},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"top_p": 0.999},
    {"min_p": 1e-6},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"top_k": 50, "top_p": 0.9},
    {"top_k": 50, "min_p": 0.1},
    {"top_k": 1100, "top_p": 0.9, "min_p": 0.02},
]
