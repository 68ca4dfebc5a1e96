"""The registry with the real model on this machine's CPU: levels, and memory that comes back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from inpage.errors import OutOfMemory
from inpage.models import Models
from support.resident import resident
from support.shelf import ManualClock

pytestmark = [pytest.mark.model, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]


@pytest.fixture
def apart(artifact: Path, tmp_path: Path) -> Path:
    """The same files in a folder of their own, so that no other test's engine has them mapped."""
    folder = tmp_path / "smollm2"
    folder.mkdir()
    for each in artifact.resolve().iterdir():
        (folder / each.name).symlink_to(each)
    return folder


async def test_an_idle_unload_gives_the_memory_back(apart: Path) -> None:
    clock = ManualClock()
    async with Models(clock=clock) as models:
        models.add(apart)
        await models.quick("hello", max_tokens=2)
        weights = models.routers()["smollm2"].held["weights"]
        loaded = resident()
        clock.advance(300)
        await models.sweep()
        assert models.loaded() == [] and models.tally.unloads.value(why="idle") == 1
        assert loaded - resident() > 0.95 * weights
        assert await models.quick("hello", max_tokens=2, temperature=0)


async def test_the_context_shrinks_with_the_budget(apart: Path, manifest_json: dict[str, Any]) -> None:
    weights = int(manifest_json["weights"]["bytes"])
    page = 30 * 2 * 3 * 64 * 16 * 2  # layers, K and V, heads, width, tokens, float16
    for budget, tokens in ((weights + 600 * page, 8192), (weights + 300 * page, 4096), (weights + 80 * page, 1024)):
        async with Models({"models": {"target_memory": budget}}) as models:
            models.add(apart)
            await models.preload()
            (state,) = models.loaded()
            assert state.context == tokens and state.bytes <= (state.granted or 0) <= budget
    async with Models({"models": {"target_memory": weights}}) as models:
        models.add(apart)
        with pytest.raises(OutOfMemory, match=r"smollm2 needs 1\d\d\.\d MB .* target_memory is 96\.6 MB"):
            await models.preload()
