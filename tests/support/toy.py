"""A toy model on handwritten C kernels: an artifact that the native engine runs, and what it must answer.

Its logits depend on every token so far, through KV pages and twenty dependent launches; the reference is plain Python.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inpage.engines.native_trust import RECORD, STAMPS, stamp
from inpage.format.manifest import parse_manifest, revision_of
from inpage.format.schema import Manifest
from inpage_compile.targets.link import link_native

KERNELS_C = Path(__file__).with_name("toy_kernels.c")
VOCAB, LANES, PAGE, MIXES = 97, 8, 16, 20
BLOCKS = 1024
CONTEXT = BLOCKS * PAGE
ROWS, SEQUENCES, LOGIT_ROWS = 24, 6, 8
_MASK = 0xFFFFFFFF


@functools.cache
def toy_library() -> bytes:
    """kernels.so of the toy kernels."""
    with tempfile.TemporaryDirectory() as folder:
        return link_native([], KERNELS_C, Path(folder) / "kernels.so").read_bytes()


def salt() -> npt.NDArray[np.float32]:
    """The only weights: a value added to each logit."""
    return np.random.default_rng(7).uniform(-1, 1, 4096).astype(np.float32)


def toy_plan(window: int | None = None) -> dict[str, Any]:
    """plan.json: two functions with the same launches, for up to 4 rows and for all. ``window``: a second layer, which
    sees so many tokens, has a group of its own."""
    blocks = BLOCKS if window is None else 2 * BLOCKS
    inputs = {"token_ids": ["rows"], "positions": ["rows"], "row_sequence": ["rows"],
              "block_tables": ["sequences", blocks], "logit_rows": ["logit_rows"]}  # fmt: skip
    most = {"rows": ROWS, "sequences": SEQUENCES, "logit_rows": LOGIT_ROWS}
    buffers: list[dict[str, Any]] = []
    for name, shape in inputs.items():
        size = 4 * int(np.prod([most[d] if isinstance(d, str) else d for d in shape]))
        buffers.append({"name": name, "kind": "input", "dtype": "int32", "shape": shape, "bytes": size})
    state = ROWS * LANES * 4
    buffers += [
        {"name": "kv", "kind": "kv", "page_bytes": 4 * PAGE},
        {"name": "s0", "kind": "arena", "arena": 0, "offset": 0, "bytes": state},
        {"name": "s1", "kind": "arena", "arena": 0, "offset": 1024, "bytes": state},
        {"name": "salt", "kind": "weight", "tensor": "output_norm", "bytes": 4096 * 4},
        {"name": "logits", "kind": "output", "bytes": 4 * LOGIT_ROWS * VOCAB},
    ]
    launches: list[dict[str, Any]] = [
        {"kernel": 0, "buffers": [0, 1, 2, 3, 5], "scalars": ["rows", blocks, 0]},
        {"kernel": 1, "buffers": [1, 2, 3, 5, 6], "scalars": ["rows", blocks]},
    ]
    if window is not None:
        launches += [
            {"kernel": 0, "buffers": [0, 1, 2, 3, 5], "scalars": ["rows", blocks, BLOCKS]},
            {"kernel": 5, "buffers": [1, 2, 3, 5, 6], "scalars": ["rows", blocks, BLOCKS, window]},
        ]
    for i in range(MIXES):
        launches.append({"kernel": 2, "buffers": [6 + i % 2, 7 - i % 2], "scalars": ["rows", i]})
    launches.append({"kernel": 3, "buffers": [6, 4, 8, 9], "scalars": ["logit_rows", VOCAB]})
    groups = [
        {"layers": [0], "page_tokens": PAGE, "window": None},
        {"layers": [1], "page_tokens": PAGE, "window": window},
    ]
    return {
        **({} if window is None else {"kv_groups": groups}),
        "version": 2,
        "target": "native",
        "page_tokens": PAGE,
        "maxima": {"rows": ROWS, "sequences": SEQUENCES, "logit_rows": LOGIT_ROWS, "context": CONTEXT},
        "blocks_per_sequence": blocks,
        "variables": ["rows", "sequences", "logit_rows"],
        "arenas": [2048],
        "vocab": VOCAB,
        "buffers": buffers,
        "io": {"token_ids": 0, "positions": 1, "row_sequence": 2, "block_tables": 3, "logit_rows": 4, "logits": 9},
        "kernels": [
            {"name": "append", "buffers": 5, "scalars": 3, "access": "rrrrx"},
            {"name": "digest", "buffers": 5, "scalars": 2, "access": "rrrrw"},
            {"name": "mix", "buffers": 2, "scalars": 2, "access": "rw"},
            {"name": "logits", "buffers": 4, "scalars": 2, "access": "rrrw"},
            {"name": "scratch", "buffers": 1, "scalars": 1, "access": "w"},
            {"name": "slide", "buffers": 5, "scalars": 4, "access": "rrrrx"},
        ],
        "functions": [
            {"name": "decode", "max_rows": 4, "launches": _some_serial(launches)},
            {"name": "prefill", "max_rows": ROWS, "launches": launches},
        ],
    }


def _some_serial(launches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the mixes, each of which needs all of the one before: one, two and three in a row, among shared ones."""
    serial = (4, 7, 8, 12, 13, 14)
    mixes = [i for i, launch in enumerate(launches) if launch["kernel"] == 2]
    return [launch | {"serial": i in [mixes[k] for k in serial]} for i, launch in enumerate(launches)]


def write_toy(folder: Path, window: int | None = None, kernels: bytes | None = None) -> Manifest:
    """Write the toy artifact, in several shards. ``kernels``: in the place of the toy's."""
    files = {"native/plan.json": json.dumps(toy_plan(window)).encode(), "native/kernels.so": kernels or toy_library()}
    space, step = salt().tobytes(), 4096
    shards = []
    for i in range(0, len(space), step):
        name = f"weights/{i // step:05}.bin"
        files[name] = space[i : i + step]
        shards.append({"file": name, "offset": i, "bytes": step, "sha256": _sha(files[name])})
    files["tokenizer.json"] = b"{}"
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def ref(name: str) -> dict[str, Any]:
        return {"file": name, "bytes": len(files[name]), "sha256": _sha(files[name])}

    variant = {"name": "native", "backend": "native", "requires": []}
    variant |= {"plan": ref("native/plan.json"), "kernels": ref("native/kernels.so")}
    manifest: dict[str, Any] = {
        "schema": 1,
        "id": "toy",
        "name": "Toy",
        "license": {"id": "Apache-2.0", "notices": "NOTICES.txt"},
        "source": {"kind": "gguf", "ref": "toy", "file": "toy.gguf", "sha256": _sha(b"")},
        "architecture": {"family": "llama", "layers": 1 if window is None else 2, "hidden": 4096, "heads": 1,
                         "kv_heads": 1, "head_dim": 16, "ffn": 16, "vocab": VOCAB, "rope_theta": 1e4, "norm_eps": 1e-5,
                         "tied": True, "context": CONTEXT},
        "tokenizer": ref("tokenizer.json") | {"bos": None, "eos": [2], "add_bos": False, "special": {}},
        "chat_template": None,
        "formats": {"f32": {"type": "float", "bits": 32, "group": 1, "scale": None, "min": None, "zero": 0}},
        "tensors": [{"name": "output_norm", "shape": [4096], "format": "f32", "layout": "raw", "offset": 0,
                     "bytes": len(space)}],
        "weights": {"bytes": len(space), "shards": shards},
        "variants": [variant],
    }  # fmt: skip
    manifest["revision"] = revision_of(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    digest = _sha(files["native/kernels.so"])
    (folder / RECORD).write_text(json.dumps({STAMPS: {digest: stamp(digest)}}))  # as the compiler leaves it
    return parse_manifest(manifest)


def toy_logits(tokens: Sequence[int], window: int = 0) -> npt.NDArray[np.float32]:
    """Logits after the last of ``tokens``, float32 [VOCAB]."""
    seen = range(max(0, len(tokens) - window), len(tokens))
    slid = sum((tokens[p] + 3) * 3266489917 * (2 * p + 1) for p in seen)
    state = [
        (slid + sum((t + 1) * 2654435761 * (2 * p + 1) + lane for p, t in enumerate(tokens))) & _MASK
        for lane in range(LANES)
    ]
    for i in range(MIXES):
        state = [(_rotl(state[k], 7) + state[(k + 1) % LANES] * 2246822519 + i) & _MASK for k in range(LANES)]
    hashes = [_rotl(state[v % LANES] * 2654435761 & _MASK, 13) * (2 * v + 1) & _MASK for v in range(VOCAB)]
    scaled = np.array([h >> 8 for h in hashes], np.float32) * np.float32(16 / 16777216)
    return scaled - np.float32(8) + salt()[:VOCAB]


def toy_greedy(prompt: Sequence[int], n: int, window: int = 0) -> list[int]:
    """The next ``n`` tokens after ``prompt``."""
    tokens = list(prompt)
    for _ in range(n):
        tokens.append(int(np.argmax(toy_logits(tokens, window))))
    return tokens[len(prompt) :]


def _rotl(x: int, n: int) -> int:
    return (x << n | x >> (32 - n)) & _MASK


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
