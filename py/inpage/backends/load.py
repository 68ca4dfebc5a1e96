"""Load a variant of an artifact with the engine that runs it here."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..engines.protocol import Engine, Progress, Tunable
from ..format.schema import Manifest, Variant
from ..host.artifact_store import Store
from ..settings import Settings
from .device_profile import DeviceProfile
from .kernel_choice import KernelChoice, choose_kernels


async def load_engine(variant: Variant, threads: int, pinned: bool, store: Store, manifest: Manifest, text: str,
                      on_progress: Progress, settings: Settings, profile: DeviceProfile,
                      trust: bool = False) -> Engine:  # fmt: skip
    """The engine, with what this device chose: remembered in ``profile``, or found out now and noted. ``pinned``: so
    many threads, not only at most so many. ``text``: of the manifest. ``trust``: see `Router.load`. Raises the engine's
    errors."""
    known = profile.choices.get(variant.name)
    if known is not None and not pinned and known.threads == threads:
        pinned = True  # fewer than all is tried again: other work may have kept a core busy when it was measured
    engine = await _load(variant, threads, pinned, store, manifest, text, on_progress, settings, known, trust)
    if not engine.info.alternatives or not isinstance(engine, Tunable):
        return engine
    if known is None or not known.fits(engine.info):
        try:
            choice = await choose_kernels(engine)
            profile.choices[variant.name] = replace(choice, settled=choice.settled and engine.info.rehearsed)
        except BaseException:
            await engine.unload()
            raise
        await profile.save()
    elif variant.backend == "native":
        await engine.choose_kernels(known.kernels)
    return engine


async def _load(variant: Variant, threads: int, pinned: bool, store: Store, manifest: Manifest, text: str,
                on_progress: Progress, settings: Settings, known: KernelChoice | None,
                trust: bool) -> Engine:  # fmt: skip
    if variant.backend == "native":
        from ..engines.native import NativeEngine

        folder = Path(store.base)
        task = asyncio.ensure_future(
            NativeEngine.load(
                folder, manifest, variant=variant.name, threads=threads, trust=trust, on_progress=on_progress
            )
        )
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_discard)  # a thread is reading files: it ends, and is then not wanted
            raise
    from ..engines.in_page import BrowserEngine

    given = threads if pinned else None
    options = {
        "threads": given,
        "kernels": list(known.kernels) if known else None,
        "memory": {"initial": settings.wasm.memory_initial, "maximum": settings.wasm.memory_maximum},
        "powerPreference": settings.webgpu.power_preference,
        "sliceMs": settings.webgpu.burst_ms,
    }
    return await BrowserEngine.load(store.base, text, variant=variant.name, options=options, on_progress=on_progress)


_discarding: set[asyncio.Task[Any]] = set()


def _discard(loaded: asyncio.Future[Any]) -> None:
    if not loaded.cancelled() and loaded.exception() is None:
        task = asyncio.get_running_loop().create_task(loaded.result().unload())
        _discarding.add(task)
        task.add_done_callback(_discarding.discard)
