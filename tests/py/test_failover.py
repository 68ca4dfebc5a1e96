"""Engines that die in mid-answer, on the strict double: answers go on as if nothing had happened, or say why not."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from inpage.backends.faults import FaultLog
from inpage.engines.protocol import Sampling
from inpage.errors import (
    ArtifactInvalid,
    Cancelled,
    DeviceLost,
    NetworkError,
    OutOfMemory,
    PoisonRequest,
)
from inpage.requests.request import Request
from inpage.scheduling.scheduler import Scheduler
from support.asking import prompt
from support.house import POISON, House, dies_at, poisoned
from support.paged_double import PagedDouble


def ask(seed: int, length: int = 9, max_tokens: int = 40, **more: Any) -> Request:
    return Request(prompt(seed, length), max_tokens, **more)


async def finish(request: Request) -> str:
    """Read to the end: what was streamed is what the request has, in order."""
    tokens: list[int] = []
    while True:
        event = await request.events.get()
        if isinstance(event, BaseException):
            raise event
        tokens += event.tokens
        assert request.tokens[: len(tokens)] == tokens
        if event.finish:
            assert tokens == request.tokens
            return event.finish


async def alone(request: Request) -> list[int]:
    scheduler = Scheduler(PagedDouble())
    scheduler.submit(request)
    await finish(request)
    return request.tokens


async def test_twenty_deaths_change_no_token() -> None:
    """Wherever an engine dies, in a prefill, a burst or while it grows, a crowd's answers are those of each alone."""
    how = [Sampling(), Sampling(temperature=1, seed=7), Sampling(repetition_penalty=1.2)]
    expected = [await alone(ask(s, 5 + 9 * s, sampling=how[s % 3])) for s in range(6)]
    rng = random.Random(11)
    deaths = 0
    for _ in range(20):
        house = House("a", fate=dies_at(rng.randint(1, 15), rng.randint(25, 35), rng.randint(45, 60)))
        scheduler = await house.scheduler()
        requests = [ask(s, 5 + 9 * s, sampling=how[s % 3]) for s in range(6)]
        for request in requests:
            scheduler.submit(request)
        assert await asyncio.gather(*map(finish, requests)) == ["length"] * 6
        assert [r.tokens for r in requests] == expected
        assert scheduler.kv.pool.used == len(scheduler.kv.prefix)
        deaths += len(house.loads) - 1
        assert all(engine.unloaded for engine in house.engines[:-1])
    assert deaths >= 20


async def test_the_gap_is_reported() -> None:
    house = House("a", fate=dies_at(4))  # in the burst, after it was told in part
    scheduler = await house.scheduler()
    request = ask(1)
    scheduler.submit(request)
    await finish(request)
    (report,) = [i.report() for i in request.interruptions]
    assert (report["from"], report["to"], report["reason"]) == ("a", "a", "device_lost: gone")
    assert report["gap_ms"] > 0


async def test_lost_twice_within_a_minute_another_takes_over() -> None:
    house = House("a", "b")
    house.fates["a"] = dies_at(3, 6)
    scheduler = await house.scheduler()
    request = ask(1)
    scheduler.submit(request)
    assert await finish(request) == "length"
    assert house.loads == ["a", "a", "b"]
    assert request.tokens == await alone(ask(1))
    assert [(i.before, i.after) for i in request.interruptions] == [("a", "a"), ("a", "b")]
    assert house.backends.took_over == "a failed (device_lost: gone)"
    assert house.log.resting("a") == 60
    assert "tried again in" in house.log.sentence("a")


async def test_a_gpu_that_takes_long_to_load_is_not_waited_for() -> None:
    for load_ms, took_over in ((2900, "webgpu-f16"), (3100, "wasm-simd")):
        house = House("webgpu-f16", "webgpu-f32", "wasm-simd")
        house.sizes["webgpu-f16"] = {"load_ms": load_ms}
        house.fates["webgpu-f16"] = dies_at(3)
        scheduler = await house.scheduler()
        request = ask(1)
        scheduler.submit(request)
        assert await finish(request) == "length"
        assert request.tokens == await alone(ask(1))
        assert house.loads == ["webgpu-f16", took_over]
        assert house.log.resting("webgpu-f16") == 0  # tried again as soon as nobody asks


async def test_losses_far_apart_are_accidents() -> None:
    house = House("a", "b")
    house.fates["a"] = dies_at(3, 8)
    scheduler = await house.scheduler()
    for seed in (1, 2):
        request = ask(seed, 9, 10)
        scheduler.submit(request)
        assert await finish(request) == "length"
        house.now += 61
    assert house.loads == ["a", "a", "a"]


async def test_without_memory_the_next_takes_over_at_once() -> None:
    house = House("a", "b")
    house.fates["a"] = dies_at(4, error=lambda: OutOfMemory("full"))
    scheduler = await house.scheduler()
    request = ask(1)
    scheduler.submit(request)
    assert await finish(request) == "length"
    assert house.loads == ["a", "b"]
    assert request.tokens == await alone(ask(1))


async def test_a_conversation_that_outgrows_one_backend_goes_on_in_another() -> None:
    house = House("a", "b")
    house.sizes["a"] = {"memory_pages": 8}
    scheduler = await house.scheduler()
    request = ask(1, 9, 80)
    scheduler.submit(request)
    assert await finish(request) == "length"
    assert house.loads == ["a", "b"]
    assert request.tokens == await alone(ask(1, 9, 80))


async def test_a_smaller_engine_ends_the_answer_where_its_room_does() -> None:
    house = House("a", "b")
    house.fates["a"] = dies_at(5, error=lambda: OutOfMemory("full"))
    house.sizes["b"] = {"context": 40, "max_pages": 10}
    scheduler = await house.scheduler()
    fits, too_long = ask(1, 9, 100), ask(2, 60, 20)
    scheduler.submit(fits)
    scheduler.submit(too_long)
    with pytest.raises(OutOfMemory, match="memory for 40"):
        await finish(too_long)
    assert await finish(fits) == "length"
    assert len(fits.tokens) == 31
    assert fits.tokens == (await alone(ask(1, 9, 100)))[:31]


@pytest.mark.parametrize("variants", [("a",), ("a", "b")])
async def test_poison_fails_alone(variants: tuple[str, ...]) -> None:
    house = House(*variants, fate=poisoned)
    scheduler = await house.scheduler()
    bad = Request([5, 6, POISON], 10)
    good = [ask(s) for s in (1, 2)]
    for request in (good[0], bad, good[1]):
        scheduler.submit(request)
    with pytest.raises(PoisonRequest, match="not tried again"):
        await finish(bad)
    assert await asyncio.gather(*map(finish, good)) == ["length"] * 2
    assert [r.tokens for r in good] == [await alone(ask(s)) for s in (1, 2)]
    # Once in the crowd, then alone until it is clear; no variant is blamed for it.
    assert house.loads == (["a", "a", "a", "a"] if len(variants) == 1 else ["a", "a", "b", "a"])
    assert not house.log.resting("a") and not house.log.last("b")
    assert scheduler.kv.pool.used == len(scheduler.kv.prefix)


async def test_a_broken_device_is_not_taken_for_a_broken_request() -> None:
    house = House("a", "b")
    house.fates["a"] = lambda kind, feeds: DeviceLost("broken") if kind == "step" else None
    scheduler = await house.scheduler()
    request = ask(1)
    scheduler.submit(request)
    assert await finish(request) == "length"
    assert house.loads == ["a", "a", "b"]


async def test_when_every_backend_failed_all_end_with_a_reason() -> None:
    house = House("a", "b", fate=dies_at(4))
    scheduler = await house.scheduler()
    house.refuse = {"a": DeviceLost("no device"), "b": OutOfMemory("no memory")}
    requests = [ask(s) for s in range(6)]
    for request in requests:
        scheduler.submit(request)
    for request in requests:
        with pytest.raises(DeviceLost, match=r"every backend failed: a failed .*no device.*; b failed .*no memory"):
            await finish(request)
    with pytest.raises(DeviceLost):
        scheduler.submit(ask(9))


async def test_a_first_load_falls_through_to_what_works() -> None:
    house = House("a", "b")
    house.refuse = {"a": OutOfMemory("full")}
    scheduler = await house.scheduler()
    assert scheduler.info.variant == "b"
    assert house.backends.took_over == "a failed (out_of_memory: full)"


async def test_files_that_one_variant_alone_needs_do_not_end_a_failover() -> None:
    for error in (NetworkError("no graph"), ArtifactInvalid("no graph", field="graph.weights")):
        house = House("wasm-simd", "onnx-wasm", "wasm-relaxed")
        house.refuse = {"wasm-simd": OutOfMemory("full"), "onnx-wasm": error}
        assert (await house.scheduler()).info.variant == "wasm-relaxed"
        assert house.log.resting("onnx-wasm") > 0
    house = House("onnx-webgpu", "onnx-wasm", "wasm-simd", "wasm-relaxed")
    house.refuse = dict.fromkeys(("onnx-webgpu", "onnx-wasm", "wasm-simd"), NetworkError("offline"))
    with pytest.raises(NetworkError, match="offline"):
        await house.scheduler()
    assert house.loads == ["onnx-webgpu", "onnx-wasm", "wasm-simd"]  # the weights are those of the last one as well
    house = House("onnx-webgpu", "onnx-wasm")
    house.refuse = dict.fromkeys(("onnx-webgpu", "onnx-wasm"), NetworkError("offline"))
    with pytest.raises(NetworkError, match="offline"):
        await house.scheduler()


async def test_what_fails_beside_the_first_load_gives_the_engine_back() -> None:
    async def fails() -> None:
        await asyncio.sleep(0.01)  # the engine is there by then
        raise NetworkError("no tokenizer")

    house = House("a")
    with pytest.raises(NetworkError):
        await house.backends.first_beside(fails())
    assert [engine.unloaded for engine in house.engines] == [True]


async def test_asking_cancelling_and_closing_while_an_engine_loads() -> None:
    house = House("a", fate=dies_at(4))
    scheduler = await house.scheduler()
    first, gone = ask(1), ask(2)
    scheduler.submit(first)
    scheduler.submit(gone)
    house.hold = asyncio.Event()
    while len(house.loads) < 2:
        await asyncio.sleep(0)
    later = ask(3)
    scheduler.submit(later)
    scheduler.cancel(gone)
    assert gone.done
    house.hold.set()
    assert await asyncio.gather(finish(first), finish(later)) == ["length"] * 2

    house = House("a", fate=dies_at(4))
    scheduler = await house.scheduler()
    scheduler.submit(first := ask(1))
    house.hold = asyncio.Event()
    while len(house.loads) < 2:
        await asyncio.sleep(0)
    await scheduler.close(Cancelled("unloaded"))
    with pytest.raises(Cancelled):
        await finish(first)


async def test_a_score_survives() -> None:
    ids = [random.Random(3).randrange(3, 900) for _ in range(50)]
    whole = Request(ids, targets=[*ids[1:], -1])
    scheduler = Scheduler(PagedDouble())
    scheduler.submit(whole)
    await finish(whole)
    house = House("a", fate=dies_at(3))
    scheduler = await house.scheduler()
    again = Request(ids, targets=[*ids[1:], -1])
    scheduler.submit(again)
    await finish(again)
    assert len(house.loads) == 2
    assert again.scores == whole.scores


async def test_an_answer_goes_on_where_an_earlier_run_ended() -> None:
    whole = await alone(ask(1, sampling=Sampling(temperature=1, seed=3)))
    for have in (1, 17, 39, 40):
        scheduler = Scheduler(PagedDouble())
        request = ask(1, sampling=Sampling(temperature=1, seed=3), tokens=whole[:have])
        scheduler.submit(request)
        while not request.done:
            await asyncio.sleep(0)
        assert request.tokens == whole


def test_rests_grow_and_are_remembered() -> None:
    now = 1e9
    log = FaultLog(lambda: now)
    rests = []
    for _ in range(8):
        log.note("a", DeviceLost("gone"))
        log.rest("a")
        rests.append(log.resting("a"))
        now += log.resting("a") + 1
    assert rests[:4] == [60, 240, 960, 3840]
    assert rests[-1] == 86_400
    again = FaultLog(lambda: now)
    again.load(log.dump())
    assert again.dump() == log.dump()
    assert again.sentence("a").startswith("failed 24 hours ago (device_lost: gone)")
    earlier = FaultLog(lambda: 0.0)  # the clock was set back
    earlier.load(log.dump())
    assert earlier.resting("a") == 86_400
