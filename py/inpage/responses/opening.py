"""The answer cache that the settings ask for, on what this place has."""

from __future__ import annotations

from pathlib import Path

from ..errors import ArtifactInvalid, said
from ..format.bounded_file import read_bounded
from ..host.browser import IN_PAGE, host, settle
from ..settings import AnswerSettings
from .bundle import Bundle
from .cache import AnswerCache, Tier
from .memory import MemoryTier


async def open_answers(settings: AnswerSettings) -> AnswerCache | None:
    """None where they are not enabled. Raises `ArtifactInvalid` for a bundle that is none, `NetworkError`."""
    if not settings.enabled:
        return None
    tiers: list[Tier] = [MemoryTier(settings.memory_entries)] if settings.memory_entries else []
    if IN_PAGE and settings.storage_bytes:
        from .indexeddb import IndexedDbTier

        tiers.append(IndexedDbTier(settings.storage_bytes))
    elif settings.storage_path is not None and settings.storage_bytes:
        from .sqlite import SqliteTier

        tiers.append(SqliteTier(Path(settings.storage_path), settings.storage_bytes))
    bundle = Bundle(await _read(settings.bundle)) if settings.bundle else None
    return AnswerCache(tiers, bundle, ttl_bounds=(settings.shortest_seconds, settings.longest_seconds))


async def _read(where: str) -> str:
    if IN_PAGE:
        return str(await settle(host().fetchJson(where, "answers", "answers")))
    try:
        return read_bounded(Path(where), "answers", ArtifactInvalid, "answers").decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactInvalid(f"the answers in {where} cannot be read: {said(error)}", field="answers") from error
