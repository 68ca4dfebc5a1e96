"""SmolLM3: every fourth layer has no rotary positions; else Llama."""

from .family import Family
from .keys import DECODER, ROPE

FAMILY = Family("smollm3", plain_every=4, gguf={**DECODER, **ROPE})
