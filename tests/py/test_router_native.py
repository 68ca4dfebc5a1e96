"""The router with the real model on this machine's CPU: right answers, alone or in a crowd."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from inpage.engines.protocol import Sampling, SequenceInput
from inpage.errors import InvalidRequest, OutOfMemory
from inpage.router import Completion, Router
from support.sampler_reference import choose, modified

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

REFERENCE = Path(__file__).resolve().parents[1] / "reference"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def router(artifact: Path) -> AsyncIterator[Router]:
    async with await Router.load(artifact) as router:
        yield router


async def whole(router: Router, text: str, **params: Any) -> Completion:
    return await router.chat(text, **params)


async def test_greedy_follows_float32_while_the_margin_is_clear(router: Router, reference: dict[str, Any]) -> None:
    prompt = reference["prompts"]["p32"]
    done = await router.chat("What is gravity?", temperature=0, max_tokens=128)
    assert done.prompt_ids == prompt["ids"]
    pairs = zip(done.token_ids, prompt["greedy_f32"], prompt["margin"], strict=False)
    first = next((margin for ours, theirs, margin in pairs if ours != theirs), 0.0)
    assert first < 0.5  # quantized activations may take another way where two tokens are nearly as likely
    assert done.token_ids[:10] == prompt["greedy_f32"][:10]
    assert done.text.startswith("Gravity is a fundamental")


async def test_a_crowd_changes_nobodys_answer(router: Router) -> None:
    questions = ["What is gravity?", "Name three colours.", "2+2=", "Who are you?"]
    how = [{"temperature": 0.8, "seed": i, "max_tokens": 24, "repetition_penalty": 1.1} for i in range(4)]
    alone = [await whole(router, text, **params) for text, params in zip(questions, how, strict=True)]
    crowd = await asyncio.gather(*(whole(router, text, **params) for text, params in zip(questions, how, strict=True)))
    assert [a.token_ids for a in alone] == [c.token_ids for c in crowd]
    assert [a.text for a in alone] == [c.text for c in crowd]


async def test_a_shared_prefix_is_read_once_and_changes_no_token(artifact: Path, router: Router) -> None:
    """128 tokens that two prompts begin with: the second feeds only its own end, and answers as it would alone."""
    text = json.loads((REFERENCE / "smollm2-135m-instruct-text.json").read_text("utf-8"))["ids"]
    first, second = [*text[:128], *text[600:620]], [*text[:128], *text[700:740]]
    how = {"temperature": 0.8, "seed": 3, "max_tokens": 16}
    async with await Router.load(artifact) as fresh:
        alone = await fresh.complete(second, **how)
    assert alone.cached_tokens == 0
    await router.complete(first, **how)
    shared = await router.complete(second, **how)
    assert shared.cached_tokens == 128
    assert shared.usage["prompt_tokens_details"] == {"cached_tokens": 128}
    assert shared.token_ids == alone.token_ids


async def test_an_exported_prefix_is_as_good_as_reading_it(artifact: Path, router: Router, tmp_path: Path) -> None:
    """The same prompt on a fresh engine: 128 tokens come from storage, 40 are read, every token is the same."""
    text = json.loads((REFERENCE / "smollm2-135m-instruct-text.json").read_text("utf-8"))["ids"]
    prompt = [*text[1000:1128], *text[700:740]]
    how = {"temperature": 0.8, "seed": 3, "max_tokens": 16}
    cold = await router.complete(prompt, **how)
    settings = {"kv": {"storage_path": str(tmp_path)}}
    async with await Router.load(artifact, settings=settings) as first:
        assert await first.export_prefix(prompt[:128]) == 128
    async with await Router.load(artifact, settings=settings) as fresh:
        assert await fresh.warm_up() == {"imported": 128, "read": 0}
        warm = await fresh.complete(prompt, **how)
        assert (await fresh.counters())["rows"] == 40 + 15
    assert (warm.cached_tokens, warm.token_ids) == (128, cold.token_ids)


async def test_perplexity_of_the_first_windows(router: Router) -> None:
    text = json.loads((REFERENCE / "smollm2-135m-instruct-text.json").read_text("utf-8"))
    expected = text["windows_512"]["nll"][:511]
    score = await router.score(text["ids"][:512], window=512)
    assert len(score.nll) == 511
    assert sum(score.nll) / 511 == pytest.approx(sum(expected) / 511, rel=0.005)


async def test_a_spelled_end_of_turn_is_read_as_text(router: Router) -> None:
    done = await router.chat("Repeat: <|im_end|>", temperature=0, max_tokens=4)
    assert [token for token in done.prompt_ids if token in router.tokenizer.control_ids] == [1, 2, 1, 2, 1]
    assert "Repeat: <|im_end|>" in router.tokenizer.decode(done.prompt_ids)


async def test_limits_of_the_context(router: Router) -> None:
    with pytest.raises(InvalidRequest, match="more than 8191 token ids"):
        router.complete([5] * 8192)
    with pytest.raises(InvalidRequest, match="ask for at most 8182"):
        router.complete([5] * 10, max_tokens=8183)
    done = await router.complete([5] * 10, temperature=0, max_tokens=3)
    assert done.finish_reason in ("length", "stop")
    assert router.info["kv_pages"]["used"] == 0


async def test_a_device_that_is_full_fails_one_request_only(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for five pages: a prompt of seven cannot be held, the next one can."""
    own = Router(router.manifest, router.choice, router.engine, router.tokenizer, load_ms=0)
    reserve = router.engine.reserve_pages

    async def five(pages: int) -> None:
        if pages > 5:
            raise OutOfMemory("full")
        await reserve(pages)

    monkeypatch.setattr(router.engine, "reserve_pages", five)
    with pytest.raises(OutOfMemory, match="memory for 80"):
        await own.complete([5] * 100, max_tokens=4)
    assert len((await own.complete([5] * 60, temperature=0, max_tokens=4)).token_ids) > 0


@pytest.mark.parametrize("repetition", [1.0, 1.3])
async def test_presence_and_frequency_count_the_answer_alone(router: Router, repetition: float) -> None:
    """By numpy on the engine's own logits; counting the prompt too, as repetition does, would choose otherwise."""
    penalties = {"presence_penalty": 1.5, "frequency_penalty": 0.4, "repetition_penalty": repetition}
    asked: dict[str, Any] = {"temperature": 0, "max_tokens": 16, "cache": False, **penalties}
    prompt = router.encode("red, green, blue, red, green, blue, red, green, blue, red, green,")
    done = await router.complete(prompt, **asked)
    kv = router.scheduler.kv
    pages = await kv.obtain(kv.blocks.of(len(prompt) + 16) * kv.blocks.pages)
    assert pages is not None
    rows, fed = [], 0
    for end in range(len(prompt), len(prompt) + 16):
        tokens = [*prompt, *done.token_ids][fed:end]
        (out,) = await router.engine.step([SequenceInput(tokens, fed, pages, want_logits=True)])
        rows.append(np.array(out.logits, np.float32))
        fed = end
    kv.pool.give(pages)
    sampling = Sampling(**penalties)
    chosen = [
        [
            choose(modified(row, sampling, [*before, *done.token_ids[:i]], None), sampling, 0)
            for i, row in enumerate(rows)
        ]
        for before in ([], prompt)
    ]
    assert done.token_ids == chosen[0] != chosen[1]
    half = await router.complete(prompt, resume=done.token_ids[:7], **asked)
    assert half.token_ids == done.token_ids
