"""The metadata of a model under a family's own names: which key says what, what is refused, what is never read.

A family's table maps names that are ours (`Architecture`'s fields, and those of `rope`) to keys of a GGUF file without
the family's prefix. A checkpoint with a ``config.json`` has a table of its own and the same readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inpage.errors import SourceInvalid
from inpage.format.schema import ARCHITECTURE_LIMITS

from ..gguf.metadata import Metadata

# What the decoder of `graph` is described by.
DECODER: Mapping[str, str] = {
    "layers": "block_count",
    "hidden": "embedding_length",
    "heads": "attention.head_count",
    "kv_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "value_dim": "attention.value_length",
    "window": "attention.sliding_window",
    "ffn": "feed_forward_length",
    "norm_eps": "attention.layer_norm_rms_epsilon",
    "context": "context_length",
    "rope_theta": "rope.freq_base",
    "rope_dim": "rope.dimension_count",
}
# How `rope` changes frequencies.
ROPE: Mapping[str, str] = {
    "rope_kind": "rope.scaling.type",
    "rope_factor": "rope.scaling.factor",
    "rope_factor_old": "rope.scale_linear",
    "rope_attn_factor": "rope.scaling.attn_factor",
    "rope_original_context": "rope.scaling.original_context_length",
    "yarn_ext_factor": "rope.scaling.yarn_ext_factor",
    "yarn_attn_factor": "rope.scaling.yarn_attn_factor",
    "yarn_beta_fast": "rope.scaling.yarn_beta_fast",
    "yarn_beta_slow": "rope.scaling.yarn_beta_slow",
    "yarn_log_multiplier": "rope.scaling.yarn_log_multiplier",
}
# What other decoders have: the value that stands for "not here". Any other one changes numbers.
_OFF: Mapping[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.causal": (True,),
    "attention.scale": (0,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.temperature_scale": (0,),
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
    "logit_scale": (0, 1),
    "embedding_scale": (0, 1),
    "residual_scale": (0, 1),
    "use_parallel_residual": (False,),
    "nextn_predict_layers": (0,),
    "rope.scaling.alpha": (0,),
}
# Changes no number: the vocabulary is as large as the embedding.
_SILENT = frozenset({"vocab_size", "tensor_data_layout", "rope.scaling.finetuned"})


@dataclass(frozen=True, slots=True)
class Keys:
    """``table``: our names to keys; every key begins with ``prefix`` and a dot. Errors name the file's key."""

    meta: Metadata
    prefix: str
    table: Mapping[str, str]

    def key(self, name: str) -> str:
        return f"{self.prefix}.{self.table[name]}"

    def size(self, name: str, default: int | None = None) -> int:
        """A whole number of the architecture, within the schema's limit for ``name``."""
        key, limit = self.key(name), ARCHITECTURE_LIMITS[name]
        v = self._same(name, default)
        if not 1 <= v <= limit:
            raise SourceInvalid(f"{key}: {v} is outside 1..{limit}", field=key)
        return v

    def _same(self, name: str, default: int | None) -> int:
        """A number, or one for each layer if they are equal."""
        found = self.meta.get(self.key(name))
        if not isinstance(found, list):
            return self.meta.integer(self.key(name), default)
        values = self.meta.items(self.key(name), int)
        if len(set(values)) != 1:
            raise self.wrong(name, f"layers that differ are not supported: {str(values)[:60]}")
        return int(values[0])

    def integer(self, name: str, default: int | None = None) -> int:
        return self.meta.integer(self.key(name), default)

    def number(self, name: str, default: float | None = None) -> float:
        """Above 0."""
        return self.meta.number(self.key(name), default)

    def real(self, name: str, default: float) -> float:
        """Of either sign."""
        return self.meta.real(self.key(name), default)

    def text(self, name: str, default: str | None = None) -> str:
        return self.meta.text(self.key(name), default)

    def has(self, name: str) -> bool:
        return self.meta.get(self.key(name)) is not None

    def wrong(self, name: str, what: str) -> SourceInvalid:
        return SourceInvalid(f"{self.key(name)}: {what}", field=self.key(name))

    def refuse_others(self) -> None:
        """Raise `SourceInvalid` for a key that changes numbers and that no graph follows."""
        for rest, off in _OFF.items():
            key = f"{self.prefix}.{rest}"
            value = self.meta.get(key)
            if value is not None and rest not in self.table.values() and value not in off:
                raise SourceInvalid(f"{key}: {str(value)[:60]} is not supported; only {off[0]} is", field=key)

    def unread(self) -> list[str]:
        """Keys under the prefix that nothing is known about."""
        known = {*self.table.values(), *_OFF, *_SILENT}
        prefix = f"{self.prefix}."
        return sorted(k for k in self.meta.names() if k.startswith(prefix) and k.removeprefix(prefix) not in known)
