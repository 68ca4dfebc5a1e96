"""Loads the native engine for the registry."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from .native import NativeEngine
from .registry import LoadJob

_discarding: set[asyncio.Task[Any]] = set()


async def load(job: LoadJob) -> NativeEngine:
    loading = NativeEngine.load(
        Path(job.base),
        job.manifest,
        variant=job.variant.name,
        threads=job.threads,
        trust=job.trust,
        grammars=job.flags.grammars,
        mlock=job.settings.engine.mlock,
        on_progress=job.on_progress,
    )
    task = asyncio.ensure_future(loading)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_discard)  # a thread is reading files: it ends, and is then not wanted
        raise


def _discard(loaded: asyncio.Future[Any]) -> None:
    if not loaded.cancelled() and loaded.exception() is None:
        task = asyncio.get_running_loop().create_task(loaded.result().unload())
        _discarding.add(task)
        task.add_done_callback(_discarding.discard)
