"""Grammars are compiled before their requests queue, and nobody else waits for that."""

from __future__ import annotations

import asyncio
import time

import pytest

from inpage.engines.protocol import Grammar
from inpage.errors import Cancelled, DeviceLost, InvalidRequest, QueueFull, Timeout
from inpage.requests.request import Burst, Request
from inpage.router.replicas import Replicas
from inpage.scheduling.scheduler import Scheduler
from inpage.settings import settings_from
from support.asking import finish
from support.house import House
from support.paged_double import PagedDouble

SCHEMA = Grammar("schema", "{}")


def made(**limits: object) -> tuple[Replicas, PagedDouble]:
    engine = PagedDouble(grammars=True)
    engine.compiling = asyncio.Event()
    return Replicas(Scheduler(engine, settings=settings_from({"scheduler": limits}))), engine


async def ended(request: Request) -> tuple[list[int], str]:
    reason = await finish(request)
    return request.tokens, reason


async def test_others_go_on_while_a_grammar_compiles() -> None:
    replicas, engine = made()
    assert engine.compiling is not None
    held = [Request([1, 2, 3], 4, grammar=SCHEMA), Request([1, 2, 4], 4, grammar=SCHEMA)]
    for request in held:
        replicas.submit(request)
    beside = Request([5, 6, 7], 60)
    replicas.submit(beside)
    assert (await ended(beside))[1] == "length" and len(beside.tokens) == 60
    assert {tuple(feed.tokens[:2]) for kind, feeds in engine.calls for feed in feeds if kind == "step"} == {(5, 6)}
    assert not any(request.started for request in held) and not replicas.schedulers[0].waiting
    engine.compiling.set()
    for request in held:
        assert len((await ended(request))[0]) == 4
    assert request.first and request.submitted and engine.compiled == [SCHEMA] * 2
    again = Request([1, 2, 3], 4, grammar=SCHEMA)
    replicas.submit(again)  # ready: it queues at once
    assert again in replicas.schedulers[0].waiting and await ended(again) == (held[0].tokens, "length")
    assert len(engine.compiled) == 2
    assert "inpage_grammar_seconds_count 2" in replicas.metrics()


async def test_an_engine_that_dies_while_it_compiles_fails_nobody() -> None:
    house = House("a", fate=lambda kind, feeds: DeviceLost("gone") if kind == "prepare" else None, grammars=True)
    replicas = Replicas(await house.scheduler())
    request = Request([1, 2, 3], 4, grammar=SCHEMA)
    replicas.submit(request)
    tokens, reason = await ended(request)
    assert (len(tokens), reason, house.loads) == (4, "length", ["a", "a"])
    await replicas.close(Cancelled("unloaded"))


async def test_what_becomes_of_those_that_never_queue() -> None:
    replicas, engine = made(queue_size=3, timeout=None)
    assert engine.compiling is not None
    asked = [Request([1], 4, grammar=SCHEMA) for _ in range(2)]
    bad = Request([1], 4, grammar=Grammar("schema", ""))
    late = Request([1], 4, grammar=SCHEMA, deadline=time.perf_counter())
    replicas.submit(late)
    with pytest.raises(Timeout, match="not compiled in time"):
        await ended(late)
    for request in (*asked, bad):
        replicas.submit(request)
    with pytest.raises(QueueFull):
        replicas.submit(Request([1], 4, grammar=SCHEMA))
    replicas.cancel(asked[0])
    assert asked[0].events.get_nowait() == Burst([], "cancelled")
    engine.compiling.set()
    with pytest.raises(InvalidRequest, match="cannot be followed"):
        await ended(bad)
    assert (await ended(asked[1]))[1] == "length"
    engine.compiling.clear()
    last = Request([1], 4, grammar=Grammar("regex", "a"))
    replicas.submit(last)
    await replicas.close(Cancelled("unloaded"))
    with pytest.raises(Cancelled):
        await ended(last)
    metrics = replicas.metrics()
    for reason, count in (("timeout", 1), ("invalid_request", 1), ("cancelled", 2), ("length", 1)):
        assert f'inpage_requests_total{{finish="{reason}"}} {count}' in metrics
