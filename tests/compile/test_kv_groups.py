"""A plan that names two groups of layers, one of them with a window, on the native engine: the scheduler takes them
from the plan, and the kernels of both groups find their pages."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from inpage.backends.circuit_breaker import probe
from inpage.backends.measurement import measure, pages_needed
from inpage.engines.native import NativeEngine
from inpage.errors import ArtifactInvalid
from inpage.format.plan_types import KvGroup
from inpage.requests.request import Request
from inpage.scheduling.scheduler import Scheduler
from inpage.settings import settings_from
from support.asking import finish
from support.toy import PAGE, toy_greedy, write_toy

WINDOW = 21
PROMPTS = [[(7 * i + k * k) % 97 for k in range(5 + 23 * i)] for i in range(6)]


async def test_groups_of_other_layers_are_refused(tmp_path: Path) -> None:
    manifest = write_toy(tmp_path, WINDOW)
    other = replace(manifest, architecture=replace(manifest.architecture, layers=3))
    with pytest.raises(ArtifactInvalid) as e:
        await NativeEngine.load(tmp_path, other, threads=1)
    assert e.value.field == "plan.kv_groups"


async def test_groups_and_windows_come_from_the_plan(tmp_path: Path) -> None:
    engine = await NativeEngine.load(tmp_path, write_toy(tmp_path, WINDOW), threads=2)
    info = engine.info
    assert info.groups == (KvGroup((0,), PAGE), KvGroup((1,), PAGE, WINDOW))
    await probe(engine)
    await engine.reserve_pages(pages_needed(info))
    assert (await measure(engine, range(pages_needed(info)))).decode_tps > 0

    # So few pages that all are used again and again, and requests wait for them.
    settings = settings_from({"kv": {"memory_bytes": 24 * info.page_bytes}})
    scheduler = Scheduler(engine, settings=settings)
    requests = [Request(prompt, 40) for prompt in PROMPTS]
    for request in requests:
        scheduler.submit(request)
    await asyncio.gather(*map(finish, requests))
    assert scheduler.kv.pool.used == scheduler.kv.prefix.idle
    await engine.unload()
    assert [r.tokens for r in requests] == [toy_greedy(prompt, 40, WINDOW) for prompt in PROMPTS]
    assert toy_greedy(PROMPTS[1], 40, WINDOW) != toy_greedy(PROMPTS[1], 40, WINDOW + 1) != toy_greedy(PROMPTS[1], 40)
