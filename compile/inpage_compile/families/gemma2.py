"""Gemma 2: a layer with a window, then one that sees everything; scores of attention and logits kept within soft caps;
else as Gemma 3, without norms of heads. The 27B, of 46 layers, scales attention in its own way."""

from .checkpoint import CAPS as CONFIG_CAPS
from .checkpoint import CONFIG, FOUR_NORMS, QUERY_SCALE, Checkpoint
from .checkpoint import WINDOWS as CONFIG_WINDOWS
from .family import Family
from .keys import CAPS, DECODER, ROPE, WINDOWS

FAMILY = Family(
    "gemma2",
    post_norms=True,
    activation="gelu",
    half_rotation=True,
    scaled_embedding=True,
    whole_every=2,
    window=4096,
    mean_scale=46,
    gguf={**DECODER, **ROPE, **WINDOWS, **CAPS},
    checkpoint=Checkpoint(
        ("gemma2",),
        ("gemma2",),
        config={**CONFIG, **CONFIG_WINDOWS, **CONFIG_CAPS, **QUERY_SCALE},
        layer=FOUR_NORMS,
        activations=("gelu_pytorch_tanh",),
        tied=True,
        norm_offset=1.0,
    ),
)
