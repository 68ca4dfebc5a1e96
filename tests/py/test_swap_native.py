"""Native engines with memory for less than three of twenty conversations, and a file for the rest of them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inpage.models import Models
from inpage.router import Router
from inpage_compile.pipeline import compile_model
from support.conversations import COUNT, LENGTH, PROMPT, asked, continue_all, copies_are_free, settings
from support.models import first_ways, open_engine, tiny_artifact
from support.resident import resident
from support.tiny import MODELS

pytestmark = pytest.mark.skipif("INPAGE_SLOW" not in os.environ, reason="takes minutes")
TESTS = Path(__file__).parents[1]


async def test_twenty_conversations_go_on_bit_for_bit_over_a_file_and_a_kill(tmp_path: Path) -> None:
    with first_ways():
        source = replace(MODELS["f32"], context=512).write(tmp_path / "tiny-512.gguf")
        artifact = compile_model(str(source), tmp_path / "tiny-512", variants=("native-f32",))
    folder = tmp_path / "swap"
    folder.mkdir()
    prompts = asked()
    async with await Router.load(artifact, settings=settings(0, None)) as router:
        page_bytes = router.engine.info.page_bytes
        right: list[list[int]] = [[] for _ in range(COUNT)]
        await continue_all(router, prompts, right, lambda _: None)
    assert all(len(tokens) == LENGTH - PROMPT for tokens in right)

    told: list[list[int]] = [[] for _ in range(COUNT)]
    command = [sys.executable, "-m", "support.conversations", str(artifact), str(folder), str(page_bytes)]
    child = subprocess.Popen(
        [*command, json.dumps(prompts)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(TESTS)}
    )
    assert child.stdout is not None
    for line in child.stdout:
        i, ids, loaded = json.loads(line)
        told[i] += ids
        if loaded >= 60 and sum(map(len, told)) > COUNT * (LENGTH - PROMPT) // 2:
            break
    child.kill()
    child.wait()
    child.stdout.close()
    assert sum(map(len, told)) < COUNT * (LENGTH - PROMPT) and list(folder.iterdir()) == []

    async with await Router.load(artifact, settings=settings(page_bytes, folder)) as router:
        copies_are_free(router)
        await continue_all(router, prompts, told, lambda _: None)
        meters = router.scheduler.metrics
        copied: dict[str, Any] = {
            way: meters.swapped.value(tier="file", way=way) for way in ("saved", "loaded", "lost")
        }
        print(copied, meters.preemptions.value(way="dropped"))
        assert copied["loaded"] > 20 and copied["lost"] == 0
    assert told == right and list(folder.iterdir()) == []


async def test_two_thousand_requests_leave_memory_as_it_was(tmp_path: Path) -> None:
    """Little memory for pages, a file, cancels, and a budget that is lowered and lifted while they are answered."""
    folder = tiny_artifact("mixed")
    page_bytes = (await open_engine(folder, "native-f32")).info.page_bytes
    kv = {"memory_bytes": 18 * page_bytes, "prefix_bytes": 4 * page_bytes, "swap_bytes": 8 * page_bytes}
    tree = {"kv": {**kv, "swap_path": str(tmp_path)}, "scheduler": {"timeout": None}, "models": {"least_context": 256}}
    held = []
    async with Models(tree) as models:
        models.add(folder, name="tiny", backend="native-f32")

        async def one(number: int) -> None:
            prompt = [3 + (number * 37 + i * 11) % 250 for i in range(20 + number % 30)]
            async for delta in models.complete(prompt, max_tokens=100, logit_bias={2: -100}):
                if number % 5 == 0 and delta.token_ids:
                    break

        async def change(number: int) -> None:
            if number % 8 == 3:
                await models.set_target_memory((await models._entry(None).source.levels())[0].need(256))
            elif number % 8 == 7:
                await models.set_target_memory(None)
                await models.unload("tiny")

        copied = 0.0
        for number in range(40):
            await asyncio.gather(*(one(50 * number + i) for i in range(50)), change(number))
            for router in models.routers().values():
                while not router.scheduler.idle:
                    await asyncio.sleep(0)
                kv_now = router.scheduler.kv
                assert kv_now.pool.used == kv_now.prefix.idle and kv_now.swap.held == kv_now.swap.stored == 0
                copied += router.scheduler.metrics.swapped.value(tier="file", way="saved")
            held.append(resident())
        print(copied, models.tally.unloads.value(why="moved"), held[7:])
        assert copied > 0 and models.tally.unloads.value(why="moved") == 5
    assert max(held[-8:]) < 1.02 * max(held[8:16]) and list(tmp_path.iterdir()) == []
