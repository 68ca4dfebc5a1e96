"""Prompts read ahead, stored and brought back: what is stored is trusted only where it is whole and this engine's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as properties
from hypothesis import strategies as st

from inpage.errors import Cancelled, InvalidRequest, StorageFull, Unsupported
from inpage.format.plan_types import KvGroup
from inpage.format.schema import FileRef, Variant
from inpage.host.capability import Device
from inpage.kv.saved import SavedPages, pages_digest
from inpage.kv.storage import FolderPages
from inpage.router import Router
from inpage.router.prefixes import Prefixes
from inpage.settings import settings_from
from inpage.text.tokenizer import Tokenizer
from support.paged_double import PagedDouble
from support.small import small_manifest, small_router

HOST = Device("host", frozenset(), cores=2, threads=2)
SYSTEM = "You are a page of a book and you know what stands in it. " * 3
KEYS = ["page-a", "page-b", "page-c"]


def double(router: Router) -> PagedDouble:
    assert isinstance(router.engine, PagedDouble)
    return router.engine


def fed(router: Router) -> int:
    """Prompt tokens that went through the engine."""
    return sum(len(feed.tokens) for kind, feeds in double(router).calls if kind == "step" for feed in feeds)


# -- storage ---------------------------------------------------------------------------------------------------


async def stored(folder: Path, budget: int = 1 << 20) -> FolderPages:
    pages = FolderPages(folder, budget)
    await pages.put(KEYS, b"a" * 8 + b"b" * 8 + b"c" * 8, 8)
    return pages


async def test_values_come_back_as_far_as_there_is_no_gap(tmp_path: Path) -> None:
    pages = await stored(tmp_path / "deep" / "kv")
    assert await pages.get(KEYS, 8) == (3, b"aaaaaaaabbbbbbbbcccccccc")
    assert await pages.get(["page-a", "page-x", "page-c"], 8) == (1, b"aaaaaaaa")
    assert set(await pages.names("page-")) == set(KEYS) and await pages.names("list-") == []
    (pages.folder / "page-b").unlink()
    assert await pages.get(KEYS, 8) == (1, b"aaaaaaaa")


@pytest.mark.parametrize("harm", ["cut off", "a bit", "another page's", "another size"])
async def test_what_is_not_whole_is_absent_and_goes(tmp_path: Path, harm: str) -> None:
    pages, file = await stored(tmp_path), tmp_path / "page-b"
    content = bytearray(file.read_bytes())
    if harm == "cut off":
        file.write_bytes(content[:-1])
    elif harm == "a bit":
        content[-1] ^= 1
        file.write_bytes(content)
    elif harm == "another page's":
        file.write_bytes((tmp_path / "page-c").read_bytes())
    else:
        await pages.put(["page-b"], b"b" * 9, 9)
    assert await pages.get(KEYS, 8) == (1, b"aaaaaaaa")
    assert not file.exists()


async def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    pages = await stored(tmp_path, budget=24)
    assert (await pages.get(["page-a"], 8))[0] == 1
    await pages.put(["page-d"], b"d" * 8, 8)
    assert set(await pages.names("page-")) == {"page-a", "page-c", "page-d"}


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageFull) as caught:
        await stored(tmp_path / "file")
    assert caught.value.field == "kv.storage_path"


def test_pages_are_known_by_everything_that_their_bytes_depend_on() -> None:
    manifest = small_manifest()
    files = {"plan": FileRef("plan.json", 1, "1" * 64), "kernels": FileRef("kernels.so", 1, "2" * 64)}
    base = replace(manifest, variants=(Variant("native", "native", (), files), Variant("other", "native", (), files)))
    newer = files | {"kernels": FileRef("kernels.so", 1, "3" * 64)}
    digests = [
        pages_digest(base, "native", HOST),
        pages_digest(base, "other", HOST),
        pages_digest(replace(base, variants=(Variant("native", "native", (), newer),)), "native", HOST),
        pages_digest(replace(base, revision="9" * 64), "native", HOST),
        pages_digest(base, "native", replace(HOST, program="another browser")),
    ]
    assert len(set(digests)) == len(digests)
    tokens, other = list(range(12)), [*range(8), 9, 9, 9, 9]
    storage = FolderPages(Path(), 0)
    keys = [SavedPages(storage, digest).keys(tokens, 4) for digest in digests]
    assert len({key for some in keys for key in some}) == 3 * len(digests)
    assert SavedPages(storage, digests[0]).keys(other, 4)[:2] == keys[0][:2]
    assert SavedPages(storage, digests[0]).keys(other, 4)[2] != keys[0][2]


# -- the router ------------------------------------------------------------------------------------------------


async def test_an_exported_prefix_is_not_read_again_after_a_reload(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    messages = [{"role": "system", "content": SYSTEM}]
    chat = [*messages, {"role": "user", "content": "hello"}]
    async with small_router(small_tokenizer, pages=FolderPages(tmp_path, 1 << 20)) as router:
        cold = await router.chat(chat, temperature=0, max_tokens=9)
        whole = fed(router)
        kept = await router.export_prefix(messages)
        assert kept > 0.8 * len(cold.prompt_ids) and kept % 4 == 0
        assert router.info["kv_pages"]["used"] == 0
    async with small_router(small_tokenizer, pages=FolderPages(tmp_path, 1 << 20)) as router:
        assert await router.import_prefix(messages) == kept
        warm = await router.chat(chat, temperature=0, max_tokens=9)
        assert (warm.token_ids, warm.cached_tokens, fed(router)) == (cold.token_ids, kept, whole - kept)
        assert router.info["kv_pages"]["used"] == 0
        for file in tmp_path.iterdir():
            file.write_bytes(file.read_bytes()[:-1])
    async with small_router(small_tokenizer, pages=FolderPages(tmp_path, 1 << 20)) as router:
        assert await router.import_prefix(messages) == 0
        assert (await router.chat(chat, temperature=0, max_tokens=9)).token_ids == cold.token_ids


async def test_another_engine_does_not_find_it(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    async with small_router(small_tokenizer, pages=FolderPages(tmp_path, 1 << 20)) as router:
        assert await router.export_prefix(SYSTEM) > 0
        elsewhere = replace(HOST, program="a newer browser")
        prefixes = Prefixes(
            router.scheduler, router.manifest, elsewhere, router._asking.prefix_ids, FolderPages(tmp_path, 1 << 20)
        )
        router.scheduler.kv.prefix.clear()
        assert await prefixes.load(await router._asking.prefix_ids(SYSTEM)) == 0


@properties(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompts=st.lists(st.lists(st.integers(3, 5), min_size=4, max_size=60), min_size=1, max_size=4),
    pages=st.integers(24, 60),
    groups=st.sampled_from([(), (KvGroup((0,), 4), KvGroup((1,), 8, window=10)), (KvGroup((0,), 4, window=7),)]),
    data=st.data(),
)
def test_whatever_is_brought_back_changes_no_answer(
    small_tokenizer: Tokenizer,
    tmp_path_factory: pytest.TempPathFactory,
    prompts: list[list[int]],
    pages: int,
    groups: tuple[KvGroup, ...],
    data: st.DataObject,
) -> None:
    """The strict double reads every earlier token back from the pages: one wrong page changes the answer or raises."""
    folder = tmp_path_factory.mktemp("kv")

    async def run() -> None:
        storage = FolderPages(folder, 1500)
        async with small_router(small_tokenizer, pages=storage, context=128, groups=groups) as router:
            alone = [await router.complete(p, temperature=0, max_tokens=5, cache=False) for p in prompts]
            for prompt in prompts:
                await router.export_prefix(prompt)
        files = sorted(folder.iterdir())
        for file in data.draw(st.lists(st.sampled_from(files), max_size=3, unique=True)) if files else ():
            file.write_bytes(file.read_bytes()[:-2])
        sizes = {"context": 64, "max_pages": pages * max(1, len(groups))}
        async with small_router(small_tokenizer, pages=storage, groups=groups, **sizes) as router:

            async def ask(prompt: list[int]) -> list[int]:
                kept = await router.import_prefix(prompt)
                assert 0 <= kept <= len(prompt)
                return (await router.complete(prompt, temperature=0, max_tokens=4)).token_ids

            answers = await asyncio.gather(*(ask(p) for p in prompts))
            assert answers == [done.token_ids[:4] for done in alone]
            pool, tree = router.scheduler.kv.pool, router.scheduler.kv.prefix
            assert pool.used == len(tree) == tree.idle

    asyncio.run(run())


async def test_prefetch_waits_for_quiet_and_gives_way(small_tokenizer: Tokenizer) -> None:
    ahead = [3 + i % 50 for i in range(200)]
    async with small_router(small_tokenizer) as router:
        engine = double(router)
        first = asyncio.ensure_future(router.complete([9] * 40, temperature=0, max_tokens=6)._whole())
        reading = asyncio.ensure_future(router.prefetch([ahead]))
        while not first.done():
            await asyncio.sleep(0)
        assert all(feed.tokens[0] == 9 for kind, feeds in engine.calls if kind == "step" for feed in feeds)
        while not any(feed.tokens[0] == 3 for kind, feeds in engine.calls if kind == "step" for feed in feeds):
            await asyncio.sleep(0)
        begun = len(engine.calls)  # that step goes on to its end, no other follows
        await router.complete([8] * 40, temperature=0, max_tokens=6)
        beside = [feed for kind, feeds in engine.calls[begun:] if kind == "step" for feed in feeds]
        assert [list(feed.tokens) for feed in beside] == [[8] * 32, [8] * 8]
        assert not reading.done() and await reading == [200]
        assert fed(router) == 40 + 40 + 200  # it went on where it was
        done = await router.complete([*ahead, 5], temperature=0, max_tokens=4)
        assert done.cached_tokens == 200
        assert router.info["kv_pages"]["used"] == 0


async def test_system_prompts_are_warm_on_the_next_visit(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    settings = {"kv": {"system_prompts": [SYSTEM, "Be short, or be long, as you like it."]}}
    async with small_router(small_tokenizer, settings=settings, pages=FolderPages(tmp_path, 1 << 20)) as router:
        first = await router.warm_up()
        assert first["imported"] == 0 and first["read"] > 150
        assert await router.warm_up() == {"imported": 0, "read": 0}
        extra = await router.export_prefix([*b"once upon a time"])
    async with small_router(small_tokenizer, settings=settings, pages=FolderPages(tmp_path, 1 << 20)) as router:
        assert await router.warm_up() == {"imported": first["read"] + extra, "read": 0}
        assert fed(router) == 0
    async with small_router(small_tokenizer, settings=settings) as router:  # nothing is stored here
        assert await router.warm_up() == {"imported": 0, "read": first["read"]}


async def test_what_cannot_be_stored_is_said(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    async with small_router(small_tokenizer) as router:
        with pytest.raises(Unsupported) as nowhere:
            await router.export_prefix(SYSTEM)
        assert nowhere.value.field == "kv.storage_path"
        with pytest.raises(InvalidRequest) as bad:
            await router.prefetch([[5, 10**6]])
        assert bad.value.field == "prompt[1]"
        with pytest.raises(InvalidRequest, match="room for"):
            await router.prefetch([[5] * 300])
    async with small_router(small_tokenizer, pages=FolderPages(tmp_path, 128)) as router:
        with pytest.raises(InvalidRequest) as much:
            await router.export_prefix([5] * 40)
        assert much.value.field == "kv.storage_bytes"
        waiting = asyncio.ensure_future(router.prefetch([[6] * 200]))
        await asyncio.sleep(0)
    with pytest.raises(Cancelled):
        await waiting


def test_system_prompts_in_settings_are_texts() -> None:
    assert settings_from({"kv": {"system_prompts": ["a"]}}).kv.system_prompts == ("a",)
    with pytest.raises(InvalidRequest) as caught:
        settings_from({"kv": {"system_prompts": ["a", 5]}})
    assert caught.value.field == "kv.system_prompts[1]"
    with pytest.raises(InvalidRequest, match="must be a list"):
        settings_from({"kv": {"system_prompts": "a"}})
