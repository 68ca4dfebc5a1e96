"""Compiled tiny encoders, as `models` has tiny decoders."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inpage.engines.native import NativeEngine
from inpage.engines.protocol import SequenceInput
from inpage_compile.pipeline import compile_model

from .models import ROOT, alone, first_ways, manifest_of
from .tiny_bert import BERTS
from .tiny_embedders import EMBEDDERS

REFERENCE = Path(__file__).parents[1] / "reference"
WITNESS: dict[str, Any] = json.loads((REFERENCE / "encoders.json").read_text("utf-8"))
TINY: dict[str, Any] = {**BERTS, **EMBEDDERS}
# The browser's, and natively one for each thing that can go wrong.
VARIANTS = {"mean": ("wasm-simd", "webgpu-f32", "native", "native-f32"), "ranks": ("wasm-simd", "native-f32")}


@functools.cache
def bert_artifact(name: str) -> Path:
    """The folder of a tiny encoder."""
    return _compiled(name, f"tiny-bert-{name}", VARIANTS.get(name, ("native-f32",)))


@functools.cache
def page_artifact(name: str) -> Path:
    """The same for the page alone."""
    return _compiled(name, f"tiny-page-{name}", ("wasm-simd", "webgpu-f32"))


def _compiled(name: str, id: str, variants: tuple[str, ...]) -> Path:
    with alone(id), tempfile.TemporaryDirectory() as place, first_ways():
        folder = TINY[name].write(Path(place) / id)
        return compile_model(str(folder), ROOT / id, variants=variants, levels=("source",))


@functools.cache
def minilm(level: str = "source") -> Path:
    """The folder of the real one."""
    with alone(f"minilm-{level}"), first_ways():
        variants = ("native", "wasm-relaxed")
        return compile_model("all-minilm-l6-v2", ROOT / f"minilm-{level}", variants=variants, levels=(level,))


async def open_encoder(folder: Path, variant: str = "native-f32", threads: int = 2) -> NativeEngine:
    return await NativeEngine.load(folder, manifest_of(folder), variant=variant, threads=threads)


def text(ids: list[int], segment: int | None = None) -> SequenceInput:
    return SequenceInput(ids, 0, (), want_logits=True, segment=segment)


async def vectors(engine: NativeEngine, texts: list[SequenceInput]) -> npt.NDArray[np.float32]:
    """Of all in one step."""
    return np.array([out.logits for out in await engine.step(texts)], np.float32)
