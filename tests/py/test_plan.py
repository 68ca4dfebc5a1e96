"""plan.json: what is accepted, how it is encoded and shown, and that every field that can be wrong is named."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from inpage.engines.block_tables import first_columns, page_sizes
from inpage.errors import ArtifactInvalid
from inpage.format.plan import parse_plan
from inpage.format.plan_types import extent
from inpage.format.plan_views import check_for_webgpu, describe, encode_program
from inpage.format.schema import Tensor
from support.corpus import case_id, changed, corpus

CORPUS = corpus("plan")
TENSORS = [Tensor(**{**t, "shape": tuple(t["shape"])}) for t in CORPUS["tensors"]]
TWINS = [{"name": name, "buffers": 3, "scalars": 1, "access": "rrw"} for name in ("embed2", "head2", "head3")]


def good() -> dict[str, Any]:
    return copy.deepcopy(CORPUS["good"]["wasm"])  # type: ignore[no-any-return]


def for_webgpu() -> dict[str, Any]:
    """The good plan as WebGPU gets it: two arenas, workgroups and grids, keys and values of each layer apart."""
    return copy.deepcopy(CORPUS["good"]["webgpu"])  # type: ignore[no-any-return]


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


def test_a_serial_launch_is_marked_in_the_program_and_shown() -> None:
    content = good()
    before = encode_program(parse_plan(content, TENSORS)).tolist()
    content["functions"][0]["launches"][1]["serial"] = True
    plan = parse_plan(content, TENSORS)
    changes = [(a, b) for a, b in zip(before, encode_program(plan).tolist(), strict=True) if a != b]
    assert changes == [(1, 0x10001)]
    assert [line.split()[1] for line in describe(plan).splitlines() if line.endswith(", serial")] == ["attend(rows,"]


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


@pytest.mark.parametrize("case", CORPUS["fine"])
def test_layers_stand_in_groups_with_block_tables_of_their_own(case: dict[str, Any]) -> None:
    plan = copy.deepcopy(CORPUS["good"][case["of"]])
    plan |= {"kv_groups": case["kv_groups"], "blocks_per_sequence": case["blocks_per_sequence"]}
    plan["buffers"][plan["io"]["block_tables"]]["bytes"] = 8 * case["blocks_per_sequence"]
    read, without = parse_plan(plan, TENSORS), parse_plan(CORPUS["good"][case["of"]], TENSORS)
    assert without.kv_groups == ()
    if "same_as_none" in case:
        assert read == without
    else:
        assert [asdict(g) | {"layers": [*g.layers]} for g in read.kv_groups] == case["kv_groups"]
        sizes = page_sizes(read.page_tokens, read.kv_groups)
        assert first_columns(read.maxima.context, sizes) == case["columns"]
        assert "layers 0: pages of 16 tokens, 63 tokens seen" in describe(read) or len(sizes) == 3
    with pytest.raises(ArtifactInvalid) as e:
        parse_plan(plan | {"blocks_per_sequence": case["blocks_per_sequence"] - 1}, TENSORS)
    assert e.value.field == "plan.blocks_per_sequence"


def test_an_encoders_plan_has_no_kv_cache() -> None:
    encoder = CORPUS["encoder"]
    plan = functools.reduce(changed, encoder["changes"], CORPUS["good"][encoder["of"]])
    made = parse_plan(plan, TENSORS)
    assert (made.paged, made.width, made.vocab, made.page_bytes) == (False, 25, 50, 0)
    for case in encoder["bad"]:
        with pytest.raises(ArtifactInvalid) as caught:
            parse_plan(changed(plan, case), TENSORS)
        assert caught.value.field == case["field"]


@pytest.mark.parametrize("case", CORPUS["bad"], ids=case_id)
def test_a_wrong_field_is_named(case: dict[str, Any]) -> None:
    with pytest.raises(ArtifactInvalid) as e:
        parse_plan(changed(CORPUS["good"][case["of"]], case), TENSORS)
    assert e.value.field == case["field"]


def test_a_whole_number_may_be_written_with_a_point() -> None:
    """As JavaScript reads it: its 1.0 is 1."""
    assert parse_plan(good() | {"page_tokens": 16.0}, TENSORS) == parse_plan(good(), TENSORS)


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


def test_a_plan_for_webgpu_is_read_and_shown() -> None:
    plan = parse_plan(for_webgpu(), TENSORS)
    check_for_webgpu(plan)
    assert (plan.arenas, plan.arena_bytes, plan.page_bytes) == ((1024, 512), 1536, 5120)
    launch = plan.functions[0].launches[0]
    assert [extent(e, {"rows": 5}) for e in launch.grid] == [4, 8, 1]
    assert extent(("+", "rows", 2), {"rows": 5}) == 7
    assert "grid 4 x ceildiv(*(rows, 3), 2) x 1" in describe(plan)


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
