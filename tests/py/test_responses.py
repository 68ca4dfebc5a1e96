"""The answer cache: which requests share a key, what each tier keeps, how the tiers work together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inpage.engines.protocol import Sampling
from inpage.errors import ArtifactInvalid, InvalidRequest
from inpage.responses import Answer, AnswerCache, Bundle, MemoryTier, Tier, answer_key, pack_bundle
from inpage.responses.opening import open_answers
from inpage.responses.sqlite import SqliteTier
from inpage.settings import settings_from

GREEDY = Sampling()
SAMPLED = Sampling(temperature=0.7, top_p=0.9, seed=1)


def answer(text: str = "x", *tags: str) -> Answer:
    return Answer(tuple(text.encode()), "stop", tags)


@given(
    st.lists(st.integers(0, 2**31 - 1)),
    st.sampled_from(["stop", "length"]),
    st.lists(st.text()),
    st.none() | st.floats(0, 1e12),
)
def test_a_packed_answer_is_itself(ids: list[int], reason: str, tags: list[str], expires: float | None) -> None:
    kept = Answer(tuple(ids), reason, tuple(tags), expires)
    assert Answer.unpack(kept.pack()) == kept


@pytest.mark.parametrize("data", [b"", b"junk", answer().pack()[:-3]])
def test_what_is_no_answer_is_none(data: bytes) -> None:
    assert Answer.unpack(data) is None


def key(sampling: Sampling = GREEDY, **more: object) -> str:
    what = {"weights": "w", "prompt": [1, 2], "max_tokens": 9, "stop_ids": [2], **more}
    return answer_key(sampling=sampling, **what)  # type: ignore[arg-type]


def test_the_key_covers_all_that_changes_the_answer() -> None:
    keys = [
        key(),
        key(weights="v"),
        key(prompt=[2, 1]),
        key(max_tokens=8),
        key(stop_ids=[3]),
        key(stop=["\n"]),
        key(replace(GREEDY, repetition_penalty=1.1)),
        key(replace(GREEDY, logit_bias=((5, 1.0),))),
        key(SAMPLED),
        key(replace(SAMPLED, seed=2)),
        key(replace(SAMPLED, top_p=0.8)),
    ]
    assert len(set(keys)) == len(keys)


def test_a_greedy_answer_does_not_depend_on_how_one_would_sample() -> None:
    assert key(replace(GREEDY, seed=5, top_k=3, top_p=0.5, min_p=0.1)) == key()


@pytest.fixture(params=["memory", "sqlite"])
def tier(request: pytest.FixtureRequest, tmp_path: Path) -> Tier:
    return MemoryTier() if request.param == "memory" else SqliteTier(tmp_path / "answers.sqlite")


async def test_a_tier_keeps_replaces_removes_and_invalidates(tier: Tier) -> None:
    await tier.put("a", answer("old", "model:m"))
    await tier.put("a", answer("new", "model:m", "faq"))
    await tier.put("b", answer("b", "model:m"))
    assert await tier.get("a") == answer("new", "model:m", "faq")
    assert await tier.invalidate("faq") == 1
    assert await tier.get("a") is None
    await tier.put("c", answer("c", "other"))
    assert await tier.invalidate("model:m") == 1
    assert await tier.get("b") is None and await tier.get("c") is not None
    await tier.remove(["c", "never there"])
    assert await tier.get("c") is None
    await tier.put("d", answer())
    assert await tier.invalidate(None) == 1
    await tier.close()


async def test_memory_forgets_the_least_recently_used() -> None:
    tier = MemoryTier(2)
    await tier.put("a", answer("a"))
    await tier.put("b", answer("b"))
    await tier.get("a")
    await tier.put("c", answer("c"))
    assert [await tier.get(k) is not None for k in "abc"] == [True, False, True]


async def test_sqlite_is_bounded_and_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "answers.sqlite"
    size = len(answer("0" * 50).pack())
    tier = SqliteTier(path, bytes=10 * size)
    for i in range(40):
        await tier.put(f"k{i}", answer(f"{i:050}"))
        await tier.get("k0")
    assert 5 <= len(tier) <= 12
    assert await tier.get("k0") == answer(f"{0:050}")
    await tier.close()
    again = SqliteTier(path)
    assert await again.get("k39") == answer(f"{39:050}")
    await again.close()


async def test_a_damaged_file_is_started_anew(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    path.write_bytes(b"not a database" * 100)
    tier = SqliteTier(path)
    await tier.put("a", answer())
    assert await tier.get("a") == answer()
    await tier.close()


async def test_a_hit_is_promoted_to_the_faster_tiers(tmp_path: Path) -> None:
    memory, storage = MemoryTier(), SqliteTier(tmp_path / "a.sqlite")
    cache = AnswerCache([memory, storage])
    await storage.put("a", answer())
    found = [await cache.get("a"), await cache.get("a")]
    assert [hit and hit[1] for hit in found] == ["storage", "memory"]
    assert (await cache.get("b"), dict(cache.hits), cache.misses) == (None, {"storage": 1, "memory": 1}, 1)
    await cache.close()


async def test_the_bundle_is_asked_last_and_never_forgets() -> None:
    cache = AnswerCache([MemoryTier()], Bundle(pack_bundle([("a", answer("ready"))])))
    assert await cache.get("a") == (answer("ready"), "bundle")
    assert await cache.get("a") == (answer("ready"), "memory")
    await cache.invalidate()
    assert await cache.get("a") == (answer("ready"), "bundle")


@pytest.mark.parametrize("text", ["", "[]", '{"version": 2, "answers": {}}', '{"version": 1, "answers": []}'])
def test_what_is_no_bundle_is_refused(text: str) -> None:
    with pytest.raises(ArtifactInvalid) as caught:
        Bundle(text)
    assert caught.value.field == "answers"


async def test_a_bad_entry_of_a_bundle_is_a_miss() -> None:
    bundle = Bundle(json.dumps({"version": 1, "answers": {"a": "***", "b": 5, "c": "AAAA"}}))
    assert [await bundle.get(k) for k in "abcd"] == [None] * 4


async def test_answers_expire_and_live_longer_the_more_they_are_asked_for() -> None:
    now = 1000.0
    cache = AnswerCache(clock=lambda: now)
    assert cache.ttl == 3600
    await cache.put("a", answer())
    for _ in range(20):
        assert await cache.get("a")
    assert cache.ttl == 7200
    now += 3600
    assert await cache.get("a") is None
    assert cache.expired == 1
    for _ in range(400):
        await cache.get("never")
    assert cache.ttl == 600


async def test_the_bounds_of_how_long_answers_live_are_settings() -> None:
    settings = settings_from({"answers": {"enabled": True, "shortest_seconds": 5, "longest_seconds": 60}})
    cache = await open_answers(settings.answers)
    assert cache is not None and cache.ttl == 60
    for _ in range(20):
        await cache.get("never")
    assert cache.ttl == 5
    with pytest.raises(InvalidRequest, match=r"answers\.longest_seconds must be at least 60"):
        settings_from({"answers": {"shortest_seconds": 60, "longest_seconds": 5}})


class Broken(MemoryTier):
    """A real tier whose storage refuses, as a browser in private mode may."""

    name = "broken"

    async def get(self, key: str) -> Answer | None:
        raise OSError("refused")

    async def put(self, key: str, answer: Answer) -> None:
        raise OSError("refused")


async def test_a_tier_that_fails_costs_no_answer() -> None:
    cache = AnswerCache([Broken(), MemoryTier()])
    await cache.put("a", answer())
    found = await cache.get("a")
    assert found and (found[0].token_ids, found[1]) == (answer().token_ids, "memory")
    assert cache.failures == {"broken": 3}
