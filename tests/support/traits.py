"""What transformers' models of each family have, in the words of `llama_reference`: a line a family, which the tiny
models (`tiny`), their files, numpy and PyTorch go by. What a model sets in numbers stands in `Tiny.numbers`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """``hf``: how transformers' classes begin. ``halves``: a head's two halves turn together, not neighbours.
    ``shifted``: norms there have their weights less 1. ``whole_every``, ``plain_every``: of so many layers the last
    one has no window, no rotary positions. ``local_theta``: the rotary base of layers with a window, 0 for the
    model's. ``fused``: files have queries, keys and values in one matrix, and gate and up."""

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


TRAITS: dict[str, Traits] = {
    "llama": Traits("Llama"),
    "qwen2": Traits("Qwen2", bias=True, halves=True),
    "mistral3": Traits("Mistral"),
    "gemma3": Traits("Gemma3", head_norms=True, halves=True, post_norms=True, shifted=True, gelu=True, root_scaled=True,
                     whole_every=6, local_theta=10000.0),
    "gemma2": Traits("Gemma2", halves=True, post_norms=True, shifted=True, gelu=True, root_scaled=True, whole_every=2),
    "smollm3": Traits("SmolLM3", plain_every=4),
    "granite": Traits("Granite"),
    "phi3": Traits("Phi3", halves=True, fused=True),
    "qwen3": Traits("Qwen3", head_norms=True, halves=True),
}  # fmt: skip
# A model's numbers by our names: the key of a GGUF file, and what transformers' configurations call it.
NUMBERS: dict[str, tuple[str, str]] = {
    "window": ("attention.sliding_window", "sliding_window"),
    "attention_cap": ("attn_logit_softcapping", "attn_logit_softcapping"),
    "logit_cap": ("final_logit_softcapping", "final_logit_softcapping"),
    "embedding_scale": ("embedding_scale", "embedding_multiplier"),
    "attention_scale": ("attention.scale", "attention_multiplier"),
    "residual_scale": ("residual_scale", "residual_multiplier"),
    "logit_scale": ("logit_scale", "logits_scaling"),
}
