"""What comes back from storage is what was put there, or counts as absent: kept answers, saved pages, notes."""

from __future__ import annotations

import json
import random
import sqlite3
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inpage.backends.device_profile import DeviceProfile
from inpage.host.capability import host_device
from inpage.kv.saved import SavedPages
from inpage.kv.storage import FolderPages
from inpage.responses import Answer, AnswerCache, Bundle, pack_bundle
from inpage.responses.sqlite import SqliteTier

KEPT = Answer((5, 6, 7), "stop", ("model:m",), 1e12)


def _raw(fields: Any) -> bytes:
    return zlib.compress(fields if isinstance(fields, bytes) else json.dumps(fields).encode())


def _fields(answer: Answer) -> list[Any]:
    fields: list[Any] = json.loads(zlib.decompress(answer.pack("k")))
    return fields


def test_every_flipped_or_missing_byte_makes_it_absent() -> None:
    packed = KEPT.pack("k")
    assert Answer.unpack(packed, "k") == KEPT
    absent = 0
    for at in range(len(packed)):
        changed = bytearray(packed)
        changed[at] ^= 1 << at % 8
        found = Answer.unpack(bytes(changed), "k")
        assert found in (None, KEPT)  # some bits of the compression say nothing
        absent += found is None
        assert Answer.unpack(packed[:at], "k") is None
    assert absent > len(packed) - 4
    assert Answer.unpack(packed, "another") is None
    assert Answer.unpack(packed + b"\0", "k") is None


@pytest.mark.parametrize("field", range(6))
def test_an_answer_that_was_rewritten_is_absent(field: int) -> None:
    fields, others = _fields(KEPT), _fields(Answer((5, 6, 8), "length", ("model:n",), 2e12))
    assert Answer.unpack(_raw(fields), "k") == KEPT
    fields[field] = 3 if field == 0 else others[field]
    assert Answer.unpack(_raw(fields), "k") is None


@pytest.mark.parametrize(
    "answer",
    [
        Answer((-1,), "stop"),
        Answer((1 << 31,), "stop"),
        Answer((1.5,), "stop"),  # type: ignore[arg-type]
        Answer((True,), "stop"),
        Answer(("1",), "stop"),  # type: ignore[arg-type]
        Answer((1,), "error"),
        Answer((1,), ["stop"]),  # type: ignore[arg-type]
        Answer((1,), "stop", (1,)),  # type: ignore[arg-type]
        Answer((1,), "stop", (), -1.0),
        Answer((1,), "stop", (), float("nan")),
        Answer((1,), "stop", (), float("inf")),
    ],
)
def test_what_is_out_of_bounds_is_absent_whatever_its_checksum_says(answer: Answer) -> None:
    assert Answer.unpack(answer.pack("k"), "k") is None


@pytest.mark.parametrize(
    "raw",
    [
        b"null",
        b"{}",
        b"[2]",
        b'[2,[1e400],"stop",[],"",null]',
        b'[2,"12","stop",[],"",null]',
        b'[2,[1],"stop","ab","",null]',
        b'[2,[1],"stop",[],5,null]',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'[2,[1],"st\xff"',
        b"1" * 5000,
        b" " * (17 << 20),
    ],
)
def test_what_is_no_answer_is_absent(raw: bytes) -> None:
    assert Answer.unpack(_raw(raw), "k") is None


async def test_a_bundles_answers_stay_with_their_questions() -> None:
    text = json.loads(pack_bundle([("a", KEPT), ("b", Answer((1,), "stop"))]))
    assert await Bundle(json.dumps(text)).get("a") == KEPT
    text["answers"]["a"], text["answers"]["b"] = text["answers"]["b"], text["answers"]["a"]
    text["answers"]["é"] = "é"
    swapped = Bundle(json.dumps(text))
    assert [await swapped.get(key) for key in ("a", "b", "é")] == [None, None, None]


async def test_a_damaged_answer_goes_from_the_database(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    tier = SqliteTier(path)
    for key in ("a", "b", "c"):
        await tier.put(key, KEPT)
    with sqlite3.connect(path) as db:
        db.execute("update answers set value = zeroblob(40) where key = 'a'")
        db.execute("update answers set value = 'text' where key = 'b'")
    assert [await tier.get(key) for key in ("a", "b", "c")] == [None, None, KEPT]
    assert len(tier) == 1
    await tier.close()


@pytest.mark.parametrize("seed", range(40))
async def test_a_damaged_database_is_started_anew(tmp_path: Path, seed: int) -> None:
    """Bytes anywhere in the file: nothing raises past the cache, no wrong answer comes, and new ones can be kept."""
    path = tmp_path / "answers.sqlite"
    tier = SqliteTier(path)
    for i in range(30):
        await tier.put(f"key {i}", Answer((i,), "stop", (f"tag {i}",)))
    await tier.close()
    rng = random.Random(seed)
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 4, 300])):
        content[rng.randrange(rng.choice([100, len(content)]))] ^= 1 << rng.randrange(8)
    path.write_bytes(content[: len(content) if seed % 4 else rng.randrange(len(content))])

    cache = AnswerCache([SqliteTier(path)])
    for i in range(30):
        found = await cache.get(f"key {i}")
        assert found is None or found[0].token_ids == (i,)
    for key in ("new", "newer"):  # the first may be what finds the damage
        await cache.put(key, KEPT)
    found = await cache.get("newer")
    assert found is not None and found[0].token_ids == KEPT.token_ids
    await cache.invalidate("tag 3")
    await cache.close()


async def test_another_programs_database_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("create table answers (id integer)")
    tier = SqliteTier(path)
    await tier.put("k", KEPT)
    assert await tier.get("k") == KEPT
    await tier.close()


GOOD = {"a": {"decode_tps": 5, "prefill_tps": 1, "threads": 1, "at": 1}}


def _noted(figures: object, faults: object, **raw: str) -> str:
    text = json.dumps({"version": 1, "devices": {"DEVICE": {"figures": figures, "faults": faults}}})
    for name, value in raw.items():
        text = text.replace(f'"{name}"', value)
    return text


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "[]",
        "{",
        "\ud800",
        "[" * 200_000,
        '{"a":' * 100_000,
        " " * (2 << 20),
        '{"version": 1}',
        '{"version": 1, "devices": []}',
        _noted({"a": "FIGURE"}, {}, FIGURE='{"decode_tps": 1e999, "prefill_tps": 1, "threads": 1, "at": 1}'),
        _noted({"a": "FIGURE"}, {}, FIGURE='{"decode_tps": 5, "prefill_tps": 1, "threads": 1e999, "at": 1}'),
        _noted({}, {"a": {"faults": [], "rest": [float("nan"), 1]}}),
        _noted({}, {"a": {"faults": [["c", "m", "AT"]], "rest": [1, 1]}}, AT="1e999"),
        _noted({}, {"a": {"faults": 5, "rest": [1, 1]}}),
        _noted(GOOD, {"a": {"faults": [], "rest": 5}}),
    ],
)
async def test_damaged_notes_count_as_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    profile = await _profile(monkeypatch, text)
    assert (profile.measurements, profile.log.dump()) == ({}, {})


async def test_a_rest_that_was_noted_absurdly_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = await _profile(monkeypatch, _noted(GOOD, {"a": {"faults": [], "rest": [1e300, 1000000]}}))
    assert list(profile.measurements) == ["a"]
    assert 0 < profile.log.resting("a") <= 86_400
    profile.log.rest("a")  # the next one is computed from it
    assert profile.log.resting("a") <= 86_400


async def _profile(monkeypatch: pytest.MonkeyPatch, text: str) -> DeviceProfile:
    device = host_device()
    manifest = SimpleNamespace(id="m", revision="r")
    empty = await _opened(monkeypatch, manifest, device, "{}")
    return await _opened(monkeypatch, manifest, device, text.replace("DEVICE", empty._device))


async def _opened(monkeypatch: pytest.MonkeyPatch, manifest: Any, device: Any, text: str) -> DeviceProfile:
    async def read(_: str) -> str:
        return text

    monkeypatch.setattr("inpage.backends.device_profile._read", read)
    return await DeviceProfile.open(manifest, device, None)


async def test_a_listed_prompt_of_no_length_is_left_out(tmp_path: Path) -> None:
    pages = FolderPages(tmp_path, 1 << 20)
    saved = SavedPages(pages, "ab" * 32)
    tokens = (1).to_bytes(4, "little")
    for name in ("fca2", "", "9" * 30, "²", "-1", "1"):
        await pages.put([f"list-page-{'ab' * 8}-{name}-{'0' * 64}"], tokens, 4)
    assert await saved.listed() == [[1]]
