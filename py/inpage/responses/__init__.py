"""Answers that need not be computed again: a cache in three tiers, for requests whose answer is determined.

Memory first, then storage that outlives the process or the visit, then a bundle that came with the site.

With what streams an answer to its caller. Imports `requests` and below.
"""

from .answer import Answer, answer_key, weights_digest
from .bundle import Bundle, pack_bundle
from .cache import AnswerCache, Tier
from .memory import MemoryTier

__all__ = ["Answer", "AnswerCache", "Bundle", "MemoryTier", "Tier", "answer_key", "pack_bundle", "weights_digest"]
