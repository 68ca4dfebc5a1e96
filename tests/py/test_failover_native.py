"""The real model on this machine's CPU, in engines that die in mid-answer."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from inpage.backends.load import load_engine
from inpage.engines.protocol import Engine, SequenceInput
from inpage.errors import DeviceLost, InpageError
from inpage.router import Completion, Router, loading
from support.mortal import Mortal

pytestmark = pytest.mark.model
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("What is gravity?", {"temperature": 0, "max_tokens": 48}),
    ("Name three colours.", {"temperature": 0.9, "seed": 5, "repetition_penalty": 1.2, "max_tokens": 48}),
]


async def whole(router: Router, text: str, params: dict[str, Any]) -> Completion:
    """Read piece by piece: what was streamed must be the answer."""
    texts, tokens, gaps = "", [], []
    async for delta in router.chat(text, **params):
        texts, tokens, gaps = texts + delta.text, tokens + delta.token_ids, gaps + delta.failovers
        if delta.result is not None:
            assert (texts, tokens, gaps) == (delta.result.text, delta.result.token_ids, delta.result.failovers)
            return delta.result
    raise AssertionError("no end")


KILLS = 20 if "INPAGE_SLOW" in os.environ else 4


async def test_kills_change_no_token(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await Router.load(artifact) as router:
        expected = [(await whole(router, *asked)).token_ids for asked in ASKED]

    rng = random.Random(20)
    calls, at = 0, rng.randint(2, 5)
    loads = 0

    def fate(kind: str, feeds: Sequence[SequenceInput]) -> InpageError | None:
        nonlocal calls, at
        calls += 1
        if calls < at:
            return None
        at = calls + rng.randint(5, 9)
        return DeviceLost("killed by the test")

    async def load(*args: Any) -> Engine:
        nonlocal loads
        loads += 1
        return Mortal(await load_engine(*args), fate, late=bool(loads % 2))

    monkeypatch.setattr(loading, "load_engine", load)
    gaps: list[float] = []
    async with await Router.load(artifact) as router:
        while loads <= KILLS:
            answers = await asyncio.gather(*(whole(router, *asked) for asked in ASKED))
            assert [a.token_ids for a in answers] == expected
            gaps += [failover["gap_ms"] for answer in answers for failover in answer.failovers]
        assert router.info["kv_pages"]["used"] == 0
        assert "killed by the test" in router.explain()
    assert len(gaps) >= KILLS
    print(f"\n{loads - 1} kills; gaps of {min(gaps):.0f} to {max(gaps):.0f} ms")
