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
from inpage.format.plan_types import KvGroup
from inpage.kv import Blocks, KvManager, PagePool, PrefixTree
from inpage.kv.blocks import Tables
from inpage.kv.prefix import Branch
from inpage.requests.request import Request
from inpage.scheduling.scheduler import Scheduler
from inpage.settings import settings_from
from support.asking import finish
from support.examples import some
from support.paged_double import PagedDouble

SIZE = 4
# Few different tokens and few lengths, so that prefixes meet.
TOKENS = st.lists(st.integers(3, 4), min_size=1, max_size=26)


def full(tokens: list[int]) -> list[tuple[int, ...]]:
    return [tuple(tokens[at : at + SIZE]) for at in range(0, len(tokens) - SIZE + 1, SIZE)]


class Tree(RuleBasedStateMachine):
    """Sequences come, take what is kept, write the rest and leave it. ``content`` is what the pages really hold."""

    held = Bundle("held")
    groups: tuple[KvGroup, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.blocks = Blocks(SIZE, self.groups)
        self.pool = PagePool(60 * self.blocks.pages)
        self.pool.grow_to(self.pool.limit)
        self.tree = PrefixTree(self.pool, self.blocks, budget=8 * self.blocks.pages)
        self.content: dict[int, tuple[int, int, tuple[int, ...]]] = {}  # page → part, place, all tokens up to its end
        self.sequences: dict[int, tuple[list[int], Tables, Branch]] = {}
        self.serial = 0

    def check(self, tokens: list[int], tables: Tables, end: int, goes_on: int) -> None:
        """Its first ``end`` blocks hold these tokens, as far as whoever goes on after ``goes_on`` of them sees them."""
        for p, part in enumerate(self.blocks.parts):
            for block in range(part.needed(goes_on), end):
                pages = tables.get(p, block)
                assert len(pages) == part.pages
                for i, page in enumerate(pages):
                    assert self.content[page] == (p, i, tuple(tokens[: (block + 1) * SIZE]))

    @rule(target=held, tokens=TOKENS)
    def come(self, tokens: list[int]) -> int:
        tables, branch = Tables(self.blocks), self.tree.branch()
        kept = self.tree.descend(branch, self.tree.keys(tokens, len(tokens) - 1), tables)
        assert kept * SIZE < len(tokens) and kept == branch.depth
        self.check(tokens, tables, kept, kept)
        missing = (self.blocks.of(len(tokens)) - kept) * self.blocks.pages
        if self.pool.free < missing:
            self.tree.evict(missing - self.pool.free)
        fresh = self.pool.take(missing)
        if fresh is None:
            self.tree.leave(branch)
            self.pool.give(tables.pages())
            tokens, tables, branch, fresh = [], Tables(self.blocks), self.tree.branch(), []
        for p, part in enumerate(self.blocks.parts):
            for block in range(kept, self.blocks.of(len(tokens))):
                pages, fresh = fresh[: part.pages], fresh[part.pages :]
                assert all(self.pool.owners(page) == 1 for page in pages)
                self.content |= {page: (p, i, tuple(tokens[: (block + 1) * SIZE])) for i, page in enumerate(pages)}
                tables.put(p, block, pages)
        self.serial += 1
        self.sequences[self.serial] = tokens, tables, branch
        return self.serial

    @rule(number=held, part=st.floats(0, 1))
    def share(self, number: int, part: float) -> None:
        """It has computed a part of its tokens."""
        if number in self.sequences:
            tokens, tables, branch = self.sequences[number]
            done = max(branch.depth, int(part * len(full(tokens))))
            self.tree.append(branch, full(tokens)[branch.depth : done], tables)
            self.check(tokens, tables, len(full(tokens)), done)
            assert self.tree.peek(tokens) >= done * SIZE
            for p, each in enumerate(self.blocks.parts):
                self.pool.give(tables.drop(p, each.needed(done)))

    @rule(number=consumes(held))
    def leave(self, number: int) -> None:
        _, tables, branch = self.sequences.pop(number)
        self.tree.leave(branch)
        self.pool.give(tables.pages())
        self.tree.trim()
        assert self.tree.idle <= self.tree.budget

    @rule(count=st.integers(1, 5))
    def evict(self, count: int) -> None:
        idle = self.tree.idle
        gone = self.tree.evict(count)
        assert min(count, idle) <= gone == idle - self.tree.idle
        assert self.blocks.windowed or gone < count + self.blocks.pages

    @rule(tokens=TOKENS)
    def hold(self, tokens: list[int]) -> None:
        """Whoever holds pages finds in them what the tree says, and what a sequence can go on from is held."""
        held = self.tree.hold(tokens)
        for i, block in enumerate(held):
            for p, pages in enumerate(block):
                for k, page in enumerate(pages):
                    assert self.content[page] == (p, k, tuple(tokens[: (i + 1) * SIZE]))
        count = self.tree.peek(tokens) // SIZE
        assert all(held[i][p] for p, part in enumerate(self.blocks.parts) for i in range(part.needed(count), count))
        self.pool.give(page for block in held for pages in block for page in pages)

    @invariant()
    def nothing_leaks(self) -> None:
        owners = Counter(page for _, tables, _ in self.sequences.values() for page in tables.pages())
        kept = sum(self.pool.owners(page) > owners[page] for page in range(self.pool.reserved))
        assert kept == len(self.tree)
        assert all(self.pool.owners(page) - owners[page] in (0, 1) for page in range(self.pool.reserved))
        assert self.pool.used + self.pool.free == self.pool.reserved
        assert self.tree.idle == sum(not owners[page] for page in self.pool._kept)

    def teardown(self) -> None:
        for _, tables, branch in self.sequences.values():
            self.tree.leave(branch)
            self.pool.give(tables.pages())
        self.tree.evict(self.pool.limit)
        assert self.pool.used == 0 and len(self.tree) == 0 and not self.tree._root.children


class GroupedTree(Tree):
    """A group that sees everything, two with windows of which one has smaller pages."""

    groups = (KvGroup((0,), 4), KvGroup((1,), 4, window=6), KvGroup((2,), 2, window=6), KvGroup((3,), 4, window=9))


class WindowedTree(Tree):
    """All layers slide, some see only the own token."""

    groups = (KvGroup((0,), 4, window=1), KvGroup((1,), 2, window=10))


TestTree, TestGroupedTree, TestWindowedTree = Tree.TestCase, GroupedTree.TestCase, WindowedTree.TestCase
TestTree.settings = settings(max_examples=some(60), stateful_step_count=30, deadline=None)
TestGroupedTree.settings = TestWindowedTree.settings = TestTree.settings


def kept_tree(budget: int, groups: tuple[KvGroup, ...] = ()) -> PrefixTree:
    pool = PagePool(64)
    pool.grow_to(64)
    return PrefixTree(pool, Blocks(SIZE, groups), budget)


def put(tree: PrefixTree, tokens: list[int]) -> tuple[Tables, Branch]:
    """A sequence with all of these."""
    tables, branch = Tables(tree.blocks), tree.branch()
    tree.descend(branch, full(tokens), tables)
    for p, part in enumerate(tree.blocks.parts):
        pages = tree.pool.take((len(full(tokens)) - branch.depth) * part.pages)
        assert pages is not None
        tables.extend(p, pages)
    tree.append(branch, full(tokens)[branch.depth :], tables)
    return tables, branch


def end(tree: PrefixTree, tables: Tables, branch: Branch) -> None:
    tree.leave(branch)
    tree.pool.give(tables.pages())


def test_the_least_recently_used_goes_first() -> None:
    tree = kept_tree(8)
    for first in (1, 2, 3, 1):
        end(tree, *put(tree, [first] * 8))
    assert tree.evict(3) == 3
    assert [tree.peek([first] * 8) for first in (1, 2, 3)] == [8, 0, 4]


def test_pages_with_readers_are_never_evicted() -> None:
    tree = kept_tree(0)
    sequence = put(tree, [5] * 8)
    assert tree.evict(9) == 0
    end(tree, *sequence)
    tree.trim()
    assert len(tree) == 0 and tree.pool.used == 0


def test_what_fell_out_of_the_windows_goes_before_what_a_prompt_goes_on_from() -> None:
    """Of an earlier sequence the last window is kept, and of a running one what it began from."""
    tree = kept_tree(64, (KvGroup((0,), 4), KvGroup((1,), 4, window=5)))
    first, second = list(range(24)), list(range(100, 124))

    def ended(tokens: list[int]) -> None:
        tables, branch = put(tree, tokens)
        tree.pool.give(tables.drop(1, 5))
        end(tree, tables, branch)

    ended(first)
    ended(second)
    assert [tree.peek(tokens[:n]) for tokens in (first, second) for n in (24, 23, 9)] == [24, 20, 8] * 2
    assert tree.evict(10) == 10
    assert [tree.peek(tokens[:n]) for tokens in (first, second) for n in (24, 23)] == [24, 0] * 2
    assert tree.evict(2) == 7  # without its end nothing can go on from the rest of the first
    assert [tree.peek(tokens) for tokens in (first, second)] == [0, 24] and len(tree) == 7


def test_the_pool_refuses_to_share_a_free_page() -> None:
    with pytest.raises(ValueError, match="not handed out"):
        PagePool(1).share([0])


# Engines with these groups: a window smaller than a prompt, pages of other sizes, and no layer that sees everything.
LAYOUTS: list[tuple[KvGroup, ...]] = [
    (),
    (KvGroup((0,), 4), KvGroup((1,), 8, window=10)),
    (KvGroup((0,), 4, window=7), KvGroup((1,), 4, window=1)),
]
REQUESTS = st.lists(
    st.tuples(TOKENS, st.integers(1, 12), st.booleans(), st.integers(0, 6)),  # prompt, answer, scored?, cancelled after
    min_size=1,
    max_size=9,
)


@settings(max_examples=some(80), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(REQUESTS, st.integers(10, 40), st.integers(0, 30), st.sampled_from(LAYOUTS))
def test_any_crowd_gets_the_answers_of_each_alone(
    asked: list[tuple[list[int], int, bool, int]], memory: int, kept: int, groups: tuple[KvGroup, ...]
) -> None:
    """Whatever shares, is evicted, robbed or cancelled: each answer is the one that a fresh engine gives."""
    asyncio.run(_crowd(asked, memory * max(1, len(groups)), kept, groups))


async def _crowd(
    asked: list[tuple[list[int], int, bool, int]], memory: int, kept: int, groups: tuple[KvGroup, ...]
) -> None:
    engine = PagedDouble(memory_pages=memory, groups=groups)
    scheduler = Scheduler(engine, settings=settings_from({"kv": {"prefix_bytes": kept * engine.info.page_bytes}}))
    requests = [_request(*one[:3]) for one in asked]
    for request in requests:
        scheduler.submit(request)
    for request, (*_, patience) in zip(requests, asked, strict=True):
        if patience == 0:
            scheduler.cancel(request)
    for request, one in zip(requests, asked, strict=True):
        alone = _request(*one[:3])
        fresh = Scheduler(PagedDouble(groups=groups), settings=settings_from({"kv": {"prefix_bytes": 0}}))
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
            kv.next_block(request)
            request.num_computed_tokens += len(request.prefill_input(min(chunk, request.to_prefill)).tokens)
            kv.keep(request)
        kv.release(request)
        assert len(kv.prefix) == length // SIZE
        assert kv.prefix.visited == 2 * length // SIZE  # down once, and back up when it ends
        assert prompt.copied <= 4 * length  # its pages' keys, what it feeds, and a look at the block that comes next


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
