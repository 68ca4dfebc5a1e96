"""Load a variant of an artifact with the engine that runs it here."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from ..schema import Manifest, Variant
from ..settings import Settings
from ..store import Store
from .protocol import Engine, Progress


async def load_engine(variant: Variant, threads: int, pinned: bool, store: Store, manifest: Manifest, text: str,
                      on_progress: Progress, settings: Settings) -> Engine:  # fmt: skip
    """``pinned``: so many threads, not only at most so many. ``text``: of the manifest. Raises the engine's errors."""
    if variant.backend == "native":
        from .native import NativeEngine

        folder = Path(store.base)
        task = asyncio.ensure_future(
            NativeEngine.load(folder, manifest, variant=variant.name, threads=threads, on_progress=on_progress)
        )
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_discard)  # a thread is reading files: it ends, and is then not wanted
            raise
    from .page import PageEngine

    given = threads if pinned else None
    options = {
        "threads": given,
        "memory": {"initial": settings.wasm.memory_initial, "maximum": settings.wasm.memory_maximum},
        "powerPreference": settings.webgpu.power_preference,
        "sliceMs": settings.webgpu.burst_ms,
    }
    return await PageEngine.load(store.base, text, variant=variant.name, options=options, on_progress=on_progress)


_discarding: set[asyncio.Task[Any]] = set()


def _discard(loaded: asyncio.Future[Any]) -> None:
    if not loaded.cancelled() and loaded.exception() is None:
        task = asyncio.get_running_loop().create_task(loaded.result().unload())
        _discarding.add(task)
        task.add_done_callback(_discarding.discard)
