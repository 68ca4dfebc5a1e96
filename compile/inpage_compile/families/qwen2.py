"""Qwen2 and Qwen2.5: queries, keys and values have a bias."""

from .checkpoint import Checkpoint
from .family import Family
from .keys import DECODER, ROPE

FAMILY = Family("qwen2", qkv_bias=True, half_rotation=True, gguf={**DECODER, **ROPE}, checkpoint=Checkpoint(("qwen2",)))
