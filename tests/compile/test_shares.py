"""How evenly threads share a step of real models: counted, on what is compiled for the page."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from inpage.format.plan import parse_plan
from inpage.format.plan_types import Plan
from inpage.format.schema import Architecture
from inpage_compile.artifact import weights
from inpage_compile.kernels.cpu.attention import attention_chunks
from inpage_compile.kernels.cpu.isa import Isa
from inpage_compile.kernels.cpu.linear import linear_in
from inpage_compile.kernels.cpu.norm import rms_norm
from inpage_compile.kernels.cpu.visit import ROW_TILE, Way
from inpage_compile.kernels.shared.heads import CHUNK, Heads
from inpage_compile.kernels.shared.packed import PackedMatrix
from inpage_compile.lowering.plan import LoweredPlan
from inpage_compile.pipeline import lower_variant
from inpage_compile.quantize import FORMATS
from inpage_compile.sources import open_source
from inpage_compile.targets.variants import all_variants
from support.kernels import HOST_ISAS, Array, Kernels, Out
from support.models import REAL, first_ways
from support.shares import Step, cuts, evenness, extent_of, prompt, runs_of

MODELS = {REAL: REAL, "llama-1b": "shape:llama-1b"}
STEPS = {"decode": [Step(1, 512)], "34 rows": prompt(34, 128), "512 rows": prompt(512, 128)}


@cache
def lowered(name: str) -> tuple[LoweredPlan, Plan, Architecture]:
    source = open_source(MODELS[name])
    tensors = {p.entry.name: p.entry for p in weights.plan(source)}
    with first_ways():
        made = lower_variant(all_variants()["wasm-relaxed"], source.architecture, tensors)
    return made, parse_plan(made.json, tensors.values()), source.architecture


@pytest.mark.parametrize("threads", [4, 8, 12, 16])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", MODELS)
def test_threads_share_a_step_evenly(name: str, steps: str, threads: int) -> None:
    made, plan, architecture = lowered(name)
    assert evenness(made, plan, architecture, STEPS[steps], threads) >= 0.9


@pytest.mark.parametrize("name", MODELS)
def test_a_layer_of_a_decoding_step_has_six_barriers(name: str) -> None:
    """One after each launch that threads share; of the nine launches two norms and the append are serial."""
    _, plan, architecture = lowered(name)
    barriers = {f.name: sum(not launch.serial for launch in f.launches) for f in plan.functions}
    begin_and_end = 3  # embedding, the table of rotations, logits
    assert barriers["decode"] == begin_and_end + 6 * architecture.layers
    assert barriers["batch"] == begin_and_end + 1 + 9 * architecture.layers  # many rows' norms are worth sharing
    tiny = [x.kernel for x in plan.functions[0].launches if x.serial]
    assert {plan.kernels[k].name.rsplit("_", 1)[0][:8] for k in tiny} == {"rms_norm", "rope_app"}


def test_large_matrices_are_cut_into_shares() -> None:
    """By what each way of a kernel reads: 8,192 gates and ups of 2,048 columns, 18 bytes for 32 weights in Q4_0."""
    made, plan, _ = lowered("llama-1b")
    gated = [name for name in made.shares if name.startswith("gated_q4_0") and "16384x2048" in name]
    assert gated and {made.shares[name] for name in gated} == {16384 * 2048 // 32 * 18 // 262144}
    assert {made.shares[k.name] for k in plan.kernels if k.name.startswith(("rms_norm", "attention"))} == {0}


SHAPE = PackedMatrix(FORMATS["q4_0"], 144, 32)
ISA = Isa(HOST_ISAS[0])
FORM = "i8" if ISA.name == "x86" else "f32"
HEADS = Heads(2, 2, 16, 1, 36, 1, 36)
OWN = {
    "single": linear_in(ISA, SHAPE, FORM, False, Way(2)),
    "tiles": linear_in(ISA, SHAPE, FORM, False, Way(1, True)),
    "norm": rms_norm(ISA, 128, 1e-5, "f32"),
    "chunks": attention_chunks(ISA, HEADS),
}


@pytest.mark.parametrize(("kernel", "rows"), [("single", 1), ("tiles", 34), ("tiles", 5), ("norm", 1), ("norm", 7)])
def test_a_thread_writes_what_the_count_says(kernel: str, rows: int) -> None:
    """What a unit is in outputs is known; whose each unit is shows in what is written."""
    library = Kernels("shares", __file__, lambda: OWN)
    inputs: list[Array] = [np.ones((rows, 128), np.float32), np.ones(128, np.float32)]
    width, unit = 128, 32
    if kernel != "norm":
        x = [np.ones((rows, 32), np.int8), np.ones((rows, 1, 2), np.float32)]
        inputs = [*(x if FORM == "i8" else [np.ones((rows, 32), np.float32)]), np.zeros(SHAPE.words, np.int32)]
        width, unit = 144, ROW_TILE * 16 if kernel == "tiles" else 4 if FORM == "i8" else 16
    extent = extent_of(OWN[kernel], [rows])
    for threads in (4, 16):
        for thread, (low, high) in enumerate(cuts(extent, threads)):
            out = Out((rows, width), np.float32)
            library.call(kernel, [*inputs, out.array], [rows], thread, threads)
            written = int(out.written().sum())
            if kernel == "tiles":  # the last tile of rows may not be whole
                assert written <= (high - low) * unit and (written > 0) == (high > low)
            else:
                assert written == (high - low) * unit


@pytest.mark.parametrize("length", [1, 64, 65, 96, 97, 513])
def test_a_thread_attends_to_the_chunks_that_the_count_says(length: int) -> None:
    library = Kernels("shares", __file__, lambda: OWN)
    place: list[Array] = [
        np.full(1, length - 1, np.int32),
        np.zeros(1, np.int32),
        np.arange(36, dtype=np.int32).reshape(1, 36),
    ]
    inputs = [np.ones((1, 32), np.float32), *place, np.zeros(HEADS.pages * HEADS.page_halves, np.int16)]
    units = [-(-tokens // CHUNK) for tokens in runs_of(length) for _ in range(HEADS.kv_heads)]
    for threads in (1, 4, 12):
        for thread, (low, high) in enumerate(cuts(len(units), threads)):
            parts, sums = (Out((1, HEADS.chunks, *shape), np.float32) for shape in ((32,), (2, 2)))
            library.call("chunks", [*inputs, parts.array, sums.array], [1, 0], thread, threads)
            assert int(parts.written().sum()) == 16 * sum(units[low:high])
