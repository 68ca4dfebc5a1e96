"""The router's face on the strict double: streams, whole answers, cancellation, bad requests, scoring."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from inpage.errors import Cancelled, DeviceLost, InvalidRequest, QueueFull, Timeout, Unsupported
from inpage.router import Completion, Router, Stream
from inpage.settings import settings_from
from inpage.text.tokenizer import Tokenizer
from support.small import small_router
from support.tiny import VOCAB

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 30}


@pytest.fixture
async def router(small_tokenizer: Tokenizer) -> AsyncIterator[Router]:
    router = small_router(small_tokenizer)
    yield router
    assert router.scheduler.kv.pool.used == len(router.scheduler.kv.prefix)
    await router.unload()


async def test_pieces_and_whole_are_the_same_answer(router: Router, small_tokenizer: Tokenizer) -> None:
    deltas = [delta async for delta in router.chat("hello", **GREEDY)]
    whole = await router.chat([{"role": "user", "content": "hello"}], **GREEDY)
    last = deltas[-1].result
    assert last is not None
    assert all(delta.result is None for delta in deltas[:-1])
    assert "".join(delta.text for delta in deltas) == last.text == whole.text == small_tokenizer.decode(last.token_ids)
    assert [t for delta in deltas for t in delta.token_ids] == last.token_ids == whole.token_ids
    assert last.prompt_ids == router.chat("hello").prompt_ids
    assert last.finish_reason == "length"
    assert last.usage["total_tokens"] == len(last.prompt_ids) + 30


async def test_a_prompt_is_counted_as_it_is_read_also_where_it_does_not_fit(router: Router) -> None:
    for messages in ("hello", [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a " * 50}]):
        assert await router.count_tokens(messages) == len((await router.chat(messages, max_tokens=1)).prompt_ids)
    assert await router.count_tokens("a " * 5000) > router.info["context"]
    with pytest.raises(InvalidRequest, match="messages"):
        await router.count_tokens([])


async def test_what_a_completion_reports(router: Router) -> None:
    done = await router.complete("hello", **GREEDY)
    assert (done.backend, done.variant, done.threads, done.load_ms) == ("double", "native", 1, 12.0)
    assert done.why == "native: it needs nothing special; 2 of 2 cores compute"
    assert min(done.ttft_ms, done.prefill_tps, done.decode_tps) > 0
    assert done.seed == 0


async def test_a_seed_repeats_and_its_absence_varies(router: Router) -> None:
    first = await router.complete("hello", temperature=1, max_tokens=20)
    again = await router.complete("hello", temperature=1, max_tokens=20, seed=first.seed)
    other = await router.complete("hello", temperature=1, max_tokens=20)
    assert first.token_ids == again.token_ids != other.token_ids


async def test_max_tokens_defaults_to_the_end_of_the_context(router: Router) -> None:
    done = await router.complete([5] * 250, temperature=0)
    assert len(done.token_ids) == 6
    assert done.finish_reason == "length"


async def test_stop(small_tokenizer: Tokenizer) -> None:
    done = await small_router(small_tokenizer, stop_every=10).complete("hello", temperature=0)
    assert done.finish_reason == "stop"
    assert done.token_ids[-1] == 2
    assert "<|im_end|>" not in done.text


async def test_two_at_once_equal_two_alone(router: Router) -> None:
    alone = [await router.chat(text, **GREEDY) for text in ("hello", "the world")]
    both = await asyncio.gather(*(whole(router, text) for text in ("hello", "the world")))
    assert [a.token_ids for a in alone] == [b.token_ids for b in both]


async def whole(router: Router, text: str) -> Completion:
    return await router.chat(text, **GREEDY)


async def test_leaving_the_loop_cancels(router: Router) -> None:
    async for delta in router.chat("hello", temperature=0):
        assert delta.token_ids
        break
    gc.collect()  # the loop's iterator goes, and asyncio closes it
    while router.info["requests"]["active"]:
        await asyncio.sleep(0)
    assert router.info["kv_pages"]["used"] == 0


async def test_cancelling_the_awaiting_task(router: Router) -> None:
    task = asyncio.ensure_future(whole(router, "hello"))
    while not router.info["requests"]["active"]:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while router.info["requests"]["active"]:
        await asyncio.sleep(0)


async def test_cancel_from_outside_gives_what_there_is(router: Router) -> None:
    stream = router.chat("hello", temperature=0)
    deltas = []
    async for delta in stream:
        deltas.append(delta)
        if len(deltas) == 3:
            stream.cancel()
    result = deltas[-1].result
    assert result is not None
    assert result.finish_reason == "cancelled"
    assert result.token_ids == [t for delta in deltas for t in delta.token_ids]
    stream = router.chat("hello")
    stream.cancel()
    assert (await stream).finish_reason == "cancelled"


async def test_a_stream_is_read_once(router: Router) -> None:
    stream = router.chat("hello", **GREEDY)
    await stream
    with pytest.raises(InvalidRequest, match="once"):
        await stream


async def test_bad_requests_are_refused_at_once_and_the_next_works(router: Router) -> None:
    bad: list[tuple[Any, str]] = [
        (lambda: router.chat([]), "messages"),
        (lambda: router.chat([{"role": "boss", "content": "hi"}]), "messages[0].role"),
        (lambda: router.chat("hi", temprature=1), "temprature"),
        (lambda: router.chat("hi", max_tokens=-1), "max_tokens"),
        (lambda: router.chat("hi", max_tokens=256), "max_tokens"),
        (lambda: router.chat("x" * 300), "messages"),
        (lambda: router.complete([]), "prompt"),
        (lambda: router.complete([VOCAB]), "prompt[0]"),
        (lambda: router.complete([5] * 256), "prompt"),
    ]
    for call, field in bad:
        with pytest.raises(InvalidRequest) as error:
            call()
        assert error.value.field == field
    assert (await router.chat("hi", **GREEDY)).finish_reason == "length"


async def test_queue_full(small_tokenizer: Tokenizer) -> None:
    router = small_router(small_tokenizer, max_sequences=1)
    tasks = [asyncio.ensure_future(whole(router, "hello")) for _ in range(5)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, QueueFull) for result in results) == 1
    assert sum(isinstance(result, Completion) for result in results) == 4


async def test_bos_where_the_model_wants_one(small_tokenizer: Tokenizer) -> None:
    assert small_router(small_tokenizer).encode("a")[0] != 1
    assert small_router(small_tokenizer, manifest={"add_bos": True}).encode("a")[0] == 1


async def test_a_model_without_a_chat_template(small_tokenizer: Tokenizer) -> None:
    router = small_router(small_tokenizer, manifest={"chat_template": None})
    with pytest.raises(Unsupported, match="use complete"):
        router.chat("hello")
    assert (await router.complete("hello", **GREEDY)).text


async def test_scores(router: Router) -> None:
    ids = [3 + i % 300 for i in range(100)]
    score = await router.score(ids, window=40)
    assert len(score.nll) == len(score.argmax) == len(score.margin) == 39 + 39 + 19
    assert score.perplexity == pytest.approx(math.exp(sum(score.nll) / 97))
    capacity = router.scheduler.capacity  # less than the usual window, which is as long as there is room for
    assert capacity < 512 and len((await router.score(ids * 3)).nll) == capacity - 1 + 300 - capacity - 1
    alone = await router.score(ids[40:80], window=40)
    assert alone.argmax == score.argmax[39:78]
    for arguments, field in (((ids, 1), "window"), ((ids, 300), "window"), (([5], 40), "ids"), (([], 40), "prompt")):
        with pytest.raises(InvalidRequest) as error:
            await router.score(*arguments)
        assert error.value.field == field


async def test_unload_ends_what_is_in_flight(small_tokenizer: Tokenizer) -> None:
    router = small_router(small_tokenizer)
    reading = router.chat("hello").__aiter__()
    await anext(reading)
    await router.unload()
    await router.unload()
    with pytest.raises(Cancelled, match="unloaded"):
        async for _ in reading:
            pass
    with pytest.raises(DeviceLost):
        await router.chat("hello")


async def test_info_and_explain(router: Router) -> None:
    info = router.info
    assert info["model"] == "small"
    assert info["context"] == 256
    assert router.explain().splitlines() == [
        "Running native: it needs nothing special; 2 of 2 cores compute.",
        "* native: it needs nothing special",
    ]


async def test_quick_stream_and_batch_are_ways_to_ask(router: Router) -> None:
    alone = [await router.chat(text, **GREEDY) for text in ("one", "two", "three")]
    assert await router.quick("one", **GREEDY) == alone[0].text
    assert "".join([delta.text async for delta in router.stream("two", **GREEDY)]) == alone[1].text
    assert await router.batch([]) == []
    together = await router.batch(["one", "two", "three"], **GREEDY)
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
    with pytest.raises(InvalidRequest):
        await router.batch(["one", "\ud800"])


async def test_whoever_waits_too_long_is_told(small_tokenizer: Tokenizer) -> None:
    async with small_router(small_tokenizer, max_sequences=1) as router:
        router.scheduler.settings = settings_from({"scheduler": {"timeout": 0}})
        first = asyncio.ensure_future(_whole(router.chat("hello", **GREEDY)))
        with pytest.raises(Timeout, match="its turn"):
            await router.chat("hello", **GREEDY)
        with pytest.raises(Timeout, match="its turn"):
            await first


async def _whole(stream: Stream) -> Completion:
    return await stream
