"""On a device with little memory the context is made to fit before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inpage.backends.memory_ceiling import ceiling, fitted
from inpage.backends.selection import choose
from inpage.host.artifact_store import FolderStore
from inpage.host.capability import Device, host_device
from inpage.settings import Settings, settings_from

GIB = 1 << 30


def phone(gib: float | None, place: str = "page") -> Device:
    memory = None if gib is None else int(gib * GIB)
    return replace(host_device(), place=place, features=frozenset({"simd128", "relaxed-simd"}), memory=memory)


def test_only_a_page_that_tells_of_little_has_a_ceiling() -> None:
    found = [ceiling(phone(gib)) for gib in (0.25, 1, 4, 8, 32, None)]
    assert found == [GIB // 16, GIB // 4, GIB, None, None, None]
    assert ceiling(phone(1, place="host")) is None


async def fit(artifact: Path, gib: float | None, settings: dict[str, Any]) -> tuple[Settings, str]:
    store = FolderStore(artifact)
    manifest, _ = await store.manifest()
    device = phone(gib)
    return await fitted(settings_from(settings), device, store, manifest, choose(manifest.variants, device))


@pytest.mark.model
async def test_the_context_shrinks_with_the_memory_and_says_so(artifact: Path) -> None:
    bounds = []
    for gib in (0.5, 0.75, 1):
        settings, why = await fit(artifact, gib, {})
        assert settings.kv.memory_bytes is not None
        assert settings.wasm.memory_maximum < max(GIB * gib // 4, 256 << 20) + (64 << 20)
        assert f"has {gib:g} GiB of memory" in why
        assert "tokens instead of" in why
        bounds.append(settings.kv.memory_bytes)
    assert bounds == sorted(set(bounds))
    settings, why = await fit(artifact, 4, {})
    assert (why, settings.kv.memory_bytes is None) == ("", False)
    assert await fit(artifact, 8, {}) == (Settings(), "")


@pytest.mark.model
async def test_a_callers_setting_wins(artifact: Path) -> None:
    for own in (
        {"kv": {"memory_bytes": 1 << 30}},
        {"models": {"target_memory": 1 << 30}},
        {"wasm": {"memory_maximum": 1 << 30}},
    ):
        assert await fit(artifact, 0.5, own) == (settings_from(own), "")


@pytest.mark.model
async def test_a_conversation_always_has_the_least_context(artifact: Path) -> None:
    settings, why = await fit(artifact, 0.25, {"models": {"least_context": 1024}})
    assert "the context is 1024 tokens" in why
    assert settings.kv.prefix_bytes <= (settings.kv.memory_bytes or 0)
