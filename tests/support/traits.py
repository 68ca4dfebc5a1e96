"""What transformers' models of each family have, in the words of `llama_reference`: a line a family, which the tiny
models (`tiny`), their files, numpy and PyTorch go by. What a model sets in numbers stands in `Tiny.numbers`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """``hf``: how transformers' classes begin. ``halves``: a head's two halves turn together, not neighbours.
    ``shifted``: norms there have their weights less 1. ``whole_every``, ``plain_every``: of so many layers the last
    one has no window, no rotary positions. ``local_theta``: the rotary base of layers with a window, 0 for the
    model's. ``fused``: files have queries, keys and values in one matrix, and gate and up. ``attend_every``: of so many
    layers the last one attends, the others are short convolutions; 0: all do. ``named``: tensors whose names in
    checkpoints are not the usual ones, and the same of GGUF files (``gguf_named``). ``epsilon``: of norms, in
    configurations."""

    hf: str
    bias: bool = False
    head_norms: bool = False
    halves: bool = False
    post_norms: bool = False
    shifted: bool = False
    gelu: bool = False
    root_scaled: bool = False
    whole_every: int = 0
    plain_every: int = 0
    local_theta: float = 0.0
    fused: bool = False
    attend_every: int = 0
    named: tuple[tuple[str, str], ...] = ()
    gguf_named: tuple[tuple[str, str], ...] = ()
    epsilon: str = "rms_norm_eps"

    def names(self) -> dict[str, str]:
        """What GGUF calls tensors, and those of a layer, to what follows ``model.`` or ``model.layers.N.``."""
        out = {"token_embd": "embed_tokens", "output_norm": "norm", "attn_norm": "input_layernorm"}
        out |= {"ffn_norm": "post_attention_layernorm", "attn_output": "self_attn.o_proj"}
        out |= {f"attn_{x}": f"self_attn.{x}_proj" for x in "qkv"}
        out |= {f"attn_{x}_norm": f"self_attn.{x}_norm" for x in "qk"}
        out |= {f"ffn_{x}": f"mlp.{x}_proj" for x in ("gate", "up", "down")}
        if self.post_norms:
            out |= {"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm"}
            out |= {"post_ffw_norm": "post_feedforward_layernorm"}
        return out | dict(self.named)


_LFM2 = (
    ("output_norm", "embedding_norm"), ("attn_norm", "operator_norm"), ("ffn_norm", "ffn_norm"),
    ("attn_output", "self_attn.out_proj"), ("attn_q_norm", "self_attn.q_layernorm"),
    ("attn_k_norm", "self_attn.k_layernorm"), ("shortconv.in_proj", "conv.in_proj"), ("shortconv.conv", "conv.conv"),
    ("shortconv.out_proj", "conv.out_proj"), ("ffn_gate", "feed_forward.w1"), ("ffn_up", "feed_forward.w3"),
    ("ffn_down", "feed_forward.w2"),
)  # fmt: skip
TRAITS: dict[str, Traits] = {
    "llama": Traits("Llama"),
    "qwen2": Traits("Qwen2", bias=True, halves=True),
    "mistral3": Traits("Mistral"),
    "gemma3": Traits("Gemma3", head_norms=True, halves=True, post_norms=True, shifted=True, gelu=True, root_scaled=True,
                     whole_every=6, local_theta=10000.0),
    "gemma-embedding": Traits("Gemma3", head_norms=True, halves=True, post_norms=True, shifted=True, gelu=True,
                              root_scaled=True, whole_every=2, local_theta=10000.0),
    "gemma2": Traits("Gemma2", halves=True, post_norms=True, shifted=True, gelu=True, root_scaled=True, whole_every=2),
    "smollm3": Traits("SmolLM3", plain_every=4),
    "granite": Traits("Granite"),
    "phi3": Traits("Phi3", halves=True, fused=True),
    "lfm2": Traits("Lfm2", head_norms=True, halves=True, attend_every=3, epsilon="norm_eps",
                   gguf_named=(("output_norm", "token_embd_norm"),), named=_LFM2),
    "qwen3": Traits("Qwen3", head_norms=True, halves=True),
}  # fmt: skip
COUNTS = ("window", "conv_taps")  # numbers that are whole
# A model's numbers by our names: the key of a GGUF file, and what transformers' configurations call it.
NUMBERS: dict[str, tuple[str, str]] = {
    "window": ("attention.sliding_window", "sliding_window"),
    "conv_taps": ("shortconv.l_cache", "conv_L_cache"),
    "attention_cap": ("attn_logit_softcapping", "attn_logit_softcapping"),
    "logit_cap": ("final_logit_softcapping", "final_logit_softcapping"),
    "embedding_scale": ("embedding_scale", "embedding_multiplier"),
    "attention_scale": ("attention.scale", "attention_multiplier"),
    "residual_scale": ("residual_scale", "residual_multiplier"),
    "logit_scale": ("logit_scale", "logits_scaling"),
}
