"""KV pages by groups of layers: one that sees everything, one with a sliding window and larger pages. What they take,
what they give back, and that prompts are shared, kept, saved and stored as those of one group are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from inpage.engines.protocol import PageData
from inpage.errors import DeviceLost
from inpage.format.plan_types import KvGroup
from inpage.kv import Blocks, KvManager
from inpage.kv.saved import SavedPages, _Found
from inpage.kv.storage import FolderPages
from inpage.models import Level
from inpage.requests.request import Request
from inpage.scheduling.scheduler import Scheduler
from inpage.settings import settings_from
from inpage.text.tokenizer import Tokenizer
from support.asking import finish, prompt
from support.paged_double import PagedDouble
from support.small import small_router

WHOLE, SLIDING = KvGroup((0, 2), 4), KvGroup((1,), 8, window=10)
GROUPS = (WHOLE, SLIDING)
BLOCK = 8  # tokens: two pages of the one, one of the other


async def answers(engine: PagedDouble, requests: list[Request], **kv: int) -> list[list[int]]:
    scheduler = Scheduler(engine, settings=settings_from({"kv": kv}))
    scheduler.kv.swap.clock = lambda: fed(engine)  # a copy is free, a token costs one
    for request in requests:
        scheduler.submit(request)
    await asyncio.gather(*map(finish, requests))
    assert scheduler.kv.pool.used == len(scheduler.kv.prefix) == scheduler.kv.prefix.idle
    return [request.tokens for request in requests]


def crowd() -> list[Request]:
    return [Request(prompt(i, 5 + 11 * i), 40) for i in range(6)]


def fed(engine: PagedDouble) -> int:
    """Tokens of prompts that were computed."""
    return sum(len(feed.tokens) for kind, feeds in engine.calls if kind == "step" for feed in feeds)


def manager(groups: Sequence[KvGroup] = GROUPS, prefix_bytes: int = 0, **sizes: int) -> KvManager:
    return KvManager(PagedDouble(groups=groups, **sizes), prefix_bytes=prefix_bytes)


async def read(kv: KvManager, ids: list[int]) -> None:
    """A sequence of these comes, is read, and goes."""
    request = Request(ids, 1)
    assert await kv.admit(request)
    while request.to_prefill:
        steps = min(32, request.to_prefill)
        assert await kv.cover(request, steps)
        request.num_computed_tokens += steps
        kv.keep(request)
    kv.release(request)


async def test_groups_change_no_answer() -> None:
    assert await answers(PagedDouble(groups=GROUPS), crowd()) == await answers(PagedDouble(), crowd())


@pytest.mark.parametrize("swap_bytes", [0, 1 << 20])
async def test_short_of_memory_they_are_preempted_and_go_on(swap_bytes: int) -> None:
    engine = PagedDouble(memory_pages=48, groups=GROUPS)
    told = await answers(engine, crowd(), swap_bytes=swap_bytes, prefix_bytes=0)
    assert told == await answers(PagedDouble(), crowd())
    assert fed(engine) == 195 if swap_bytes else fed(engine) > 195


async def test_a_window_takes_what_a_step_needs_and_gives_old_pages_back() -> None:
    kv = manager(max_pages=300)
    request = Request(prompt(1, 100), 60)
    assert await kv.admit(request)
    # A step's 32 rows and the window before them: two blocks before the one that it begins in, and four more.
    assert [len(table) for table in request.tables] == [26, 7] and request.pages is request.tables[0]
    for done in (32, 64, 96, 100):
        assert await kv.cover(request, done - request.num_computed_tokens)
        request.num_computed_tokens = done
        kv.keep(request)
        seen = max(0, done // BLOCK - 2)  # blocks of which the next token, and the one after the last block, sees none
        assert request.tables[1][:seen] == [0] * seen and 0 not in request.tables[1][seen:]
        assert kv.pool.used == 26 + len(request.tables[1]) - seen <= 26 + 7
    for done in range(100, 160):
        assert await kv.cover(request, 1)
        request.num_computed_tokens = done + 1
        assert kv.pool.used <= 2 * -(-(done + 1) // BLOCK) + 3 + 1
    kv.release(request)
    assert kv.pool.used == 0 and request.tables == [] and not request.num_computed_tokens


async def test_a_burst_ends_where_the_pages_of_any_group_do() -> None:
    kv = manager(memory_pages=8, max_pages=8, max_rows=8)
    assert kv.capacity == 2 * BLOCK  # two pages of one group and one of the other for each
    request = Request(prompt(1, 7), 9)
    assert await kv.admit(request)
    request.num_computed_tokens = 7
    assert await kv.cover(request, 1) and kv.pool.used == 3
    request.tokens.append(9)
    assert await kv.cover(request, 4) and [len(t) for t in request.tables] == [4, 2]
    other = Request(prompt(2, 3), 5)
    assert not await kv.admit(other) and other.tables == []
    kv.release(request)
    assert await kv.admit(other) and kv.pool.used == 3
    assert not await kv.admit(request) and kv.pool.used == 3 and request.tables == []


def test_what_a_sequence_needs_is_counted_by_group() -> None:
    blocks = Blocks(4, GROUPS)
    assert (blocks.tokens, blocks.pages) == (BLOCK, 3)
    # The window's group has at most two blocks behind, and what 16 rows touch: three more.
    assert [blocks.need(tokens, 16) for tokens in (0, 1, 8, 9, 40, 48, 400)] == [0, 3, 3, 6, 15, 17, 105]
    for pages in range(200):
        tokens = blocks.room(pages, 16, 4096)
        assert blocks.need(tokens, 16) <= pages < blocks.need(tokens + 1, 16)
    assert Blocks(4, (SLIDING,)).room(5, 16, 4096) == 4096 and Blocks(4, (SLIDING,)).room(4, 16, 4096) == 4 * BLOCK
    assert Blocks(4).room(9, 16, 4096) == 36
    level = Level(0, "windowed", 1000, 64, blocks, 400, 2, rows=16)
    assert level.need(400) == 1000 + 105 * 64


@pytest.mark.parametrize("window", [1, 4, 8, 9])
async def test_windows_of_any_size_and_all_layers_in_one(window: int) -> None:
    """A model whose every layer slides has one group; its answers are those of the window."""
    groups = (WHOLE, replace(SLIDING, window=window), KvGroup((3,), 2, window=3))
    assert await answers(PagedDouble(groups=groups), crowd()) == await answers(PagedDouble(), crowd())
    one = manager([replace(SLIDING, window=window)], max_rows=80)
    request = Request(prompt(1, 80), 8)
    assert await one.admit(request) and len(request.pages) == 11
    request.num_computed_tokens = 80
    one.keep(request)
    assert one.pool.used == 11 - (81 - window) // 8


async def test_a_second_turn_computes_only_its_new_tokens() -> None:
    engine = PagedDouble(groups=GROUPS)
    scheduler = Scheduler(engine)

    async def turn(ids: list[int]) -> Request:
        engine.calls.clear()
        request = Request(ids, 30)
        scheduler.submit(request)
        await finish(request)
        return request

    ids, before = prompt(1, 70), 0
    for i in range(3):
        request = await turn(ids)
        assert fed(engine) == len(ids) - before and request.cached == before
        before = (request.length - 1) // BLOCK * BLOCK
        ids = [*request.ids(), *prompt(7 + i, 12)]
    # Another question at the same place goes on from there, and the same one is only told again.
    for other in ([*ids[:-5], 11, 12, 13], ids[: before + 1]):
        request = await turn(other)
        assert request.cached == before and fed(engine) == len(other) - before
        assert [request.tokens] == await answers(PagedDouble(), [Request(other, 30)])


@pytest.mark.parametrize(("budget", "kept"), [(60, 160), (42, 160), (41, 152), (40, 152), (30, 112), (6, 16), (2, 0)])
async def test_of_a_conversation_longer_than_the_budget_the_beginning_is_kept(budget: int, kept: int) -> None:
    kv, ids = manager(prefix_bytes=64 * budget), prompt(1, 160)
    await read(kv, ids)
    # Two pages of every block before its end, and of the window's the last two, fill the budget.
    assert kv.prefix.peek(ids) == kept and kv.pool.used <= budget
    assert kept // BLOCK == max(n for n in range(21) if 2 * n + min(2, n) <= budget)


async def test_whoever_branches_off_before_the_last_windows_begins_anew() -> None:
    """Where the budget has room for nothing but them. The answer is the same."""
    engine = PagedDouble(groups=GROUPS)
    pages = 2 * 15 + 2
    scheduler = Scheduler(engine, settings=settings_from({"kv": {"prefix_bytes": pages * engine.info.page_bytes}}))
    ids = prompt(1, 120)
    requests = [Request(ids, 1), Request([*ids, 3], 5), Request(ids[:50], 5)]
    for request in requests:
        scheduler.submit(request)
        await finish(request)
        assert scheduler.kv.prefix.idle <= pages
    assert [request.cached for request in requests] == [0, 120, 0]
    alone = [Request(request.prompt, request.max_tokens) for request in requests]
    assert [request.tokens for request in requests] == await answers(PagedDouble(), alone)


async def test_the_same_prompt_asked_at_once_is_computed_once() -> None:
    engine = PagedDouble(groups=GROUPS)
    requests = [Request(prompt(1, 6 * BLOCK), 3) for _ in range(4)]
    await answers(engine, requests)
    assert fed(engine) == 6 * BLOCK + 3 * BLOCK  # the last block of each is its own


async def test_what_is_exported_is_resumed_after_a_reload(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    ids = [3 + i * i % 90 for i in range(100)]
    async with small_router(small_tokenizer, pages=FolderPages(tmp_path, 1 << 20), groups=GROUPS) as router:
        cold = await router.complete(ids, temperature=0, max_tokens=9)
        assert await router.export_prefix(ids) == 96
    # Of the window's group only the blocks that the next token sees are stored.
    stored = [path.name for path in tmp_path.iterdir() if path.name.startswith("page-")]
    assert (len(stored), sum(name.endswith("-10") for name in stored)) == (12 + 2, 2)
    for damaged in (False, True):
        if damaged:
            (one,) = [path for path in tmp_path.iterdir() if path.name.endswith("-10")][:1]
            one.write_bytes(one.read_bytes()[:-1])
        async with small_router(small_tokenizer, pages=FolderPages(tmp_path, 1 << 20), groups=GROUPS) as router:
            kept = 0 if damaged else 96
            assert await router.import_prefix(ids) == kept
            warm = await router.complete(ids, temperature=0, max_tokens=9)
            assert (warm.token_ids, warm.cached_tokens) == (cold.token_ids, kept)
            assert router.info["kv_pages"]["used"] == 0


@pytest.mark.parametrize(("pages", "budget", "loaded"), [(42, 99, 160), (41, 99, 80), (99, 41, 80), (99, 22, 80)])
async def test_what_is_imported_ends_where_memory_and_budget_do(
    tmp_path: Path, pages: int, budget: int, loaded: int
) -> None:
    """A prompt of 160 tokens needs 42 pages with its windows, of which 80 tokens, stored as well, need 22."""
    ids, saved = prompt(1, 160), SavedPages(FolderPages(tmp_path, 1 << 20), "ab" * 32)
    for stored in (ids[:80], ids):
        kv = manager(prefix_bytes=1 << 20)
        await read(kv, stored)
        assert await saved.save(kv, stored) == len(stored)
    kv = manager(prefix_bytes=64 * budget, max_pages=pages, context=320)
    assert await saved.load(kv, ids) == kv.prefix.peek(ids) == loaded
    assert kv.pool.used == kv.prefix.idle == 2 * loaded // BLOCK + 2


async def test_an_import_that_does_not_fit_costs_nobody_a_prefix(tmp_path: Path) -> None:
    ids, other, saved = prompt(1, 160), prompt(2, 40), SavedPages(FolderPages(tmp_path, 1 << 20), "ab" * 32)
    kv = manager(prefix_bytes=1 << 20)
    await read(kv, ids)
    await saved.save(kv, ids)
    kv = manager(prefix_bytes=1 << 20, max_pages=41)
    await read(kv, other)
    assert await saved.load(kv, ids) == 0 and kv.prefix.peek(other) == 40


class Slow(FolderPages):
    """Writes wait until ``go``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 1 << 20)
        self.go = asyncio.Event()

    async def put(self, keys: Sequence[str], data: PageData, size: int) -> None:
        await self.go.wait()
        await super().put(keys, data, size)


@pytest.mark.parametrize("end", ["length", "cancelled", "closed"])
@pytest.mark.parametrize("groups", [(), GROUPS])
@pytest.mark.parametrize(("tokens", "answer", "before"), [(100, 4, 0), (20, 90, 1)])
async def test_pages_that_an_export_holds_are_waited_for(
    tmp_path: Path, groups: tuple[KvGroup, ...], end: str, tokens: int, answer: int, before: int
) -> None:
    """By whom they are too few to begin, and to go on."""
    scheduler = Scheduler(PagedDouble(groups=groups, max_pages=48, context=160))
    ids, request = prompt(1, 100), Request(prompt(2, tokens), answer)
    kv = scheduler.kv
    assert isinstance(kv, KvManager)
    await read(kv, ids)
    storage = Slow(tmp_path)
    export = asyncio.ensure_future(SavedPages(storage, "ab" * 32).save(kv, ids))
    scheduler.submit(request)
    for _ in range(500):
        await asyncio.sleep(0)
    assert request in scheduler.waiting and not scheduler.active and bool(request.tokens) == bool(before)
    if end == "cancelled":
        scheduler.cancel(request)
    elif end == "closed":
        await scheduler.close(DeviceLost("gone"))
    else:
        storage.go.set()
    if end == "closed":
        with pytest.raises(DeviceLost):
            await finish(request)
    else:
        assert await finish(request) == end
        assert end == "cancelled" or [request.tokens] == await answers(PagedDouble(), [Request(request.prompt, answer)])
    storage.go.set()
    assert await export == len(ids) - len(ids) % kv.blocks.tokens and not kv.lent


@pytest.mark.parametrize("blocks", [100, 400])
async def test_an_import_is_planned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
    """Not at every transfer: planning takes a look at each block. Once more where a page turns out to be damaged."""
    ids, saved = prompt(1, blocks * BLOCK), SavedPages(FolderPages(tmp_path, 1 << 20), "ab" * 32)
    sizes = {"context": 4096, "max_pages": 1500}
    kv = manager(GROUPS, 1 << 20, **sizes)
    await read(kv, ids)
    assert await saved.save(kv, ids) == len(ids)
    usable, planned = _Found.usable, list[int]()

    def watched(found: _Found, *bounds: int) -> int:
        planned.append(usable(found, *bounds))
        return planned[-1]

    monkeypatch.setattr(_Found, "usable", watched)
    assert await saved.load(manager(GROUPS, 1 << 20, **sizes), ids) == len(ids)
    assert planned == [blocks]
    (tmp_path / saved.keys(ids, BLOCK)[blocks // 2]).write_bytes(b"")
    planned.clear()
    assert await saved.load(manager(GROUPS, 1 << 20, **sizes), ids) == 0
    assert planned == [blocks, 0]


async def test_memory_for_the_windows_bounds_a_conversation_not_its_length() -> None:
    """Pages for a long conversation's whole group and for one window: several prompts of it are read in turn."""
    engine = PagedDouble(memory_pages=76, groups=GROUPS, context=248)
    assert Scheduler(engine).capacity == 248
    long = [Request(prompt(i, 200), 48) for i in range(3)]
    assert await answers(engine, long) == await answers(PagedDouble(), [Request(prompt(i, 200), 48) for i in range(3)])
