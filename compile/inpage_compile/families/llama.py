"""Llama and what is built like it: Mistral, SmolLM2, TinyLlama, Yi. GGUF's converter has already put the halves of a
head that turn together next to each other."""

from .checkpoint import Checkpoint
from .family import Family
from .keys import DECODER, ROPE

FAMILY = Family("llama", gguf={**DECODER, **ROPE}, checkpoint=Checkpoint(("llama",)))
