"""Embeddings and ranks through the router and OpenAI's interface: tiny encoders against transformers, and MiniLM."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import os
import resource
import time
from array import array
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import openai
import pytest
import pytest_asyncio

from inpage.errors import Cancelled, InvalidRequest, QueueFull, Unsupported
from inpage.models import Models
from inpage.openai import Api
from inpage.requests.request import Request
from inpage.responses import AnswerCache
from inpage.router import Router, embedding
from inpage.text.tokenizer import Tokenizer
from inpage.worker.messages import RouterWorker
from support.encoders import REFERENCE, WITNESS, bert_artifact, minilm
from support.in_process import openai_client
from support.sentences import sentences
from support.small import small_router
from support.tiny_bert import BERTS, QUERY, TEXTS

pytestmark = pytest.mark.asyncio(loop_scope="module")
VECTORS = np.array(WITNESS["mean"]["vectors"])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def router() -> AsyncIterator[Router]:
    async with await Router.load(bert_artifact("mean"), backend="native-f32", trust=True) as router:
        yield router


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def ranker() -> AsyncIterator[Router]:
    async with await Router.load(bert_artifact("ranks"), trust=True) as router:
        yield router


def near(found: Any, wanted: Any, room: float = 2e-5) -> bool:
    return bool(np.abs(np.array(found) - np.array(wanted)).max() <= room * np.abs(wanted).max())


async def test_texts_and_ids_become_the_witness_vectors(router: Router) -> None:
    told: list[tuple[int, int]] = []
    found = await router.embed(TEXTS, truncate=True, on_progress=lambda *at: told.append(at))
    assert near(found.vectors, VECTORS)
    assert found.prompt_tokens == sum(map(len, WITNESS["mean"]["ids"]))
    assert told == [(i + 1, len(TEXTS)) for i in range(len(TEXTS))]
    (alone_,) = (await router.embed(TEXTS[0])).vectors
    (by_ids,) = (await router.embed(WITNESS["mean"]["ids"][0])).vectors
    assert alone_ == by_ids == found.vectors[0]


async def test_what_stands_around_texts_is_the_models() -> None:
    """Two separators between the texts of XLM-RoBERTa's pairs, cut ones too; a token behind Qwen3-Embedding's."""
    async with await Router.load(bert_artifact("xlmr-ranks"), trust=True) as ranks:
        found = await ranks.rerank(QUERY, TEXTS, truncate=True)
        scores = [result.score for result in sorted(found.results, key=lambda result: result.index)]
        assert near(scores, [1 / (1 + math.exp(-x)) for x in WITNESS["xlmr-ranks"]["logits"]])
    async with await Router.load(bert_artifact("qwen3"), trust=True) as decoder:
        made = await decoder.embed(TEXTS, truncate=True)
        assert near(made.vectors, WITNESS["qwen3"]["vectors"])
        assert made.prompt_tokens == sum(map(len, WITNESS["qwen3"]["ids"]))


async def test_many_texts_share_steps(router: Router) -> None:
    """200 texts of a few tokens each: a step has up to 512 rows and 64 texts, so far fewer steps than texts."""
    texts = [f"cat {i}" for i in range(200)]
    before = (await router.counters())["steps"]
    found = await router.embed(texts)
    steps = (await router.counters())["steps"] - before
    assert 200 / 64 <= steps <= 20
    assert list(found.vectors[:3]) == (await router.embed(texts[:3])).vectors


async def test_prompts_and_dimensions(router: Router) -> None:
    named, spelled = await router.embed("gravity?", prompt_name="query"), await router.embed("what is gravity?")
    assert named == spelled
    whole, short = (await router.embed("a cat")).vectors[0], (await router.embed("a cat", dimensions=16)).vectors[0]
    cut = np.array(whole[:16])
    assert len(short) == 16
    assert near(short, cut / np.linalg.norm(cut), 1e-6)


@pytest.mark.parametrize(
    ("texts", "how", "field"),
    [
        ([], {}, "texts"),
        (["a", 5], {}, "texts[1]"),
        (["a", []], {}, "texts[1]"),
        (["a", [99999]], {}, "texts[1][0]"),
        ("a \ud800", {}, "texts"),
        (["a", TEXTS[-1]], {}, "texts[1]"),
        (TEXTS[-1], {}, "texts"),
        ("a", {"dimensions": 65}, "dimensions"),
        ("a", {"dimensions": True}, "dimensions"),
        ("a", {"prompt_name": "passage"}, "prompt_name"),
        ("a", {"temperature": 1}, "temperature"),
        ("a", {"timeout": -1}, "timeout"),
        ({"text": "hello"}, {}, "texts"),
        ({"a", "b"}, {}, "texts"),
        (bytearray(b"a"), {}, "texts"),
        ("a", {"truncate": "no"}, "truncate"),
        ("a", {"truncate": 1}, "truncate"),
        ("a", {"on_progress": 5}, "on_progress"),
    ],
)
async def test_bad_input_is_refused_by_name(router: Router, texts: Any, how: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await router.embed(texts, **how)
    assert caught.value.field == field


async def test_a_text_without_tokens_is_refused(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the model puts nothing around a text, an empty one has none; no step would take it."""
    bare = replace(router.manifest, tokenizer=replace(router.manifest.tokenizer, add_bos=False, add_eos=False))
    monkeypatch.setattr(router._embedder, "_manifest", bare)
    with pytest.raises(InvalidRequest) as caught:
        await router.embed(["a", ""])
    assert caught.value.field == "texts[1]"
    with pytest.raises(InvalidRequest):
        router.scheduler.submit(Request([], embeds=True))


async def test_what_is_read_of_texts_is_bounded(
    router: Router, ranker: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "_TEXTS", 5)
    monkeypatch.setattr(embedding, "REQUEST_CHARS", 50)
    read = itertools.count()
    for call, field in (
        (router.embed(f"cat {i}" for i in itertools.islice(read, 1000)), "texts"),
        (router.embed(["a", "b" * 51]), "texts[1]"),
        (ranker.rerank("a", ["b"] * 6), "documents"),
        (ranker.rerank("a", {"b": 1}), "documents"),  # type: ignore[arg-type]
        (ranker.rerank("a", "b"), "documents"),
        (ranker.rerank("a" * 51, ["b"]), "query"),
        (ranker.rerank("a", ["b" * 51]), "documents[0]"),
        (ranker.rerank("a", ["b"], truncate="no"), "truncate"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidRequest) as caught:
            await call
        assert caught.value.field == field
    assert next(read) == 6


async def test_models_do_what_they_are_made_for(router: Router, ranker: Router, small_tokenizer: Tokenizer) -> None:
    with pytest.raises(Unsupported):
        await router.rerank("a", ["b"])
    with pytest.raises(Unsupported):
        await ranker.embed("a")
    async with await Router.load(bert_artifact("mean"), trust=True) as free:  # to load what else there is
        for ask in (free.chat, free.complete):
            with pytest.raises(Unsupported) as caught:
                await ask("a", max_tokens=1)
            assert "embed" in str(caught.value)
        for refused in (free.score([5, 6, 7]), free.count_tokens("a")):
            with pytest.raises(Unsupported):
                await refused
        assert len(free.replicas.schedulers) == 1
    async with small_router(small_tokenizer) as writer:
        with pytest.raises(Unsupported):
            await writer.embed("a")


async def test_a_cancelled_call_leaves_nothing_behind(router: Router) -> None:
    reached = asyncio.Event()
    task = asyncio.create_task(router.embed([f"cat {i}" for i in range(5000)], on_progress=lambda *_: reached.set()))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert near((await router.embed(TEXTS[0])).vectors, VECTORS[:1])
    assert not router.scheduler.waiting
    assert not router.scheduler.active


async def test_a_model_that_is_unloaded_in_mid_list_cancels_the_call() -> None:
    router = await Router.load(bert_artifact("mean"), backend="native-f32", trust=True)
    reached = asyncio.Event()
    task = asyncio.create_task(router.embed([f"cat {i}" for i in range(5000)], on_progress=lambda *_: reached.set()))
    await reached.wait()
    await router.unload()
    with pytest.raises(Cancelled):
        await task


async def test_a_long_list_leaves_room_in_the_queue_and_waits_for_room() -> None:
    texts = [f"cat {i}" for i in range(30)]
    waiting: list[int] = []
    late: list[Request] = []
    few = {"scheduler": {"queue_size": 4}}
    async with await Router.load(bert_artifact("mean"), backend="native-f32", trust=True, settings=few) as router:

        def look(*_: int) -> None:
            waiting.append(len(router.scheduler.waiting))
            late.extend(router.scheduler.slots.late(time.perf_counter() + 1000, 30))

        wanted = await router.embed(texts, on_progress=look)
        assert 1 <= max(waiting) <= 2
        assert not late  # of a list that takes long none has waited for too long: the others of it run
    one = {"scheduler": {"queue_size": 1}}
    async with await Router.load(bert_artifact("mean"), backend="native-f32", trust=True, settings=one) as router:

        def others_come(*_: int) -> None:
            with contextlib.suppress(QueueFull):
                while True:
                    router.replicas.submit(Request([2, 5, 3], embeds=True))

        assert await router.embed(texts, on_progress=others_come) == wanted
        others_come()
        with pytest.raises(QueueFull):
            await router.embed("a")


async def test_vectors_of_models_that_do_not_normalize_are_only_cut() -> None:
    async with await Router.load(bert_artifact("cls"), trust=True) as router:
        whole = (await router.embed("a cat")).vectors[0]
        assert not math.isclose(math.hypot(*whole), 1, rel_tol=0.01)
        for dimensions in (16, len(whole)):
            assert (await router.embed("a cat", dimensions=dimensions)).vectors[0] == whole[:dimensions]


async def test_more_vectors_than_a_message_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "_NUMBERS", 64 * 2)
    sent: list[dict[str, Any]] = []
    worker = RouterWorker(lambda text: sent.append(json.loads(text)))
    models = Models()
    models.add(bert_artifact("mean"), backend="native-f32", trust=True)
    monkeypatch.setattr(worker, "_models", models)
    three = ["a"] * 3
    asked: list[tuple[Any, Any]] = [(["a", "b"], {}), (three, {}), (three, {"dimensions": 32}), ([5, 6, 7], {})]
    for i, (texts, params) in enumerate(asked):
        worker.handle(json.dumps({"id": i, "op": "embed", "texts": texts, "params": params}))
    await asyncio.gather(*worker._tasks)
    answers = {each["id"]: each for each in sent if "value" in each or "error" in each}
    assert answers[1]["error"]["field"] == "texts"
    assert all("value" in answers[i] for i in (0, 2, 3))
    reply = await Api(models).handle("POST", "/v1/embeddings", json.dumps({"input": three}))
    assert (reply.status, json.loads(str(reply.body))["error"]["param"]) == (400, "input")
    await models.close()


async def test_an_engine_that_died_is_started_again() -> None:
    async with await Router.load(bert_artifact("mean"), backend="native-f32", trust=True) as router:
        before = router.engine
        await before.unload()
        assert near((await router.embed(TEXTS, truncate=True)).vectors, VECTORS)
        assert router.engine is not before


async def test_vectors_are_kept_like_answers() -> None:
    cache = AnswerCache()
    async with await Router.load(bert_artifact("mean"), backend="native-f32", trust=True, answers=cache) as router:
        first = await router.embed(["a cat", "a dog"], tags=["pets"])
        steps = (await router.counters())["steps"]
        assert await router.embed(["a dog", "a cat"]) == type(first)(first.vectors[::-1], first.prompt_tokens)
        assert (await router.counters())["steps"] == steps
        assert cache.hits["memory"] == 2
        await router.embed(["a dog"], cache=False)
        assert (await router.counters())["steps"] == steps + 1
        assert await router.forget("pets") == 2
        await router.embed([f"cat {i}" for i in range(65)])  # a list, not a query
        assert not any(len(tier) for tier in cache.tiers)  # type: ignore[arg-type]


async def test_ranks_are_transformers(ranker: Router) -> None:
    logits = np.array(WITNESS["ranks"]["logits"])
    told: list[tuple[int, int]] = []
    found = await ranker.rerank(QUERY, TEXTS, truncate=True, on_progress=lambda *at: told.append(at))
    scores = {rank.index: rank.score for rank in found.results}
    assert [scores[i] for i in range(len(TEXTS))] == pytest.approx(list(1 / (1 + np.exp(-logits))), abs=1e-4)
    assert [rank.index for rank in found.results] == sorted(scores, key=lambda i: -logits[i])
    assert told[-1] == (len(TEXTS), len(TEXTS))
    assert found.results[:2] == (await ranker.rerank(QUERY, TEXTS, truncate=True, top_n=2)).results
    for query, documents, how, field in (
        ("", ["a"], {}, "query"), ("a", [], {}, "documents"), ("a", ["a", 5], {}, "documents[1]"),
        (QUERY, ["a", TEXTS[-1]], {}, "documents[1]"), ("a", ["a"], {"top_n": 0}, "top_n"),
    ):  # fmt: skip
        with pytest.raises(InvalidRequest) as caught:
            await ranker.rerank(query, documents, **how)  # type: ignore[arg-type]
        assert caught.value.field == field


async def test_openais_client_calls_embeddings(router: Router) -> None:
    async with openai_client(Api(router)) as client:
        found = await client.embeddings.create(model=router.manifest.id, input=list(TEXTS[:3]))  # as base64
        assert near([each.embedding for each in found.data], VECTORS[:3])
        assert [each.index for each in found.data] == [0, 1, 2]
        assert found.usage.prompt_tokens == sum(map(len, WITNESS["mean"]["ids"][:3]))
        plain = await client.embeddings.create(
            model=router.manifest.id, input=WITNESS["mean"]["ids"][0], encoding_format="float", dimensions=8, user="me"
        )
        assert len(plain.data[0].embedding) == 8
        assert math.hypot(*plain.data[0].embedding) == pytest.approx(1)
        for wrong, param in (
            ({"input": ""}, "input"), ({"input": ["a", ""]}, "input[1]"), ({"input": TEXTS[-1]}, "input"),
            ({"input": "a", "dimensions": 999}, "dimensions"), ({"input": "a", "extra_body": {"dim": 1}}, "dim"),
            ({"input": "a", "encoding_format": "int8"}, "encoding_format"), ({"input": {"text": "a"}}, "input"),
        ):  # fmt: skip
            with pytest.raises(openai.BadRequestError) as caught:
                await client.embeddings.create(model=router.manifest.id, **wrong)
            assert caught.value.param == param
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model="other", input="a")


async def test_ranks_over_http(ranker: Router) -> None:
    body = {"query": QUERY, "documents": [{"text": TEXTS[0]}, TEXTS[1]], "return_documents": True, "top_n": 1}
    reply = await Api(ranker).handle("POST", "/v1/rerank", json.dumps(body))
    assert reply.status == 200
    assert isinstance(reply.body, str)
    (result,) = json.loads(reply.body)["results"]
    best = int(np.argmax(WITNESS["ranks"]["logits"][:2]))
    assert (result["index"], result["document"]["text"]) == (best, TEXTS[best])
    for wrong in ({"documents": ["a"]}, {"query": "a"}, {"query": "a", "documents": [5]}, {"query": 5}):
        assert (await Api(ranker).handle("POST", "/v1/rerank", json.dumps(wrong))).status == 400


@pytest.mark.model
@pytest.mark.parametrize(
    ("level", "least", "every"),
    [
        ("source", 0.9999, 4),
        pytest.param(
            "q8_0", 0.999, 1, marks=pytest.mark.skipif("INPAGE_SLOW" not in os.environ, reason="a minute to compile")
        ),
    ],
)
async def test_minilm_is_sentence_transformers(level: str, least: float, every: int) -> None:
    """200 texts of many lengths and languages, the longest cut at 256 tokens; of the float ones a fourth."""
    every = 1 if "INPAGE_SLOW" in os.environ else every
    wanted = np.load(REFERENCE / "minilm-l6-v2.npy").astype(np.float32)[::every]
    async with await Router.load(minilm(level), trust=True) as router:
        found = np.array((await router.embed(sentences()[::every], truncate=True)).vectors)
    assert found.shape == wanted.shape
    cosines = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosines.min() >= least


@pytest.mark.skipif("INPAGE_SLOW" not in os.environ, reason="a minute; INPAGE_SLOW=1 runs it")
async def test_ten_thousand_texts_take_no_more_memory(router: Router) -> None:
    texts = [f"{TEXTS[i % 5]} {i}" for i in range(10_000)]
    done = []
    await router.embed(texts[:500])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = await router.embed(texts, on_progress=lambda at, total: done.append((at, total)))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert done == [(i + 1, 10_000) for i in range(10_000)]
    vectors = 10_000 * BERTS["mean"].hidden * 4 // 1024
    assert grown < 2 * vectors + 8192  # KiB: the vectors themselves, and what the process varies by
    assert isinstance(found.vectors[0], array)
