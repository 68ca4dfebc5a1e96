"""The registry of models: what is loaded when, what goes, and what never does."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inpage.errors import ArtifactInvalid, Cancelled, InpageError, InvalidRequest, OutOfMemory, Timeout
from inpage.format.schema import Manifest
from inpage.kv import Blocks
from inpage.models import Level, Models
from inpage.models.levels import best_fit
from inpage.models.source import Artifacts
from inpage.settings import Settings, settings_from
from inpage.text.tokenizer import Tokenizer, load_tokenizer
from support.examples import some
from support.shelf import Shelf
from support.small import small_manifest, small_tokenizer_json

THREE: dict[str, tuple[int, ...]] = {"a": (100,), "b": (100,), "c": (100,)}


def names(shelf: Shelf) -> set[str]:
    return {state.name for state in shelf.models.loaded()}


async def test_loaded_when_asked_and_once_however_many_ask(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, THREE)
    assert shelf.models.loaded() == []
    events: list[dict[str, Any]] = []
    texts = await asyncio.gather(
        *(shelf.models.quick("hello", model="a", temperature=0, max_tokens=5) for _ in range(4)),
        shelf.models.preload("a", on_progress=events.append),
    )
    assert len(set(texts[:4])) == 1 and shelf.loads == {"a": 1}
    assert events == [{"phase": "manifest"}]
    pieces = [delta async for delta in shelf.models.chat("hello", temperature=0, max_tokens=5)]
    assert pieces[-1].result is not None and pieces[-1].result.text == texts[0]  # "a" is the default
    (state,) = shelf.models.loaded()
    assert (state.name, state.state, state.requests, state.variant) == ("a", "loaded", 0, "native")
    await shelf.close()


async def test_one_more_takes_the_place_of_the_least_recently_used(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, THREE, max_loaded=2)
    for name in ("a", "b", "a", "c"):
        await shelf.models.preload(name)
        shelf.clock.advance(1)
    assert names(shelf) == {"a", "c"}
    shelf.models.pin("a")
    shelf.pinned.add("a")
    shelf.clock.advance(1)
    await shelf.models.preload("c")
    await shelf.models.preload("b")  # "a" is the least recently used, and stays
    assert names(shelf) == {"a", "b"}
    assert (shelf.models.tally.unloads.value(why="evicted"), shelf.models.tally.unloads.total) == (2, 2)
    await shelf.close()


async def test_idle_models_go_and_those_that_answer_stay(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, THREE, idle_seconds=300)
    shelf.models.pin("c")
    shelf.pinned.add("c")
    async with shelf.use("a"):
        await shelf.models.preload("b")
        await shelf.models.preload("c")
        shelf.clock.advance(299)
        await shelf.settle()
        assert names(shelf) == {"a", "b", "c"}
        shelf.clock.advance(1)
        await shelf.settle()
        assert names(shelf) == {"a", "c"}
    shelf.clock.advance(299)
    await shelf.settle()
    assert names(shelf) == {"a", "c"}
    shelf.clock.advance(1)
    await shelf.settle()
    assert names(shelf) == {"c"}
    await shelf.models.preload("a")
    assert shelf.loads == {"a": 2, "b": 1, "c": 1}
    await shelf.close()


async def test_the_best_level_that_fits_is_loaded(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, {"a": (300, 150, 80), "b": (100,)}, target_memory=245_000_000, max_loaded=2)
    await shelf.models.preload("b")
    await shelf.models.preload("a")
    grant = shelf.grants["a"]
    assert grant and grant.level.name == "a-1" and grant.tokens == 256
    assert names(shelf) == {"a"}  # 150 and 100 and their pages are more than 245
    async with shelf.use("b"):
        await shelf.models.preload("a")
        grant = shelf.grants["a"]
        assert grant and grant.level.name == "a-2" and names(shelf) == {"a", "b"}
    await shelf.close()


async def test_a_lower_budget_moves_who_answers_and_unloads_who_is_idle(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, {"a": (300, 150, 80), "b": (100,)}, target_memory=500_000_000, max_loaded=2)
    await shelf.models.preload("b")
    async with shelf.use("a") as router:
        params: dict[str, Any] = {"temperature": 1, "seed": 3, "max_tokens": 200}
        alone = [await router.chat(text, **params) for text in ("hello", "hi")]
        with pytest.raises(OutOfMemory, match=r"^a needs 80\.0 MB at .* \(a-0 300\.0 MB, a-1 .*, a-2 .* is 50\.0 MB$"):
            await shelf.budget(50_000_000)
        assert names(shelf) == {"a", "b"} and shelf.loads == {"a": 1, "b": 1}
        running = [aiter(router.chat(text, **params)) for text in ("hello", "hi")]
        begun = [await anext(stream) for stream in running]
        scored = asyncio.create_task(router.score("hello world, and more"))
        lowering = asyncio.create_task(shelf.budget(200_000_000))
        await asyncio.sleep(0)
        later = asyncio.create_task(shelf.models.quick("hello", model="a", **params))
        await lowering
        grant = shelf.grants["a"]
        assert grant and grant.level.name == "a-1" and names(shelf) == {"a"}
        assert "a-1 in place of a-0: that needs 300.0 MB, and target_memory is 200.0 MB" in shelf.models.explain()
        for first, stream, whole in zip(begun, running, alone, strict=True):
            rest = [delta async for delta in stream]
            assert [*first.token_ids, *(i for delta in rest for i in delta.token_ids)] == whole.token_ids
            (moved,) = rest[-1].result.failovers  # type: ignore[union-attr]
            assert moved["reason"] == "out_of_memory: the memory budget is 200.0 MB now"
        with pytest.raises(OutOfMemory, match="the memory budget is 200"):
            await scored
        assert await later == alone[0].text
        assert (await router.chat("hello", **params)).token_ids == alone[0].token_ids  # who has the old router
    assert shelf.models.tally.unloads.value(why="moved") == 1 and shelf.loads == {"a": 2, "b": 1}
    await shelf.budget(None)
    assert names(shelf) == {"a"}
    await shelf.close()


async def test_a_second_budget_comes_while_a_model_moves(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, {"a": (300, 150, 80)}, target_memory=500_000_000)
    async with shelf.use("a"):
        first = asyncio.create_task(shelf.budget(200_000_000))
        while shelf.models._entries["a"].leaving is None:
            await asyncio.sleep(0)
        second = asyncio.create_task(shelf.budget(100_000_000))
        await shelf.settle()
        assert first.done() and second.done()
        grant = shelf.grants["a"]
        assert grant and grant.level.name == "a-2"
    await shelf.close()


async def test_nobody_takes_the_room_of_one_that_moves(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, {"a": (300, 150), "b": (100,)})  # "a" is loaded without a bound
    async with shelf.use("a"):
        lowering = asyncio.create_task(shelf.budget(200_000_000))
        while shelf.models._entries["a"].leaving is None:
            await asyncio.sleep(0)
        loading = asyncio.create_task(shelf.models.preload("b"))
        await shelf.settle()
        assert lowering.done() and names(shelf) == {"a"} and not loading.done()
    await loading
    assert names(shelf) == {"b"}
    await shelf.close()


async def test_a_move_outlives_the_call_that_began_it(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, {"a": (300, 150)}, target_memory=500_000_000)
    async with shelf.use("a") as router:
        answer = asyncio.create_task(_whole(router.chat("hello", temperature=0, max_tokens=200)))
        lowering = asyncio.create_task(shelf.budget(200_000_000))
        while shelf.models._entries["a"].leaving is None:
            await asyncio.sleep(0)
        lowering.cancel()
        assert (await answer).failovers
        assert names(shelf) == {"a"} and shelf.loads == {"a": 2}
    await shelf.close()


async def test_a_level_is_chosen_that_holds_what_is_answered(small_tokenizer: Tokenizer) -> None:
    tight = 100_000_000 + 10 * 64  # "a-0" with room for 40 tokens
    for sizes in (100, 50), (100,):
        shelf = Shelf(small_tokenizer, {"a": sizes})
        async with shelf.use("a") as router:
            stream = aiter(router.chat("hello", temperature=0, max_tokens=100))
            begun = await anext(stream)
            if len(sizes) == 1:
                with pytest.raises(
                    OutOfMemory, match=r"^a needs 100\.0 MB at its only level \(room for 1\d\d tokens\)"
                ):
                    await shelf.budget(tight)
                assert shelf.loads == {"a": 1}
            else:
                await shelf.budget(tight)
                grant = shelf.grants["a"]
                assert grant and grant.level.name == "a-1"
            rest = [delta async for delta in stream]
            assert begun.text and rest[-1].result is not None
        await shelf.close()


async def test_models_without_a_bound_share_the_budget(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, {"a": (300, 150, 80), "b": (100, 50)})
    async with shelf.use("a"), shelf.use("b"):
        await shelf.budget(410_000_000)
        assert {grant.level.name for grant in shelf.grants.values() if grant} == {"a-0", "b-0"}
    await shelf.close()


async def test_replicas_that_run_out_of_memory_together_move_once(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, {"a": (300, 150)})
    async with shelf.use("a") as router:
        error = OutOfMemory("no pages")
        assert await asyncio.gather(*(router.replicas.step_down(error) for _ in range(2))) == [True, True]
        await shelf.settle()
        assert shelf.loads == {"a": 2}
    await shelf.close()


async def test_an_unload_waits_for_a_move_and_closing_gives_it_up(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, {"a": (300, 150, 80)}, target_memory=500_000_000)
    async with shelf.use("a"):
        shelf.asked.add("a")
        lowering = asyncio.create_task(shelf.budget(200_000_000))
        while shelf.models._entries["a"].leaving is None:
            await asyncio.sleep(0)
        unloading = asyncio.create_task(shelf.models.unload("a"))
        await lowering
        await shelf.settle()
        assert not unloading.done()
    await unloading
    assert names(shelf) == set() and shelf.loads == {"a": 2}
    async with shelf.use("a") as router:
        answer = asyncio.create_task(_whole(router.chat("hello", temperature=0, max_tokens=200)))
        await shelf.settle()
        shelf.hold = asyncio.Event()
        lowering = asyncio.create_task(shelf.budget(100_000_000))
        while shelf.loads["a"] < 4:
            await asyncio.sleep(0)
        closing = asyncio.create_task(shelf.close())
        await shelf.settle()
        assert closing.done() and lowering.done()
        with pytest.raises(Cancelled):
            await answer


async def test_where_memory_runs_out_the_next_level_is_loaded(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, {"a": (300, 150, 80)})
    shelf.refuse, shelf.refusals = OutOfMemory("no room for weights"), 1
    async with shelf.use("a") as router:
        grant = shelf.grants["a"]
        assert grant and grant.level.name == "a-1"
        assert shelf.models.lesser("a").startswith("a-1, because memory ran out")
        stream = aiter(router.chat("hello", temperature=0, max_tokens=200))
        begun = await anext(stream)
        router.engine.memory_pages = router.engine.reserved  # type: ignore[attr-defined]
        rest = [delta async for delta in stream]
        grant = shelf.grants["a"]
        assert grant and grant.level.name == "a-2"
        assert shelf.models.lesser("a").startswith("a-2, because a conversation of ")
        alone = await shelf.models.quick("hello", temperature=0, max_tokens=200)
        assert "".join(delta.text for delta in [begun, *rest]) == alone
    await shelf.close()


async def test_what_never_fits_is_refused_with_the_numbers(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, {"a": (300, 200), "b": (100,), "c": (10,)}, target_memory=190_000_000, max_loaded=2)
    with pytest.raises(OutOfMemory, match=r"a needs 200\.0 MB at the smallest of its 2 .*target_memory is 190\.0 MB$"):
        await shelf.models.preload("a")
    shelf.models.pin("b")
    await shelf.models.preload("b")
    with pytest.raises(OutOfMemory, match=r"a needs .* 190\.0 MB, 10\d\.\d MB of it taken by pinned models"):
        await shelf.models.preload("a")
    shelf.models.pin("c")
    await shelf.models.preload("c")
    with pytest.raises(OutOfMemory, match="max_loaded is 2"):
        await shelf.models.preload("a")
    assert names(shelf) == {"b", "c"}
    await shelf.close()


async def test_who_needs_room_waits_for_those_that_answer(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, THREE, max_loaded=1)
    async with shelf.use("a"):
        waiting = asyncio.create_task(shelf.models.preload("b"))
        await shelf.settle()
        assert not waiting.done() and names(shelf) == {"a"}
        await shelf.models.preload("a")  # what is there goes on
    await waiting
    assert names(shelf) == {"b"}
    await shelf.close()
    impatient = Models(settings_from({"models": {"max_loaded": 1}, "scheduler": {"timeout": 0.0}}), clock=shelf.clock)
    impatient.add_source("x", shelf.models._entries["a"].source)
    impatient.add_source("y", shelf.models._entries["b"].source)
    shelf.closing = False
    async with impatient.use("x"):
        with pytest.raises(Timeout, match=r"y waited 0 s for a place in memory; in memory: x \(0 MB, 1 request"):
            await impatient.preload("y")
    await impatient.close()


async def test_an_asked_unload_waits_for_answers_and_comes_before_new_ones(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, THREE)
    async with shelf.use("a"):
        shelf.asked.add("a")
        unloading = asyncio.create_task(shelf.models.unload("a"))
        await shelf.settle()
        assert shelf.models.loaded()[0].state == "unloading"
        later = asyncio.create_task(shelf.models.preload("a"))
        await shelf.settle()
        assert not unloading.done() and not later.done()
    await asyncio.gather(unloading, later)
    assert shelf.loads == {"a": 2}
    await shelf.close()


async def test_a_failed_load_reaches_all_who_wait_and_is_tried_again_by_the_next(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, THREE)
    shelf.refuse = ArtifactInvalid("damaged", field="weights")
    results = await asyncio.gather(*(shelf.models.preload("a") for _ in range(3)), return_exceptions=True)
    assert all(isinstance(result, ArtifactInvalid) for result in results) and shelf.loads == {"a": 1}
    shelf.refuse = None
    await shelf.models.preload("a")
    await shelf.close()


async def test_a_load_that_nobody_waits_for_any_more_is_given_up(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, THREE)
    shelf.hold = asyncio.Event()
    first, second = (asyncio.create_task(shelf.models.preload("a")) for _ in range(2))
    await shelf.settle()
    first.cancel()
    await shelf.settle()
    assert names(shelf) == {"a"}
    second.cancel()
    await shelf.settle()
    assert names(shelf) == set() and not shelf.grants
    shelf.hold = None
    await shelf.models.preload("a")
    assert shelf.loads == {"a": 2}
    await shelf.close()


async def test_closing_ends_all(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, THREE, max_loaded=1)
    async with shelf.use("a") as router:
        answer = asyncio.create_task(_whole(router.chat("hello", max_tokens=100)))
        waiting = asyncio.create_task(shelf.models.preload("b"))
        await shelf.settle()
        await shelf.close()
        for task in (answer, waiting):
            with pytest.raises(Cancelled):
                await task
    with pytest.raises(Cancelled):
        await shelf.models.preload("a")


async def _whole(stream: Any) -> Any:
    return await stream


async def test_artifacts_of_one_model_have_one_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    best = small_manifest()
    other = replace(best, tokenizer=replace(best.tokenizer, sha256="1" * 64))
    wider = replace(best, architecture=replace(best.architecture, vocab=best.architecture.vocab + 1))

    class Stored:
        def __init__(self, place: str) -> None:
            self.place = place

        async def manifest(self) -> tuple[Manifest, str]:
            return {"full": best, "same": best, "pruned": other, "wide": wider}[self.place], ""

    monkeypatch.setattr("inpage.models.source.open_store", Stored)
    assert len(await Artifacts(["full", "same"], settings=Settings()).levels()) == 2
    for place in ("pruned", "wide"):
        with pytest.raises(InvalidRequest, match=f"^{place} has another tokenizer than full,"):
            await Artifacts(["full", place], settings=Settings()).levels()


async def test_names(small_tokenizer: Tokenizer) -> None:
    models = Models()
    with pytest.raises(InvalidRequest, match="no model is known"):
        await models.preload()
    assert models.add("/somewhere/tiny/") == "tiny"
    with pytest.raises(InvalidRequest, match="already"):
        models.add("/elsewhere/tiny")
    with pytest.raises(InvalidRequest, match="no model 'other' here; there is tiny"):
        await models.preload("other")
    with pytest.raises(ArtifactInvalid, match="cannot be read"):
        await models.preload("tiny")
    assert models.loaded() == []


@given(
    sizes=st.lists(st.tuples(st.integers(1, 400), st.integers(1, 64)), min_size=1, max_size=4),
    room=st.integers(0, 1000),
    share=st.integers(0, 1000),
    least=st.integers(1, 64),
)
def test_a_grant_fits_and_no_better_one_would(sizes: list[tuple[int, int]], room: int, share: int, least: int) -> None:
    levels = [Level(i, str(i), fixed, 3, Blocks(4), context, 2) for i, (fixed, context) in enumerate(sizes)]
    grant = best_fit(levels, room, share=share, least=least)
    fitting = [level for level in levels if level.need(min(least, level.context)) <= room]
    if grant is None:
        assert not fitting
        return
    assert grant.level is fitting[0]
    assert grant.total == grant.level.fixed + grant.kv <= room
    assert grant.tokens >= min(least, grant.level.context) and grant.kv >= grant.level.kv_bytes(grant.tokens)


MODELS = ("a", "b", "c", "d")
CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(MODELS), st.integers(0, 12)),
        st.tuples(st.sampled_from(["pin", "unpin", "unload", "cancel", "fail"]), st.sampled_from(MODELS), st.just(0)),
        st.tuples(st.sampled_from(["pass", "wait"]), st.just(""), st.integers(1, 8)),
        st.tuples(st.just("budget"), st.just(""), st.sampled_from([60, 120, 250, 400])),
    ),
    max_size=40,
)


@settings(max_examples=some(60), deadline=None)
@given(
    calls=CALLS,
    max_loaded=st.integers(1, 3),
    budget=st.sampled_from([None, 120, 250, 400]),
    seed=st.integers(0, 99),
)
def test_whatever_is_asked_the_rules_hold(
    calls: list[tuple[str, str, int]], max_loaded: int, budget: int | None, seed: int
) -> None:
    """Never above max_loaded or the budget, nothing loaded twice, nobody's model unloaded (the shelf asserts it), and
    everybody gets an answer or an error."""
    asyncio.run(_play(calls, max_loaded, budget, random.Random(seed)))


TOKENIZER = load_tokenizer(small_tokenizer_json(), {})


async def _play(calls: list[tuple[str, str, int]], max_loaded: int, budget: int | None, rng: random.Random) -> None:
    sizes: dict[str, tuple[int, ...]] = {"a": (100,), "b": (140, 60), "c": (300, 200, 90), "d": (20,)}
    target = None if budget is None else budget * 10**6
    shelf = Shelf(TOKENIZER, sizes, max_loaded=max_loaded, target_memory=target, idle_seconds=4)
    asking: list[asyncio.Task[None]] = []
    unloading: list[asyncio.Task[None]] = []
    lowering: list[asyncio.Task[None]] = []

    async def ask(name: str, turns: int) -> None:
        async with shelf.use(name) as router:
            for _ in range(turns):
                await asyncio.sleep(0)
                assert not router._unloaded or router._handover is not None
            shelf.check()

    for what, name, count in calls:
        if what == "ask":
            asking.append(asyncio.create_task(ask(name, count)))
        elif what in ("pin", "unpin"):
            shelf.models.pin(name, what == "pin")
            (shelf.pinned.add if what == "pin" else shelf.pinned.discard)(name)
        elif what == "unload":
            shelf.asked.add(name)
            unloading.append(asyncio.create_task(shelf.models.unload(name)))
        elif what == "cancel" and asking:
            rng.choice(asking).cancel()
        elif what == "fail":
            shelf.refuse = None if shelf.refuse else ArtifactInvalid("damaged")
        elif what == "budget":
            lowering.append(asyncio.create_task(shelf.budget(count * 10**6)))
        elif what == "pass":
            shelf.clock.advance(count)
        else:
            for _ in range(count):
                await asyncio.sleep(0)
        shelf.check()
    async with asyncio.timeout(20):  # nothing hangs
        for task in [*asking, *unloading, *lowering]:
            with contextlib.suppress(InpageError, asyncio.CancelledError):
                await task
    for name in MODELS:
        shelf.models.pin(name, False)
    shelf.pinned.clear()
    shelf.clock.advance(5)
    await shelf.settle()
    assert not shelf.models.loaded() and not shelf.grants  # all were idle
    await shelf.close()
