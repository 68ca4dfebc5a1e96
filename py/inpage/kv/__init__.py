"""Who owns which KV page: pages are indices into the engine's page pool, handed out and taken back here."""

from .pages import PagePool, pages_for

__all__ = ["PagePool", "pages_for"]
