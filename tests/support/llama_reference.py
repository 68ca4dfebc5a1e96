"""The tiny models in numpy, float64: the witness between PyTorch (`tiny.json`) and an engine whose keys and values are
halves. Without rounding it must agree with PyTorch, with rounding an engine must agree with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import rope
from .tiny import Tiny

Array = npt.NDArray[Any]


def logits(tiny: Tiny, ids: list[int], halves: bool) -> Array:
    """Logits [len(ids), vocab]. ``halves``: keys and values rounded to float16, as KV pages hold them."""
    w = {name: values.astype(np.float64) for name, values in tiny.dequantized().items()}
    x = w["token_embd"][ids]
    turn = _turns(tiny, len(ids))
    for i in range(tiny.layers):
        blk = {name.removeprefix(f"blk.{i}."): w[name] for name in w if name.startswith(f"blk.{i}.")}
        x = x + _attend(tiny, blk, _norm(x, blk["attn_norm"]), turn, halves)
        h = _norm(x, blk["ffn_norm"])
        gates, ups = h @ blk["ffn_gate"].T, h @ blk["ffn_up"].T
        x = x + (gates / (1 + np.exp(-gates)) * ups) @ blk["ffn_down"].T
    return np.asarray(_norm(x, w["output_norm"]) @ w["token_embd" if tiny.tied else "output"].T)


def _attend(tiny: Tiny, blk: dict[str, Array], h: Array, turn: Array, halves: bool) -> Array:
    rows = len(h)
    q, k, v = (
        (h @ blk[f"attn_{x}"].T + blk.get(f"attn_{x}.bias", 0.0)).reshape(rows, heads, -1)
        for x, heads in (("q", tiny.heads), ("k", tiny.kv_heads), ("v", tiny.kv_heads))
    )
    if tiny.family == "qwen3":
        q, k = _norm(q, blk["attn_q_norm"]), _norm(k, blk["attn_k_norm"])
    rotate = _rotate if tiny.family == "llama" else _rotate_halves
    q, k = rotate(q, turn), rotate(k, turn)
    if halves:
        k, v = (a.astype(np.float32).astype(np.float16).astype(np.float64) for a in (k, v))
    k, v = (a.repeat(tiny.heads // tiny.kv_heads, axis=1) for a in (k, v))
    scores = np.einsum("ahd,bhd->hab", q, k) / np.sqrt(tiny.head_dim)
    scores[:, np.triu(np.ones((rows, rows), bool), 1)] = -np.inf
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    weights /= weights.sum(axis=2, keepdims=True)
    return np.asarray(np.einsum("hab,bhd->ahd", weights, v).reshape(rows, -1) @ blk["attn_output"].T)


def _norm(x: Array, weight: Array) -> Array:
    return np.asarray(x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5) * weight)


def _turns(tiny: Tiny, rows: int) -> Array:
    """Complex rotations [rows, 1, head_dim / 2]."""
    frequencies, scale = rope.turns(dict(tiny.rope), tiny.head_dim, tiny.rope_theta)
    return np.asarray(scale * np.exp(1j * np.arange(rows)[:, None, None] * frequencies))


def _rotate(x: Array, turn: Array) -> Array:
    """Neighbouring pairs, as GGUF's Llamas have them."""
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * turn
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def _rotate_halves(x: Array, turn: Array) -> Array:
    """The two halves of a head, as Hugging Face's models and GGUF's Qwens have them."""
    first, second = np.split(x, 2, axis=-1)
    turned = (first + 1j * second) * turn
    return np.concatenate([turned.real, turned.imag], axis=-1)
