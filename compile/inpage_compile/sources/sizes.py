"""Sizes of models that are carried as they are: of their config only what a cache and a context need. What only graphs
of ours need has transformers' defaults."""

from __future__ import annotations

import re

from inpage.errors import SourceInvalid
from inpage.format.schema import ARCHITECTURE_LIMITS, Architecture

from ..checkpoints.config import PREFIX, Config

_LIMITED = {
    "hidden_size": "hidden", "num_attention_heads": "heads", "num_key_value_heads": "kv_heads", "head_dim": "head_dim",
    "num_hidden_layers": "layers", "intermediate_size": "ffn", "vocab_size": "vocab",
    "max_position_embeddings": "context",
}  # fmt: skip


def architecture_of(said: Config, *, layers: int, vocab: int) -> Architecture:
    """Raises `SourceInvalid`."""
    hidden, heads = size_of(said, "hidden_size"), size_of(said, "num_attention_heads")
    return Architecture(
        family=re.sub(r"[^A-Za-z0-9._-]", "-", said.text(f"{PREFIX}.model_type"))[:100],
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=size_of(said, "num_key_value_heads", heads),
        head_dim=size_of(said, "head_dim", max(1, hidden // heads)),
        ffn=size_of(said, "intermediate_size", 4 * hidden),
        vocab=vocab,
        rope_theta=said.number(f"{PREFIX}.rope_theta", 10000.0),
        norm_eps=said.number(f"{PREFIX}.rms_norm_eps", 1e-5),
        tied=said.flag(f"{PREFIX}.tie_word_embeddings", default=False),
        context=size_of(said, "max_position_embeddings"),
    )


def size_of(said: Config, key: str, default: int | None = None) -> int:
    value = said.integer(f"{PREFIX}.{key}", default)
    most = ARCHITECTURE_LIMITS[_LIMITED[key]]
    if not 1 <= value <= most:
        raise SourceInvalid(f"{PREFIX}.{key}: {value} is outside 1..{most}", field=f"{PREFIX}.{key}")
    return value
