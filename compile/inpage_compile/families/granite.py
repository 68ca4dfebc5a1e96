"""Granite 3 and 4, dense: Llama with factors of embeddings, attention, what layers add, and logits."""

from .checkpoint import CONFIG, Checkpoint
from .checkpoint import SCALES as CONFIG_SCALES
from .family import Family
from .keys import DECODER, ROPE, ROPE_SWITCH, SCALES

FAMILY = Family(
    "granite",
    gguf={**DECODER, **ROPE, **ROPE_SWITCH, **SCALES},
    checkpoint=Checkpoint(("granite",), config={**CONFIG, **CONFIG_SCALES}),
)
