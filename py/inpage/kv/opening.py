"""The KV cache's bookkeeping for an engine, by what the engine is."""

from __future__ import annotations

from typing import TypeAlias

from ..engines.protocol import Engine, is_paged, is_sequential
from ..observe.scheduler_metrics import SchedulerMetrics
from ..settings import KvSettings
from .manager import KvManager
from .sequences import SequenceKv
from .swap import Swap

Kv: TypeAlias = KvManager | SequenceKv


def open_kv(engine: Engine, settings: KvSettings, metrics: SchedulerMetrics, *, hidden: bool = False) -> Kv:
    """Of an engine's requests from now on. ``hidden``: nothing is kept for those to come."""
    if is_sequential(engine):
        return SequenceKv(engine, Swap(None, 0, metrics))
    assert is_paged(engine)
    kept, swap = 0 if hidden else settings.prefix_bytes, Swap(engine, settings.swap_bytes, metrics)
    return KvManager(engine, prefix_bytes=kept, memory_bytes=settings.memory_bytes, swap=swap)
