"""From an artifact to the first engine that runs, and what it was chosen by."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backends.device_profile import DeviceProfile
from ..backends.failover import Backends
from ..backends.load import load_engine
from ..backends.memory_ceiling import beyond, fitted
from ..backends.selection import Candidate, Choice, choose
from ..engines.protocol import Engine, Progress
from ..format.schema import Manifest
from ..host.artifact_store import open_store
from ..host.browser import IN_PAGE
from ..host.capability import Device, this_device
from ..host.jobs import job
from ..settings import Settings, settings_from
from ..text.tokenizer import Tokenizer, load_tokenizer
from .replicas import affordable

_log = logging.getLogger("inpage")


@dataclass(frozen=True, slots=True)
class Loaded:
    """``settings``: those of each engine; ``replicas``: how many there is memory for."""

    manifest: Manifest
    choice: Choice
    engine: Engine
    tokenizer: Tokenizer
    settings: Settings
    backends: Backends
    profile: DeviceProfile
    device: Device
    replicas: int
    load_ms: float
    warnings: list[str]


async def load_model(
    artifact: str | Path,
    backend: str | None,
    threads: int | None,
    on_progress: Progress,
    settings: Settings | Mapping[str, Any] | None,
    refused: Mapping[str, str],
    trust: bool,
) -> Loaded:
    """See `Router.load`."""
    started = time.perf_counter()
    chosen = settings if isinstance(settings, Settings) else settings_from(settings or {})
    backend = chosen.engine.backend if backend is None else backend
    threads = chosen.engine.threads if threads is None else threads
    if not chosen.wasm.shared and IN_PAGE:
        threads = 1
    store = open_store(artifact)
    report = on_progress
    report({"phase": "manifest"})
    manifest, text = await store.manifest()
    device = await this_device(chosen.webgpu.power_preference)
    profile = await DeviceProfile.open(manifest, device, threads)
    choice = choose(
        manifest.variants,
        device,
        backend=backend,
        threads=threads,
        measurements=profile.measurements,
        refused={**({} if backend else beyond(device, manifest)), **profile.struck_off, **refused},
    )
    chosen, shrunk = await fitted(chosen, device, store, manifest, choice)
    report({"phase": "tokenizer"})

    async def tokenizing() -> Tokenizer:
        file = await store.tokenizer(manifest.tokenizer)
        with job("tokenizer", manifest.tokenizer.bytes):
            return load_tokenizer(file, manifest.tokenizer.special, manifest.architecture.vocab)

    wanted = chosen.engine.replicas
    share = max(1, choice.threads // wanted)
    pinned = threads is not None or wanted > 1

    async def load(candidate: Candidate) -> Engine:
        return await load_engine(
            candidate.variant, share, pinned, store, manifest, text, report, chosen, profile, trust
        )

    async def stored(candidate: Candidate) -> bool:
        return await store.holds(manifest.weights_of(candidate.variant))

    backends = Backends(choice.ranked, load, profile.log, stored)
    engine, tokenizer = await backends.first_beside(tokenizing())
    report = ignore_progress  # what is loaded later concerns nobody who waits for this
    count, chosen = affordable(wanted, engine.info, chosen, device.memory)
    load_ms = (time.perf_counter() - started) * 1e3
    warnings = [shrunk] * bool(shrunk) + list(engine.info.warnings)
    for warning in engine.info.warnings:
        _log.warning("%s", warning)
    return Loaded(manifest, choice, engine, tokenizer, chosen, backends, profile, device, count, load_ms, warnings)


def ignore_progress(_: dict[str, Any]) -> None:
    """Progress that nobody asked for."""
