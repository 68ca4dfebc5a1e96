"""Relax → launch plan, for every tiny model and every variant: valid, bindable by WebGPU, memory reused and never
clobbered, each kernel there once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from inpage.errors import Unsupported
from inpage.format.plan import parse_plan
from inpage.format.plan_types import Plan, extent
from inpage.format.plan_views import check_for_webgpu, describe, encode_program
from inpage.format.schema import Tensor
from inpage_compile.artifact import weights
from inpage_compile.families.graph import build_graph
from inpage_compile.kernels.webgpu.matrix_units import MatrixUnits
from inpage_compile.lowering.plan import LoweredPlan, trampolines
from inpage_compile.ops.maxima import Maxima
from inpage_compile.pipeline import lower_variant
from inpage_compile.sources import Source, open_source
from inpage_compile.sources.shape import Shape, open_shape
from inpage_compile.targets.variants import all_variants
from support.models import first_ways
from support.tiny import MODELS, VOCAB, Tiny

# Subgroup matrices of other sizes make the same plan.
VARIANTS = tuple(name for name, spec in all_variants().items() if spec.units in (None, MatrixUnits(16, 16, 16)))
ALIKE = ("webgpu-int8", "webgpu-matrix-16x16x16")  # a model with every kind of matrix is enough
MAXIMA = Maxima(rows=128, sequences=16, logit_rows=16, context=256)


Lowered = tuple[LoweredPlan, Plan, dict[str, Tensor]]
Lower = Callable[[str, str], Lowered]


def lower(source: Source, variant: str, maxima: Maxima = MAXIMA) -> Lowered:
    spec = all_variants()[variant]
    tensors = {p.entry.name: p.entry for p in weights.plan(source)}
    made = lower_variant(spec, source.architecture, tensors, maxima)
    return made, parse_plan(made.json, tensors.values()), tensors


@pytest.fixture(scope="module")
def lowered(tiny_files: dict[str, Path]) -> Lower:
    """Tiny model, variant → what it is lowered to, each once; one of them with every way of its linear layers."""

    def made(model: str, variant: str) -> Lowered:
        with first_ways(None if model == "mixed" else 1):
            return lower(open_source(str(tiny_files[model])), variant)

    return cache(made)


INT8 = ("wasm-relaxed", "wasm-simd", "native")


def turn(i: int, model: str, variant: str) -> bool:
    """Whether a usual run has a model in a variant: in webgpu-f32 and one of the CPUs' int8 each, in half precision or
    in the CPU's float32, by turns; the one with every kind of matrix in all."""
    others = {INT8[i % 3], "webgpu-f32", ("webgpu-f16", "native-f32")[i % 2]}
    return "INPAGE_SLOW" in os.environ or model == "mixed" or variant in others


# What a Gemma computes leaves half precision: it is refused.
CASES = [
    (m, v)
    for i, m in enumerate(MODELS)
    for v in VARIANTS
    if not (v == "webgpu-f16" and MODELS[m].family.startswith("gemma")) and (v not in ALIKE or m == "mixed")
    if turn(i, m, v)
]


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest, lowered: Lower) -> Lowered:
    return lowered(*request.param)


def test_a_plan_fits_its_tensors_and_webgpu(case: Lowered) -> None:
    made, plan, tensors = case
    check_for_webgpu(plan)
    assert len(encode_program(plan)) > 0
    launches = [launch for f in plan.functions for launch in f.launches]
    used = {i for launch in launches for i in launch.buffers}
    assert used == set(range(len(plan.buffers))), "a buffer that nobody uses"
    assert {plan.buffers[i].tensor for i in used if plan.buffers[i].kind == "weight"} == set(tensors)
    stand_in = {kernel for group in plan.alternatives for kernel in group[1:]}
    assert {launch.kernel for launch in launches} | stand_in == set(range(len(plan.kernels)))
    assert not stand_in & {launch.kernel for launch in launches}
    assert [k.name for k in plan.kernels] == list(made.kernels) == list(made.signatures)
    assert [(k.buffers, k.scalars) for k in plan.kernels] == list(made.signatures.values())


def test_no_buffer_is_read_after_another_took_its_place(case: Lowered) -> None:
    """Replays what each launch writes: an arena buffer that is read must have been written, and nothing over it."""
    _, plan, _ = case
    for function in plan.functions:
        valid: set[int] = set()
        logits: list[tuple[int, str]] = []
        for at, launch in enumerate(function.launches):
            accesses = list(zip(launch.buffers, plan.kernels[launch.kernel].access, strict=True))
            for i, access in accesses:
                if plan.buffers[i].kind == "arena" and access != "w":
                    assert i in valid, f"launch {at} reads {plan.buffers[i].name}, which holds something else by now"
            for i, access in accesses:
                b = plan.buffers[i]
                if access == "r" or b.kind != "arena":
                    logits += [(at, access)] if access != "r" and b.kind == "output" else []
                    continue
                over = [j for j in valid if overlap(plan, i, j)]
                valid -= set(over)
                valid.add(i)
        last = len(function.launches) - 1
        assert logits == ([(last - 1, "w"), (last, "x")] if plan_caps(plan) else [(last, "w")])


def plan_caps(plan: Plan) -> bool:
    """Whether logits are changed once more, where they lie."""
    return any(kernel.name.startswith("cap") for kernel in plan.kernels)


def overlap(plan: Plan, i: int, j: int) -> bool:
    a, b = plan.buffers[i], plan.buffers[j]
    return a.arena == b.arena and a.offset < b.offset + b.bytes and b.offset < a.offset + a.bytes


def tiny_source(folder: Path, tiny: Tiny) -> Source:
    return open_source(str(tiny.write(folder / f"tiny-{tiny.layers}.gguf")))


@pytest.mark.parametrize("variant", VARIANTS)
def test_memory_and_kernels_do_not_grow_with_layers(tmp_path: Path, lowered: Lower, variant: str) -> None:
    two = lowered("mixed", variant)[1]
    six = lower(tiny_source(tmp_path, replace(MODELS["mixed"], layers=6)), variant)[1]
    assert six.arena_bytes <= 1.05 * two.arena_bytes  # which block a tensor gets may differ, hence not quite equal
    assert [k.name for k in six.kernels] == [k.name for k in two.kernels]
    assert six.page_bytes == 3 * two.page_bytes
    a_layer = [(len(f.launches) - len(g.launches)) // 4 for f, g in zip(six.functions, two.functions, strict=True)]
    if variant.startswith("webgpu"):
        # qkv, attention, out; gate and up, down; several rows' activations are rounded to 8 bits by themselves, and
        # both norms are before subgroup matrices
        assert a_layer == dict(zip(ALIKE, ([5, 9, 9], [7, 7, 7]), strict=True)).get(variant, [5, 5, 5])
        assert [b.name for b in six.buffers if b.kind == "kv"] == [f"kv.{i}" for i in range(6)]
        return
    assert [f.name for f in six.functions] == ["decode", "batch", "step"]
    assert a_layer == [9, 9, 8]  # norm, qkv, append, attention (in two for few rows), out; norm, gate and up, down
    chunks = "attention_chunks"
    for function, attention in zip(six.functions, (chunks, chunks, "attention_"), strict=True):
        for kernel in ("rope_append", attention):
            layers = [x.scalars[-1] for x in function.launches if six.kernels[x.kernel].name.startswith(kernel)]
            assert layers == [0, 1, 2, 3, 4, 5]


# SmolLM2-135M, Llama-3.2-1B, Llama-2-7B, Gemma-3-1B; the last one's heads are normed, and its matrices' results.
SHAPES = {
    "smollm2": Shape(2, 576, 9, 3, 64, 1536, VOCAB, 1024, True, ""),
    "1b": Shape(2, 2048, 32, 8, 64, 8192, VOCAB, 1024, True, ""),
    "7b": Shape(2, 4096, 32, 32, 128, 11008, VOCAB, 1024, False, ""),
    "gemma3": Shape(2, 1152, 4, 1, 256, 6912, VOCAB, 1024, True, "", family="gemma3"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_step_is_five_dispatches_a_layer_and_fills_a_gpu(tiny: Source, name: str) -> None:
    shape, maxima = SHAPES[name], replace(MAXIMA, rows=512, context=1024)
    one, two = (lower(open_shape(replace(shape, layers=n), "shape:x", "x", tiny), "webgpu-f32", maxima) for n in (1, 2))
    for a, b in zip(one[1].functions, two[1].functions, strict=True):
        assert len(b.launches) - len(a.launches) == (9 if name == "gemma3" else 5)
    spans = next(k for k, kernel in enumerate(two[1].kernels) if kernel.name.startswith("attention_spans"))
    (grid,) = {launch.grid for launch in two[1].functions[0].launches if launch.kernel == spans}
    assert grid is not None and grid[0] >= {"smollm2": 48, "gemma3": 32}.get(name, 64)  # of 1,024 tokens
    if name in ("1b", "7b"):
        _check_matrices(two[1])


def _check_matrices(plan: Plan) -> None:
    """That each is work for a whole GPU in a step of one row and of 128, and what workgroups load of weights and
    activations for 512 rows: with 8 rows by 16 outputs each it was four times as much at least."""
    names = [f.name for f in plan.functions]
    assert names == ["decode", "few", "batch", "prefill"]
    now = before = 0
    for function, rows in ((plan.functions[0], 1), (plan.functions[-1], 128), (plan.functions[-1], 512)):
        for launch in function.launches:
            kernel = plan.kernels[launch.kernel]
            if not kernel.name.startswith(("linear", "project", "gated")) or "logit_rows" in launch.scalars:
                continue
            wide, high = (extent(n, {"rows": rows}) for n in launch.grid[:2])
            assert wide * high >= 128, (kernel.name, rows)
            activations, weights = (plan.buffers[b] for b in launch.buffers[:2])
            if rows == 512:
                assert activations.kind == "arena" and weights.kind == "weight"
                now += weights.bytes * high + activations.bytes * wide
                outputs = int(re.findall(r"_(\d+)x", kernel.name)[0])
                before += weights.bytes * (rows // 8) + activations.bytes * (outputs // 16)
    assert 0 < now < before / 4


@pytest.mark.parametrize("tied", [True, False])
def test_a_tensor_larger_than_a_binding_is_bound_in_slices(tiny: Source, tied: bool) -> None:
    """128 MiB is WebGPU's default: embedding and head of 700,000 tokens come in two launches each."""
    vocab, hidden = 700_000, tiny.architecture.hidden
    source = replace(tiny, architecture=replace(tiny.architecture, vocab=vocab, tied=tied))
    tensors = {p.entry.name: p.entry for p in weights.plan(tiny)}
    for name in ("token_embd",) if tied else ("token_embd", "output"):
        tensors[name] = Tensor(name, (vocab, hidden), "f32", "rows16", 1 << 30, vocab * hidden * 4)
    made = lower_variant(all_variants()["webgpu-f32"], source.architecture, tensors, MAXIMA)
    plan = parse_plan(made.json, tensors.values())
    check_for_webgpu(plan)
    slices = [b for b in plan.buffers if b.tensor == "token_embd"]
    assert len(slices) == 2 and slices[0].offset == 1 << 30
    assert slices[1].offset == slices[0].offset + slices[0].bytes
    assert sum(b.bytes for b in slices) == vocab * hidden * 4
    names = [plan.kernels[x.kernel].name for x in plan.functions[0].launches]
    assert [n.startswith("embed") for n in names[:3]] == [True, True, False]
    assert ["_of700000" in n or "_again_at" in n for n in names[-2:]] == [True, True]
    assert [plan.buffers[x.buffers[-1]].kind for x in plan.functions[0].launches[-2:]] == ["output", "output"]


def test_arena_is_smaller_than_what_passes_through_it(case: Lowered) -> None:
    _, plan, _ = case
    written = 0
    for launch in plan.functions[-1].launches:
        for i, access in zip(launch.buffers, plan.kernels[launch.kernel].access, strict=True):
            written += plan.buffers[i].bytes if access != "r" and plan.buffers[i].kind == "arena" else 0
    assert plan.arena_bytes * 3 < written * 2  # in two layers


@pytest.mark.parametrize("variant", VARIANTS)
def test_tensors_that_cannot_be_fused_have_kernels_of_their_own(lowered: Lower, variant: str) -> None:
    fused, apart = ([k.name for k in lowered(model, variant)[1].kernels] for model in ("mixed", "apart"))
    assert any(n.startswith("gated") for n in fused) and not any(n.startswith("join") for n in fused)
    assert any(n.startswith("gate_") for n in apart)
    if variant.startswith("webgpu"):  # parts of queries, keys and values are written where they belong
        assert sum(n.startswith("project") for n in apart) > sum(n.startswith("project") for n in fused)
    else:
        assert any(n.startswith("join") for n in apart)
    assert not any(n.startswith("gated") for n in apart)


def test_forms_follow_the_variant(lowered: Lower) -> None:
    def quantized(variant: str) -> set[str]:
        plan = lowered("mixed", variant)[1]
        linear = [k.name for k in plan.kernels if k.name.startswith(("linear", "gated"))]
        return {form for name in linear for form in ("i8", "i16p", "i16", "f32") if f"_{form}_" in name}

    assert quantized("native-f32") == {"f32"}
    assert quantized("wasm-relaxed") == {"i8", "i16"}
    assert quantized("wasm-simd") == {"i16p", "i16"}


def test_a_plan_can_be_read(lowered: Lower) -> None:
    _, plan, _ = lowered("mixed", "wasm-relaxed")
    text = describe(plan)
    lines = text.splitlines()
    launches = plan.functions[0].launches
    assert "target wasm-relaxed" in lines[0] and "context 256" in lines[0]
    assert f"arena {plan.arena_bytes:,} bytes" in lines[1]
    for i, launch in enumerate(launches):
        line = next(x for x in lines if x.startswith(f"{i:5}  "))
        assert plan.kernels[launch.kernel].name in line and " B" in line
    assert "blk.1.attn_qkv" in text and "layer" not in lines[0]


def test_trampolines_stand_in_the_plans_order(lowered: Lower) -> None:
    made, plan, _ = lowered("mixed", "native")
    source = trampolines(made)
    table = source[source.index("inpage_kernels[]") :]
    assert [table.index(f"launch_{k.name}") for k in plan.kernels] == sorted(
        table.index(f"launch_{k.name}") for k in plan.kernels
    )
    assert f"inpage_kernel_count = {len(plan.kernels)};" in source
    assert f"inpage_kernel_shares[] = {{{', '.join(map(str, made.shares.values()))}}};" in source


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"hidden": 72}, "hidden"),
        ({"ffn": 90}, "ffn"),
        ({"head_dim": 12}, "head_dim"),
        ({"kv_heads": 3}, "kv_heads"),
    ],
)
def test_shapes_that_no_kernel_takes_are_named(tiny: Source, change: dict[str, Any], field: str) -> None:
    tensors = {p.entry.name: p.entry for p in weights.plan(tiny)}
    with pytest.raises(Unsupported) as e:
        build_graph(
            replace(tiny.architecture, **change), tensors, all_variants()["native"].isa, "int8", MAXIMA, split=True
        )
    assert e.value.field == field
