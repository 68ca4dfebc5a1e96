"""Linking: what a module imports and exports, what it refuses, and that wasm answers as the native build does."""

from __future__ import annotations

import json
import shutil
import subprocess
from array import array
from pathlib import Path
from typing import Any

import pytest

from inpage.engines import batch as flat
from inpage.engines.native import NativeEngine
from inpage.engines.protocol import Sampling, SequenceInput
from inpage.format.plan import parse_plan
from inpage.format.plan_types import Plan
from inpage.format.plan_views import encode_io, encode_program
from inpage_compile.targets.link import RUNTIME, ZIG, LinkError, link_native, link_wasm
from support.toy import KERNELS_C, salt, toy_greedy, toy_plan, write_toy

RUNNER = Path(__file__).parents[1] / "support" / "toy_wasm.mjs"


@pytest.fixture(scope="module")
def wasm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_wasm([], KERNELS_C, tmp_path_factory.mktemp("wasm") / "kernels.wasm", relaxed=False)


def sections(data: bytes) -> dict[int, bytes]:
    """A module's sections by id."""
    assert data[:8] == b"\0asm\1\0\0\0"
    out, at = {}, 8
    while at < len(data):
        kind, (size, at) = data[at], leb(data, at + 1)
        out[kind], at = data[at : at + size], at + size
    return out


def leb(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def test_a_module_imports_one_shared_memory_and_exports_the_whole_abi(wasm: Path) -> None:
    found = sections(wasm.read_bytes())
    # One import: env.memory, limits with flags 3 (has a maximum, shared), maximum 65536 pages.
    assert found[2].startswith(b"\x01\x03env\x06memory\x02\x03") and found[2].endswith(b"\x80\x80\x04")
    header = (RUNTIME / "abi.h").read_text()
    declared = {w.split("(")[0].lstrip("*") for w in header.split() if w.lstrip("*").startswith("inpage_") and "(" in w}
    assert len(declared) == 20
    for name in [*declared, "__heap_base", "__stack_pointer"]:
        assert name.encode() in found[7]
    assert len(wasm.read_bytes()) < 40_000


def test_the_plain_simd_build_refuses_an_object_with_relaxed_instructions(tmp_path: Path) -> None:
    source, compiled = tmp_path / "dot.c", tmp_path / "dot.o"
    source.write_text(
        "typedef signed char i8 __attribute__((vector_size(16))); typedef int i32 __attribute__((vector_size(16)));\n"
        "i32 dot(i8 a, i8 b, i32 c) { return __builtin_wasm_relaxed_dot_i8x16_i7x16_add_s_i32x4(a, b, c); }\n"
    )
    target = ["-target", "wasm32-freestanding", "-mcpu=generic+simd128+atomics+bulk_memory+relaxed_simd"]
    subprocess.run([*ZIG, "cc", *target, "-O2", "-c", str(source), "-o", str(compiled)], check=True)
    link_wasm([compiled], KERNELS_C, tmp_path / "relaxed.wasm", relaxed=True)
    with pytest.raises(LinkError, match="relaxed-simd"):
        link_wasm([compiled], KERNELS_C, tmp_path / "simd.wasm", relaxed=False)


def test_a_compile_error_carries_the_compilers_words(tmp_path: Path) -> None:
    bad = tmp_path / "trampolines.c"
    bad.write_text("int x = missing;\n")
    for link in (lambda out: link_native([], bad, out), lambda out: link_wasm([], bad, out, relaxed=True)):
        with pytest.raises(LinkError, match="use of undeclared identifier 'missing'"):
            link(tmp_path / "out")


def test_a_kernel_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = tmp_path / "trampolines.c"
    source.write_text(
        '#include "abi.h"\nvoid nowhere(void *const *, const int32_t *, int32_t, int32_t);\n'
        "const inpage_kernel inpage_kernels[] = {nowhere};\nconst int32_t inpage_kernel_shares[] = {0};\n"
        "const int32_t inpage_kernel_count = 1;\n"
    )
    with pytest.raises(LinkError, match="nowhere"):
        link_wasm([], source, tmp_path / "out.wasm", relaxed=False)


def toy_request(plan: Plan, feeds: list[SequenceInput], steps: int, threads: int) -> dict[str, Any]:
    m = plan.maxima
    pages = sum(len(f.pages) for f in feeds)
    limits = flat.Limits(plan.vocab, m.context, plan.page_tokens, plan.blocks_per_sequence, m.rows, m.sequences,
                         m.logit_rows, pages)  # fmt: skip
    batch = flat.run_batch(feeds, steps, limits)
    names = [b.name for b in plan.buffers]
    return {
        "threads": threads,
        "buffers": [b.bytes or pages * plan.page_bytes for b in plan.buffers],
        "filled": {
            names.index("block_tables"): batch.block_tables.tolist(),
            names.index("salt"): array("i", salt().tobytes()).tolist(),
        },
        "program": encode_program(plan).tolist(),
        "io": encode_io(plan).tolist(),
        "sequences": batch.sequences.tolist(),
        "n": len(feeds),
        "steps": steps,
    }


@pytest.mark.parametrize("threads", [1, 2, 4])
async def test_wasm_answers_bit_for_bit_as_the_native_build(tmp_path: Path, wasm: Path, threads: int) -> None:
    node = shutil.which("node")
    assert node, "needs Node: make setup"
    manifest = write_toy(tmp_path)
    plan = parse_plan(toy_plan(), manifest.tensors)
    steps = 60
    feeds = [
        SequenceInput([5], 0, [0, 2, 4, 6], max_new_tokens=steps),
        SequenceInput([6], 0, [1, 3, 5, 7], Sampling(0.8, 0, 0.95, seed=2**40 + 1), max_new_tokens=steps),
        SequenceInput(
            [7], 0, [8, 9], Sampling(1.2, 10, 0.9, 0.01, 1.1, 0.2, 0.1, seed=9), history=[7], max_new_tokens=20
        ),
    ]
    done = subprocess.run(
        [node, str(RUNNER), str(wasm)],
        input=json.dumps(toy_request(plan, feeds, steps, threads)),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert (answer["loaded"], answer["steps"]) == (0, steps)
    assert answer["counters"] == [steps, steps * len(plan.functions[0].launches), 140, 140]
    engine = await NativeEngine.load(tmp_path, manifest, threads=1)
    await engine.reserve_pages(10)
    native = await engine.run(feeds, steps)
    await engine.unload()
    for i in range(3):
        assert [t for t in answer["tokens"][i::3] if t >= 0] == native[i].tokens
    assert native[0].tokens == toy_greedy([5], steps)
