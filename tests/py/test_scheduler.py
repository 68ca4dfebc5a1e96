"""The queue on a strict double: callers decode together, never see each other's tokens, nothing is lost."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pytest

from inpage.engines.protocol import Sampling
from inpage.errors import Cancelled, DeviceLost, InvalidRequest, OutOfMemory, QueueFull
from inpage.requests.request import Request
from inpage.scheduling.prefill_chunk import PrefillChunk
from inpage.scheduling.scheduler import Scheduler
from inpage.settings import settings_from
from support.asking import finish, prompt
from support.paged_double import PagedDouble


def ask(seed: int, length: int = 9, max_tokens: int = 20, **more: Any) -> Request:
    return Request(prompt(seed, length), max_tokens, **more)


async def alone(make: Any, **engine: Any) -> list[int]:
    scheduler = Scheduler(PagedDouble(**engine))
    request = make()
    scheduler.submit(request)
    await finish(request)
    return list(request.tokens)


async def test_two_callers_decode_together() -> None:
    engine = PagedDouble()
    scheduler = Scheduler(engine)
    requests = [ask(1), ask(2)]
    for request in requests:
        scheduler.submit(request)
    assert await asyncio.gather(*map(finish, requests)) == ["length", "length"]
    assert any(kind == "run" and len(feeds) == 2 for kind, feeds in engine.calls)
    assert [r.tokens for r in requests] == [await alone(lambda s=s: ask(s)) for s in (1, 2)]
    assert scheduler.kv.pool.used == len(scheduler.kv.prefix) and not scheduler.active and not scheduler.waiting


async def test_a_crowd_changes_nobodys_answer() -> None:
    """Lengths, arrival times, seeds and penalties mixed, with few pages: sequences are robbed and recomputed."""
    sampling = [Sampling(), Sampling(temperature=1, seed=7), Sampling(repetition_penalty=1.2)]
    rng = random.Random(5)
    cases = [(s, rng.randint(1, 90), rng.randint(1, 60), sampling[s % 3]) for s in range(24)]

    def make(case: tuple[int, int, int, Sampling]) -> Request:
        seed, length, max_tokens, how = case
        return ask(seed, length, max_tokens, sampling=how, stop_ids=(2,))

    expected = [await alone(lambda c=c: make(c), stop_every=40) for c in cases]
    for pages in (256, 60, 40):
        engine = PagedDouble(max_pages=pages, stop_every=40)
        scheduler = Scheduler(engine)
        requests = [make(case) for case in cases]
        waits = []
        for request in requests:
            scheduler.submit(request)
            waits.append(asyncio.ensure_future(finish(request)))
            for _ in range(rng.randint(0, 5)):
                await asyncio.sleep(0)
        await asyncio.gather(*waits)
        assert [r.tokens for r in requests] == expected
        assert scheduler.kv.pool.used == len(scheduler.kv.prefix)


async def test_robbed_sequences_are_computed_again() -> None:
    """Three that each need most of the pages: they cannot all stay, and all finish right."""
    engine = PagedDouble(max_pages=30, context=120)
    scheduler = Scheduler(engine, settings=settings_from({"kv": {"swap_bytes": 0}}))
    requests = [ask(s, 20, 90) for s in range(3)]
    for request in requests:
        scheduler.submit(request)
    assert await asyncio.gather(*map(finish, requests)) == ["length"] * 3
    assert [r.tokens for r in requests] == [await alone(lambda s=s: ask(s, 20, 90)) for s in range(3)]
    refed = sum(len(f.tokens) for kind, feeds in engine.calls if kind == "step" for f in feeds)
    assert refed > 3 * 20, "somebody was preempted and read again"


async def test_a_short_prompt_overtakes_a_long_one() -> None:
    engine = PagedDouble(context=1024, max_pages=512)
    scheduler = Scheduler(engine)
    long, short = ask(1, 900, 2), ask(2, 3, 2)
    scheduler.submit(long)
    scheduler.submit(short)
    await finish(short)
    assert not long.done and long.num_computed_tokens < 900
    assert await finish(long) == "length"


async def test_stop_token_ends_it_and_is_kept() -> None:
    request = ask(3, 9, 200, stop_ids=(2,))
    scheduler = Scheduler(PagedDouble(stop_every=10))
    scheduler.submit(request)
    assert await finish(request) == "stop"
    assert request.tokens[-1] == 2 and 2 not in request.tokens[:-1]


async def test_prefill_fills_every_chunk_and_stays_within_the_rows() -> None:
    engine = PagedDouble()
    scheduler = Scheduler(engine)
    request = ask(4, 100, 1)
    scheduler.submit(request)
    await finish(request)
    assert [len(feeds[0].tokens) for kind, feeds in engine.calls] == [32, 32, 32, 4]


async def test_a_burst_is_told_while_it_runs_the_first_tokens_at_once() -> None:
    engine = PagedDouble()
    scheduler = Scheduler(engine)
    request = ask(5, 4, 60)
    scheduler.submit(request)
    sizes = []
    while True:
        burst = await request.events.get()
        assert not isinstance(burst, BaseException)
        sizes.append(len(burst.tokens))
        if burst.finish:
            break
    assert sizes[:6] == [1, 1, 2, 4, 8, 16]
    assert [kind for kind, _ in engine.calls] == ["step", "run"], "told while one burst runs"


async def test_cancel_frees_the_pages_and_spares_the_others() -> None:
    scheduler = Scheduler(PagedDouble())
    gone, stays = ask(1, 9, 200), ask(2, 9, 40)
    scheduler.submit(gone)
    scheduler.submit(stays)
    await gone.events.get()
    scheduler.cancel(gone)
    assert await finish(stays) == "length"
    last = None
    while not gone.events.empty():
        last = gone.events.get_nowait()
    assert last is not None and not isinstance(last, BaseException) and last.finish == "cancelled"
    assert stays.tokens == await alone(lambda: ask(2, 9, 40))
    assert scheduler.kv.pool.used == len(scheduler.kv.prefix)


async def test_cancel_ends_a_running_burst_early() -> None:
    engine = PagedDouble()
    scheduler = Scheduler(engine)
    request = ask(1, 9, 200)
    scheduler.submit(request)
    for _ in range(4):  # now in the midst of a burst
        await request.events.get()
    scheduler.cancel(request)
    while not isinstance(event := await request.events.get(), BaseException) and not event.finish:
        pass
    assert engine.interrupts == 1


async def test_cancel_while_waiting_is_immediate() -> None:
    scheduler = Scheduler(PagedDouble(max_sequences=1))
    first, second = ask(1), ask(2)
    scheduler.submit(first)
    scheduler.submit(second)
    await first.events.get()
    scheduler.cancel(second)
    assert second.done and await finish(second) == "cancelled"


async def test_the_queue_is_bounded() -> None:
    scheduler = Scheduler(PagedDouble(max_sequences=1), settings=settings_from({"scheduler": {"queue_size": 2}}))
    requests = [ask(s) for s in range(4)]
    for request in requests[:2]:
        scheduler.submit(request)
    with pytest.raises(QueueFull, match="2 requests"):
        scheduler.submit(requests[2])
    assert await asyncio.gather(*map(finish, requests[:2])) == ["length"] * 2
    scheduler.submit(requests[3])
    assert await finish(requests[3]) == "length"


async def test_what_can_never_fit_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="room for 256"):
        Scheduler(PagedDouble()).submit(ask(1, 250, 7))
    with pytest.raises(InvalidRequest, match="room for 40"):
        Scheduler(PagedDouble(max_pages=10)).submit(ask(1, 30, 11))


async def test_a_prompt_up_to_the_last_position() -> None:
    scheduler = Scheduler(PagedDouble())
    request = ask(1, 255, 1)
    scheduler.submit(request)
    assert await finish(request) == "length" and len(request.tokens) == 1


async def test_a_full_device_is_lived_with() -> None:
    """The engine has memory for fewer pages than it declares: requests that fit one by one all finish."""
    scheduler = Scheduler(PagedDouble(memory_pages=20))
    requests = [ask(s, 30, 40) for s in range(4)]
    for request in requests:
        scheduler.submit(request)
    assert await asyncio.gather(*map(finish, requests)) == ["length"] * 4
    assert scheduler.capacity == 80
    too_long = ask(9, 79, 2)
    with pytest.raises(InvalidRequest):
        scheduler.submit(too_long)


async def test_out_of_memory_fails_that_request_only() -> None:
    scheduler = Scheduler(PagedDouble(memory_pages=20))
    big, small = ask(1, 120, 10), ask(2, 30, 40)
    scheduler.submit(big)
    scheduler.submit(small)
    with pytest.raises(OutOfMemory, match="memory for 80"):
        await finish(big)
    assert await finish(small) == "length"


async def test_one_that_fails_takes_nobody_along() -> None:
    engine = PagedDouble(poison=999)
    scheduler = Scheduler(engine)
    bad = Request([5, 6, 999], 10)
    good = [ask(s) for s in (1, 2)]
    for request in (good[0], bad, good[1]):
        scheduler.submit(request)
    with pytest.raises(RuntimeError, match="poisoned"):
        await finish(bad)
    assert await asyncio.gather(*map(finish, good)) == ["length"] * 2
    assert [r.tokens for r in good] == [await alone(lambda s=s: ask(s)) for s in (1, 2)]
    assert scheduler.kv.pool.used == len(scheduler.kv.prefix)


async def test_a_lost_device_fails_all_and_later_ones() -> None:
    engine = PagedDouble()
    scheduler = Scheduler(engine)
    requests = [ask(s) for s in range(6)]
    for request in requests:
        scheduler.submit(request)
    await requests[0].events.get()
    engine.failure = DeviceLost("gone")
    for request in requests:
        with pytest.raises(DeviceLost):
            await finish(request)
    with pytest.raises(DeviceLost, match="load the model again"):
        scheduler.submit(ask(9))
    assert scheduler.kv.pool.used == len(scheduler.kv.prefix)


async def test_close_waits_for_the_engine() -> None:
    engine = PagedDouble()
    scheduler = Scheduler(engine)
    request = ask(1, 9, 200)
    scheduler.submit(request)
    await request.events.get()
    await scheduler.close(Cancelled("unloaded"))
    await engine.unload()
    with pytest.raises(Cancelled):
        await finish(request)


async def test_scoring_goes_through_the_same_queue() -> None:
    engine = PagedDouble()
    scheduler = Scheduler(engine)
    ids = prompt(1, 50)
    scored = Request(ids, targets=[*ids[1:], -1])
    talk = ask(2)
    scheduler.submit(scored)
    scheduler.submit(talk)
    assert list(await asyncio.gather(finish(scored), finish(talk))) == ["length", "length"]
    assert len(scored.scores) == 50
    assert talk.tokens == await alone(lambda: ask(2))


def test_a_step_of_a_prompt_grows_while_it_stays_short() -> None:
    """By the time from one answer to the next: what an engine only queues says nothing."""
    chunk = PrefillChunk()
    assert (chunk.rows(24), chunk.rows(1024)) == (24, 128)
    chunk.note(128, 10.0, 10.0, answered=False)  # queued at once
    assert chunk.rows(1024) == 128
    chunk.note(72, 10.0, 10.05, answered=True)  # 200 tokens in 50 ms: 256 would take 64, 512 too long
    assert (chunk.rows(1024), chunk.rows(300), chunk.rows(200)) == (256, 256, 128)
    chunk.note(128, 20.0, 20.0, answered=False)  # its request was cancelled
    chunk.note(10_000, 30.0, 30.1, answered=True)
    assert chunk.rows(512) == 512
    for _ in range(8):
        chunk.note(128, 31.0, 33.0, answered=True)
    assert chunk.rows(1024) == 128


@pytest.mark.parametrize("seconds", [0.0, 1.0])
async def test_a_longer_prompt_s_steps_follow_the_engine_s_speed(seconds: float) -> None:
    engine = PagedDouble(max_rows=512, context=2048, max_pages=1000)
    scheduler = Scheduler(engine)
    times = itertools.count(step=seconds)
    scheduler.kv.swap.clock = lambda: next(times)
    for length in (130, 600):
        request = ask(length, length, max_tokens=1)
        scheduler.submit(request)
        await finish(request)
    read = [len(feed.tokens) for kind, feeds in engine.calls if kind == "step" for feed in feeds]
    assert read == ([128, 2, 512, 88] if seconds == 0 else [128, 2, 128, 128, 128, 128, 88])
