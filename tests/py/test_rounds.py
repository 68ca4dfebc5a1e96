"""Answers that go in circles end after a set number of rounds, wherever bursts are cut; others never do."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from inpage.openai import Api
from inpage.requests.rounds import LEAST, PERIOD, Rounds
from inpage.responses import AnswerCache, MemoryTier
from inpage.router import Completion, Stream
from inpage.text.tokenizer import Tokenizer
from support.in_process import openai_client
from support.scripted import Scripted
from support.small import small_router

LINES = "what is the page " * 40


def by_definition(tokens: list[int], most: int) -> int | None:
    """The first length at which the answer ends with enough copies of one block."""
    for end in range(1, len(tokens) + 1):
        for period in range(1, PERIOD + 1):
            copies = max(most, -(-LEAST // period))
            block, tail = tokens[end - period : end], tokens[end - period * copies : end]
            if end >= period * copies and tail == block * copies:
                return end
    return None


@pytest.mark.parametrize("seed", range(30))
def test_by_the_definition(seed: int) -> None:
    rng = random.Random(seed)
    block = [rng.randrange(3) for _ in range(rng.choice((1, 2, 3, 5, 9, 20)))]
    tokens = [rng.randrange(3) for _ in range(rng.randrange(40))] + block * rng.randrange(2, 40)
    most = rng.randrange(2, 7)
    expected = by_definition(tokens[:220], most)
    assert Rounds(most).push(tokens[:220]) == expected
    rounds, found = Rounds(most), None
    for i, token in enumerate(tokens[:220]):  # token by token the same
        if rounds.push([token]) and found is None:
            found = i + 1
    assert found == expected


async def test_an_answer_in_circles_ends(small_tokenizer: Tokenizer) -> None:
    ids = small_tokenizer.encode(LINES)
    engine = Scripted(small_tokenizer, LINES, context=2000, max_pages=2000)
    end = by_definition(ids, 4)
    assert end is not None and end < len(ids) // 4
    async with small_router(small_tokenizer, engine=engine) as router:
        done = await router.chat("hello", temperature=0, max_repeats=4, max_tokens=len(ids))
        assert (done.token_ids, done.finish_reason, done.ended) == (ids[:end], "stop", "repeats")
        assert LINES.startswith(done.text) and done.text == small_tokenizer.decode(ids[:end])
        half = await router.chat("hello", temperature=0, max_repeats=4, max_tokens=len(ids), resume=ids[: end - 3])
        assert (half.token_ids, half.ended) == (done.token_ids, "repeats")
        over = await router.chat("hello", temperature=0, max_repeats=4, max_tokens=len(ids), resume=done.token_ids)
        assert (over.token_ids, over.finish_reason, over.ended) == (done.token_ids, "stop", "repeats")
        for params in ({}, {"max_repeats": 0}, {"max_repeats": 50}):
            done = await router.chat("hello", temperature=0, max_tokens=len(ids) + 1, **params)
            assert (done.token_ids, done.finish_reason, done.ended) == ([*ids, 2], "stop", "")
        while router.scheduler.active:
            await router.chat("hello", max_tokens=1)
        assert router.info["kv_pages"]["used"] == 0


async def test_beside_others(small_tokenizer: Tokenizer) -> None:
    ids = small_tokenizer.encode(LINES)
    engine = Scripted(small_tokenizer, LINES, context=2000, max_pages=2000)
    ask: dict[str, Any] = {"temperature": 0, "max_tokens": 300}
    async with small_router(small_tokenizer, engine=engine) as router:
        alone = await router.complete("hello", **ask, max_repeats=3)
        streams = [router.complete(text, **ask, max_repeats=3) for text in ("one", "two", "three")]
        crowd = await asyncio.gather(*(whole(stream) for stream in streams))
        both = [await router.complete("hello", **ask, max_repeats=3, cache=False), *crowd]
        free = await router.complete("hello", **ask)
    assert [one.token_ids for one in both] == [alone.token_ids] * 4
    assert free.token_ids == ids[:300]


async def test_kept_answers_are_kept_whole(small_tokenizer: Tokenizer) -> None:
    """One that was cut off is not kept, one that is kept is cut off for whoever asks that."""
    ids = small_tokenizer.encode(LINES)
    engine = Scripted(small_tokenizer, LINES, context=2000, max_pages=2000)
    answers = AnswerCache([MemoryTier(9)])
    ask: dict[str, Any] = {"temperature": 0, "max_tokens": 300}
    async with small_router(small_tokenizer, engine=engine, answers=answers) as router:
        cut = await router.complete("hello", **ask, max_repeats=3)
        free = await router.complete("hello", **ask)
        again = await router.complete("hello", **ask, max_repeats=3)
    assert (free.token_ids, free.source, free.ended) == (ids[:300], "engine", "")
    assert (again.token_ids, again.source, again.ended) == (cut.token_ids, "memory", "repeats")
    assert again.text == cut.text and again.finish_reason == "stop"


async def whole(stream: Stream) -> Completion:
    return await stream


async def test_openai_says_stop_and_why(small_tokenizer: Tokenizer) -> None:
    engine = Scripted(small_tokenizer, LINES, context=2000, max_pages=2000)
    ask: Any = {"model": "small", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}
    more: Any = {"extra_body": {"max_repeats": 4}}
    async with small_router(small_tokenizer, engine=engine) as router, openai_client(Api(router)) as client:
        choice = (await client.chat.completions.create(**ask, **more)).choices[0]
        assert (choice.finish_reason, choice.to_dict()["inpage"]) == ("stop", {"ended": "repeats"})
        chunks = [chunk async for chunk in await client.chat.completions.create(**ask, **more, stream=True)]
        last = chunks[-1].choices[0]
        assert (last.finish_reason, last.to_dict()["inpage"]) == ("stop", {"ended": "repeats"})
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == choice.message.content
        plain = (await client.chat.completions.create(**ask, max_tokens=300)).choices[0]
        assert plain.finish_reason == "length" and "inpage" not in plain.to_dict()
        body = {"input": "hello", "temperature": 0, "max_repeats": 4}
        reply = json.loads(str((await Api(router).handle("POST", "/v1/responses", json.dumps(body))).body))
        assert (reply["status"], reply["inpage"]) == ("completed", {"ended": "repeats"})


async def test_more_ends_than_an_engine_takes(small_tokenizer: Tokenizer) -> None:
    """A vocabulary may have twenty tokens that end an answer; an engine is given eight."""
    ids = small_tokenizer.encode("what light is this")
    router = small_router(small_tokenizer, engine=Scripted(small_tokenizer, "what light is this"))
    ends = tuple(range(300, 308))
    reference = router.manifest.tokenizer
    for more, expected in (((), [*ids]), ((ids[4],), ids[: ids.index(ids[4]) + 1]), ((ids[0],), ids[:1])):
        object.__setattr__(reference, "eos", (*ends, *more))
        done = await router.chat("hello", temperature=0, max_tokens=len(ids), cache=False)
        assert done.token_ids == expected
        assert done.finish_reason == ("stop" if more else "length")
        assert done.text == small_tokenizer.decode(expected[:-1] if more else expected)
    object.__setattr__(reference, "eos", (2,))
