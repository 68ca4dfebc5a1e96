"""The circuit breaker: an engine that only fails is left alone for a while; poisonous requests open nothing."""

from __future__ import annotations

import asyncio

import pytest

from inpage.backends.circuit_breaker import Breaker
from inpage.backends.selection import Choice
from inpage.errors import Cancelled, DeviceLost, OutOfMemory, PoisonRequest
from inpage.requests.request import Request
from inpage.router import Router
from inpage.scheduling.scheduler import Scheduler
from inpage.text.tokenizer import Tokenizer
from support.asking import finish, prompt
from support.house import POISON, House, poisoned
from support.paged_double import PagedDouble
from support.small import small_manifest
from support.tiny import VOCAB


def ask(seed: int, tokens: int = 12) -> Request:
    return Request(prompt(seed, 9), tokens)


async def alone(request: Request) -> list[int]:
    scheduler = Scheduler(PagedDouble())
    scheduler.submit(request)
    await finish(request)
    return request.tokens


async def test_an_engine_that_only_fails_is_left_alone_and_tried_again_after_a_rest() -> None:
    house = House("a", fate=lambda kind, feeds: DeviceLost("broken") if kind != "reserve" else None)
    scheduler = await house.scheduler()
    assert scheduler.recovery is not None
    breaker = scheduler.recovery.breaker
    requests = [ask(s) for s in range(8)]
    for request in requests:
        scheduler.submit(request)
    results = await asyncio.gather(*map(finish, requests), return_exceptions=True)
    # Two are blamed before it is clear that the engine is broken; the others are told so.
    assert [type(result) for result in results] == [PoisonRequest] * 2 + [DeviceLost] * 6
    assert breaker.state == "open" and breaker.opened == 1
    loads = len(house.loads)
    assert loads == 6 and all(engine.unloaded for engine in house.engines)
    with pytest.raises(
        DeviceLost, match=r"circuit is open \(device_lost: broken\); an engine is tried again in 10 sec"
    ):
        scheduler.submit(ask(1))
    assert len(house.loads) == loads  # refused at once

    house.now += 10
    assert breaker.state == "half-open" and "with the next request" in scheduler.lost
    probing = ask(1)
    scheduler.submit(probing)
    with pytest.raises(DeviceLost):
        await finish(probing)
    assert breaker.state == "open" and len(house.loads) == loads + 1
    house.now += 19
    with pytest.raises(DeviceLost, match="in 1 seconds"):  # each rest is longer
        scheduler.submit(ask(1))

    house.now += 1
    house._fate = lambda kind, feeds: None
    back = [ask(s) for s in (1, 2)]
    for request in back:
        scheduler.submit(request)
    assert await asyncio.gather(*map(finish, back)) == ["length"] * 2
    assert [r.tokens for r in back] == [await alone(ask(s)) for s in (1, 2)]
    assert (breaker.state, breaker.opened, scheduler.lost) == ("closed", 2, "")
    assert scheduler.kv.pool.used == len(scheduler.kv.prefix)


async def test_many_poisonous_requests_open_nothing() -> None:
    house = House("a", fate=poisoned)
    scheduler = await house.scheduler()
    bad = [Request([5, 6 + i, POISON], 10) for i in range(6)]
    good = [ask(s) for s in (1, 2)]
    for request in (*bad, *good):
        scheduler.submit(request)
    results = await asyncio.gather(*map(finish, bad), return_exceptions=True)
    assert [type(result) for result in results] == [PoisonRequest] * 6
    assert await asyncio.gather(*map(finish, good)) == ["length"] * 2
    assert [r.tokens for r in good] == [await alone(ask(s)) for s in (1, 2)]
    assert scheduler.recovery is not None and scheduler.recovery.breaker.opened == 0


async def test_where_no_backend_can_be_loaded_the_circuit_opens_and_one_comes_back() -> None:
    house = House("a", "b", fate=lambda kind, feeds: DeviceLost("gone") if kind == "run" else None)
    scheduler = await house.scheduler()
    house.refuse = {"a": DeviceLost("no device"), "b": OutOfMemory("no memory")}
    scheduler.submit(first := ask(1))
    with pytest.raises(DeviceLost, match="every backend failed"):
        await finish(first)
    house.refuse, house._fate = {"a": DeviceLost("no device")}, lambda kind, feeds: None
    house.now += 10
    scheduler.submit(second := ask(1))
    assert await finish(second) == "length"
    assert scheduler.info.variant == "b" and scheduler.lost == ""


async def test_closing_while_an_engine_is_brought_back() -> None:
    house = House("a", fate=lambda kind, feeds: DeviceLost("gone") if kind == "run" else None)
    scheduler = await house.scheduler()
    house.refuse = {"a": DeviceLost("no device")}
    scheduler.submit(first := ask(1))
    with pytest.raises(DeviceLost):
        await finish(first)
    house.refuse, house.hold = {}, asyncio.Event()
    house.now += 10
    scheduler.submit(second := ask(1))
    await asyncio.sleep(0)
    closing = asyncio.create_task(scheduler.close(Cancelled("unloaded")))
    with pytest.raises(Cancelled):
        await finish(second)
    await closing
    with pytest.raises(DeviceLost, match="unloaded"):
        scheduler.submit(ask(1))


async def test_it_shows_in_health_metrics_and_explain(small_tokenizer: Tokenizer) -> None:
    house = House("native", vocab=VOCAB, fate=lambda kind, feeds: DeviceLost("gone"))
    choice = Choice(tuple(house.backends.ranked), tuple(house.backends.ranked), 1, "", None)
    engine = await house.backends.first()
    router = Router(small_manifest(), choice, engine, small_tokenizer, load_ms=1.0, backends=house.backends)
    assert "inpage_circuit_state 0" in router.metrics()
    house.refuse = {"native": DeviceLost("no device")}
    with pytest.raises(DeviceLost):
        await router.chat("hello", max_tokens=2)
    health = router.health()
    assert health.status == "unhealthy" and "the circuit is open (device_lost: no device)" in health.reasons[0]
    text = router.metrics()
    assert "inpage_circuit_state 2" in text and "inpage_circuit_openings 1" in text
    assert 'inpage_variant_rest_seconds{variant="native"} 60' in text
    assert router.explain().startswith("Nothing runs: the circuit is open")
    await router.unload()


def test_only_faults_in_a_row_within_the_window_make_an_engine_doubtful() -> None:
    now = 0.0
    breaker = Breaker(lambda: now)
    for _ in range(4):
        breaker.failed(DeviceLost("x"))
    breaker.progressed()
    for _ in range(4):
        breaker.failed(DeviceLost("x"))
    assert not breaker.doubtful
    now = 61.0
    breaker.failed(DeviceLost("x"))
    assert not breaker.doubtful
    for _ in range(4):
        breaker.failed(DeviceLost("x"))
    assert breaker.doubtful and breaker.state == "closed"
