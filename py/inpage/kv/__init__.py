"""Who owns which KV page: pages are indices into the engine's page pool, handed out, shared and taken back here.

Imports `requests`, `observe`, `responses` and below.
"""

from .manager import KvManager
from .pages import PagePool, pages_for
from .prefix import PrefixTree
from .swap import Swap

__all__ = ["KvManager", "PagePool", "PrefixTree", "Swap", "pages_for"]
