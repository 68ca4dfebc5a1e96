"""Compiled models for tests, kept in build/tests/models: compiled again only when the compiler or a source changes.

Apart from build/models, which is what `make` builds and the page serves.
"""

from __future__ import annotations

import fcntl
import functools
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from inpage.engines.native import NativeEngine
from inpage.engines.protocol import SequenceInput, StepOutput
from inpage.format.plan_types import KvGroup
from inpage.format.schema import Manifest
from inpage_compile import pipeline
from inpage_compile.artifact.writer import load_manifest
from inpage_compile.families.layers import layout_of
from inpage_compile.kernels.cpu import linear
from inpage_compile.pipeline import compile_model

from . import objects
from .tiny import FAMILY_MODELS, K_MODELS, MODELS

ROOT = Path(__file__).parents[2] / "build" / "tests" / "models"
REAL = "smollm2-135m-instruct"

# Of each linear layer: with two there is a choice.
SLOW = "INPAGE_SLOW" in os.environ
MIXED_WAYS = None if SLOW else 2

# The variants that differ: what is float anyway is the same with int8 activations.
TINY_VARIANTS: dict[str, tuple[str, ...]] = {
    "f32": ("native-f32",),
    "q8_0": ("native-f32",),
    "mixed": ("wasm-relaxed", "wasm-simd", "native", "native-f32"),
    "apart": ("native", "native-f32"),
    "untied": ("native-f32",),
    "nine": ("native",),
    "llama3": ("native-f32",),
    "eighty": ("native", "native-f32") if SLOW else ("native-f32",),
    "alone": ("native-f32",),
    "three": ("native", "native-f32"),
    "wide": ("native", "native-f32"),
    "uneven": ("native", "native-f32"),
    "qwen2": ("native", "native-f32"),
    "qwen2-apart": ("native-f32",),
    "qwen3": ("native", "native-f32"),
    "linear": ("native-f32",),
    "yarn": ("native-f32",),
    "qwen3-yarn": ("native-f32",),
    **dict.fromkeys(FAMILY_MODELS, ("native-f32",)),
    **dict.fromkeys(K_MODELS, ("native", "native-f32")),
    **({} if SLOW else {"few_bits": ("native",)}),
}

# What they are for is in every function of a plan: `one_function`.
OTHERS = ("untied", "llama3", "linear", "yarn", "qwen3-yarn", "qwen2-apart", "phi3", "few_bits")


@contextmanager
def tiny_file(name: str) -> Iterator[Path]:
    """The GGUF file of a tiny model; its name is the model's id."""
    with tempfile.TemporaryDirectory() as folder:
        yield (MODELS | K_MODELS)[name].write(Path(folder) / f"tiny-{name}.gguf")


_ALL_WAYS = linear.ways


@contextmanager
def first_ways(most: int | None = 1) -> Iterator[None]:
    """Compile linear layers only in the way that runs where nothing was timed: in a quarter of the time. The others
    leave the same bits, to which tests of their own hold them. ``most``: so many ways, None for all. A kernel that
    another model has is not compiled again (`objects`)."""
    before, made = (linear.ways, pipeline.compile_object), (linear.linear, linear.gated)
    try:
        linear.ways, pipeline.compile_object = lambda *args: _ALL_WAYS(*args)[:most], objects.compile_object
        for func in made:
            func.cache_clear()
        yield
    finally:
        linear.ways, pipeline.compile_object = before
        for func in made:
            func.cache_clear()


@contextmanager
def one_function() -> Iterator[None]:
    """Compile models with the function alone that takes steps of every size, in a third of the time. Those for few rows
    leave the same bits, to which other models hold them. Not with INPAGE_SLOW=1."""
    before = pipeline.compile_variant
    try:
        if not SLOW:
            pipeline.compile_variant = lambda *args: before(*args[:4], quick=True)
        yield
    finally:
        pipeline.compile_variant = before


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Tests run in several processes: one compiles, the others find what it made."""
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@functools.cache
def tiny_artifact(name: str) -> Path:
    """The folder of a tiny model, compiled for `TINY_VARIANTS`."""
    functions, mark = (one_function(), "" if SLOW else "-step") if name in OTHERS else (nullcontext(), "")
    with alone(name), tiny_file(name) as path, first_ways(MIXED_WAYS if name == "mixed" else 1), functions:
        return compile_model(str(path), ROOT / f"tiny-{name}{mark}", variants=TINY_VARIANTS[name], levels=("source",))


def built_artifact() -> Path:
    """The folder of SmolLM2 as `make` compiled it."""
    return Path(os.environ.get("INPAGE_ARTIFACT", ROOT.parents[1] / "models" / REAL))


@functools.cache
def float_artifact() -> Path:
    """SmolLM2, compiled for this machine with float32 activations."""
    with alone(REAL), first_ways():
        return compile_model(REAL, ROOT / REAL, variants=("native-f32",))


@functools.cache
def manifest_of(folder: Path) -> Manifest:
    return load_manifest(folder)


async def open_engine(folder: Path, variant: str = "native", threads: int = 1, pages: int = 64) -> NativeEngine:
    """An engine with ``pages`` KV pages to use, of each group of layers; more where they hold fewer tokens."""
    most = pages * sum(shares_of_page(layout_of(manifest_of(folder).architecture).groups))
    engine = await NativeEngine.load(folder, manifest_of(folder), variant=variant, threads=threads, max_pages=most)
    await engine.reserve_pages(most)
    return engine


def shares_of_page(groups: Sequence[KvGroup]) -> list[int]:
    """Of each group, how many of its pages hold the tokens of one of the first group's."""
    return [groups[0].page_tokens // group.page_tokens for group in groups] or [1]


def part(engine: NativeEngine, tokens: Sequence[int], start: int, pages: Sequence[int], **rest: Any) -> SequenceInput:
    """What to feed of a sequence on ``pages``, below 64; where layers form groups, each has pages of its own for as
    many tokens."""
    tables, first = list[list[int]](), 0
    for share in shares_of_page(engine.info.groups) if engine.info.groups else ():
        tables.append([first + page * share + i for page in pages for i in range(share)])
        first += 64 * share
    return SequenceInput(tokens, start, pages, tables=tables, **rest)


async def feed(engine: NativeEngine, ids: Sequence[int], pages: Sequence[int], chunk: int | None = None) -> StepOutput:
    """Feed a whole prompt, ``chunk`` tokens a step; the last step's output, with logits."""
    size = chunk or engine.info.max_rows
    for start in range(0, len(ids), size):
        last = start + size >= len(ids)
        (out,) = await engine.step([part(engine, ids[start : start + size], start, pages, want_logits=last)])
    return out


async def score(
    engine: NativeEngine, ids: Sequence[int], pages: Sequence[int], first: int = 1
) -> list[tuple[int, float, float]]:
    """(argmax, nll, margin) of the predictions for ids[first:], teacher-forced."""
    if first > 1:
        await feed(engine, ids[: first - 1], pages)
    out: list[tuple[int, float, float]] = []
    size = engine.info.max_logit_rows
    for start in range(first - 1, len(ids) - 1, size):
        end = min(start + size, len(ids) - 1)
        (step,) = await engine.step([part(engine, ids[start:end], start, pages, targets=ids[start + 1 : end + 1])])
        assert step.scores is not None
        out += step.scores
    return out
