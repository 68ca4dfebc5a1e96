"""The metadata of a model under a family's own names: which key says what, what is refused, what is never read.

A family's table maps names that are ours (`Architecture`'s fields, and those of `rope`) to keys of a GGUF file without
the family's prefix. A checkpoint with a ``config.json`` has a table of its own and the same readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    "pooling": "pooling_type",
    "causal": "attention.causal",
}
# Of how states become a vector, by the number that stands there; 0 is none.
POOLING: Mapping[int, str] = {1: "mean", 2: "cls", 3: "last"}
# Of which layers see a window, and how often one sees everything.
WINDOWS: Mapping[str, str] = {"window_pattern": "attention.sliding_window_pattern"}
# Layers with a window turn by frequencies of their own.
LOCAL_ROPE: Mapping[str, str] = {"local_theta": "rope.freq_base_swa"}
# Short convolutions in the place of attention, in the layers without key/value heads.
CONVOLUTIONS: Mapping[str, str] = {"conv_taps": "shortconv.l_cache"}
# What scores and logits are kept within.
CAPS: Mapping[str, str] = {"attention_cap": "attn_logit_softcapping", "logit_cap": "final_logit_softcapping"}
# Factors of embeddings, queries, what layers add, logits (divided by it).
SCALES: Mapping[str, str] = {
    "embedding_scale": "embedding_scale",
    "attention_scale": "attention.scale",
    "residual_scale": "residual_scale",
    "logit_scale": "logit_scale",
}
# Whether there are rotary positions at all, in the Granites' sense of the key.
ROPE_SWITCH: Mapping[str, str] = {"rope_used": "rope.scaling.finetuned"}
# Queries grow with the logarithm of their position, beyond the original context.
TEMPERATURE: Mapping[str, str] = {"temperature_scale": "attention.temperature_scale"}
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
    """``table``: our names to keys; every key begins with ``prefix`` and a dot. Errors name the file's key.
    ``notes``: what a reader of the model should know, a line each."""

    meta: Metadata
    prefix: str
    table: Mapping[str, str]
    notes: list[str] = field(default_factory=list)

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
        """A number, or one for each layer if they are equal. Of key/value heads convolutions have 0."""
        found = self.meta.get(self.key(name))
        if not isinstance(found, list):
            return self.meta.integer(self.key(name), default)
        values = self.meta.items(self.key(name), int)
        if name == "kv_heads" and "conv_taps" in self.table:
            values = [count for count in values if count]
            if not values:
                raise self.wrong(name, "no layer has any, so that none has attention, which is not supported")
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

    def flag(self, name: str, default: bool) -> bool:
        return self.meta.flag(self.key(name), default)

    def text(self, name: str, default: str | None = None) -> str:
        return self.meta.text(self.key(name), default)

    def scale(self, name: str, default: float = 1.0) -> float:
        """A factor that not every family reads, above 0; what stands for "not here" in a file is the default."""
        if name not in self.table or self.meta.get(self.key(name)) in (None, *_OFF.get(self.table[name], ())):
            return default
        return self.number(name)

    def whole_layers(self, name: str, layers: int) -> tuple[int, ...]:
        """Layers without a window: of so many the last one, or said of each by a flag, true where it has one."""
        value = self.meta.get(self.key(name))
        if not isinstance(value, list):
            every = self.integer(name)
            if not 0 <= every <= layers:
                raise self.wrong(name, f"{every} is outside 0..{layers}")
            return tuple(range(every - 1, layers, every)) if every else ()
        if len(value) < layers or not all(isinstance(x, int) for x in value):
            raise self.wrong(name, f"must be an array of flags, one for each of {layers} layers")
        return tuple(i for i in range(layers) if not value[i])

    def conv_layers(self, layers: int) -> tuple[int, ...]:
        """Layers with a short convolution: those without key/value heads."""
        if "conv_taps" not in self.table or not isinstance(self.meta.get(self.key("kv_heads")), list):
            return ()
        counts = self.meta.items(self.key("kv_heads"), int)
        if len(counts) != layers:
            raise self.wrong("kv_heads", f"has {len(counts)} members, one for each of {layers} layers is needed")
        return tuple(i for i, count in enumerate(counts) if not count)

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
                why = "a mixture of experts is not supported; dense models run"
                if rest != "expert_count":
                    why = f"{str(value)[:60]} is not supported; only {off[0]} is"
                raise SourceInvalid(f"{key}: {why}", field=key)

    def unread(self) -> list[str]:
        """Keys under the prefix that nothing is known about."""
        known = {*self.table.values(), *_OFF, *_SILENT}
        prefix = f"{self.prefix}."
        return sorted(k for k in self.meta.names() if k.startswith(prefix) and k.removeprefix(prefix) not in known)
