"""EmbeddingGemma: Gemma 3 whose tokens see those behind them too, and whose vectors go through a matrix, in files two.
Folders call it Gemma 3, and say the rest."""

from dataclasses import replace

from .gemma3 import FAMILY as GEMMA3

FAMILY = replace(GEMMA3, name="gemma-embedding", bidirectional=True, checkpoint=None)
