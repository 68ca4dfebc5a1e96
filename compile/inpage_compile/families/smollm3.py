"""SmolLM3: every fourth layer has no rotary positions; else Llama."""

from .checkpoint import CONFIG, PLAIN, Checkpoint
from .family import Family
from .keys import DECODER, ROPE

FAMILY = Family(
    "smollm3",
    plain_every=4,
    gguf={**DECODER, **ROPE},
    checkpoint=Checkpoint(("smollm3",), config={**CONFIG, **PLAIN}, tied=True),
)
