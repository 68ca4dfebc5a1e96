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
    w, x = _weights(tiny), states(tiny, ids, halves)[-1]
    out = _norm(x, w["output_norm"]) @ w["token_embd" if tiny.tied else "output"].T / tiny.number("logit_scale", 1.0)
    return np.asarray(_capped(out, tiny.number("logit_cap")))


def _weights(tiny: Tiny) -> dict[str, Array]:
    return {name: values.astype(np.float64) for name, values in tiny.dequantized().items()}


def states(tiny: Tiny, ids: list[int], halves: bool) -> list[Array]:
    """Hidden states [len(ids), hidden]: before each layer, and behind the last."""
    w, found = _weights(tiny), []
    traits, grown = tiny.traits, tiny.number("residual_scale", 1.0)
    x = w["token_embd"][ids] * (np.sqrt(tiny.hidden) if traits.root_scaled else tiny.number("embedding_scale", 1.0))
    for i in range(tiny.layers):
        found.append(x)
        blk = {name.removeprefix(f"blk.{i}."): w[name] for name in w if name.startswith(f"blk.{i}.")}
        mix = _convolve if tiny.convolves(i) else _attend
        made = mix(tiny, i, blk, _norm(x, blk["attn_norm"]), halves)
        x = x + grown * (_norm(made, blk["post_attention_norm"]) if traits.post_norms else made)
        h = _norm(x, blk["ffn_norm"])
        gates, ups = h @ blk["ffn_gate"].T, h @ blk["ffn_up"].T
        made = ((_gelu(gates) if traits.gelu else gates / (1 + np.exp(-gates))) * ups) @ blk["ffn_down"].T
        x = x + grown * (_norm(made, blk["post_ffw_norm"]) if traits.post_norms else made)
    return [*found, x]


def _gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))


def _capped(x: Array, cap: float) -> Array:
    return cap * np.tanh(x / cap) if cap else x


def _convolve(tiny: Tiny, layer: int, blk: dict[str, Array], h: Array, halves: bool) -> Array:
    """As transformers' Lfm2ShortConv. Pages hold what it reads of earlier tokens in float32."""
    b, c, x = np.split(h @ blk["shortconv.in_proj"].T, 3, axis=1)
    gated, taps = b * x, blk["shortconv.conv"].T
    out = gated * taps[-1]
    for back in range(1, min(len(taps), len(h))):
        out[back:] += gated[:-back] * taps[-1 - back]
    return np.asarray((c * out) @ blk["shortconv.out_proj"].T)


def _halved(x: Array) -> Array:
    return np.asarray(x.astype(np.float32).astype(np.float16).astype(np.float64))


def _attend(tiny: Tiny, layer: int, blk: dict[str, Array], h: Array, halves: bool) -> Array:
    rows, traits = len(h), tiny.traits
    q, k, v = (
        (h @ blk[f"attn_{x}"].T + blk.get(f"attn_{x}.bias", 0.0)).reshape(rows, heads, -1)
        for x, heads in (("q", tiny.heads), ("k", tiny.kv_heads), ("v", tiny.kv_heads))
    )
    if traits.head_norms:
        q, k = _norm(q, blk["attn_q_norm"]), _norm(k, blk["attn_k_norm"])
    if not (traits.plain_every and layer % traits.plain_every == traits.plain_every - 1):
        turn, size = _turns(tiny, layer, rows), tiny.rope_dim
        rotate = _rotate_halves if traits.halves else _rotate
        q, k = (np.concatenate([rotate(a[..., :size], turn), a[..., size:]], axis=-1) for a in (q, k))
    if halves:
        k, v = _halved(k), _halved(v)
    k, v = (a.repeat(tiny.heads // tiny.kv_heads, axis=1) for a in (k, v))
    scores = np.einsum("ahd,bhd->hab", q, k) * tiny.number("attention_scale", tiny.head_dim**-0.5)
    scores = _capped(scores, tiny.number("attention_cap"))
    scores[:, np.triu(np.ones((rows, rows), bool), 1)] = -np.inf
    if tiny.windowed(layer):
        scores[:, np.tril(np.ones((rows, rows), bool), -int(tiny.number("window")))] = -np.inf
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    weights /= weights.sum(axis=2, keepdims=True)
    return np.asarray(np.einsum("hab,bhd->ahd", weights, v).reshape(rows, -1) @ blk["attn_output"].T)


def _norm(x: Array, weight: Array) -> Array:
    return np.asarray(x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5) * weight)


def _turns(tiny: Tiny, layer: int, rows: int) -> Array:
    """Complex rotations [rows, 1, rope_dim / 2]."""
    local = tiny.traits.local_theta if tiny.windowed(layer) else 0.0
    frequencies, scale = rope.turns({} if local else dict(tiny.rope), tiny.rope_dim, local or tiny.rope_theta)
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
