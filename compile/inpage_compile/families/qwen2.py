"""Qwen2 and Qwen2.5: queries, keys and values have a bias."""

from .family import Family
from .keys import DECODER, ROPE

FAMILY = Family("qwen2", qkv_bias=True, half_rotation=True, gguf={**DECODER, **ROPE})
