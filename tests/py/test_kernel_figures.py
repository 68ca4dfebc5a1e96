"""What a profile says of each kernel, by hand for a plan of four launches."""

from __future__ import annotations

from typing import Any

import pytest

from inpage_bench.kernel_figures import Peaks, StepTime, alternatives, step_time
from inpage_bench.kernels import alternatives_table, step_table, table

ARCHITECTURE = {"layers": 2, "heads": 4, "head_dim": 8}
PLAN: dict[str, Any] = {
    "page_tokens": 16,
    "kv": {"page_bytes": 6400},
    "vocab": 100,
    "kernels": [{"name": "embed_q8_0_32"}, {"name": "linear_q4_1_i8_64x32"}, {"name": "attention_i8_4_2_8"},
                {"name": "linear_q8_0_i16_100x32"}],
    "buffers": [{"kind": "weight", "bytes": 4000}, {"kind": "weight", "bytes": 1280}, {"kind": "kv"},
                {"kind": "arena", "bytes": 999}],
    "functions": [
        {
            "max_rows": 64,
            "launches": [
                {"kernel": 0, "buffers": [0, 3], "scalars": ["rows"]},
                {"kernel": 1, "buffers": [3, 1], "scalars": ["rows"]},
                {"kernel": 2, "buffers": [3, 2], "scalars": ["rows", 1]},
                {"kernel": 1, "buffers": [3, 1], "scalars": ["rows"]},
                {"kernel": 3, "buffers": [3, 0], "scalars": ["logit_rows"]},
            ],
        }
    ],
}  # fmt: skip


def profiled(rows: int, sequences: int, **more: Any) -> StepTime:
    profile = {"rows": rows, "sequences": sequences, "depth": 10, "threads": 2, "step_us": 50.0, "call_us": 1.0,
               "launch_us": [3.0, 11.0, 6.0, 21.0, 0.5]}  # fmt: skip
    return step_time(profile | more, PLAN, ARCHITECTURE)


def test_kernels_that_do_the_same_stand_beside_each_other() -> None:
    kernels = [*PLAN["kernels"], {"name": "linear_q4_1_i8_64x32_streams1"}]
    plan = PLAN | {"kernels": kernels, "alternatives": [[1, 4]]}
    names = [kernels[1]["name"], kernels[4]["name"]]
    first, second = alternatives({1: {names[0]: 4.0, names[1]: 2.0}}, plan, many=8)
    assert (first.default, second.default, first.bytes) == (True, False, 1280)
    assert first.rates(1) == pytest.approx((0.32, 2 * 64 * 32 * 8 / 4e3))
    lines = alternatives_table([first, second], Peaks({1: 6.4}, {1: 16.384})).splitlines()
    assert lines[1].split() == ["*", names[0], "4.0", "0.3", "8.2", "5", "50"]
    assert lines[2].split() == [names[1], "2.0", "0.6", "16.4", "10", "100"]


def test_bytes_and_operations_of_sequences_that_decode_together() -> None:
    step = profiled(4, 4)
    assert [k.name for k in step.kernels] == [
        "linear_q4_1_i8_64x32", "attention_i8_4_2_8", "embed_q8_0_32", "linear_q8_0_i16_100x32"]  # fmt: skip
    linear, attention, embed, head = step.kernels
    assert (linear.launches, linear.us, linear.bytes, linear.operations) == (2, 30.0, 2 * 1280, 2 * 2 * 64 * 32 * 4)
    assert linear.gbps == pytest.approx(2560 / 30 / 1e3) and linear.gops == pytest.approx(32768 / 30 / 1e3)
    # 200 bytes of KV a token and layer; 11 tokens seen by each of four rows, 32 numbers a head's query, twice.
    assert (attention.bytes, attention.operations) == (200 * 11 * 4, 4 * 4 * 8 * 11 * 4)
    assert (embed.bytes, embed.kind, embed.gops) == (4 * 40, "embedding", None)
    assert (head.kind, head.us, head.operations, head.gops) == ("head", 0.0, 2 * 100 * 32 * 4, None)
    assert [k.name for k in step.by_kind] == ["linear", "attention", "embedding", "head"]


def test_a_gpu_s_profile_says_whose_clock_it_is_and_counts_workgroups() -> None:
    groups = [20, 8, 6, 12, 100]
    lines = step_table(profiled(20, 1, clock="gpu", busy=0.934, launch_workgroups=groups)).splitlines()
    assert lines[0].startswith(
        "20 rows, by the GPU's clock, after 10 tokens: 0.05 ms a step (launches one by one 0.04 ms,"
    )
    assert lines[0].endswith("a pass of 1.0 us each taken off); gpu busy 93%")
    assert lines[2].split()[:4] == [
        "linear_q4_1_i8_64x32",
        "2",
        "12",
        "30",
    ]  # launches, workgroups of the larger one, us
    wall = step_table(profiled(20, 1, clock="wall", busy=None, launch_workgroups=groups)).splitlines()
    assert "by the wall clock" in wall[0] and "busy" not in wall[0] and "pass" not in wall[0]


def test_a_prompt_is_one_sequence_and_gets_one_row_of_logits() -> None:
    kernels = {k.name: k for k in profiled(20, 1).kernels}
    assert kernels["linear_q8_0_i16_100x32"].operations == 2 * 100 * 32
    assert kernels["attention_i8_4_2_8"].operations == 4 * 4 * 8 * (10 + 21 / 2) * 20
    assert kernels["attention_i8_4_2_8"].bytes == 200 * 30


def test_the_tables_say_it_with_the_peaks() -> None:
    step = profiled(4, 4)
    peaks = Peaks.from_results({"environment": {"peaks": {"read_gbps": {"2": 0.5}, "dot_gops": {"2": 2.0}}}})
    line = table([step], peaks).splitlines()[2]
    assert line.split() == ["4", "2", "15.00", "0.1", "1.1", "17", "55"]
    assert table([step]).splitlines()[2].split() == ["4", "2", "15.00", "0.1", "1.1"]
    assert Peaks.from_results({"environment": {"peaks": None}}) is None
    said = step_table(step).splitlines()
    assert said[0] == "4 rows, 2 threads, after 10 tokens: 0.05 ms a step (launches one by one 0.04 ms)"
    assert said[2].split() == ["linear_q4_1_i8_64x32", "2", "30", "15.00", "81.1%", "0.1", "1.1"]
