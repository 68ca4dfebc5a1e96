"""plan.json: what is accepted, how it is encoded and shown, and that every field that can be wrong is named."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from inpage.errors import ArtifactInvalid
from inpage.plan import parse_plan
from inpage.plan_types import extent
from inpage.plan_views import check_for_webgpu, describe, encode_program
from inpage.schema import Tensor

TENSORS = [Tensor("w", (16, 32), "q8_0", "rows16", 512, 544)]


def good() -> dict[str, Any]:
    return {
        "version": 2,
        "target": "wasm-relaxed",
        "page_tokens": 16,
        "maxima": {"rows": 8, "sequences": 2, "logit_rows": 2, "context": 64},
        "blocks_per_sequence": 4,
        "variables": ["rows", "sequences", "logit_rows"],
        "arenas": [1024],
        "vocab": 50,
        "buffers": [
            {"name": "token_ids", "kind": "input", "dtype": "int32", "shape": ["rows"], "bytes": 32},
            {"name": "positions", "kind": "input", "dtype": "int32", "shape": ["rows"], "bytes": 32},
            {"name": "row_sequence", "kind": "input", "dtype": "int32", "shape": ["rows"], "bytes": 32},
            {"name": "block_tables", "kind": "input", "dtype": "int32", "shape": ["sequences", 4], "bytes": 32},
            {"name": "logit_rows", "kind": "input", "dtype": "int32", "shape": ["logit_rows"], "bytes": 8},
            {"name": "w", "kind": "weight", "tensor": "w", "bytes": 544},
            {"name": "a", "kind": "arena", "arena": 0, "offset": 0, "bytes": 512},
            {"name": "b", "kind": "arena", "arena": 0, "offset": 512, "bytes": 512},
            {"name": "c", "kind": "arena", "arena": 0, "offset": 256, "bytes": 512},
            {"name": "kv", "kind": "kv", "page_bytes": 4096},
            {"name": "logits", "kind": "output", "bytes": 400},
        ],
        "io": {"token_ids": 0, "positions": 1, "row_sequence": 2, "block_tables": 3, "logit_rows": 4, "logits": 10},
        "kernels": [
            {"name": "embed", "buffers": 3, "scalars": 1, "access": "rrw"},
            {"name": "attend", "buffers": 3, "scalars": 2, "access": "rxw"},
            {"name": "head", "buffers": 3, "scalars": 1, "access": "rrw"},
            {"name": "scale", "buffers": 1, "scalars": 0, "access": "x"},
        ],
        "functions": [
            {"name": "decode", "max_rows": 2, "launches": [
                {"kernel": 0, "buffers": [0, 5, 6], "scalars": ["rows"]},
                {"kernel": 1, "buffers": [6, 9, 7], "scalars": ["rows", -3]},
                {"kernel": 3, "buffers": [7], "scalars": []},
                {"kernel": 2, "buffers": [7, 4, 10], "scalars": ["logit_rows"]},
            ]},
            {"name": "prefill", "max_rows": 8, "launches": []},
        ],
    }  # fmt: skip


def test_a_good_plan_is_read_encoded_and_shown() -> None:
    plan = parse_plan(json.dumps(good()).encode(), TENSORS)
    assert plan.maxima.context == 64 and plan.page_bytes == 4096
    assert plan.buffers[5].offset == 512 and plan.buffers[9].bytes == 0
    assert encode_program(plan).tolist() == [
        2,
        2, 4,
        0, 3, 0, 5, 6, 1, 1, 0,
        1, 3, 6, 9, 7, 2, 1, 0, 0, -3,
        3, 1, 7, 0,
        2, 3, 7, 4, 10, 1, 1, 2,
        8, 0,
    ]  # fmt: skip
    text = describe(plan)
    assert "decode: up to 2 rows, 4 launches" in text
    assert "embed(rows)  [r token_ids; r w; w a@0x0]  weights 544 B, other 544 B" in text
    check_for_webgpu(plan)
    assert plan.alternatives == ()


def test_kernels_that_do_the_same_stand_in_lists() -> None:
    content = good()
    content["kernels"] += TWINS
    content["alternatives"] = [[0, 4], [2, 5, 6]]
    assert parse_plan(content, TENSORS).alternatives == ((0, 4), (2, 5, 6))
    for wrong, field in (
        ([[0, 4], [2, 4]], "plan.alternatives[1][1]"),
        ([[0, 4] + [5] * 20], "plan.alternatives[0]"),
    ):
        with pytest.raises(ArtifactInvalid) as caught:
            parse_plan(content | {"alternatives": wrong}, TENSORS)
        assert caught.value.field == field


def at(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets one member; "-" as the value removes it."""

    def change(plan: dict[str, Any]) -> None:
        keys = [int(k) if k.isdigit() else k for k in path.split(".")]
        place: Any = plan
        for key in keys[:-1]:
            place = place[key]
        if value == "-":
            del place[keys[-1]]
        else:
            place[keys[-1]] = value

    return change


EXTRA = {"name": "extra", "kind": "input", "dtype": "int32", "shape": ["rows"], "bytes": 32}
TWINS = [{"name": name, "buffers": 3, "scalars": 1, "access": "rrw"} for name in ("embed2", "head2", "head3")]
LAUNCH = {"kernel": 3, "buffers": [6], "scalars": []}
WRONG = [
    ("version", 1, "version"),
    ("version", "-", "version"),
    ("alternatives", [[0]], "alternatives[0]"),
    ("alternatives", [[0, 0]], "alternatives[0][1]"),
    ("alternatives", [[0, 9]], "alternatives[0][1]"),
    ("alternatives", [[1, 0]], "alternatives[0][1]"),
    ("alternatives", [[2, 0]], "functions[0].launches[0].kernel"),
    ("alternatives", {"0": [0, 2]}, "alternatives"),
    ("alternatives", [0, 2], "alternatives[0]"),
    ("target", 5, "target"),
    ("variables", ["rows"], "variables"),
    ("page_tokens", 0, "page_tokens"),
    ("maxima.rows", "8", "maxima.rows"),
    ("maxima.sequences", 0, "maxima.sequences"),
    ("maxima.context", 65, "blocks_per_sequence"),
    ("vocab", 0, "vocab"),
    ("vocab", 51, "io.logits"),
    ("arenas", [1000], "buffers[7].bytes"),
    ("arenas", [-1], "arenas[0]"),
    ("arenas", [True], "arenas[0]"),
    ("arenas", [], "arenas"),
    ("arenas", [1024, 1024, 1024], "arenas"),
    ("buffers.6.arena", 1, "buffers[6].arena"),
    ("buffers.9.page_bytes", 0, "buffers[9].page_bytes"),
    ("buffers", {}, "buffers"),
    ("buffers.1.name", "token_ids", "buffers[1].name"),
    ("buffers.6.kind", "stack", "buffers[6].kind"),
    ("buffers.6.offset", 8, "buffers[6].offset"),
    ("buffers.6.offset", -256, "buffers[6].offset"),
    ("buffers.6.offset", 2048, "buffers[6].offset"),
    ("buffers.6.bytes", 0, "buffers[6].bytes"),
    ("buffers.6.bytes", 1.5, "buffers[6].bytes"),
    ("buffers.6.bytes", 2**62, "buffers[6].bytes"),
    ("buffers.5.tensor", "v", "buffers[5].tensor"),
    ("buffers.5.bytes", 545, "buffers[5].bytes"),
    ("buffers.5.start", 256, "buffers[5].bytes"),
    ("buffers.5.start", 8, "buffers[5].start"),
    ("buffers.0.bytes", 31, "buffers[0].bytes"),
    ("buffers.0.dtype", "int64", "buffers[0].dtype"),
    ("buffers.0.dtype", "float32", "io.token_ids"),
    ("buffers.0.shape", ["columns"], "buffers[0].shape[0]"),
    ("buffers.0.shape", [0], "buffers[0].shape[0]"),
    ("buffers.10.bytes", 396, "io.logits"),
    ("buffers.9", {"name": "kv2", "kind": "arena", "arena": 0, "offset": 0, "bytes": 99999}, "buffers[9].bytes"),
    ("buffers.8", EXTRA, "io"),
    ("io.positions", 0, "io.positions"),
    ("io.positions", 11, "io.positions"),
    ("io.positions", 6, "io.positions"),
    ("io.logits", 0, "io.logits"),
    ("io.logits", "-", "io.logits"),
    ("kernels.0.access", "rr", "kernels[0].access"),
    ("kernels.0.access", "rrz", "kernels[0].access"),
    ("kernels.0.buffers", 65, "kernels[0].buffers"),
    ("kernels.0.scalars", 17, "kernels[0].scalars"),
    ("functions.0.max_rows", 8, "functions[1].max_rows"),
    ("functions.1.max_rows", 9, "functions"),
    ("functions", [], "functions"),
    ("functions.0.launches.0.kernel", 4, "functions[0].launches[0].kernel"),
    ("functions.0.launches.0.buffers", [0, 5], "functions[0].launches[0].buffers"),
    ("functions.0.launches.0.buffers", [0, 5, 11], "functions[0].launches[0].buffers[2]"),
    ("functions.0.launches.0.buffers", [0, 5, -1], "functions[0].launches[0].buffers[2]"),
    ("functions.0.launches.0.scalars", [], "functions[0].launches[0].scalars"),
    ("functions.0.launches.0.scalars", ["columns"], "functions[0].launches[0].scalars[0]"),
    ("functions.0.launches.0.scalars", [2**31], "functions[0].launches[0].scalars[0]"),
    ("functions.0.launches.0.buffers", [0, 5, 5], "functions[0].launches[0].buffers[2]"),  # a weight is written
    ("functions.0.launches.0.buffers", [0, 5, 1], "functions[0].launches[0].buffers[2]"),  # an input is written
    ("functions.0.launches.1.buffers", [6, 9, 6], "functions[0].launches[1].buffers[2]"),  # read and written
    ("functions.0.launches.1.buffers", [6, 9, 8], "functions[0].launches[1].buffers[2]"),  # their ranges overlap
    ("functions.0.launches.1.buffers", [9, 9, 7], "functions[0].launches[1].buffers[1]"),
    ("functions.1.launches", [LAUNCH] * 8200, "functions"),
]


@pytest.mark.parametrize(("path", "value", "field"), WRONG, ids=[f"{p}={str(v)[:30]}" for p, v, _ in WRONG])
def test_a_wrong_field_is_named(path: str, value: Any, field: str) -> None:
    plan = copy.deepcopy(good())
    at(path, value)(plan)
    with pytest.raises(ArtifactInvalid) as e:
        parse_plan(plan, TENSORS)
    assert e.value.field == f"plan.{field}"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff"])
def test_what_is_no_plan_is_refused(text: bytes) -> None:
    with pytest.raises(ArtifactInvalid):
        parse_plan(text, TENSORS)


def test_a_weight_may_be_a_slice_of_its_tensor() -> None:
    plan = good()
    plan["buffers"][5] |= {"start": 256, "bytes": 288}
    weight = parse_plan(plan, TENSORS).buffers[5]
    assert (weight.offset, weight.bytes, weight.tensor) == (768, 288, "w")


def test_sharing_bytes_is_fine_while_nobody_writes_them() -> None:
    plan = good()
    plan["kernels"][3] |= {"buffers": 2, "access": "rr"}
    plan["functions"][0]["launches"][2]["buffers"] = [6, 8]
    parse_plan(plan, TENSORS)


def test_more_buffers_than_webgpu_binds_are_found() -> None:
    plan = good()
    plan["kernels"][3] |= {"buffers": 9, "access": "r" * 9}
    plan["functions"][0]["launches"][2]["buffers"] = [0, 1, 2, 3, 4, 5, 6, 7, 9]
    with pytest.raises(ArtifactInvalid) as e:
        check_for_webgpu(parse_plan(plan, TENSORS))
    assert e.value.field == "plan.functions[0].launches[2].buffers"
    plan["functions"][0]["launches"][2]["buffers"] = [0, 1, 2, 3, 4, 5, 6, 7, 7]
    check_for_webgpu(parse_plan(plan, TENSORS))


def for_webgpu() -> dict[str, Any]:
    """The good plan as WebGPU gets it: two arenas, workgroups and grids, keys and values of each layer apart."""
    plan = good()
    plan["arenas"] = [1024, 512]
    plan["buffers"][7] |= {"arena": 1, "offset": 0}
    plan["buffers"].append({"name": "kv.1", "kind": "kv", "page_bytes": 1024})
    for kernel in plan["kernels"]:
        kernel["workgroup"] = [64, 1, 1]
    for function in plan["functions"]:
        for launch in function["launches"]:
            launch["grid"] = [4, ["ceildiv", ["*", "rows", 3], 2], 1]
    return plan


def test_a_plan_for_webgpu_is_read_and_shown() -> None:
    plan = parse_plan(for_webgpu(), TENSORS)
    check_for_webgpu(plan)
    assert (plan.arenas, plan.arena_bytes, plan.page_bytes) == ((1024, 512), 1536, 5120)
    launch = plan.functions[0].launches[0]
    assert [extent(e, {"rows": 5}) for e in launch.grid] == [4, 8, 1]
    assert extent(("+", "rows", 2), {"rows": 5}) == 7
    assert "grid 4 x ceildiv(*(rows, 3), 2) x 1" in describe(plan)


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("kernels.0.workgroup", [64, 1], "kernels[0].workgroup"),
        ("kernels.0.workgroup", [64, 8, 1], "kernels[0].workgroup"),
        ("kernels.0.workgroup", [1, 1, 65], "kernels[0].workgroup[2]"),
        ("kernels.0.workgroup", [0, 1, 1], "kernels[0].workgroup[0]"),
        ("functions.0.launches.0.grid", "-", "functions[0].launches[0].grid"),
        ("functions.0.launches.0.grid", [1, 1], "functions[0].launches[0].grid"),
        ("functions.0.launches.0.grid", [65536, 1, 1], "functions[0].launches[0].grid[0]"),
        ("functions.0.launches.0.grid", [1, ["*", "rows", 40000], 1], "functions[0].launches[0].grid[1]"),
        ("functions.0.launches.0.grid", ["rows", 1, 1], "functions[0].launches[0].grid[0]"),
        ("functions.0.launches.0.grid", [1, "columns", 1], "functions[0].launches[0].grid[1]"),
        ("functions.0.launches.0.grid", [1, ["-", "rows", 1], 1], "functions[0].launches[0].grid[1][0]"),
        ("functions.0.launches.0.grid", [1, ["*", "rows"], 1], "functions[0].launches[0].grid[1]"),
        ("functions.0.launches.0.grid", [1, ["ceildiv", 4, 0], 1], "functions[0].launches[0].grid[1][2]"),
        ("functions.0.launches.0.grid", [1, ["ceildiv", 4, "rows"], 1], "functions[0].launches[0].grid[1][2]"),
        ("functions.0.launches.0.grid", [1, -1, 1], "functions[0].launches[0].grid[1]"),
    ],
)
def test_a_wrong_grid_is_named(path: str, value: Any, field: str) -> None:
    plan = for_webgpu()
    at(path, value)(plan)
    with pytest.raises(ArtifactInvalid) as e:
        parse_plan(plan, TENSORS)
    assert e.value.field == f"plan.{field}"


def test_what_webgpu_cannot_bind_is_found() -> None:
    def refused(change: Callable[[dict[str, Any]], None]) -> str | None:
        plan = for_webgpu()
        change(plan)
        with pytest.raises(ArtifactInvalid) as e:
            check_for_webgpu(parse_plan(plan, TENSORS))
        return e.value.field

    def one_arena(plan: dict[str, Any]) -> None:
        plan["buffers"][7] |= {"arena": 0, "offset": 512}

    assert refused(one_arena) == "plan.functions[0].launches[1].buffers"

    def large(plan: dict[str, Any]) -> None:
        plan["arenas"][0] = plan["buffers"][6]["bytes"] = 129 << 20

    assert refused(large) == "plan.functions[0].launches[0].buffers[2]"
