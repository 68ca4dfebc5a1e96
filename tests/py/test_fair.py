"""Whose turn it is: no request lost, nobody starved, one client's crowd does not hold another up."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inpage.errors import Timeout
from inpage.requests.request import Request
from inpage.scheduling.fair_queue import FairQueue
from inpage.scheduling.scheduler import Scheduler
from support.examples import some
from support.paged_double import PagedDouble


def request(client: str = "", priority: int = 0, **more: int) -> Request:
    return Request([5, 6, 7], more.get("answer", 4), client=client, priority=priority)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=30))
def test_everyone_gets_out_once_in_order_of_priority_then_arrival_within_a_client(asked: list[tuple[str, int]]) -> None:
    queue = FairQueue()
    everyone = [request(client, priority) for client, priority in asked]
    for one in everyone:
        queue.push(one, {})
    out = []
    while (head := queue.head({})) is not None:
        queue.remove(head)
        queue.serve(head.client, read=1)
        out.append(head)
    assert len(queue) == 0 and sorted(r.serial for r in out) == [r.serial for r in everyone]
    assert [r.priority for r in out] == sorted((r.priority for r in out), reverse=True)
    for client in "abc":
        own = [(-r.priority, r.serial) for r in out if r.client == client]
        assert own == sorted(own)


@given(st.lists(st.integers(1, 50), min_size=4, max_size=60))
def test_two_busy_clients_are_served_alike(costs: list[int]) -> None:
    """Whatever each request costs, nobody is ever more than the dearest request ahead while both wait."""
    queue = FairQueue()
    for i in range(len(costs)):
        queue.push(request("ab"[i % 2]), {})
    done: Counter[str] = Counter()
    for cost in costs[: len(costs) // 2]:
        head = queue.head({})
        assert head is not None
        queue.remove(head)
        queue.serve(head.client, written=cost)
        done[head.client] += cost
        if {r.client for r in queue} == {"a", "b"}:
            assert abs(done["a"] - done["b"]) <= max(costs)


def test_idling_earns_no_credit() -> None:
    queue = FairQueue()
    queue.push(request("busy"), {})
    queue.serve("busy", written=1000)
    queue.push(request("new"), {"busy": 1})
    assert queue.served("new") == 1000
    head = queue.head({"busy": 1})
    assert head is not None and head.client == "new"  # level, and with less running


class Watch:
    """Reads requests and notes the order in which first tokens came."""

    def __init__(self) -> None:
        self.first: list[Request] = []

    async def read(self, one: Request) -> str:
        while True:
            event = await one.events.get()
            if isinstance(event, BaseException):
                raise event
            if event.tokens and one not in self.first:
                self.first.append(one)
            if event.finish:
                return event.finish


async def test_one_request_does_not_wait_for_another_clients_hundred() -> None:
    engine = PagedDouble(max_sequences=4, context=64)
    scheduler, watch = Scheduler(engine), Watch()
    crowd = [Request([i % 7 + 3] * 9, 20, client="crowd") for i in range(100)]
    for one in crowd:
        scheduler.submit(one)
    reading = [asyncio.ensure_future(watch.read(one)) for one in crowd]
    while len(watch.first) < 6:
        await asyncio.sleep(0)
    calls, before = len(engine.calls), len(watch.first)
    guest = Request([10] * 9, 5, client="guest")
    scheduler.submit(guest)
    await watch.read(guest)
    ahead = watch.first.index(guest) - before
    steps = next(i for i, (kind, feeds) in enumerate(engine.calls[calls:]) if _feeds(feeds, guest) and kind == "step")
    assert ahead <= 1 and steps <= 1  # at most the call that was under way came before its prompt
    assert await asyncio.gather(*reading) == ["length"] * 100


def _feeds(feeds: list[object], one: Request) -> bool:
    return any(list(getattr(feed, "tokens", ())) == list(one.prompt) for feed in feeds)


async def test_a_higher_priority_takes_the_place_of_a_lower() -> None:
    scheduler, watch = Scheduler(PagedDouble(max_sequences=2)), Watch()
    low = [Request([3, i + 3], 30, priority=-1) for i in range(3)]
    for one in low:
        scheduler.submit(one)
    reading = [asyncio.ensure_future(watch.read(one)) for one in low]
    while len(watch.first) < 2:
        await asyncio.sleep(0)
    high = Request([8, 8], 3, priority=1)
    scheduler.submit(high)
    await watch.read(high)
    assert not any(one.done for one in low)
    assert watch.first.index(high) == 2
    await asyncio.gather(*reading)
    fresh = Scheduler(PagedDouble())
    for one in low:
        alone = Request(one.prompt, one.max_tokens)
        fresh.submit(alone)
        await Watch().read(alone)
        assert alone.tokens == one.tokens  # having lost its place changes no answer


async def test_a_request_without_time_left_ends_with_timeout_and_the_others_go_on() -> None:
    scheduler, watch = Scheduler(PagedDouble(max_sequences=1)), Watch()
    running, late, patient = (Request([i, 5], 40) for i in (3, 4, 5))
    late.deadline = time.perf_counter()
    for one in (running, late, patient):
        scheduler.submit(one)
    with pytest.raises(Timeout, match="allow more"):
        await watch.read(late)
    assert [await watch.read(one) for one in (running, patient)] == ["length"] * 2
    assert late.done and late not in scheduler.waiting


@settings(max_examples=some(40), deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(-1, 1), st.integers(1, 20), st.integers(1, 9)),
        min_size=1,
        max_size=14,
    ),
    st.integers(1, 4),
    st.integers(12, 40),
)
def test_whoever_takes_whose_place_every_answer_is_what_it_is_alone(
    asked: list[tuple[str, int, int, int]], places: int, memory: int
) -> None:
    async def crowd() -> None:
        scheduler = Scheduler(PagedDouble(max_sequences=places, memory_pages=memory))
        everyone = [Request([3 + n % 4] * n, m, client=c, priority=p) for c, p, n, m in asked]
        for one in everyone:
            scheduler.submit(one)
        await asyncio.gather(*(Watch().read(one) for one in everyone))
        for one in everyone:
            alone, fresh = Request(one.prompt, one.max_tokens), Scheduler(PagedDouble())
            fresh.submit(alone)
            await Watch().read(alone)
            assert one.tokens == alone.tokens
        kv = scheduler.kv
        assert kv.pool.used == len(kv.prefix) and not scheduler.waiting and not scheduler.active

    asyncio.run(crowd())
