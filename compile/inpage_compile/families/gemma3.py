"""Gemma 3, text: five layers with a window and rotary positions of their own, then one that sees everything; norms
before and behind attention and feed-forward, a gate by gelu, embeddings times √hidden. Files hold norms' weights with
the 1 added that the checkpoints leave out. The 27B, of 62 layers, scales attention in its own way."""

from .checkpoint import CAPS as CONFIG_CAPS
from .checkpoint import CONFIG, FOUR_NORMS, QUERY_SCALE, Checkpoint
from .checkpoint import WINDOWS as CONFIG_WINDOWS
from .family import Family
from .keys import CAPS, DECODER, LOCAL_ROPE, ROPE, WINDOWS

FAMILY = Family(
    "gemma3",
    qk_norm=True,
    post_norms=True,
    activation="gelu",
    half_rotation=True,
    scaled_embedding=True,
    whole_every=6,
    local_theta=10000.0,
    mean_scale=62,
    gguf={**DECODER, **ROPE, **WINDOWS, **LOCAL_ROPE, **CAPS},
    checkpoint=Checkpoint(
        ("gemma3_text",),
        ("gemma3_text",),
        config={**CONFIG, **CONFIG_WINDOWS, **CONFIG_CAPS, **QUERY_SCALE},
        layer=FOUR_NORMS,
        activations=("gelu_pytorch_tanh",),
        tied=True,
        norm_offset=1.0,
    ),
)
