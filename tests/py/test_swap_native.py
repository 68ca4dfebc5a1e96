"""The real model with memory for less than three of twenty conversations, and a file for the rest of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from inpage.router import Router
from support.conversations import COUNT, LENGTH, PROMPT, asked, settings, tell

pytestmark = [pytest.mark.model, pytest.mark.skipif("INPAGE_SLOW" not in os.environ, reason="takes minutes")]
ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "tests" / "reference"


async def test_twenty_conversations_go_on_bit_for_bit_over_a_file_and_a_kill(artifact: Path, tmp_path: Path) -> None:
    text = json.loads((REFERENCE / "smollm2-135m-instruct-text.json").read_text("utf-8"))
    prompts = asked(text["ids"])
    async with await Router.load(artifact, settings=settings(0, None)) as router:
        page_bytes = router.engine.info.page_bytes
        right: list[list[int]] = [[] for _ in range(COUNT)]
        await tell(router, prompts, right, lambda _: None)
    assert all(len(tokens) == LENGTH - PROMPT for tokens in right)

    told: list[list[int]] = [[] for _ in range(COUNT)]
    command = [sys.executable, "-m", "support.conversations", str(artifact), str(tmp_path), str(page_bytes)]
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "py")])
    child = subprocess.Popen(
        [*command, json.dumps(prompts)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    assert child.stdout is not None
    for line in child.stdout:
        i, ids, loaded = json.loads(line)
        told[i] += ids
        if loaded >= 100 and sum(map(len, told)) > COUNT * (LENGTH - PROMPT) // 2:
            break
    child.kill()
    child.wait()
    child.stdout.close()
    assert sum(map(len, told)) < COUNT * (LENGTH - PROMPT) and list(tmp_path.iterdir()) == []

    async with await Router.load(artifact, settings=settings(page_bytes, tmp_path)) as router:
        await tell(router, prompts, told, lambda _: None)
        meters = router.scheduler.metrics
        copied: dict[str, Any] = {
            way: meters.swapped.value(tier="file", way=way) for way in ("saved", "loaded", "lost")
        }
        print(copied, meters.preemptions.value(way="dropped"))
        assert copied["loaded"] > 100 and copied["lost"] == 0
    assert told == right and list(tmp_path.iterdir()) == []
