"""Build the artifact of the engine tests: ``python synthetic.py OUT``. A model of integer weights behind the real
runtime and linker; kernels.c says what it computes. Deterministic, so its files can be compared and cached.

Beside manifest.json lies manifest-webgpu.json, which has a second variant: the same model in WGSL (kernels.wgsl); and
manifest-choice0.json, …1, …2: one kernel has two alternatives that are slow, and the fast one stands first, second or
third among them."""

from __future__ import annotations

import hashlib
import json
import random
import struct
import sys
from pathlib import Path
from typing import Any

from inpage_compile.targets.link import link_wasm

VOCAB, ROWS, SEQUENCES, LOGIT_ROWS, CONTEXT, PAGE_TOKENS, BLOCKS = 64, 32, 4, 32, 128, 16, 8
ARCHITECTURE = {
    "family": "llama", "layers": 1, "hidden": 16, "heads": 1, "kv_heads": 1, "head_dim": 16, "ffn": 16, "vocab": VOCAB,
    "rope_theta": 1e4, "norm_eps": 1e-5, "tied": True, "context": CONTEXT,
}  # fmt: skip
SHARD = 400_128  # a multiple of 256, long enough to be cut off in the middle
PADDING = 4 * SHARD - 8192  # the table straddles the last two shards
VARIABLES = ["rows", "sequences", "logit_rows"]


def weights() -> tuple[bytes, list[dict[str, Any]]]:
    """The weight space and its tensors: padding first, so that the table lies in a late shard."""
    rng = random.Random(7)
    table = struct.pack(f"<{VOCAB * VOCAB}f", *(rng.randrange(-8, 9) for _ in range(VOCAB * VOCAB)))
    # The last two tokens misbehave (kernels.c), so they never win.
    biases = [rng.randrange(-3, 4) for _ in range(VOCAB - 2)] + [-100_000, -100_000]
    bias = struct.pack(f"<{VOCAB}f", *biases)
    parts = [("padding", rng.randbytes(PADDING)), ("table", table), ("bias", bias)]
    tensors, space = [], b""
    for name, data in parts:
        tensors.append({"name": name, "shape": [len(data) // 4], "format": "f32", "layout": "raw",
                        "offset": len(space), "bytes": len(data)})  # fmt: skip
        space += data
    return space, tensors


def plan() -> dict[str, Any]:
    """Buffers by id: 0-4 inputs, 5 logits, 6 kv, 7 table, 8 bias, 9 sums."""
    inputs = [("token_ids", ROWS), ("positions", ROWS), ("row_sequence", ROWS),
              ("block_tables", SEQUENCES * BLOCKS), ("logit_rows", LOGIT_ROWS)]  # fmt: skip
    buffers: list[dict[str, Any]] = [
        {"name": name, "kind": "input", "dtype": "int32", "shape": [n], "bytes": 4 * n} for name, n in inputs
    ]
    wide = {"dtype": "float32", "shape": ["logit_rows", VOCAB], "bytes": 4 * LOGIT_ROWS * VOCAB}
    buffers += [
        {"name": "logits", "kind": "output", **wide},
        {"name": "kv", "kind": "kv", "page_bytes": 256},
        {"name": "table", "kind": "weight", "tensor": "table", "bytes": 4 * VOCAB * VOCAB},
        {"name": "bias", "kind": "weight", "tensor": "bias", "bytes": 4 * VOCAB},
        {"name": "sums", "kind": "arena", "arena": 0, "offset": 256, **wide},
    ]
    launches: list[dict[str, Any]] = [
        {"kernel": 0, "buffers": [0, 1, 2, 3, 6], "scalars": ["rows"]},
        {"kernel": 1, "buffers": [0], "scalars": []},
        {"kernel": 2, "buffers": [1, 2, 3, 6, 4, 7, 9], "scalars": ["logit_rows"]},
        {"kernel": 3, "buffers": [9, 8, 5], "scalars": ["logit_rows", VOCAB]},
    ]
    names = [("store", "rrrrw"), ("misbehave", "r"), ("accumulate", "rrrrrrw"), ("add_bias", "rrw")]
    return {
        "version": 2,
        "target": "wasm-simd",
        "page_tokens": PAGE_TOKENS,
        "maxima": {"rows": ROWS, "sequences": SEQUENCES, "logit_rows": LOGIT_ROWS, "context": CONTEXT},
        "blocks_per_sequence": BLOCKS,
        "variables": VARIABLES,
        "arenas": [256 + 4 * LOGIT_ROWS * VOCAB],
        "vocab": VOCAB,
        "buffers": buffers,
        "io": {"token_ids": 0, "positions": 1, "row_sequence": 2, "block_tables": 3, "logit_rows": 4, "logits": 5},
        "kernels": [
            {"name": name, "buffers": len(access), "scalars": len(launch["scalars"]), "access": access}
            for (name, access), launch in zip(names, launches, strict=True)
        ],
        "functions": [
            {"name": "decode", "max_rows": 4, "launches": launches},
            {"name": "prefill", "max_rows": ROWS, "launches": launches},
        ],
    }


def choice_plan(first: int) -> dict[str, Any]:
    """The fast kernel in place ``first`` of three."""
    p, (fast, slow, slower) = plan(), (2, 4, 5)
    order = [slow, slower]
    order.insert(first, fast)
    same = p["kernels"][fast]
    launches = [launch | {"kernel": order[0]} if launch["kernel"] == fast else launch
                for launch in p["functions"][0]["launches"]]  # fmt: skip
    return p | {
        "kernels": [*p["kernels"], same | {"name": "accumulate_slow"}, same | {"name": "accumulate_slower"}],
        "alternatives": [order],
        "functions": [f | {"launches": launches} for f in p["functions"]],
    }


def webgpu_plan() -> dict[str, Any]:
    """The same buffers, the sums in the second arena; nothing misbehaves."""
    p = plan()
    store, _, accumulate, add_bias = p["functions"][0]["launches"]
    p["buffers"][9] |= {"arena": 1}
    launches = [
        store | {"kernel": 0, "grid": [1, "rows", 1]},
        accumulate | {"kernel": 1, "grid": [1, ["ceildiv", ["*", "logit_rows", 2], 2], 1]},
        add_bias | {"kernel": 2, "grid": [["ceildiv", VOCAB, 64], "logit_rows", 1]},
    ]
    workgroups = {"store": [1, 1, 1], "accumulate": [64, 1, 1], "add_bias": [64, 1, 1]}
    return p | {
        "target": "webgpu-f32",
        "arenas": [256, *p["arenas"]],
        "kernels": [k | {"workgroup": workgroups[k["name"]]} for k in p["kernels"] if k["name"] in workgroups],
        "functions": [f | {"launches": launches} for f in p["functions"]],
    }


def write(out: Path, name: str, data: bytes) -> dict[str, Any]:
    """A file of the artifact and its manifest entry."""
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {"file": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def main(out: Path) -> None:
    space, tensors = weights()
    shards = [
        {"offset": at, **write(out, f"weights/{i:05}.bin", space[at : at + SHARD])}
        for i, at in enumerate(range(0, len(space), SHARD))
    ]
    kernels = link_wasm([], Path(__file__).with_name("kernels.c"), out / "kernels.linked", relaxed=False)
    variant = {
        "name": "wasm-simd",
        "backend": "wasm",
        "requires": ["simd128"],
        "plan": write(out, "wasm-simd/plan.json", json.dumps(plan()).encode()),
        "kernels": write(out, "wasm-simd/kernels.wasm", kernels.read_bytes()),
    }
    kernels.unlink()
    wgsl = Path(__file__).with_name("kernels.wgsl").read_bytes()
    webgpu = {
        "name": "webgpu-f32",
        "backend": "webgpu",
        "requires": ["webgpu"],
        "plan": write(out, "webgpu-f32/plan.json", json.dumps(webgpu_plan()).encode()),
        "kernels": write(out, "webgpu-f32/kernels.wgsl", wgsl),
    }
    # As an engine reads it: whole.py makes it one that the router takes too.
    manifest = {
        "schema": 1,
        "id": "synthetic",
        "name": "Synthetic",
        "revision": "0" * 64,
        "license": {"id": "Apache-2.0", "notices": "NOTICES.txt"},
        "source": {"kind": "gguf", "ref": "synthetic", "file": "synthetic.gguf", "sha256": "0" * 64},
        "architecture": ARCHITECTURE,
        "tokenizer": {
            "file": "tokenizer.json",
            "bytes": 1,
            "sha256": "0" * 64,
            "bos": 1,
            "eos": [2],
            "add_bos": False,
            "special": {},
        },
        "formats": {"f32": {"type": "float", "bits": 32, "group": 1, "scale": None, "min": None, "zero": 0}},
        "tensors": tensors,
        "weights": {"bytes": len(space), "shards": shards},
        "variants": [variant],
    }
    for first in range(3):
        own = write(out, f"wasm-simd/choice{first}.json", json.dumps(choice_plan(first)).encode())
        content = manifest | {"variants": [variant | {"plan": own}]}
        (out / f"manifest-choice{first}.json").write_text(json.dumps(content, indent=1))
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1))
    (out / "manifest-webgpu.json").write_text(json.dumps(manifest | {"variants": [variant, webgpu]}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
