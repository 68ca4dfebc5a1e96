"""Who owns which KV page: pages are indices into the engine's page pool, handed out, shared and taken back here.

Imports `requests`, `observe`, `responses` and below.
"""

from .blocks import Blocks
from .manager import KvManager
from .opening import Kv, open_kv
from .pages import PagePool
from .prefix import PrefixTree
from .sequences import SequenceKv
from .swap import Swap

__all__ = ["Blocks", "Kv", "KvManager", "PagePool", "PrefixTree", "SequenceKv", "Swap", "open_kv"]
