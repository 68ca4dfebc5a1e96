"""Mistral and Ministral in files of their own name: Llama's graph, with a sliding window where the file says one.
(Older files call them llama.) Ministral 3 scales queries beyond its original context, which no graph follows: its
context ends there."""

from .checkpoint import Checkpoint
from .family import Family
from .keys import DECODER, ROPE, TEMPERATURE

FAMILY = Family("mistral3", gguf={**DECODER, **ROPE, **TEMPERATURE}, checkpoint=Checkpoint(("mistral",), ("mistral",)))
