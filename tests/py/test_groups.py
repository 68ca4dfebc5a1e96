"""KV pages by groups of layers: one that sees everything, one with a sliding window and larger pages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from inpage.engines.protocol import SequenceInput
from inpage.format.plan_types import KvGroup
from inpage.kv import GroupedKv, KvManager
from inpage.requests.request import Request
from inpage.scheduling.scheduler import Scheduler
from support.asking import finish, prompt
from support.paged_double import PagedDouble

WHOLE, SLIDING = KvGroup((0, 2), 4), KvGroup((1,), 8, window=10)
GROUPS = (WHOLE, SLIDING)


class Grouped(PagedDouble):
    """The strict double with two groups: it also writes each token to the second one's pages, and reads back from there
    what the window shows."""

    def __init__(self, groups: tuple[KvGroup, ...] = GROUPS, **sizes: int) -> None:
        super().__init__(**sizes)  # type: ignore[arg-type]
        self.info = replace(self.info, groups=groups)

    def _write(self, feed: SequenceInput, position: int, token: int) -> None:
        super()._write(feed, position, token)
        assert [*feed.tables[0]] == [*feed.pages] and len(feed.tables) == len(self.info.groups)
        for group, table in zip(self.info.groups[1:], feed.tables[1:], strict=True):
            page, slot = divmod(position, group.page_tokens)
            self._kv[table[page], 1000 + slot] = position, token

    def _choose(self, feed: SequenceInput, position: int, history: Sequence[int]) -> int:
        for group, table in zip(self.info.groups[1:], feed.tables[1:], strict=True):
            first = 0 if group.window is None else max(0, position - group.window + 1)
            for earlier in range(first, position + 1):
                page, slot = divmod(earlier, group.page_tokens)
                assert self._kv[table[page], 1000 + slot][0] == earlier, "a page of the window is gone"
            alike = self._kv[table[position // group.page_tokens], 1000 + position % group.page_tokens]
            assert alike == self._kv[feed.pages[position // 4], position % 4]
        return super()._choose(feed, position, history)


async def answers(engine: PagedDouble, requests: list[Request]) -> list[list[int]]:
    scheduler = Scheduler(engine)
    for request in requests:
        scheduler.submit(request)
    await asyncio.gather(*map(finish, requests))
    assert scheduler.kv.pool.used == len(scheduler.kv.prefix)
    assert isinstance(scheduler.kv, GroupedKv) == isinstance(engine, Grouped)
    return [request.tokens for request in requests]


def crowd() -> list[Request]:
    return [Request(prompt(i, 5 + 11 * i), 40) for i in range(6)]


async def test_groups_change_no_answer() -> None:
    assert await answers(Grouped(), crowd()) == await answers(PagedDouble(), crowd())


async def test_short_of_memory_they_are_preempted_and_computed_again() -> None:
    engine = Grouped(memory_pages=52)
    assert await answers(engine, crowd()) == await answers(PagedDouble(), crowd())
    assert sum(len(feed.tokens) for kind, feeds in engine.calls if kind == "step" for feed in feeds) > 195


async def test_pages_that_fell_out_of_the_window_are_free() -> None:
    engine = Grouped(max_pages=300)
    kv = GroupedKv(engine)
    request = Request(prompt(1, 100), 60)
    assert await kv.admit(request)
    assert [len(table) for table in request.tables] == [26, 13] and request.pages is request.tables[0]
    for done in (32, 64, 96, 100):
        request.num_computed_tokens = done
        kv.keep(request)
        seen = (done - 10 + 1) // 8  # pages of which the next token, at ``done``, sees nothing
        assert request.tables[1][:seen] == [0] * seen and 0 not in request.tables[1][seen:]
        assert kv.pool.used == 26 + 13 - seen
    for done in range(100, 160):
        assert await kv.cover(request, 1)
        request.num_computed_tokens = done + 1
        assert kv.pool.used <= -(-(done + 1) // 4) + 3 + 1  # the window lies in three pages at most
    kv.release(request)
    assert kv.pool.used == 0 and request.tables == [] and not request.num_computed_tokens


async def test_a_burst_ends_where_the_pages_of_any_group_do() -> None:
    kv = GroupedKv(Grouped(memory_pages=5, max_pages=5))
    assert kv.capacity == 12  # three pages of four tokens, two of eight
    request = Request(prompt(1, 7), 5)
    assert await kv.admit(request)
    request.num_computed_tokens = 7
    assert await kv.cover(request, 1) and kv.pool.used == 3
    assert await kv.cover(request, 4) and [len(t) for t in request.tables] == [3, 2]
    other = Request(prompt(2, 3), 5)
    assert not await kv.admit(other) and other.tables == []
    kv.release(request)
    assert await kv.admit(other) and kv.pool.used == 2
    assert await kv.admit(request) and [len(t) for t in request.tables] == [2, 1]
    request.num_computed_tokens = 7
    assert await kv.cover(request, 4) and kv.pool.used == 5  # to the end of what it has
    request.num_computed_tokens = 8
    assert not await kv.cover(request, 4) and kv.pool.used == 5


@pytest.mark.parametrize("window", [1, 4, 8, 9])
async def test_windows_of_any_size_and_all_layers_in_one(window: int) -> None:
    """A model whose every layer slides has one group; its answers are those of the window."""
    engine = Grouped((WHOLE, replace(SLIDING, window=window), KvGroup((3,), 2, window=3)))
    assert await answers(engine, crowd()) == await answers(PagedDouble(), crowd())
    one = GroupedKv(Grouped((replace(SLIDING, window=window),)))
    request = Request(prompt(1, 80), 8)
    assert await one.admit(request) and len(request.pages) == 11
    request.num_computed_tokens = 80
    one.keep(request)
    assert one.pool.used == 11 - (81 - window) // 8


def test_one_group_without_a_window_is_what_it_was() -> None:
    scheduler = Scheduler(PagedDouble())
    assert type(scheduler.kv) is KvManager
    assert scheduler.kv.prefix.budget > 0
