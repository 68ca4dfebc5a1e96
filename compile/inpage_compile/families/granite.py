"""Granite 3 and 4, dense: Llama with factors of embeddings, attention, what layers add, and logits."""

from .family import Family
from .keys import DECODER, ROPE, ROPE_SWITCH, SCALES

FAMILY = Family("granite", gguf={**DECODER, **ROPE, **ROPE_SWITCH, **SCALES})
