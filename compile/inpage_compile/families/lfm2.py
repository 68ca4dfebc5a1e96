"""LFM2 and LFM2.5, dense: most layers are short convolutions with two gates, the others attend. Files call the norm
before the head after the embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inpage.format.schema import ARCHITECTURE_LIMITS

from ..checkpoints.config import PREFIX, Config
from .checkpoint import CONFIG, LAYER, Checkpoint
from .checkpoint import CONVOLUTIONS as CONFIG_CONVOLUTIONS
from .family import Family
from .keys import CONVOLUTIONS, DECODER, ROPE


def usual(values: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with the width that the feed-forward has in the end, and with the kinds of all layers: Liquid's own
    files say a width to be adjusted, and which layers attend."""
    meta, out = Config(values), dict(values)

    def key(name: str) -> str:
        return f"{PREFIX}.{name}"

    width = meta.integer(key("intermediate_size" if meta.get(key("block_ff_dim")) is None else "block_ff_dim"))
    adjusted = meta.flag(key("block_auto_adjust_ff_dim"), True)
    if adjusted and 0 < width <= ARCHITECTURE_LIMITS["ffn"]:  # others are refused where the width is read
        width = int(meta.number(key("block_ffn_dim_multiplier"), 1.0) * int(2 * width / 3))
        width += -width % max(meta.integer(key("block_multiple_of"), 256), 1)
    out["intermediate_size"] = width
    if out.get("layer_types") is None and meta.get(key("full_attn_idxs")) is not None:
        attending = set(meta.items(key("full_attn_idxs"), int))
        layers = min(meta.integer(key("num_hidden_layers")), ARCHITECTURE_LIMITS["layers"])
        out["layer_types"] = ["full_attention" if i in attending else "conv" for i in range(layers)]
    return out


FAMILY = Family(
    "lfm2",
    qk_norm=True,
    half_rotation=True,
    renamed={"token_embd_norm": "output_norm"},
    gguf={**DECODER, **ROPE, **CONVOLUTIONS},
    checkpoint=Checkpoint(
        ("lfm2",),
        config={**CONFIG, **CONFIG_CONVOLUTIONS, "norm_eps": "norm_eps"},
        layer={
            **LAYER,
            "operator_norm.weight": "attn_norm",
            "self_attn.out_proj.weight": "attn_output",
            **{f"self_attn.{x}_layernorm.weight": f"attn_{x}_norm" for x in "qk"},
            "conv.in_proj.weight": "shortconv.in_proj",
            "conv.conv.weight": "shortconv.conv",
            "conv.out_proj.weight": "shortconv.out_proj",
            "ffn_norm.weight": "ffn_norm",
            **{f"feed_forward.w{i}.weight": f"ffn_{x}" for i, x in ((1, "gate"), (3, "up"), (2, "down"))},
        },
        model={"embed_tokens.weight": "token_embd", "embedding_norm.weight": "output_norm"},
        usual=usual,
        tied=True,
    ),
)
