"""Several engines of one model: who gets which request, what happens when one dies, how many there is memory for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from inpage.errors import DeviceLost, OutOfMemory
from inpage.kv import Blocks
from inpage.models import Level, Models
from inpage.models.levels import best_fit
from inpage.requests.request import Request
from inpage.router import Router
from inpage.router.replicas import Replicas, affordable
from inpage.scheduling.scheduler import Scheduler
from inpage.settings import Settings, settings_from
from support.asking import finish, prompt
from support.house import House
from support.paged_double import PagedDouble, double_info


def ask(seed: int, length: int = 40, tokens: int = 8) -> Request:
    return Request(prompt(seed, length), tokens)


async def replicas(house: House, count: int) -> Replicas:
    made = Replicas(await house.scheduler())
    await made.fill(count, house.backends, Settings(), lambda what: None)
    return made


async def served(made: Replicas, *requests: Request) -> list[int]:
    """Which replica each request ran on."""
    for request in requests:
        made.submit(request)
    homes = [next(i for i, s in enumerate(made.schedulers) if r in s.slots.requests()) for r in requests]
    assert await asyncio.gather(*map(finish, requests)) == ["length"] * len(requests)
    return homes


async def test_the_least_loaded_serves_unless_another_holds_the_prefix() -> None:
    made = await replicas(House("a"), 3)
    assert await served(made, *(ask(s) for s in range(6))) == [0, 1, 2, 0, 1, 2]
    assert await served(made, ask(1), ask(1), ask(2), ask(9)) == [1, 1, 2, 0]  # prompts 1 and 2 stand there
    flood = [ask(1) for _ in range(8)]  # more than it is worth waiting for
    homes = await served(made, *flood)
    assert homes[:4] == [1] * 4 and set(homes) == {0, 1, 2}
    expected = (await _alone(ask(1))).tokens
    assert all(request.tokens == expected for request in flood)


async def _alone(request: Request) -> Request:
    scheduler = Scheduler(PagedDouble())
    scheduler.submit(request)
    await finish(request)
    return request


async def test_one_that_dies_is_started_again_and_one_that_is_broken_is_passed_over() -> None:
    house = House("a")
    made = await replicas(house, 2)
    first, second = (engine for engine in house.engines)
    second._fate = lambda kind, feeds: DeviceLost("gone")
    requests = [ask(s) for s in range(4)]
    await served(made, *requests)
    assert [r.tokens for r in requests] == [(await _alone(ask(s))).tokens for s in range(4)]
    assert len(house.loads) == 3 and second.unloaded and not first.unloaded
    house.refuse = {"a": OutOfMemory("no memory")}
    house.engines[-1]._fate = lambda kind, feeds: DeviceLost("gone")
    dying = ask(7)
    made.schedulers[1].submit(dying)
    with pytest.raises(OutOfMemory):
        await finish(dying)
    assert not made.lost and made.trouble.startswith("1 of 2 replicas are gone: the circuit is open")
    assert await served(made, ask(1), ask(2), ask(3)) == [0, 0, 0]
    assert 'inpage_circuit_state{replica="1"} 2' in made.metrics()


async def test_where_no_memory_is_left_there_are_fewer() -> None:
    house = House("a")
    made = Replicas(await house.scheduler())
    house.refuse = {"a": OutOfMemory("full")}
    await made.fill(3, house.backends, Settings(), lambda what: None)
    assert len(made.schedulers) == 1 and made.why_fewer == "full"


def test_how_many_there_is_memory_for() -> None:
    info = double_info(weight_bytes=1000, arena_bytes=200)  # 64 pages of 64 bytes are a context
    limited = settings_from({"kv": {"memory_bytes": 2 * 4096 + 1200}})
    assert affordable(3, info, Settings(), None) == (3, Settings())
    assert affordable(3, info, Settings(), 5000)[0] == 2
    count, each = affordable(3, info, limited, None)
    assert (count, each.kv.memory_bytes) == (2, 4096)
    level = Level(0, "a", 1200, 64, Blocks(4), 256, 4, engines=3, extra=1200)
    for room, kv in ((1200 + 2 * 4096 + 1200, 2 * 4096 + 1200), (10**6, 3 * 4096 + 2400), (1200 + 4096, 4096)):
        grant = best_fit([level], room, share=0, least=4)
        assert grant and grant.kv == kv


@pytest.mark.model
async def test_two_engines_of_the_real_model_share_its_weights_and_answer_alike(artifact: Path) -> None:
    how: dict[str, Any] = {"temperature": 0.8, "max_tokens": 12}
    questions = ["What is gravity?", "2+2=", "Who are you?", "Name three colours."]
    async with await Router.load(artifact, threads=1) as alone:
        expected = [(await alone.chat(q, seed=i, **how)).token_ids for i, q in enumerate(questions)]
        weights = alone.held["weights"]
    async with Models({"models": {"target_memory": 800_000_000}}) as models:
        models.add(artifact, name="real", replicas=2)
        async with models.use() as router:
            assert router.info["replicas"] == 2 and router.held["weights"] == weights
            answers = await asyncio.gather(*(router.chat(q, seed=i, **how) for i, q in enumerate(questions)))  # type: ignore[arg-type]
            assert [answer.token_ids for answer in answers] == expected
            assert [s.metrics.requests.total for s in router.replicas.schedulers] == [2, 2]
            assert 'inpage_circuit_state{model="real",replica="1"} 0' in models.metrics()
            (state,) = models.loaded()
            assert state.bytes <= (state.granted or 0) <= 800_000_000
