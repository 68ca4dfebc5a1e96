"""How a folder of the Hugging Face kind holds a family: what its config.json calls our names, and its tensors ours.

The same `Family.read` reads both: `ConfigKeys` answers it from config.json, in the words of GGUF where the two differ
(no rope scaling is "default" here and "none" there)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from inpage.errors import SourceInvalid, quoted
from inpage.format import bounded

from ..checkpoints.config import PREFIX, Config
from ..quantize.tensor import SourceTensor
from .keys import Keys

# Our names to keys of config.json.
CONFIG: Mapping[str, str] = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn": "intermediate_size",
    "norm_eps": "rms_norm_eps",
    "context": "max_position_embeddings",
    "rope_dim": "partial_rotary_factor",
    "rope_theta": "rope_theta",
}
# Of the object with the kind of rotary positions, `rope_scaling` or, since transformers 5, `rope_parameters`.
_ROPE = {
    "rope_kind": "rope_type",
    "rope_factor": "factor",
    "rope_original_context": "original_max_position_embeddings",
    "yarn_attn_factor": "attention_factor",
    "yarn_beta_fast": "beta_fast",
    "yarn_beta_slow": "beta_slow",
}
# Of families that have more: which layers have a window, rotary positions of those, caps, factors.
WINDOWS: Mapping[str, str] = {"window_pattern": "layer_types", "local_theta": "rope_local_base_freq"}
CONVOLUTIONS: Mapping[str, str] = {"conv_taps": "conv_L_cache", "conv_layers": "layer_types"}
CAPS: Mapping[str, str] = {"attention_cap": "attn_logit_softcapping", "logit_cap": "final_logit_softcapping"}
QUERY_SCALE: Mapping[str, str] = {"attention_scale": "query_pre_attn_scalar"}
SCALES: Mapping[str, str] = {
    "embedding_scale": "embedding_multiplier",
    "attention_scale": "attention_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
}
PLAIN: Mapping[str, str] = {"plain_layers": "no_rope_layers", "plain_every": "no_rope_layer_interval"}
_ROPE_BLOCKS = ("rope_parameters", "rope_scaling")
# A file's tensors of divisors, as `rope` knows them.
FACTORS, SHORT, LONG = "rope_freqs", "rope_factors_short", "rope_factors_long"
_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
# Tensors, behind `model.`.
MODEL: Mapping[str, str] = {"embed_tokens.weight": "token_embd", "norm.weight": "output_norm"}
HEAD = "lm_head.weight"
# Within a layer.
LAYER: Mapping[str, str] = {
    "input_layernorm.weight": "attn_norm",
    **{f"self_attn.{x}_proj.weight": f"attn_{x}" for x in "qkv"},
    **{f"self_attn.{x}_proj.bias": f"attn_{x}.bias" for x in "qkv"},
    **{f"self_attn.{x}_norm.weight": f"attn_{x}_norm" for x in "qk"},
    "self_attn.o_proj.weight": "attn_output",
    "post_attention_layernorm.weight": "ffn_norm",
    **{f"mlp.{x}_proj.weight": f"ffn_{x}" for x in ("gate", "up", "down")},
}
# Norms before and behind attention and feed-forward.
FOUR_NORMS: Mapping[str, str] = {
    **LAYER,
    "post_attention_layernorm.weight": "post_attention_norm",
    "pre_feedforward_layernorm.weight": "ffn_norm",
    "post_feedforward_layernorm.weight": "post_ffw_norm",
}
# Matrices that hold several.
FUSED: Mapping[str, str] = {
    **LAYER,
    "self_attn.qkv_proj.weight": "attn_qkv",
    "mlp.gate_up_proj.weight": "ffn_up",
}
# What other decoders have: the value that stands for "not here". Any other one changes numbers.
_OFF: Mapping[str, tuple[Any, ...]] = {
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_bias": (False,),
    "conv_bias": (False,),
    "block_use_swiglu": (True,),
    "use_pos_enc": (True,),
    "tie_embedding": (True,),
    "use_sliding_window": (False,),
    "rope_interleaved": (False,),
    "position_embedding_type": ("rope",),
    "num_experts": (0,),
    "num_local_experts": (0,),
    "n_routed_experts": (0,),
    "num_nextn_predict_layers": (0,),
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
    "query_pre_attn_scalar": (0,),
    "attention_multiplier": (0,),
    "embedding_multiplier": (1,),
    "residual_multiplier": (1,),
    "logits_scaling": (1,),
    "logit_scale": (1,),
    "no_rope_layers": ([],),
    "no_rope_layer_interval": (0,),
    "clip_qkv": (0,),
    "qk_layernorm": (False,),
    "use_qk_norm": (False,),
    "attn_temperature_tuning": (False,),
    "use_parallel_residual": (False,),
    "parallel_attn": (False,),
    "alibi": (False,),
    "is_causal": (True,),
    "use_bidirectional_attention": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "rope_scaling.mscale": (0,),
    "rope_scaling.mscale_all_dim": (0,),
    "rope_scaling.truncate": (True,),
    "rope_parameters.mscale": (0,),
    "rope_parameters.mscale_all_dim": (0,),
    "rope_parameters.truncate": (True,),
}
# Changes no number when a model answers, or is read elsewhere.
_SILENT = frozenset((
    "_name_or_path", "architectures", "model_type", "vocab_size", "hidden_act", "hidden_activation",
    "tie_word_embeddings", "torch_dtype", "dtype", "transformers_version", "initializer_range", "use_cache",
    "attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "bos_token_id",
    "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "cls_token_id", "pretraining_tp",
    "is_llama_config", "max_window_layers", "sliding_window", "layer_types", "sliding_window_pattern",
    "_sliding_window_pattern", "rope_local_base_freq", "rope_parameters.short_factor", "rope_parameters.long_factor",
    "rope_scaling.short_factor", "rope_scaling.long_factor", "rope_parameters.original_max_position_embeddings",
    "rope_scaling.original_max_position_embeddings", "cache_implementation",
    "layer_norm_eps", "return_dict", "output_attentions", "output_hidden_states", "num_experts_per_tok",
    "router_aux_loss_coef", "output_router_logits", "unsloth_fixed", "unsloth_version",
    "original_max_position_embeddings", "rope_scaling.type", "rope_scaling.rope_theta", "rope_parameters.type",
    "rope_parameters.partial_rotary_factor", "rope_scaling.low_freq_factor", "rope_scaling.high_freq_factor",
    "rope_parameters.low_freq_factor", "rope_parameters.high_freq_factor", "conv_dim", "conv_dim_out",
    "conv_use_xavier_init", "num_heads", "theta", "full_attn_idxs", "block_dim", "block_ff_dim",
    "block_auto_adjust_ff_dim", "block_multiple_of", "block_ffn_dim_multiplier", "block_norm_eps",
    "block_mlp_init_scale", "block_out_init_scale", "block_use_xavier_init",
))  # fmt: skip
_LONGROPE = ("longrope", "su")  # as it was called first
_SILENT_UNDER = (
    "rope_parameters.sliding_attention.", "transformers.js_config.", "task_specific_params.", "id2label.", "label2id.",
    "auto_map.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``types``: what config.json calls the family (``model_type``); ``windowed``: those of them whose
    ``sliding_window`` counts, which others leave unread. ``config``, ``layer``, ``model``: keys, tensors of a layer and
    others, from our names and to them. ``usual``: what config.json says in words of the family's own as others say it.
    ``activations``: names of the gate's. ``tied``: whether the head is the embedding where config.json does not say it.
    ``norm_offset``: what norms' weights lack."""

    types: tuple[str, ...]
    windowed: tuple[str, ...] = ()
    config: Mapping[str, str] = field(default_factory=lambda: CONFIG)
    layer: Mapping[str, str] = field(default_factory=lambda: LAYER)
    model: Mapping[str, str] = field(default_factory=lambda: MODEL)
    usual: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda values: values
    activations: tuple[str, ...] = ("silu", "swish")
    tied: bool = False
    norm_offset: float = 0.0

    def keys(self, values: Mapping[str, Any]) -> ConfigKeys:
        values = self.usual(values)
        block = next((name for name in _ROPE_BLOCKS if isinstance(values.get(name), Mapping)), _ROPE_BLOCKS[0])
        own: Mapping[str, Any] = values.get(block) or {}
        table = dict(self.config)
        if values.get("model_type") in self.windowed:
            table["window"] = "sliding_window"
        if isinstance(own.get("full_attention"), Mapping):  # of layers that see everything, and of those with a window
            if "local_theta" in table:
                table["local_theta"] = f"{block}.sliding_attention.rope_theta"
            block, own = f"{block}.full_attention", own["full_attention"]
        table |= {name: f"{block}.{key}" for name, key in _ROPE.items()}
        if own.get("rope_type") is None and own.get("type") is not None:
            table["rope_kind"] = f"{block}.type"
        if own.get("original_max_position_embeddings") is None:
            table["rope_original_context"] = "original_max_position_embeddings"
        for key in ("rope_theta", "partial_rotary_factor"):
            if own.get(key) is not None:
                table |= {name: f"{block}.{key}" for name, found in self.config.items() if found == key}
        if "window_pattern" in table and values.get("layer_types") is None:
            table["window_pattern"] = "sliding_window_pattern"
        return ConfigKeys(Config(values), PREFIX, table, block=block, activations=self.activations)

    def name_of(self, tensor: str) -> str | None:
        """Ours for a tensor; None for what no family needs: frequencies that old files hold."""
        if tensor == HEAD:
            return "output"
        rest = tensor.removeprefix("model.")
        if rest.endswith("rotary_emb.inv_freq"):
            return None
        if rest in self.model:
            return self.model[rest]
        match = re.fullmatch(r"layers\.(0|[1-9]\d{0,4})\.(.{1,100})", rest)
        ours = self.layer.get(match[2]) if match else None
        if match and ours:
            return f"blk.{match[1]}.{ours}"
        # What a file calls by a name of ours is none of its own.
        taken = tensor in {"output", *self.model.values()} or tensor.startswith("blk.")
        return f"{tensor} of the file" if taken else tensor

    def file_names(self) -> dict[str, str]:
        """The last part of our names to what stands behind ``model.layers.N.`` or ``model.``."""
        named = {ours: f"model.{theirs}" for theirs, ours in self.model.items()} | {"output": HEAD}
        return named | {ours: theirs for theirs, ours in self.layer.items()}


@dataclass(frozen=True, slots=True)
class ConfigKeys(Keys):
    """config.json under our names. ``block``: where the kind of rotary positions stands."""

    block: str = ""
    activations: tuple[str, ...] = ()

    def key(self, name: str) -> str:
        return f"{PREFIX}.{self.table[name]}" if name in self.table else f"no {name}"

    def text(self, name: str, default: str | None = None) -> str:
        # Explicit, since slots make a new class of this one.
        found = Keys.text(self, name, "default" if name == "rope_kind" else default)
        if name != "rope_kind":
            return found
        return "none" if found in ("default", "llama3") else "longrope" if found in _LONGROPE else found

    def integer(self, name: str, default: int | None = None) -> int:
        if name == "rope_dim" and self.has(name):
            if (share := self.number(name)) > 1:
                raise self.wrong(name, f"{share} is more than all of a head")
            return int((default or 0) * share)
        return Keys.integer(self, name, default)

    def number(self, name: str, default: float | None = None) -> float:
        if name == "rope_attn_factor" and self._kind() in _LONGROPE:
            return self._longrope_scale()
        return Keys.number(self, name, default)

    def scale(self, name: str, default: float = 1.0) -> float:
        found = Keys.scale(self, name, default)
        if name == "attention_scale" and self.table.get(name) == QUERY_SCALE[name] and self.has(name):
            usual = Keys.size(self, "head_dim", max(self.size("hidden") // self.size("heads"), 1))
            return default if found == usual else float(found**-0.5)
        return found

    def whole_layers(self, name: str, layers: int) -> tuple[int, ...]:
        kinds = self.meta.get(self.key(name))
        if not isinstance(kinds, list):
            return Keys.whole_layers(self, name, layers)
        if len(kinds) != layers or not set(map(str, kinds)) <= {"full_attention", "sliding_attention"}:
            raise self.wrong(name, f"must name full_attention or sliding_attention for each of {layers} layers")
        return tuple(i for i, kind in enumerate(kinds) if kind == "full_attention")

    def conv_layers(self, layers: int) -> tuple[int, ...]:
        name = "conv_layers"
        if name not in self.table:
            return ()
        kinds = self.meta.items(self.key(name), str) if self.has(name) else ["full_attention"] * layers
        if len(kinds) != layers or not set(kinds) <= {"full_attention", "conv"}:
            raise self.wrong(name, f"must name full_attention or conv for each of {layers} layers")
        if "full_attention" not in kinds:
            raise self.wrong(name, "no layer has attention, which is not supported")
        return tuple(i for i, kind in enumerate(kinds) if kind == "conv")

    def _kind(self) -> str:
        return str(self.meta.get(self.key("rope_kind")) or "default")

    def _longrope_scale(self) -> float:
        """As transformers and llama.cpp's converter have it: by how much longer the context became."""
        if self.has("yarn_attn_factor"):
            return Keys.number(self, "yarn_attn_factor")
        context = self.size("context")
        original = self.integer("rope_original_context", context)
        if original < 2:
            raise self.wrong("rope_original_context", f"must be 2 at least, is {original}")
        longer = context / original
        scale = 1.0 if longer <= 1 else math.sqrt(1 + math.log(longer) / math.log(original))
        return float(str(np.float32(scale)))  # as a GGUF file holds it

    def check_plain(self, layers: int, plain: tuple[int, ...]) -> None:
        """That config.json says the same of layers without rotary positions as the family does: 0 for each of them."""
        key = f"{PREFIX}.no_rope_layers"
        found = self.meta.get(key)
        if found and found != [int(i not in plain) for i in range(layers)]:
            raise SourceInvalid(f"{key}: only {plain} of {layers} layers may be without rotary positions", field=key)
        key = f"{PREFIX}.no_rope_layer_interval"
        every = self.meta.get(key)
        said = tuple(range(every - 1, layers, every)) if type(every) is int and every > 0 else None
        if not found and every is not None and said != plain:
            raise SourceInvalid(f"{key}: {quoted(every)} is not supported", field=key)

    def refuse_others(self) -> None:
        method = self.meta.get(f"{PREFIX}.quantization_config.quant_method")
        if method is not None or f"{PREFIX}.quantization_config" in self.meta.names():
            raise SourceInvalid(
                f"{PREFIX}.quantization_config: weights quantized by {quoted(method)} are not supported; take the "
                "model in bf16, or as a GGUF file",
                field=f"{PREFIX}.quantization_config",
            )
        for rest, off in _OFF.items():
            key, value = f"{PREFIX}.{rest}", self.meta.get(f"{PREFIX}.{rest}")
            if value is not None and rest not in self.table.values() and value not in off:
                raise SourceInvalid(f"{key}: {str(value)[:60]} is not supported; only {off[0]} is", field=key)
        for key in (f"{PREFIX}.hidden_act", f"{PREFIX}.hidden_activation"):
            if (value := self.meta.get(key)) is not None and value not in self.activations:
                raise SourceInvalid(
                    f"{key}: {quoted(value)} is not supported; only {self.activations[0]} is", field=key
                )
        key = f"{PREFIX}.{_ROPE_BLOCKS[0]}.sliding_attention.rope_type"
        if (value := self.meta.get(key)) not in (None, "default"):
            raise SourceInvalid(f"{key}: {quoted(value)} is not supported; only default is", field=key)
        key = f"{PREFIX}.layer_types"
        kinds = self.meta.get(key) or []
        if not isinstance(kinds, list):
            raise SourceInvalid(f"{key}: must be a list, is {quoted(kinds)}", field=key)
        if "layer_types" not in self.table.values() and any(kind != "full_attention" for kind in kinds):
            raise SourceInvalid(f"{key}: only full_attention is supported, found {quoted(kinds)}", field=key)

    def unread(self) -> list[str]:
        known = {*self.table.values(), *_OFF, *_SILENT}
        names = (name.removeprefix(f"{PREFIX}.") for name in self.meta.names())
        return sorted(name for name in names if name not in known and not name.startswith(_SILENT_UNDER))

    def rope_factors(self, head_dim: int, theta: float) -> dict[str, SourceTensor]:
        """Llama 3's and LongRoPE's divisors, as converters write them; none for other kinds."""
        turning = self.integer("rope_dim", head_dim)
        if self._kind() in _LONGROPE:
            lists = {SHORT: self._list(f"{self.block}.short_factor"), LONG: self._list(f"{self.block}.long_factor")}
            return {name: _tensor(name, np.array(values, np.float32)) for name, values in lists.items()}
        if self._kind() != "llama3":
            return {}
        factor, low, high, original = (self.meta.number(f"{PREFIX}.{self.block}.{name}") for name in _LLAMA3)
        if low >= high:
            key = f"{PREFIX}.{self.block}.high_freq_factor"
            raise SourceInvalid(f"{key}: {high} is not above low_freq_factor, {low}", field=key)
        turns = original * theta ** (-np.arange(0, turning, 2) / turning) / (2 * math.pi)
        smooth = np.clip((turns - low) / (high - low), 0, 1)
        return {FACTORS: _tensor(FACTORS, (1 / ((1 - smooth) / factor + smooth)).astype(np.float32))}

    def _list(self, name: str) -> list[float]:
        key = f"{PREFIX}.{name}"
        found = self.meta.get(key)
        if not isinstance(found, list) or not found or not all(bounded.finite(x) for x in found):
            raise SourceInvalid(f"{key}: must be a list of numbers", field=key)
        return found


def _tensor(name: str, values: npt.NDArray[np.float32]) -> SourceTensor:
    return SourceTensor(name, values.shape, "f32", values.view(np.uint8))
