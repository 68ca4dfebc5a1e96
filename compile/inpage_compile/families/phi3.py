"""Phi-3, 3.5 and 4-mini: queries, keys and values in one matrix, gate and up in another; a part of each head turns, by
LongRoPE's divisors for the context that the model is compiled for. A window is followed where the file says one, as
Hugging Face does (llama.cpp leaves it out)."""

from .checkpoint import FUSED, Checkpoint
from .family import Family
from .keys import DECODER, ROPE

FAMILY = Family(
    "phi3",
    half_rotation=True,
    fused=True,
    gguf={**DECODER, **ROPE},
    checkpoint=Checkpoint(("phi3",), ("phi3",), layer=FUSED),
)
