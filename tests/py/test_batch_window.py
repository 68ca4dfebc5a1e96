"""Requests in no hurry are read together; whoever is in a hurry waits for nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from inpage.errors import Cancelled
from inpage.requests.request import Request
from inpage.scheduling.scheduler import Scheduler
from inpage.settings import settings_from
from support.asking import finish, prompt
from support.paged_double import PagedDouble

_EVER = 1e6  # seconds: no test waits for it


def ask(seed: int, priority: int = -1, **more: Any) -> Request:
    return Request(prompt(seed, 9), 6, priority=priority, **more)


def scheduler(patience: float = _EVER, size: int = 3) -> tuple[Scheduler, PagedDouble]:
    engine = PagedDouble()
    settings = settings_from({"scheduler": {"batch_timeout": patience, "batch_size": size, "timeout": None}})
    return Scheduler(engine, settings=settings), engine


async def some_turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def served(made: Scheduler, requests: list[Request]) -> list[asyncio.Future[str]]:
    """Submitted one by one, with time between them in which an engine could have begun."""
    waits = []
    for request in requests:
        made.submit(request)
        waits.append(asyncio.ensure_future(finish(request)))
        await some_turns()
    return waits


def read_together(engine: PagedDouble) -> list[int]:
    """How many prompts each step had."""
    return [len(feeds) for kind, feeds in engine.calls if kind == "step"]


async def test_requests_in_no_hurry_are_read_together_when_they_are_enough() -> None:
    made, engine = scheduler()
    waits = await served(made, [ask(1), ask(2)])
    assert not engine.calls and len(made.waiting) == 2
    waits += await served(made, [ask(3)])
    assert await asyncio.gather(*waits) == ["length"] * 3
    assert read_together(engine) == [3]


@pytest.mark.parametrize("hurry", [{"priority": 0}, {"deadline": 1e12}])
async def test_whoever_is_in_a_hurry_waits_for_nobody_and_takes_all_along(hurry: dict[str, Any]) -> None:
    made, engine = scheduler()
    assert await asyncio.gather(*await served(made, [ask(1, **hurry)])) == ["length"]
    assert read_together(engine) == [1]
    assert await asyncio.gather(*await served(made, [ask(2), ask(3, **hurry)])) == ["length"] * 2
    assert read_together(engine) == [1, 2]


async def test_one_that_stays_alone_runs_after_its_time() -> None:
    made, engine = scheduler(patience=0.001)
    request = ask(1)
    assert await asyncio.gather(*await served(made, [request])) == ["length"]
    assert read_together(engine) == [1]
    assert request.started and request.submitted and request.started - request.submitted >= 0.001


async def test_a_cancel_and_the_end_are_not_waited_for() -> None:
    made, engine = scheduler()
    first, second = ask(1), ask(2)
    waits = await served(made, [first])
    made.cancel(first)
    assert await waits[0] == "cancelled"
    await some_turns()
    assert made.idle
    waits = await served(made, [second])
    await made.close(Cancelled("unloaded"))
    with pytest.raises(Cancelled):
        await waits[0]
    assert not engine.calls
