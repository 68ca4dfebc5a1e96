"""A new engine is a folder and a line of the registry: one without pages, plan, grammars and logprobs answers through
the router beside the real model's native engine, and nothing asks for its name."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from inpage.backends import device_profile
from inpage.backends.load import load_engine
from inpage.engines import registry
from inpage.engines.protocol import Engine, SequenceInput, is_paged
from inpage.errors import InpageError, InvalidRequest, OutOfMemory, Unsupported
from inpage.format.manifest import parse_manifest, revision_of
from inpage.format.schema import Variant
from inpage.router import Completion, Router, loading
from support.mortal import Mortal
from support.ngram import KIND, NGram, continued

pytestmark = pytest.mark.model
ASKED: dict[str, Any] = {"temperature": 0, "max_tokens": 24}


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "_engines", dict(registry._engines))
    monkeypatch.setattr(device_profile, "cache_folder", lambda: tmp_path)  # what one test measured is not for the next
    registry.register(KIND)


@pytest.fixture(scope="module")
def both(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model with a variant for the engine more, and one for an engine that nobody has."""
    folder = tmp_path_factory.mktemp("both")
    for path in artifact.iterdir():
        (folder / path.name).symlink_to(path)
    manifest = json.loads((artifact / "manifest.json").read_text("utf-8"))
    manifest["variants"] = [v for v in manifest["variants"] if v["name"] == "native"]
    manifest["variants"] += [{"name": name, "backend": name, "requires": []} for name in ("ngram", "quantum")]
    if manifest.get("levels"):
        manifest["levels"][0]["variants"] = [v["name"] for v in manifest["variants"]]
    manifest["revision"] = revision_of(manifest)
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


async def alone(folder: Path, **settings: Any) -> Router:
    return await Router.load(folder, backend="ngram", settings=settings)


def table(router: Router) -> NGram:
    assert isinstance(router.engine, NGram)
    return router.engine


def expected(done: Completion) -> list[int]:
    return continued(done.prompt_ids, len(done.token_ids), 49152)


async def whole(router: Router, text: str, **params: Any) -> Completion:
    return await router.chat(text, **params)


async def test_it_streams_batches_and_cancels(both: Path) -> None:
    async with await alone(both) as router:
        deltas = [delta async for delta in router.chat("hello", **ASKED)]
        last = deltas[-1].result
        assert last is not None and len(deltas) > 2
        assert [t for delta in deltas for t in delta.token_ids] == last.token_ids == expected(last)
        assert last.text == "".join(delta.text for delta in deltas) == router.tokenizer.decode(last.token_ids)
        assert (last.backend, last.variant, len(last.token_ids)) == ("ngram", "ngram", 24)
        long = "a long prompt that takes several chunks. " * 12
        for done in await router.batch(["one", "two", long, "three", "four"], **ASKED):
            assert done.token_ids == expected(done)
        stream = router.chat("hello", temperature=0, max_tokens=400)
        got = 0
        async for delta in stream:
            got += len(delta.token_ids)
            if got > 5:
                stream.cancel()
        assert 5 < got < 400 and table(router).given < 600
        assert table(router).sequences == {} and router.held["kv"] == 0
        assert (await whole(router, "hello", **ASKED)).token_ids == last.token_ids


async def test_what_it_cannot_do_is_refused_by_name(both: Path) -> None:
    async with await alone(both, kv={"storage_bytes": 1 << 20, "storage_path": str(both / "kv")}) as router:
        for params, field in (
            ({"schema": {"type": "object"}}, "schema"),
            ({"regex": "a+"}, "regex"),
            ({"logprobs": 2}, "logprobs"),
        ):
            with pytest.raises(Unsupported) as error:
                await router.chat("hello", **ASKED, **params)
            assert error.value.field == field
        with pytest.raises(Unsupported, match="no KV pages"):
            await router.export_prefix("hello")
        assert await router.prefetch(["hello"]) == [0]
        with pytest.raises(InvalidRequest, match="at most 12"):
            await router.complete([5] * 500, max_tokens=100)
        lines = router.explain().splitlines()
        assert "  quantum: needs an engine that this version does not have (quantum)" in lines
        assert any(line.startswith("ngram does not compute the same bits each time") for line in lines)
        assert table(router).given == 0


async def test_its_answers_are_neither_kept_nor_shared(both: Path) -> None:
    async with await alone(both, answers={"enabled": True}) as router:
        answers = await asyncio.gather(*(whole(router, "hello", **ASKED) for _ in range(3)))
        answers.append(await whole(router, "hello", **ASKED))
        assert table(router).given == 4 * 24
        assert router.answers is not None and not any(router.answers.hits.values())
        assert all(done.token_ids == expected(done) for done in answers)


async def test_who_is_preempted_is_computed_again_from_tokens(both: Path) -> None:
    async with await alone(both) as router:
        engine = table(router)
        slow = [router.chat(text, temperature=0, max_tokens=200) for text in ("one", "two")]
        tasks = [asyncio.ensure_future(_read(stream)) for stream in slow]
        while engine.given < 20:
            await asyncio.sleep(0)
        urgent = await whole(router, "now", priority=1, **ASKED)
        done = await asyncio.gather(*tasks)
        assert all(each.token_ids == expected(each) for each in (*done, urgent))
        assert engine.begun == 4 and engine.sequences == {}


async def _read(stream: Any) -> Completion:
    done: Completion = await stream
    return done


async def test_native_goes_on_where_it_dies(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is started again once, dies again, and the real model goes on from the tokens of the answer so far."""
    async with await Router.load(both, settings={"answers": {"enabled": True}}) as router:
        assert router.engine.info.backend == "native"
        await router.measure()  # and it is the faster one
        last = table(router).given + 10
        monkeypatch.setattr(NGram, "fate", staticmethod(lambda given: given >= last))
        done = await whole(router, "What is gravity?", temperature=0, max_tokens=40)
        assert [gap["from"] for gap in done.failovers] == ["ngram", "ngram"] and done.variant == "native"
        assert "(device_lost: the table is torn)" in router.explain()
        table_said = continued(done.prompt_ids, 40, 49152)
        kept = next(i for i, (ours, its) in enumerate(zip(done.token_ids, table_said, strict=True)) if ours != its)
        assert 10 <= kept < 40
        rest = await whole(router, "What is gravity?", temperature=0, max_tokens=40, resume=done.token_ids[:kept])
        assert rest.token_ids[-(40 - kept) :] == done.token_ids[kept:]
        again = await whole(router, "What is gravity?", temperature=0, max_tokens=40)
        assert again.token_ids != done.token_ids  # what two engines made was not kept


async def test_a_request_goes_to_an_engine_that_can(both: Path) -> None:
    async with await Router.load(both) as router:
        plain = await whole(router, "What is gravity?", temperature=0, max_tokens=8)
        await router.measure()
        assert router.engine.info.backend == "ngram"
        asked = [whole(router, "What is gravity?", temperature=0, max_tokens=8, logprobs=1) for _ in range(2)]
        for done in await asyncio.gather(*asked):
            assert done.token_ids == plain.token_ids
            assert [each.token for each in done.logprobs] == done.token_ids
        other = await whole(router, "What is gravity?", temperature=0, max_tokens=8)
        assert other.token_ids == expected(other)
        assert [s.info.backend for s in router.replicas.schedulers] == ["ngram", "native"]
        held = await whole(router, "hello", temperature=1, max_tokens=20, regex="[ab]{5}")
        assert re.fullmatch("[ab]{5}", held.text)


def native_dies(monkeypatch: pytest.MonkeyPatch, after: int) -> Iterator[InpageError]:
    """Once, of want of memory, in a burst behind so many tokens. What is left to die of."""
    deaths = iter([OutOfMemory("full")])

    def fate(kind: str, feeds: Sequence[SequenceInput]) -> InpageError | None:
        return next(deaths, None) if kind == "run" and any(feed.start > after for feed in feeds) else None

    async def load(variant: Variant, *args: Any) -> Engine:
        engine = await load_engine(variant, *args)
        return Mortal(engine, fate) if is_paged(engine) else engine

    monkeypatch.setattr(loading, "load_engine", load)
    return deaths


@pytest.mark.parametrize("dies", [True, False])
async def test_an_answer_that_began_well_is_not_kept(both: Path, monkeypatch: pytest.MonkeyPatch, dies: bool) -> None:
    """The first engine would have given it again; the one that took over would not."""
    if dies:
        native_dies(monkeypatch, after=20)
    async with await Router.load(both, settings={"answers": {"enabled": True}}) as router:
        stream = router.chat("What is gravity?", temperature=0, max_tokens=40)
        kept = stream.kept
        done = await stream
        assert [gap["from"] for gap in done.failovers] == ["native"] * dies
        for _ in range(20):  # it is put away after it was told
            await asyncio.sleep(0)
        assert router.answers is not None and kept is not None
        assert (await router.answers.get(kept.key) is None) == dies


async def test_a_request_moves_on_when_what_takes_over_cannot_do_it(
    both: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In mid-answer, from native, which runs out of memory once, over the table, which has no logprobs, to native."""
    async with await Router.load(both) as router:
        plain = await whole(router, "What is gravity?", temperature=0, max_tokens=40)
    deaths = native_dies(monkeypatch, after=20)
    async with await Router.load(both) as router:
        done = await whole(router, "What is gravity?", temperature=0, max_tokens=40, logprobs=0)
        assert next(deaths, None) is None and router.engine.info.backend == "ngram"
        assert done.token_ids == plain.token_ids == [each.token for each in done.logprobs]
        assert [s.info.backend for s in router.replicas.schedulers] == ["ngram", "native"]
        assert router.replicas.schedulers[0].active == [] and not router.replicas.schedulers[0].waiting


def test_an_artifact_with_an_unknown_engine_is_read(both: Path) -> None:
    manifest = parse_manifest((both / "manifest.json").read_text("utf-8"))
    assert [v.backend for v in manifest.variants] == ["native", "ngram", "quantum"]
    assert dict(manifest.variant("ngram").files) == {}
