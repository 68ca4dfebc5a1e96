"""The KV cache's bookkeeping for an engine, by what the engine is."""

from __future__ import annotations

from typing import TypeAlias

from ..engines.protocol import Engine, is_paged, is_sequential
from ..observe.scheduler_metrics import SchedulerMetrics
from ..settings import KvSettings
from .manager import KvManager
from .sequences import SequenceKv
from .swap import Swap
from .swap_file import SwapFile
from .swap_tiers import FileTier, MemoryTier, Tier

Kv: TypeAlias = KvManager | SequenceKv


def open_kv(
    engine: Engine, settings: KvSettings, metrics: SchedulerMetrics, file: SwapFile | None = None, *,
    hidden: bool = False,
) -> Kv:  # fmt: skip
    """Of an engine's requests from now on. ``file``: where pages are swapped to beyond memory; what an engine before
    this one put there is gone. ``hidden``: nothing is kept for requests to come."""
    if is_sequential(engine):
        return SequenceKv(engine, Swap(None, (), metrics))
    assert is_paged(engine)
    page_bytes, tiers = engine.info.page_bytes, list[Tier]()
    if settings.swap_bytes:
        tiers.append(MemoryTier(settings.swap_bytes, page_bytes))
    if file is not None and page_bytes:
        tiers.append(FileTier(file, settings.swap_file_bytes, page_bytes))
    kept, swap = 0 if hidden else settings.prefix_bytes, Swap(engine, tiers, metrics)
    return KvManager(engine, prefix_bytes=kept, memory_bytes=settings.memory_bytes, swap=swap)
