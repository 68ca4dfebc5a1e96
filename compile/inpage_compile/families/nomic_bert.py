"""Nomic's BERT: rotary positions, a gate by SiLU, no biases but the norms'. A prefix says what a text is for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .encoder import CONFIG, GGUF, EncoderFamily, Names
from .keys import ROPE

# What the makers' own config.json says, in transformers' words.
_USUAL = {
    "n_layer": "num_hidden_layers",
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "layer_norm_epsilon": "layer_norm_eps",
}
_LAYER = {
    "attn.Wqkv": "attn_qkv",
    "attn.out_proj": "attn_output",
    "norm1": "attn_output_norm",
    "mlp.fc12": "ffn_gate",
    "mlp.fc11": "ffn_up",
    "mlp.fc2": "ffn_down",
    "norm2": "layer_output_norm",
}


def _usual(values: Mapping[str, Any]) -> Mapping[str, Any]:
    if "n_embd" not in values:
        return values
    out = {**values, **{usual: values.get(theirs) for theirs, usual in _USUAL.items()}}
    # Beyond the positions that it was trained with it would scale its frequencies by each text's length.
    out["max_position_embeddings"] = values.get("max_trained_positions") or values.get("n_positions")
    out["rope_parameters"] = {"rope_type": "default", "rope_theta": values.get("rotary_emb_base", 10000.0)}
    out["hidden_act"] = "silu" if values.get("activation_function") == "swiglu" else values.get("activation_function")
    return out


FAMILY = EncoderFamily(
    "nomic-bert",
    half_rotation=True,
    rotary=True,
    gated=True,
    biased=False,
    prompts={
        name: f"{text}: "
        for name, text in (
            ("query", "search_query"),
            ("document", "search_document"),
            ("classification", "classification"),
            ("clustering", "clustering"),
        )
    },
    gguf={**GGUF, **ROPE, "rope_dim": "rope.dimension_count", "rope_theta": "rope.freq_base"},
    types=("nomic_bert",),
    prefix="bert.",
    names=Names(
        "encoder.layers",
        {
            "embeddings.word_embeddings.weight": "token_embd",
            "embeddings.token_type_embeddings.weight": "token_types",
            "emb_ln.weight": "token_embd_norm",
            "emb_ln.bias": "token_embd_norm.bias",
        },
        _LAYER,
    ),
    config={**CONFIG, "rope_theta": "rope_theta", "rope_dim": "partial_rotary_factor"},
    usual=_usual,
    off={
        "activation_function": ("swiglu",),
        "prenorm": (False,),
        "parallel_block": (False,),
        "causal": (False,),
        "use_rms_norm": (False,),
        "qkv_proj_bias": (False,),
        "mlp_fc1_bias": (False,),
        "mlp_fc2_bias": (False,),
        "rotary_emb_fraction": (1.0,),
        "rotary_emb_interleaved": (False,),
        "rotary_emb_scale_base": (),
        "rotary_scaling_factor": (),
        "num_experts": (0,),
    },
)
