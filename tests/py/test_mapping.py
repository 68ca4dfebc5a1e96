"""The native engine maps an artifact's files, once a process: the system's own list of mappings is the witness."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from inpage.engines.native import NativeEngine
from inpage.host.artifact_store import FolderStore

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def mapped(artifact: Path) -> list[str]:
    """Shards that this process has mapped, with "r--s": read-only, shared."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sorted(line.split()[1] + " " + line.split()[-1] for line in lines if f"{artifact.name}/weights/" in line)


async def test_engines_share_one_mapping_and_the_last_gives_it_back(artifact: Path) -> None:
    artifact = artifact.resolve()
    manifest, _ = await FolderStore(artifact).manifest()
    shards = [f"r--s {artifact / shard.file}" for shard in manifest.weights.shards]
    before = mapped(artifact)
    first, second = await asyncio.gather(*(NativeEngine.load(artifact, manifest, threads=1) for _ in range(2)))
    assert mapped(artifact) == (before or shards)
    await first.unload()
    await first.unload()
    assert mapped(artifact) == (before or shards)
    await second.unload()
    assert mapped(artifact) == before
