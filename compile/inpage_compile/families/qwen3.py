"""Qwen3: each head of queries and keys goes through a norm, and heads are as wide as they like."""

from .checkpoint import Checkpoint
from .family import Family
from .keys import DECODER, ROPE

FAMILY = Family("qwen3", qk_norm=True, half_rotation=True, gguf={**DECODER, **ROPE}, checkpoint=Checkpoint(("qwen3",)))
