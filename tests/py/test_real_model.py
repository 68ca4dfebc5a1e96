"""SmolLM2-135M-Instruct on this machine's CPU, as `make` compiles it: float32's tokens and perplexity, and the same
bits under every circumstance."""

from __future__ import annotations

import json
import math
import os
from collections.abc import AsyncIterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from inpage.engines.native import NativeEngine
from inpage.engines.protocol import SequenceInput
from support.models import feed, float_artifact, open_engine, score

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

REFERENCE = Path(__file__).resolve().parents[1] / "reference"
PAGES = 8 * 16 + 256  # eight short sequences, and one of 4,096 tokens
CLEAR = {"p32": 103, "p512": 114, "g1": 49}  # steps of each prompt whose float32 margin is at least 0.5


@cache
def text() -> dict[str, Any]:
    return dict(json.loads((REFERENCE / "smollm2-135m-instruct-text.json").read_text("utf-8")))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(artifact: Path) -> AsyncIterator[NativeEngine]:
    loaded = await open_engine(artifact, "native", threads=2, pages=PAGES)
    yield loaded
    await loaded.unload()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def alone(artifact: Path) -> AsyncIterator[NativeEngine]:
    """The same on one thread."""
    loaded = await open_engine(artifact, "native", threads=1, pages=PAGES)
    yield loaded
    await loaded.unload()


def pages_of(i: int) -> list[int]:
    """Sixteen pages of sequence ``i``, in no order."""
    return [16 * i + (5 * k + 3) % 16 for k in range(16)]


LONG = range(8 * 16, PAGES)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CLEAR)
async def test_float32s_token_wherever_the_choice_is_clear(
    engine: NativeEngine, alone: NativeEngine, reference: dict[str, Any], name: str, threads: int
) -> None:
    prompt = reference["prompts"][name]
    ids, greedy = prompt["ids"], prompt["greedy_f32"]
    scores = await score(engine if threads == 2 else alone, ids + greedy, LONG, first=len(ids))
    clear = [i for i, margin in enumerate(prompt["margin"]) if margin >= 0.5]
    assert len(clear) == CLEAR[name]
    assert [scores[i][0] for i in clear] == [greedy[i] for i in clear]


async def test_decoding_a_burst_follows_float32_while_the_choice_is_clear(
    engine: NativeEngine, reference: dict[str, Any]
) -> None:
    prompt = reference["prompts"]["p32"]
    ids, greedy = prompt["ids"], prompt["greedy_f32"]
    await feed(engine, ids[:-1], LONG)
    (out,) = await engine.run([SequenceInput(ids[-1:], len(ids) - 1, LONG, max_new_tokens=128)], 128)
    first = next((m for ours, theirs, m in zip(out.tokens, greedy, prompt["margin"], strict=True) if ours != theirs), 0)
    assert first < 0.5


@pytest.mark.skipif("INPAGE_SLOW" not in os.environ, reason="webgpu-model.spec.js holds the page to the same logits")
async def test_float_activations_give_float32s_logits(reference: dict[str, Any]) -> None:
    engine = await open_engine(float_artifact(), "native-f32", threads=2)
    wanted = reference["first_token_logits"]
    out = await feed(engine, reference["prompts"]["p32"]["ids"], range(16))
    await engine.unload()
    ours = np.array(out.logits)[wanted["token_ids"]]
    assert np.abs(ours - wanted["logits"]).max() <= 1e-3 * np.abs(out.logits).max()
    assert int(np.argmax(out.logits)) == wanted["token_ids"][0]


async def test_perplexity_in_windows_of_512(engine: NativeEngine) -> None:
    ids, wanted = text()["ids"], text()["windows_512"]
    assert wanted["perplexity"] == pytest.approx(12.134, abs=1e-3)
    windows = 8 if "INPAGE_SLOW" in os.environ else 1  # the router is held to it as well
    starts = range(0, 512 * windows, 512)
    scores = [s for start in starts for s in await score(engine, ids[start : start + 512], LONG)]
    check_perplexity(scores, {name: wanted[name][: 511 * windows] for name in ("nll", "margin", "argmax")})


@pytest.mark.skipif("INPAGE_SLOW" not in os.environ, reason="the page's engine is held to the same in model.spec.js")
async def test_perplexity_over_a_context_of_4096(engine: NativeEngine) -> None:
    wanted = text()["context_4096"]
    assert wanted["perplexity"] == pytest.approx(8.583, abs=1e-3)
    check_perplexity(await score(engine, text()["ids"], LONG), wanted)


def check_perplexity(scores: Sequence[tuple[int, float, float]], wanted: dict[str, Any]) -> None:
    """At most 0.5 % above float32's; and where float32 is sure of a token, so are we."""
    assert len(scores) == len(wanted["nll"])
    assert sum(nll for _, nll, _ in scores) / len(scores) <= math.log(1.005) + sum(wanted["nll"]) / len(scores)
    sure = [i for i, margin in enumerate(wanted["margin"]) if margin >= 2]
    assert [scores[i][0] for i in sure] == [wanted["argmax"][i] for i in sure]


async def answer(engine: NativeEngine, ids: list[int], chunk: int = 128, beside: int = 0) -> tuple[Any, list[int]]:
    """Logits after a prompt fed ``chunk`` tokens a step, and the 12 greedy tokens after it, while ``beside`` other
    sequences are fed in the same steps and decode along."""
    others = {i: text()["ids"][100 * i : 100 * i + 9 + 5 * i] for i in range(1, beside + 1)}
    done = 0
    while done < len(ids):
        part = ids[done : done + chunk]
        last = done + len(part) == len(ids)
        feeds = [SequenceInput(part, done, pages_of(0), want_logits=last)]
        if done == 0:
            feeds += [SequenceInput(other[:8], 0, pages_of(i)) for i, other in others.items()]
        out = await engine.step(feeds)
        done += len(part)
    for i, other in others.items():
        await engine.step([SequenceInput(other[8:-1], 8, pages_of(i))])
    feeds = [SequenceInput([int(np.argmax(out[0].logits))], len(ids), pages_of(0), max_new_tokens=12)]
    feeds += [
        SequenceInput(other[-1:], len(other) - 1, pages_of(i), max_new_tokens=4 + i) for i, other in others.items()
    ]
    tokens = (await engine.run(feeds, 12))[0].tokens
    return out[0].logits, tokens


@pytest.fixture(scope="module")
def prompt(reference: dict[str, Any]) -> list[int]:
    """150 tokens: more than one step takes."""
    return list(reference["prompts"]["p512"]["ids"][:150])


async def test_the_same_bits_whole_or_in_chunks_on_one_thread_or_two_alone_or_in_a_crowd(
    engine: NativeEngine, alone: NativeEngine, prompt: list[int]
) -> None:
    wanted = await answer(engine, prompt)
    assert len(wanted[1]) == 12
    assert await answer(engine, prompt) == wanted, "twice"
    assert await answer(alone, prompt) == wanted, "1 thread"
    for chunk in (1, 7, 16, 100):
        assert await answer(engine, prompt, chunk) == wanted, f"chunks of {chunk}"
    assert await answer(engine, prompt, 60, beside=7) == wanted, "beside seven others"
    assert await answer(alone, prompt, 16, beside=7) == wanted, "beside seven others, 1 thread"


async def test_eight_in_one_batch_answer_as_each_alone(engine: NativeEngine) -> None:
    """All eight, not only the first: their prompts in one step, then a burst together."""
    prompts = [text()["ids"][300 * i : 300 * i + 3 + 2 * i] for i in range(8)]
    outs = await engine.step([SequenceInput(p, 0, pages_of(i), want_logits=True) for i, p in enumerate(prompts)])
    firsts = [int(np.argmax(out.logits)) for out in outs]
    starts = zip(firsts, prompts, strict=True)
    runs = await engine.run(
        [SequenceInput([t], len(p), pages_of(i), max_new_tokens=8) for i, (t, p) in enumerate(starts)], 8
    )
    for i, p in enumerate(prompts):
        (single,) = await engine.step([SequenceInput(p, 0, pages_of(0), want_logits=True)])
        assert single.logits == outs[i].logits, f"sequence {i}"
        (run,) = await engine.run([SequenceInput([firsts[i]], len(p), pages_of(0), max_new_tokens=8)], 8)
        assert run.tokens == runs[i].tokens, f"sequence {i}"
