"""Tiny models from GGUF to tokens on this machine, against PyTorch in float32: tied and untied heads, matrices that
cannot be fused, heads of every shape, every kind of rotary positions, every number format, every family."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inpage_compile.artifact.writer import load_manifest
from support.llama_reference import logits
from support.models import TINY_VARIANTS, feed, open_engine, part, score, tiny_artifact
from support.tiny import FAMILIES, FAMILY_MODELS, K_MODELS, MODELS, ROPES

WITNESS = json.loads((Path(__file__).parents[1] / "reference" / "tiny.json").read_text("utf-8"))["models"]
SLOW = (
    "nine",
    "three",
    "wide",
    "apart",
    "mistral",
    "smollm3",
    "granite",
)  # between the others, of which they have parts
KINDS = tuple(K_MODELS) if "INPAGE_SLOW" in os.environ else ("k_quants", "few_bits")  # all of them


def usual(*models: str) -> list[str]:
    return [model for model in models if "INPAGE_SLOW" in os.environ or model not in SLOW]


CASES = [
    pytest.param(model, variant, id=f"{model}-{variant}")
    for model, variants in TINY_VARIANTS.items()
    for variant in variants
    if "native" in variant and model in usual(*MODELS)
]
# Largest error of a logit, relative to the largest logit. In float32 a last-bit difference now and then sends a key or
# a value to the neighbouring half; int8 activations cost what they cost on 64 columns of random weights.
ERROR = {"native-f32": 5e-4, "native": 0.08}


@pytest.mark.parametrize("model", MODELS)
def test_the_numpy_witness_is_torchs(model: str) -> None:
    """`llama_reference` says what PyTorch says, and keys and values in halves cost next to nothing."""
    assert WITNESS[model]["weights_sha256"] == MODELS[model].digest()
    for prompt in WITNESS[model]["prompts"]:
        wanted = np.array(prompt["logits"])
        exact, halves = (logits(MODELS[model], prompt["ids"], halves)[-1] for halves in (False, True))
        assert np.abs(exact - wanted).max() <= 1e-5 * np.abs(wanted).max()
        assert np.abs(halves - wanted).max() <= 2e-3 * np.abs(wanted).max()


@pytest.mark.parametrize(("model", "variant"), CASES)
async def test_logits_and_tokens_are_the_witnesses(model: str, variant: str) -> None:
    engine = await open_engine(tiny_artifact(model), variant, threads=2)
    pages, compared = [5, 2, 9, 0, 7], 0
    for prompt in WITNESS[model]["prompts"]:
        ids = prompt["ids"] + prompt["greedy"]
        wanted = logits(MODELS[model], ids, halves=True)
        room = ERROR[variant] * np.abs(wanted).max()
        out = await feed(engine, ids, pages)
        assert np.abs(np.array(out.logits) - wanted[-1]).max() <= room
        scores = await score(engine, ids, pages)
        shifted = wanted - wanted.max(axis=1, keepdims=True)
        nll = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(ids)), np.roll(ids, -1)]
        assert np.abs(np.array([x[1] for x in scores]) - nll[:-1]).max() <= 2 * room
        # PyTorch's choices over prompt and greedy continuation, wherever they are no close call.
        chosen = prompt["argmax"][:-1] + prompt["greedy"]
        margins = prompt["margin"][:-1] + prompt["greedy_margin"]
        clear = [i for i, margin in enumerate(margins) if margin > 2 * room + 4e-3 * np.abs(wanted).max()]
        assert [scores[i][0] for i in clear] == [chosen[i] for i in clear]
        compared += len(clear)
    assert compared >= (5 if variant == "native" else 80)
    await engine.unload()


@pytest.mark.parametrize("model", usual(*FAMILIES, *ROPES))
async def test_a_batch_of_prompts_and_32_decode_steps(model: str) -> None:
    """Three prompts in one step, then 32 steps of one token each, beyond the original context where there is one.
    Against PyTorch's float32 (by way of numpy), and closer where keys and values are halves there too."""
    engine = await open_engine(tiny_artifact(model), "native-f32", threads=2)
    prompts = WITNESS[model]["prompts"]
    texts = [p["ids"] + p["greedy"] for p in prompts]
    pages = [[13 * k % 64 for k in range(5 * i, 5 * i + 5)] for i in range(len(texts))]
    found: list[list[Any]] = [[] for _ in texts]
    starts, sizes = [0] * len(texts), [len(p["ids"]) for p in prompts]
    for _ in range(33):
        outs = await engine.step(
            [
                part(engine, ids[start : start + size], start, own, want_logits=True)
                for ids, start, size, own in zip(texts, starts, sizes, pages, strict=True)
            ]
        )
        for logits_of, out in zip(found, outs, strict=True):
            logits_of.append(out.logits)
        starts = [start + size for start, size in zip(starts, sizes, strict=True)]
        sizes = [1] * len(texts)
    await engine.unload()
    for ids, made in zip(texts, found, strict=True):
        exact, halves = (logits(MODELS[model], ids, rounded)[-33:] for rounded in (False, True))
        largest = np.abs(exact).max()
        assert np.abs(np.array(made) - halves).max() <= ERROR["native-f32"] * largest
        assert np.abs(np.array(made) - exact).max() <= (2e-3 if model in ("qwen2", "qwen3") else 1e-3) * largest


@pytest.mark.parametrize(
    ("model", "variant"),
    [(model, variant) for model in KINDS for variant in TINY_VARIANTS[model]],
)
async def test_k_quants_answer_as_the_file_dequantized_does(model: str, variant: str) -> None:
    """Prefill, then 32 tokens one by one, against float64 on what the `gguf` package says the weights are."""
    engine = await open_engine(tiny_artifact(model), variant, threads=2)
    pages = [5, 2, 9, 0, 7]
    ids = [int(i) for i in np.random.default_rng(9).integers(3, 320, 48)]
    wanted = logits(K_MODELS[model], ids, halves=True)
    room = ERROR[variant] * np.abs(wanted).max()
    out = await feed(engine, ids[:16], pages)
    assert np.abs(np.array(out.logits) - wanted[15]).max() <= room
    for i in range(16, 48):
        (out,) = await engine.step([part(engine, [ids[i]], i, pages, want_logits=True)])
        assert np.abs(np.array(out.logits) - wanted[i]).max() <= room
    await engine.unload()


def test_only_what_has_one_format_is_fused() -> None:
    """As in Q4_K_M, whose values are in Q6_K beside queries and keys in Q4_K."""
    manifest = load_manifest(tiny_artifact("k_quants"))
    formats = {t.name: t.format for t in manifest.tensors if t.name.startswith("blk.0.") and t.layout == "rows16"}
    assert formats == {
        "blk.0.attn_q": "q4_k", "blk.0.attn_k": "q5_k", "blk.0.attn_v": "q5_0", "blk.0.attn_out": "q5_1",
        "blk.0.ffn_gate_up": "q4_k", "blk.0.ffn_down": "q6_k",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "variant"),
    [
        *((name, "native") for name in ("mixed", "nine", "qwen2", "qwen3", *KINDS)),
        *((name, "native-f32") for name in usual(*ROPES, *FAMILY_MODELS)),
    ],
)
async def test_chunks_threads_neighbours_and_prefixes_change_no_bit(model: str, variant: str) -> None:
    prompt = WITNESS[model if model in MODELS else "mixed"]["prompts"][2]["ids"]

    async def answer(threads: int, chunk: int, beside: int = 0, shared: int = 0) -> tuple[Any, list[int]]:
        """``shared``: so many tokens are in the pages already, read by another sequence that went on differently."""
        engine = await open_engine(tiny_artifact(model), variant, threads)
        pages = [[13 * k % 64 for k in range(5 * i, 5 * i + 5)] for i in range(beside + 1)]
        for i in range(1, beside + 1):
            await feed(engine, prompt[i : i + 9], pages[i])
        if shared:
            await feed(engine, [*prompt[:shared], 7, 8, 9], [*pages[0][: shared // 16], 63])
            (out,) = await engine.step([part(engine, prompt[shared:], shared, pages[0], want_logits=True)])
        else:
            out = await feed(engine, prompt, pages[0], chunk)
        first = int(np.argmax(out.logits))
        feeds = [part(engine, [first], len(prompt), pages[0], max_new_tokens=24)]
        feeds += [part(engine, [i], 9, pages[i], max_new_tokens=10 + i) for i in range(1, beside + 1)]
        tokens = (await engine.run(feeds, 24))[0].tokens
        await engine.unload()
        return out.logits, tokens

    wanted = await answer(1, 40)
    assert len(wanted[1]) == 24
    for way in ((2, 40), (3, 40), (1, 1), (2, 7), (1, 16, 7), (2, 3, 7), (1, 40, 0, 16), (2, 40, 7, 32)):
        assert await answer(*way) == wanted, way
