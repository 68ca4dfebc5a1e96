"""`inpage plan`: bytes, operations and workgroups of a small plan's launches, against numbers worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inpage.cli import main
from inpage.format.manifest import revision_of
from support.corpus import corpus

ROWS, CONTEXT = 8, 256
WORDS = {"kind": "input", "dtype": "int32"}
# The corpus's model has 4 query heads and 2 key heads of 16, so a token's keys and values are 2 · 2 · 16 halves.
PLAN: dict[str, Any] = {
    "version": 2, "target": "webgpu-f32", "page_tokens": 16, "blocks_per_sequence": 16, "vocab": 32,
    "maxima": {"rows": ROWS, "sequences": 1, "logit_rows": 2, "context": CONTEXT},
    "variables": ["rows", "sequences", "logit_rows"], "arenas": [4096, 12288],
    "buffers": [
        {"name": "token_ids", **WORDS, "shape": ["rows"], "bytes": 32},
        {"name": "positions", **WORDS, "shape": ["rows"], "bytes": 32},
        {"name": "row_sequence", **WORDS, "shape": ["rows"], "bytes": 32},
        {"name": "block_tables", **WORDS, "shape": ["sequences", 16], "bytes": 64},
        {"name": "logit_rows", **WORDS, "shape": ["logit_rows"], "bytes": 8},
        {"name": "matrix", "kind": "weight", "tensor": "token_embd", "bytes": 1280},
        {"name": "x", "kind": "arena", "arena": 0, "offset": 0, "bytes": ROWS * 256},
        {"name": "qkv", "kind": "arena", "arena": 1, "offset": 0, "bytes": ROWS * 512},
        # Of each row 2 counters and two spans of 128 tokens: of each of 4 heads 16 values, a maximum and a sum.
        {"name": "state", "kind": "arena", "arena": 1, "offset": 4096, "bytes": ROWS * (2 + 2 * 4 * (16 + 2)) * 4},
        {"name": "kv.0", "kind": "kv", "page_bytes": 16 * 2 * 2 * 16 * 2},
        {"name": "logits", "kind": "output", "bytes": 256},
        {"name": "y", "kind": "arena", "arena": 0, "offset": 2048, "bytes": ROWS * 256},
    ],
    "io": {"token_ids": 0, "positions": 1, "row_sequence": 2, "block_tables": 3, "logit_rows": 4, "logits": 10},
    "kernels": [
        {"name": "embed", "buffers": 3, "scalars": 1, "access": "rrw", "workgroup": [64, 1, 1]},
        {"name": "linear", "buffers": 3, "scalars": 1, "access": "rrw", "workgroup": [64, 1, 1]},
        {"name": "attention_spans", "buffers": 7, "scalars": 1, "access": "xrrrrxw", "workgroup": [64, 1, 1]},
        {"name": "clear_state", "buffers": 2, "scalars": 1, "access": "rw", "workgroup": [64, 1, 1]},
    ],
    "functions": [{"name": "prefill", "max_rows": ROWS, "launches": [
        {"kernel": 0, "buffers": [0, 5, 6], "scalars": ["rows"], "grid": [1, "rows", 1]},
        {"kernel": 1, "buffers": [6, 5, 7], "scalars": ["rows"], "grid": [2, ["ceildiv", "rows", 2], 1]},
        {"kernel": 3, "buffers": [1, 8], "scalars": ["rows"], "grid": [1, "rows", 1]},
        {"kernel": 2, "buffers": [7, 1, 2, 3, 9, 8, 11], "scalars": ["rows"], "grid": [4, "rows", 1]},
    ]}],
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    hash_ = "ab" * 32
    files = {name: {"file": f"webgpu-f32/{name}", "bytes": 2, "sha256": hash_} for name in ("plan", "kernels")}
    variant = {"name": "webgpu-f32", "backend": "webgpu", "requires": ["webgpu"], **files}
    manifest = corpus("manifest")["good"]
    for part in ("graph", "mlc"):
        del manifest[part]
    manifest["variants"].append(variant)
    manifest["revision"] = revision_of(manifest)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "webgpu-f32").mkdir()
    (tmp_path / "webgpu-f32" / "plan").write_text(json.dumps(PLAN))
    return tmp_path


def test_costs_are_those_worked_out_by_hand(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--context", "130", "--rows", "3", "--bandwidth", "0.001", "--speed", "0.001", "--dispatch", "2"]
    assert main(["plan", str(model), *options, "--json"]) == 0
    one, three = json.loads(capsys.readouterr().out)["steps"]
    assert (one["rows"], three["rows"], three["before"]) == (1, 3, 130)
    embed, linear, clear, attention = three["kernels"]
    assert embed["read"] == 3 * 4 + 3 * 1280 // 32  # three ids, and a row of the matrix for each
    assert linear == {
        "kernel": "linear",
        "dispatches": 1,
        "workgroups": 2 * 2,
        "read": 3 * 256 + 1280,
        "written": 3 * 512,
        "operations": 2 * 32 * 64 * 3,
        "loads": 2,
        "loaded": 2 * 1280 + 2 * 3 * 256,
        "seconds": pytest.approx(12288 / 1e9 + 2e-6),
    }
    # 133 tokens' keys and values of 128 bytes and 9 pages' numbers; each row's two spans are written, read and cleared.
    spans, pages = 3 * 2 * 4 * 18 * 4, 9 * 4
    assert attention["read"] == 3 * 512 + 2 * 3 * 4 + pages + 133 * 128 + spans
    assert attention["written"] == 2 * spans + 3 * 256
    assert (clear["read"], clear["written"]) == (3 * 4, 3 * 2 * 4 + spans)
    assert attention["operations"] == 4 * 4 * 16 * (131 + 132 + 133)
    assert attention["seconds"] == pytest.approx(101376 / 1e9 + 2e-6)


def test_the_table_and_what_it_refuses(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(model), "--context", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[4:9]] == ["embed", "linear", "clear_state", "attention_spans", "all"]
    assert lines[5].split()[1:4] == ["1", "2", "×1"]
    for options, word in (
        (["--context", "250"], "--context 250 is not in 0..248"),
        (["--rows", "9"], "--rows 9 is not in 1..8"),
        (["--bandwidth", "nan"], "--bandwidth nan"),
        (["--variant", "wasm-simd"], "there are: webgpu-f32"),
    ):
        assert main(["plan", str(model), *options]) == 1
        assert word in capsys.readouterr().err
