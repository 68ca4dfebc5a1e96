"""The prefix tree against a plain model: what it says is kept is, nothing leaks, nothing shared is written."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from inpage.engines.protocol import Sampling
from inpage.kv import KvManager, PagePool, PrefixTree
from inpage.requests.request import Request
from inpage.scheduling.scheduler import Scheduler
from inpage.settings import settings_from
from support.asking import finish
from support.paged_double import PagedDouble

SIZE = 4
# Few different tokens and few lengths, so that prefixes meet.
TOKENS = st.lists(st.integers(3, 4), min_size=1, max_size=26)


class Tree(RuleBasedStateMachine):
    """Sequences come, take what is kept, write the rest and leave it. ``content`` is what the pages really hold."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(60)
        self.pool.grow_to(60)
        self.tree = PrefixTree(self.pool, SIZE, budget=8)
        self.content: dict[int, tuple[int, ...]] = {}  # page → all tokens up to its end
        self.sequences: dict[int, tuple[list[int], list[int]]] = {}
        self.serial = 0

    @rule(target=held, tokens=TOKENS)
    def come(self, tokens: list[int]) -> int:
        pages = self.tree.take(tokens, len(tokens) - 1)
        assert len(pages) * SIZE < len(tokens)
        for i, page in enumerate(pages):
            assert self.content[page] == tuple(tokens[: (i + 1) * SIZE])
        own = -(-len(tokens) // SIZE) - len(pages)
        if self.pool.free < own:
            self.tree.evict(own - self.pool.free)
        fresh = self.pool.take(own)
        if fresh is None:
            self.pool.give(pages)
            pages, tokens = [], []
        for i, page in enumerate(fresh or (), len(pages)):
            assert self.pool.owners(page) == 1
            self.content[page] = tuple(tokens[: (i + 1) * SIZE])
        self.serial += 1
        self.sequences[self.serial] = tokens, [*pages, *(fresh or ())]
        return self.serial

    @rule(number=held)
    def share(self, number: int) -> None:
        if number in self.sequences:
            tokens, pages = self.sequences[number]
            self.tree.put(tokens, pages)
            for i, page in enumerate(pages[: len(tokens) // SIZE]):
                assert self.content[page] == tuple(tokens[: (i + 1) * SIZE])
            assert self.tree.peek(tokens) == len(tokens) // SIZE * SIZE

    @rule(number=consumes(held))
    def leave(self, number: int) -> None:
        self.pool.give(self.sequences.pop(number)[1])
        self.tree.trim()
        assert self.tree.idle <= self.tree.budget

    @rule(count=st.integers(1, 5))
    def evict(self, count: int) -> None:
        idle = self.tree.idle
        assert self.tree.evict(count) == min(count, idle)

    @invariant()
    def nothing_leaks(self) -> None:
        owners = Counter(page for _, pages in self.sequences.values() for page in pages)
        kept = sum(self.pool.owners(page) > owners[page] for page in range(self.pool.reserved))
        assert kept == len(self.tree)
        assert all(self.pool.owners(page) - owners[page] in (0, 1) for page in range(self.pool.reserved))
        assert self.pool.used + self.pool.free == self.pool.reserved

    def teardown(self) -> None:
        for _, pages in self.sequences.values():
            self.pool.give(pages)
        self.tree.clear()
        assert self.pool.used == 0 and len(self.tree) == 0


TestTree = Tree.TestCase
TestTree.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_the_least_recently_used_goes_first() -> None:
    pool = PagePool(8)
    pool.grow_to(8)
    tree = PrefixTree(pool, SIZE, budget=8)
    for first in (1, 2, 3):
        pages = pool.take(2)
        assert pages is not None
        tree.put([first] * 8, pages)
        pool.give(pages)
    pool.give(tree.take([1] * 8, 8))
    assert tree.evict(3) == 3
    assert [tree.peek([first] * 8) for first in (1, 2, 3)] == [8, 0, 4]


def test_pages_with_readers_are_never_evicted() -> None:
    pool = PagePool(4)
    pool.grow_to(4)
    tree = PrefixTree(pool, SIZE, budget=0)
    pages = pool.take(2)
    assert pages is not None
    tree.put([5] * 8, pages)
    assert tree.evict(9) == 0
    pool.give(pages)
    tree.trim()
    assert len(tree) == 0 and pool.used == 0


def test_the_pool_refuses_to_share_a_free_page() -> None:
    with pytest.raises(ValueError, match="not handed out"):
        PagePool(1).share([0])


REQUESTS = st.lists(
    st.tuples(TOKENS, st.integers(1, 12), st.booleans(), st.integers(0, 6)),  # prompt, answer, scored?, cancelled after
    min_size=1,
    max_size=9,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(REQUESTS, st.integers(10, 40), st.integers(0, 30))
def test_any_crowd_gets_the_answers_of_each_alone(
    asked: list[tuple[list[int], int, bool, int]], memory: int, kept: int
) -> None:
    """Whatever shares, is evicted, robbed or cancelled: each answer is the one that a fresh engine gives."""
    asyncio.run(_crowd(asked, memory, kept))


async def _crowd(asked: list[tuple[list[int], int, bool, int]], memory: int, kept: int) -> None:
    engine = PagedDouble(memory_pages=memory)
    scheduler = Scheduler(engine, settings=settings_from({"kv": {"prefix_bytes": kept * engine.info.page_bytes}}))
    requests = [_request(*one[:3]) for one in asked]
    for request in requests:
        scheduler.submit(request)
    for request, (*_, patience) in zip(requests, asked, strict=True):
        if patience == 0:
            scheduler.cancel(request)
    for request, one in zip(requests, asked, strict=True):
        alone = _request(*one[:3])
        fresh = Scheduler(PagedDouble(), settings=settings_from({"kv": {"prefix_bytes": 0}}))
        fresh.submit(alone)
        assert await finish(alone) in ("length", "stop")
        if await finish(request) == "cancelled":
            assert request.tokens == alone.tokens[: len(request.tokens)]
        else:
            assert (request.tokens, request.scores) == (alone.tokens, alone.scores)
    kv = scheduler.kv
    assert kv.pool.used == len(kv.prefix) == kv.prefix.idle <= kept
    assert not scheduler.active and not scheduler.waiting


def _request(prompt: list[int], answer: int, scored: bool) -> Request:
    if scored:
        return Request(prompt, targets=[*prompt[1:], -1])
    return Request(prompt, answer, Sampling(temperature=1.0, seed=7))


async def test_a_shared_prefix_is_computed_once() -> None:
    engine = PagedDouble()
    scheduler = Scheduler(engine)
    prefix = list(range(3, 3 + 5 * SIZE))
    first = Request([*prefix, 50], 3)
    scheduler.submit(first)
    await finish(first)
    engine.calls.clear()
    second = Request([*prefix, 60], 3)
    scheduler.submit(second)
    await finish(second)
    assert [list(feed.tokens) for kind, feeds in engine.calls if kind == "step" for feed in feeds] == [[60]]
    assert (first.cached, second.cached) == (0, len(prefix))


async def test_the_same_prompt_asked_at_once_is_computed_once() -> None:
    engine = PagedDouble()
    scheduler = Scheduler(engine)
    prompt = list(range(3, 3 + 6 * SIZE))
    requests = [Request(prompt, 3) for _ in range(4)]
    for request in requests:
        scheduler.submit(request)
    for request in requests:
        await finish(request)
    fed = sum(len(feed.tokens) for kind, feeds in engine.calls if kind == "step" for feed in feeds)
    assert fed == len(prompt) + 3 * SIZE  # the last page of each is its own


async def test_an_answer_is_kept_for_the_next_turn() -> None:
    engine = PagedDouble()
    scheduler = Scheduler(engine)
    first = Request(list(range(3, 13)), 15)
    scheduler.submit(first)
    await finish(first)
    second = Request([*first.prompt, *first.tokens, 8, 9], 2)
    scheduler.submit(second)
    await finish(second)
    assert second.cached == (first.length - 1) // SIZE * SIZE


class _Watched(list[int]):
    """A prompt that counts how many of its tokens were copied out of it."""

    copied = 0

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        self.copied += len(found) if isinstance(at, slice) else 1
        return found


@pytest.mark.parametrize("chunk", [SIZE, 32])
async def test_bookkeeping_of_a_prompt_is_linear_in_its_length(chunk: int) -> None:
    """However small its chunks are: each goes on in the tree where the last one ended."""
    for length in (256, 1024):
        prompt = _Watched(range(3, 3 + length))
        engine = PagedDouble(context=2048, max_pages=600, vocab=2048)
        kv = KvManager(engine, prefix_bytes=1 << 20)
        request = Request(prompt, 1)
        assert await kv.admit(request)
        while request.to_prefill:
            kv.skip(request)
            kv.next_page(request)
            request.num_computed_tokens += len(request.prefill_input(min(chunk, request.to_prefill)).tokens)
            kv.keep(request)
        kv.release(request)
        assert len(kv.prefix) == length // SIZE
        assert kv.prefix.visited == 2 * length // SIZE  # down once, and back up when it ends
        assert prompt.copied <= 4 * length  # its pages' keys, what it feeds, and a look at the page that comes next


async def test_what_several_branches_left_goes_oldest_first_and_whole() -> None:
    """Sequences that grew in chunks, by turns, over a shared beginning: idle pages go in one pass, children first."""
    kv = KvManager(PagedDouble(), prefix_bytes=1 << 20)
    requests = [Request([*range(3, 3 + 2 * SIZE), *range(9 + i, 9 + i + 3 * SIZE)], 1) for i in (10, 20)]
    for request in requests:
        assert await kv.admit(request)
    for end in range(SIZE, 5 * SIZE + 1, SIZE):
        for request in requests:
            kv.skip(request)
            request.num_computed_tokens = max(end, request.num_computed_tokens)
            kv.keep(request)
    assert requests[0].pages[:2] == requests[1].pages[:2]
    kv.release(requests[1])
    kv.release(requests[0])
    assert kv.prefix.evict(3) == 3
    assert [kv.prefix.peek(request.prompt) for request in requests] == [5 * SIZE, 2 * SIZE]
    assert kv.prefix.evict(9) == 5 and not kv.pool.used
