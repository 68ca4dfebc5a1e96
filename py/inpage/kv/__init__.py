"""Who owns which KV page: pages are indices into the engine's page pool, handed out and taken back here."""

from .growing import GrowingPool
from .pages import PagePool, pages_for

__all__ = ["GrowingPool", "PagePool", "pages_for"]
