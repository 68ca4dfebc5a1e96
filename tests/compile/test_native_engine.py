"""The step loop and the native engine, on the toy model: steps, bursts, pages, threads, cancelling, bad artifacts."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inpage.engines.native import KV_BYTES, NativeEngine
from inpage.engines.protocol import Sampling, SequenceInput
from inpage.errors import ArtifactInvalid, DeviceLost, InvalidRequest, OutOfMemory
from inpage.format.abi import ABI_VERSION
from inpage.format.schema import Manifest
from inpage_compile.targets.link import ZIG, native_triple
from support.toy import BLOCKS, LOGIT_ROWS, MIXES, PAGE, VOCAB, toy_greedy, toy_logits, write_toy

PROMPTS = [[5, 17, 3], [1] * 20, [96, 0, 42, 7, 7], list(range(18))]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("toy")
    return folder, write_toy(folder)


@pytest.fixture
async def engine(toy: tuple[Path, Manifest]) -> AsyncIterator[NativeEngine]:
    loaded = await NativeEngine.load(*toy, threads=2)
    await loaded.reserve_pages(3 * BLOCKS)
    yield loaded
    await loaded.unload()


async def prefill(engine: NativeEngine, prompt: list[int], pages: list[int], chunk: int = 24) -> int:
    """Feed all of the prompt; the token that greedy sampling chooses after it."""
    token = None
    for start in range(0, len(prompt), chunk):
        part = prompt[start : start + chunk]
        last = start + chunk >= len(prompt)
        token = (await engine.step([SequenceInput(part, start, pages, sample=last)]))[0].token
    assert token is not None
    return token


def pages_of(i: int) -> list[int]:
    """Pages of sequence ``i``, deliberately not in order."""
    return [7 * i + k for k in (3, 0, 6, 2, 5, 1, 4)]


async def test_logprobs_are_numpys_whatever_the_sampling(engine: NativeEngine) -> None:
    prompt = PROMPTS[0]
    drawn = Sampling(temperature=1.3, seed=4, logit_bias=((7, -100.0), (9, 3.0)))
    step = SequenceInput(prompt, 0, pages_of(0), sampling=drawn, sample=True, top=6)
    plain = SequenceInput(PROMPTS[2], 0, pages_of(2), sample=True)
    outs = await engine.step([plain, step])
    said, tokens = list(outs[1].logprobs), [outs[1].token or 0]
    beside = [outs[0].token or 0]
    while len(tokens) < 5:
        at, other = len(prompt) + len(tokens) - 1, len(PROMPTS[2]) + len(beside) - 1
        watched = SequenceInput(tokens[-1:], at, pages_of(0), sampling=drawn, max_new_tokens=9, top=6)
        feeds = [SequenceInput(beside[-1:], other, pages_of(2), max_new_tokens=9), watched]
        runs = await engine.run(feeds, 4)
        said, tokens = [*said, *runs[1].logprobs], [*tokens, *runs[1].tokens]
        assert not runs[0].logprobs
        beside += runs[0].tokens
    assert [one.token for one in said] == tokens
    for i, one in enumerate(said):
        logits = toy_logits([*prompt, *tokens[:i]]).astype(np.float64)
        expected = logits - np.log(np.sum(np.exp(logits)))
        order = np.argsort(-expected, kind="stable")[:6]
        assert [token for token, _ in one.top] == list(order)
        np.testing.assert_allclose([logprob for _, logprob in one.top], expected[order], atol=1e-5)
        assert abs(one.logprob - expected[one.token]) < 1e-5
    assert beside == toy_greedy(PROMPTS[2], len(beside))


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
async def test_bursts_agree_with_the_reference_whatever_the_thread_count(
    toy: tuple[Path, Manifest], threads: int
) -> None:
    engine = await NativeEngine.load(*toy, threads=threads)
    await engine.reserve_pages(28)
    first = [await prefill(engine, p, pages_of(i), chunk=1 + 5 * i) for i, p in enumerate(PROMPTS)]
    feeds = [SequenceInput([t], len(p), pages_of(i), max_new_tokens=30 + i)
             for i, (p, t) in enumerate(zip(PROMPTS, first, strict=True))]  # fmt: skip
    before = engine.counters()
    outs = await engine.run(feeds, 100)
    for i, (prompt, out) in enumerate(zip(PROMPTS, outs, strict=True)):
        assert [first[i], *out.tokens] == toy_greedy(prompt, 31 + i)
        assert out.finished == "length"
    after = engine.counters()
    steps = after["steps"] - before["steps"]
    assert steps == 33
    assert after["launches"] - before["launches"] == steps * (MIXES + 3)
    assert after["sampled"] - before["sampled"] == sum(30 + i for i in range(4)) == after["rows"] - before["rows"]
    await engine.unload()


async def test_thousands_of_launches_with_more_threads_than_cores(toy: tuple[Path, Manifest]) -> None:
    tokens = []
    for threads in (1, 4):
        engine = await NativeEngine.load(*toy, threads=threads)
        await engine.reserve_pages(BLOCKS)
        out = await engine.run([SequenceInput([9], 0, range(BLOCKS), max_new_tokens=300)], 300)
        tokens.append(out[0].tokens)
        assert engine.counters()["launches"] == 300 * (MIXES + 3)
        await engine.unload()
    assert tokens[0] == tokens[1] == toy_greedy([9], 300)


async def test_a_step_of_several_sequences_chooses_scores_and_returns_logits(engine: NativeEngine) -> None:
    a, b, c = [4, 5, 6], [50, 60], [1, 2, 3, 4]
    outs = await engine.step(
        [
            SequenceInput(a, 0, [0], targets=[5, -1, 80], want_logits=True),
            SequenceInput(b, 0, [1], sample=True),
            SequenceInput(c, 0, [2], sample=True, want_logits=True),
        ]
    )
    np.testing.assert_array_equal(outs[0].logits, toy_logits(a))
    np.testing.assert_array_equal(outs[2].logits, toy_logits(c))
    assert outs[1].logits is None and outs[0].token is None and outs[2].scores is None
    assert [outs[1].token, outs[2].token] == [toy_greedy(b, 1)[0], toy_greedy(c, 1)[0]]
    for i, (argmax, nll, margin) in enumerate(outs[0].scores or []):
        x = toy_logits(a[: i + 1]).astype(np.float64)
        best, second = np.sort(x)[-2:][::-1]
        assert argmax == int(np.argmax(x))
        assert margin == pytest.approx(best - second, abs=1e-5)
        lse = np.log(np.exp(x - best).sum()) + best
        assert nll == pytest.approx(0.0 if i == 1 else lse - x[[5, 0, 80][i]], abs=1e-5)
    logprob = outs[2].logprob
    x = toy_logits(c).astype(np.float64)
    assert logprob == pytest.approx(x.max() - np.log(np.exp(x).sum()), abs=1e-5)


async def test_a_burst_ends_each_sequence_for_its_own_reason(engine: NativeEngine) -> None:
    told = {i: toy_greedy([10 + i], 40) for i in range(4)}
    stop = told[0][6]
    feeds = [
        SequenceInput([10], 0, [0, 1, 2], max_new_tokens=40, stop_ids=[VOCAB - 1, stop]),
        SequenceInput([11], 0, [3, 4, 5], max_new_tokens=3),
        SequenceInput([12], 0, [6], max_new_tokens=40),  # one page: positions 0..15 can be fed
        SequenceInput([13], 0, [7, 8, 9], max_new_tokens=40),
    ]
    outs = await engine.run(feeds, 25)
    assert [o.finished for o in outs] == ["stop", "length", "pages", None]
    assert outs[0].tokens == told[0][: told[0].index(stop) + 1]
    assert [outs[1].tokens, outs[2].tokens, outs[3].tokens] == [told[1][:3], told[2][:PAGE], told[3][:25]]
    # The burst that ran out of pages goes on where it stopped, once it has one more.
    more = await engine.run([SequenceInput([outs[2].tokens[-1]], PAGE, [6, 10], max_new_tokens=8)], 8)
    assert more[0].tokens == told[2][PAGE : PAGE + 8]


async def test_alone_or_in_a_crowd_a_seed_gives_the_same_tokens(engine: NativeEngine) -> None:
    def feed(i: int) -> SequenceInput:
        sampling = Sampling(temperature=0.9, top_k=20, top_p=0.95, seed=1000 + i, frequency_penalty=0.3,
                            logit_bias=((3, 2.0), (5, -100.0)))  # fmt: skip
        return SequenceInput([20 + i], 0, pages_of(i), sampling=sampling, history=[20 + i], max_new_tokens=40)

    crowd = await engine.run([feed(i) for i in range(6)], 40)
    for i in range(6):
        alone = await engine.run([feed(i)], 40)
        assert alone[0].tokens == crowd[i].tokens and len(alone[0].tokens) == 40
        assert 5 not in alone[0].tokens
    # The same choices, step by step from outside.
    tokens, history = [20], [20]
    for _ in range(10):
        f = feed(0)
        out = await engine.step(
            [SequenceInput(tokens[-1:], len(tokens) - 1, f.pages, f.sampling, history, sample=True)]
        )
        assert out[0].token is not None
        tokens.append(out[0].token)
        history.append(out[0].token)
    assert tokens[1:] == crowd[0].tokens[:10]


async def test_an_interrupt_ends_a_burst_early_and_the_next_one_is_whole(engine: NativeEngine) -> None:
    feed = SequenceInput([1], 0, range(BLOCKS), max_new_tokens=16000)
    task = asyncio.ensure_future(engine.run([feed], 16000))
    while engine.counters()["steps"] == 0:
        await asyncio.sleep(0)
    await engine.interrupt()
    outs = await task
    assert 0 < len(outs[0].tokens) < 16000 and outs[0].finished is None
    again = await engine.run([SequenceInput([1], 0, [0, 1], max_new_tokens=20)], 20)
    assert again[0].tokens == toy_greedy([1], 20)


async def test_a_cancelled_call_ends_its_burst_and_leaves_the_engine_usable(engine: NativeEngine) -> None:
    task = asyncio.ensure_future(engine.run([SequenceInput([1], 0, range(BLOCKS), max_new_tokens=16000)], 16000))
    while engine.counters()["steps"] == 0:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.counters()["steps"] < 16000
    again = await engine.run([SequenceInput([1], 0, [0, 1], max_new_tokens=20)], 20)
    assert again[0].tokens == toy_greedy([1], 20)


async def test_two_engines_of_one_artifact_do_not_share_state(toy: tuple[Path, Manifest], engine: NativeEngine) -> None:
    other = await NativeEngine.load(*toy, threads=1)
    await other.reserve_pages(4)
    for e in (engine, other):
        await prefill(e, [3, 4, 5], [0])
    mine = asyncio.ensure_future(engine.run([SequenceInput([6], 3, [0, 1], max_new_tokens=20)], 20))
    theirs = asyncio.ensure_future(other.run([SequenceInput([7], 3, [0, 1], max_new_tokens=20)], 20))
    assert (await mine)[0].tokens == toy_greedy([3, 4, 5, 6], 20)
    assert (await theirs)[0].tokens == toy_greedy([3, 4, 5, 7], 20)
    await other.unload()
    await other.unload()
    with pytest.raises(DeviceLost):
        await other.step([SequenceInput([1], 0, [0])])


async def test_pages_that_do_not_fit_are_refused_and_those_that_do_still_work(toy: tuple[Path, Manifest]) -> None:
    engine = await NativeEngine.load(*toy, threads=1, max_pages=2)
    assert engine.info.max_pages == 2
    with pytest.raises(OutOfMemory):
        await engine.reserve_pages(3)
    with pytest.raises(InvalidRequest) as e:
        await engine.step([SequenceInput([1], 0, [0])])
    assert e.value.field == "pages"
    await engine.reserve_pages(2)
    assert await prefill(engine, [1, 2], [1]) == toy_greedy([1, 2], 1)[0]
    with pytest.raises(InvalidRequest) as e:
        await engine.step([SequenceInput([1] * 9, 0, [0], targets=[1] * 9)])
    assert e.value.field == "targets" and LOGIT_ROWS == 8
    await engine.unload()


async def test_no_page_lies_where_kernels_cannot_reach(toy: tuple[Path, Manifest]) -> None:
    engine = await NativeEngine.load(*toy, threads=1, max_pages=1 << 40)
    assert engine.info.max_pages * engine.info.page_bytes <= KV_BYTES
    await engine.unload()


async def test_progress_counts_bytes_to_the_end(toy: tuple[Path, Manifest]) -> None:
    events: list[dict[str, Any]] = []
    engine = await NativeEngine.load(*toy, threads=1, on_progress=events.append)
    await engine.unload()
    assert [e["loaded"] for e in events if e["phase"] == "weights"] == [4096, 8192, 12288, 16384]
    assert events[-1]["phase"] == "ready" and events[-1]["total"] == 16384


@pytest.mark.parametrize(
    ("file", "change", "field"),
    [
        ("weights/00002.bin", None, "weights.shards[2].file"),
        ("weights/00001.bin", lambda b: b[:-1], "weights.shards[1].bytes"),
        ("weights/00003.bin", lambda b: b[:-1] + b"?", "weights.shards[3].sha256"),
        ("native/plan.json", lambda b: b + b" ", "plan"),
        ("native/kernels.so", lambda b: b"\0" + b[1:], "kernels"),
    ],
)
async def test_a_file_that_is_not_what_the_manifest_says_is_named(
    tmp_path: Path, file: str, change: Any, field: str
) -> None:
    manifest = write_toy(tmp_path)
    path = tmp_path / file
    good = path.read_bytes()
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(good))
    with pytest.raises(ArtifactInvalid) as e:
        await NativeEngine.load(tmp_path, manifest, threads=1)
    assert e.value.field == field
    path.write_bytes(good)
    engine = await NativeEngine.load(tmp_path, manifest, threads=1)
    await engine.unload()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (f"int inpage_abi_version(void) {{ return {ABI_VERSION - 1}; }}", "another version.*compile the model again"),
        (f"int inpage_abi_version(void) {{ return {ABI_VERSION}; }}", "no compiled model.*inpage_load"),
        ("int other(void) { return 0; }", "no compiled model.*inpage_abi_version"),
    ],
    ids=["earlier", "this", "none"],
)
async def test_a_library_of_another_interface_is_refused(tmp_path: Path, source: str, message: str) -> None:
    """An earlier version lacks functions of this one: that it is earlier is what it is refused for."""
    written, library = tmp_path / "other.c", tmp_path / "other.so"
    written.write_text(source)
    flags = ("-target", native_triple(), "-mcpu=baseline", "-fPIC", "-pthread")  # a model's: zig keeps what these need
    subprocess.run([*ZIG, "cc", *flags, "-shared", "-s", str(written), "-o", str(library)], check=True)
    manifest = write_toy(tmp_path, kernels=library.read_bytes())
    with pytest.raises(ArtifactInvalid, match=message) as e:
        await NativeEngine.load(tmp_path, manifest, threads=1)
    assert e.value.field == "kernels"


async def test_a_plan_that_belongs_to_other_kernels_is_refused(tmp_path: Path) -> None:
    from inpage.format.manifest import parse_manifest, revision_of

    write_toy(tmp_path)
    plan = json.loads((tmp_path / "native/plan.json").read_text())
    plan["kernels"] += [{"name": f"k{i}", "buffers": 0, "scalars": 0, "access": ""} for i in range(4)]
    plan["functions"][0]["launches"] = [{"kernel": 8, "buffers": [], "scalars": []}]
    data = json.dumps(plan).encode()
    (tmp_path / "native/plan.json").write_bytes(data)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    import hashlib

    manifest["variants"][0]["plan"] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest["revision"] = revision_of(manifest)
    with pytest.raises(ArtifactInvalid) as e:
        await NativeEngine.load(tmp_path, parse_manifest(manifest), threads=1)
    assert e.value.field == "plan"
