"""Answers that are kept or shared, through the router: the same text, one run, nobody disturbed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from inpage.errors import DeviceLost, InvalidRequest, QueueFull
from inpage.responses import AnswerCache, MemoryTier
from inpage.router import Completion, Router
from inpage.text.tokenizer import Tokenizer
from support.paged_double import PagedDouble
from support.small import small_router

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12}


@pytest.fixture
async def router(small_tokenizer: Tokenizer) -> AsyncIterator[Router]:
    async with small_router(small_tokenizer, answers=AnswerCache([MemoryTier(100)])) as router:
        yield router
        assert not router.scheduler.active and not router.scheduler.waiting
        assert router.scheduler.kv.pool.used == len(router.scheduler.kv.prefix)


def calls(router: Router) -> int:
    assert isinstance(router.engine, PagedDouble)
    return len(router.engine.calls)


async def whole(router: Router, text: str, **params: Any) -> Completion:
    return await router.chat(text, **params)


async def test_a_kept_answer_is_the_computed_one_without_the_engine(router: Router) -> None:
    computed = await router.chat("hello", **GREEDY)
    before = calls(router)
    kept = await router.chat("hello", **GREEDY)
    assert calls(router) == before
    assert (computed.source, kept.source) == ("engine", "memory")
    assert (kept.text, kept.token_ids, kept.finish_reason, kept.prompt_ids, kept.usage["completion_tokens"]) == (
        computed.text, computed.token_ids, computed.finish_reason, computed.prompt_ids, 12,
    )  # fmt: skip


async def test_only_determined_requests_are_kept(router: Router) -> None:
    for params in ({"temperature": 0.7}, {"temperature": 0, "cache": False}, {"temperature": 0, "timeout": 60}):
        await router.chat("hello", max_tokens=5, **params)
        assert (await router.chat("hello", max_tokens=5, **params)).source == "engine"
    await router.chat("hello", max_tokens=5, temperature=0.7, seed=3)
    assert (await router.chat("hello", max_tokens=5, temperature=0.7, seed=3)).source == "memory"
    assert (await router.chat("hello", max_tokens=5, temperature=0.7, seed=4)).source == "engine"


async def test_the_same_question_at_once_is_one_run(router: Router) -> None:
    alone = await router.chat("hello", cache=False, **GREEDY)
    before = calls(router)
    answers = await asyncio.gather(*(whole(router, "hello", **GREEDY) for _ in range(30)))
    cost = calls(router) - before
    assert {a.text for a in answers} == {alone.text}
    assert Counter(a.source for a in answers) == {"engine": 1, "shared": 29}
    await router.chat("hello", cache=False, **GREEDY)
    assert cost <= calls(router) - before - cost + 1  # no more than one asked alone


async def test_one_reader_leaving_disturbs_nobody_and_the_last_ends_the_run(router: Router) -> None:
    how = {"temperature": 0, "max_tokens": 150}
    expected = (await router.chat("hello", cache=False, **how)).token_ids
    leaver, stayer = router.chat("hello", **how), router.chat("hello", **how)
    reading = asyncio.ensure_future(_all(stayer))
    async for delta in leaver:
        if delta.token_ids:
            leaver.cancel()
        if delta.result:
            assert delta.result.finish_reason == "cancelled"
    assert (await reading).token_ids == expected
    await router.answers.invalidate()  # type: ignore[union-attr]
    before = router.chat("hello", **how)
    async for _ in before:
        break
    before.cancel()
    while router.scheduler.active:
        await asyncio.sleep(0)
    assert (await router.chat("hello", **how)).source == "engine"  # a cancelled run is no answer


async def _all(stream: Any) -> Completion:
    return await stream  # type: ignore[no-any-return]


async def test_stop_strings_apply_to_kept_answers_too(router: Router) -> None:
    text = (await router.chat("hello", **GREEDY)).text
    stopped = await router.chat("hello", stop=text[4:7], **GREEDY)
    assert (stopped.source, stopped.text, stopped.finish_reason) == ("memory", text[: text.index(text[4:7])], "stop")
    assert len(stopped.token_ids) < 12


async def test_an_answer_that_was_cut_by_a_stop_string_is_not_kept_as_whole(router: Router) -> None:
    how = {"temperature": 0, "max_tokens": 120}
    text = (await router.chat("hello", cache=False, **how)).text
    assert (await router.chat("hello", stop=text[4:7], **how)).finish_reason == "stop"
    assert (await router.chat("hello", **how)).text == text


async def test_tags_and_models_invalidate(router: Router) -> None:
    assert router.answers is not None
    for text in ("a", "b"):
        await router.chat(text, tags=["faq"] if text == "a" else None, **GREEDY)
    assert await router.answers.invalidate("faq") == 1
    assert (await router.chat("a", **GREEDY)).source == "engine"
    assert (await router.chat("b", **GREEDY)).source == "memory"
    assert await router.answers.invalidate("model:small") == 2


async def test_all_who_share_a_run_hear_of_its_end(small_tokenizer: Tokenizer) -> None:
    router = small_router(small_tokenizer, answers=AnswerCache())
    assert isinstance(router.engine, PagedDouble)
    reading = [asyncio.ensure_future(whole(router, "hello", temperature=0, max_tokens=150)) for _ in range(3)]
    while not router.scheduler.active:
        await asyncio.sleep(0)
    router.engine.failure = DeviceLost("pulled out")
    for outcome in await asyncio.gather(*reading, return_exceptions=True):
        assert isinstance(outcome, DeviceLost)
    with pytest.raises(DeviceLost):
        await router.chat("hello", temperature=0)


async def test_a_full_queue_refuses_and_leaves_nothing_behind(small_tokenizer: Tokenizer) -> None:
    async with small_router(small_tokenizer, answers=AnswerCache()) as router:
        many = [asyncio.ensure_future(whole(router, f"{i}", **GREEDY)) for i in range(20)]
        outcomes = await asyncio.gather(*many, return_exceptions=True)
        refused = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, QueueFull)]
        assert refused
        assert (await router.chat(f"{refused[0]}", **GREEDY)).source == "engine"


async def test_zipf_requests_are_mostly_hits(router: Router) -> None:
    """1,000 requests over 100 prompts, as often as Zipf's law with s = 1 says."""
    rng = random.Random(1)
    texts = rng.choices([f"question {i}" for i in range(100)], [1 / (i + 1) for i in range(100)], k=1000)
    sources = Counter([(await router.chat(text, temperature=0, max_tokens=2)).source for text in texts])
    assert sources["engine"] == len(set(texts)) <= 100
    assert sources["memory"] == 1000 - sources["engine"]
    assert router.answers is not None and router.answers.stats()["hits"] == {"memory": sources["memory"]}


@pytest.mark.parametrize(
    ("params", "field"), [({"cache": 1}, "cache"), ({"tags": [""]}, "tags"), ({"stop": 3}, "stop")]
)
async def test_bad_values_name_their_field(router: Router, params: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        router.chat("hello", **params)
    assert caught.value.field == field
