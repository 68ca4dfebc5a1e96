"""Write the work that kernels for WebGPU fuse, twice: as the product's kernels do it, and in a dispatch for each part.

``python gpu_fusion.py OUT`` makes ``fusion.json``, ``fusion.bin`` and ``fusion.wgsl`` in `gpu_cases`' format, at the
shapes of SmolLM2-135M. `tests/support/gpu_fusion.mjs` times them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from gpu_cases import describe
from gpu_content import Array, Case
from kernel_cases import Blob
from tvm import tirx

from inpage_compile.kernels.shared.heads import PAGE, Heads
from inpage_compile.kernels.shared.packed import PackedMatrix
from inpage_compile.kernels.webgpu import attention as attn
from inpage_compile.kernels.webgpu import linear
from inpage_compile.kernels.webgpu.attention_tiles import attention
from inpage_compile.kernels.webgpu.build import (
    Args,
    call,
    f32,
    kernel,
    let,
    splat,
    store,
    when,
)
from inpage_compile.kernels.webgpu.linear import Input
from inpage_compile.kernels.webgpu.pages import Into
from inpage_compile.kernels.webgpu.rows import norm
from inpage_compile.quantize import FORMATS
from inpage_compile.targets.webgpu import shaders
from support.weights import packed, random_weights

HIDDEN, FFN, VOCAB, EPSILON = 576, 1536, 49152, 1e-5
HEADS = Heads(9, 3, 64, 1, 512, 8, 64)
QKV = (HEADS.heads + 2 * HEADS.kv_heads) * HEADS.dim
POSITIONS = (100, 900)  # of the last token: a context of one span of attention, and of eight
THREADS = 64

Launch = tuple[tirx.PrimFunc, list[str], list[int]]


@dataclass
class Pair:
    """The same work ``fused`` and ``apart``. The product's is the fused one, but for attention over few rows and the
    head's norm. Both leave the same in ``outputs``, by name and type."""

    name: str
    rows: int
    fused: list[Launch]
    apart: list[Launch]
    outputs: dict[str, str]


@cache
def silu() -> tirx.PrimFunc:
    """(both, rows → h): h[rows, FFN] = silu(gate) · up, of gate and up interleaved by 16."""
    quads = FFN // 4

    def build(a: Args) -> None:
        both = a.buffer("both", "float32x4")
        a.scalar("rows")
        h = a.buffer("h", "float32x4", "w")
        with a.workgroups(-(-quads // THREADS), "rows", THREADS) as (bx, row, t):
            quad = let(bx * THREADS + t)
            with when(quad < quads):
                at = let(row * 2 * quads + quad // 4 * 8 + quad % 4)
                gate = let(both[at])
                store(h, gate / (splat(1.0) + call("float32x4", "exp", -gate)) * both[at + 4], row * quads + quad)

    return kernel("silu", build)


@cache
def add() -> tirx.PrimFunc:
    """(part, y, rows): y[rows, HIDDEN] += part."""
    quads = HIDDEN // 4

    def build(a: Args) -> None:
        part, y = a.buffer("part", "float32x4"), a.buffer("y", "float32x4", "x")
        a.scalar("rows")
        with a.workgroups(-(-quads // THREADS), "rows", THREADS) as (bx, row, t):
            quad = let(bx * THREADS + t)
            with when(quad < quads):
                store(y, y[row * quads + quad] + part[row * quads + quad], row * quads + quad)

    return kernel("add", build)


@cache
def nothing() -> tirx.PrimFunc:
    """(y, rows): one word written by one small workgroup: what is left is the dispatch."""

    def build(a: Args) -> None:
        y = a.buffer("y", "float32", "x")
        a.scalar("rows")
        with a.workgroups(1, 1, 1) as (_, row, t):
            store(y, f32(1.0), row + t)

    return kernel("nothing", build)


MATRICES = {
    "w_qkv": PackedMatrix(FORMATS["q4_1"], QKV, HIDDEN),
    "w_q": PackedMatrix(FORMATS["q4_1"], HIDDEN, HIDDEN),
    "w_k": PackedMatrix(FORMATS["q4_1"], HEADS.kv_heads * HEADS.dim, HIDDEN),
    "w_v": PackedMatrix(FORMATS["q4_1"], HEADS.kv_heads * HEADS.dim, HIDDEN),
    "w_out": PackedMatrix(FORMATS["q4_1"], HIDDEN, HIDDEN),
    "w_gate_up": PackedMatrix(FORMATS["q4_1"], 2 * FFN, HIDDEN),
    "w_down": PackedMatrix(FORMATS["q4_1"], HIDDEN, FFN),
    "w_head": PackedMatrix(FORMATS["q8_0"], VOCAB, HIDDEN),
}
WHERE = ["positions", "row_sequence", "block_tables"]


@cache
def buffers(rows: int, position: int) -> tuple[dict[str, Array | None], dict[str, int]]:
    """What all pairs work on; and the bytes of buffers that hold nothing before."""
    rng = np.random.default_rng(7)
    made: dict[str, Array | None] = {}
    for name, w in MATRICES.items():
        if name not in ("w_q", "w_k", "w_v"):
            form = next(form for form, known in FORMATS.items() if known == w.format)
            made[name] = packed(random_weights(rng, form, w.rows, w.columns)).view(np.uint32)
    qkv, first = made["w_qkv"], 0
    assert qkv is not None
    for name in ("w_q", "w_k", "w_v"):  # blocks of rows, one after another
        words = qkv.size * MATRICES[name].rows // QKV
        made[name] = qkv.reshape(-1)[first : first + words]
        first += words

    def floats(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    angles = rng.uniform(0, 6, (rows, HEADS.dim // 2))
    made |= {
        "x": floats(rows, HIDDEN), "y": floats(rows, HIDDEN), "norm": floats(HIDDEN), "h": floats(rows, FFN),
        "attended": floats(rows, HIDDEN), "normed": floats(rows, HIDDEN), "qkv": floats(rows, QKV),
        "pick": np.arange(rows, dtype=np.int32), "q": floats(rows, HEADS.heads * HEADS.dim),
        "table": np.stack([np.cos(angles), np.sin(angles)], axis=2).astype(np.float32),
        "positions": np.full(rows, position, np.int32), "row_sequence": np.arange(rows, dtype=np.int32),
        "block_tables": np.arange(HEADS.pages, dtype=np.int32).reshape(HEADS.sequences, HEADS.blocks),
        "kv": (rng.standard_normal((HEADS.pages, attn.page_words(HEADS) * 2))).astype(np.float16).view(np.uint32),
    }  # fmt: skip
    tables = made["block_tables"]
    assert tables is not None
    made["slots"] = tables[:rows, position // PAGE] * PAGE + position % PAGE
    made["state"] = np.zeros((rows, attn.row_words(HEADS)), np.uint32)
    sizes = {"both": rows * 2 * FFN * 4, "part": rows * HIDDEN * 4, "logits": VOCAB * 4}
    return made | dict.fromkeys(sizes), sizes


def pairs(rows: int) -> Iterator[Pair]:
    tile = 1 if rows == 1 else 4
    raw, normed = Input("float32"), Input("float32", EPSILON)

    def multiply(w: str, x: str, y: str, source: Input = raw, **more: Any) -> Launch:
        func = linear.linear(MATRICES[w], tile, source, "float32", **more)
        return func, [x, w, *(["norm"] if source.epsilon is not None else []), y], [rows]

    normalize: Launch = (norm(HIDDEN, EPSILON), ["x", "pick", "norm", "normed"], [rows])

    def gated(x: str, source: Input) -> Launch:
        names = [x, "w_gate_up", *(["norm"] if source.epsilon is not None else []), "h"]
        return linear.gated(MATRICES["w_gate_up"], tile, source, "float32"), names, [rows]

    project = linear.project(MATRICES["w_qkv"], tile, normed, "float32", Into(HEADS))
    projected = project, ["x", "w_qkv", "norm", "table", "slots", "kv", "q"], [rows]
    rotate_append = attn.rope_append(HEADS, "float32"), ["qkv", "table", "slots", "kv", "q"], [rows]
    gate: Launch = (silu(), ["both", "h"], [rows])
    q, k = MATRICES["w_q"].rows, MATRICES["w_k"].rows
    three = [multiply(f"w_{name}", "normed", "qkv", width=QKV, first=first, again=True)
             for name, first in (("q", 0), ("k", q), ("v", q + k))]  # fmt: skip
    spans = attn.attention_spans(HEADS, "float32"), ["q", *WHERE, "kv", "state", "attended"], [rows]
    qkv_y, h_y, x_y, attended_y = ({name: "float32"} for name in ("qkv", "h", "x", "attended"))

    def added(w: str, source: str) -> list[Launch]:
        return [multiply(w, source, "part"), (add(), ["part", "x"], [rows])]

    yield Pair("norm into query-key-value", rows, [multiply("w_qkv", "x", "qkv", normed)],
               [normalize, multiply("w_qkv", "normed", "qkv")], qkv_y)  # fmt: skip
    yield Pair("norm into gate-up", rows, [gated("x", normed)], [normalize, gated("normed", raw)], h_y)
    yield Pair("query, key, value in one", rows, [multiply("w_qkv", "normed", "qkv")], three, qkv_y)
    yield Pair("rotation and append into query-key-value", rows, [projected],
               [multiply("w_qkv", "x", "qkv", normed), rotate_append], {"kv": "float16", "q": "float32"})  # fmt: skip
    yield Pair("gate, up and SiLU in one", rows, [gated("x", raw)], [multiply("w_gate_up", "x", "both"), gate], h_y)
    yield Pair("residual into attention output", rows, [multiply("w_out", "attended", "x", add=True)],
               added("w_out", "attended"), x_y)  # fmt: skip
    yield Pair("residual into down", rows, [multiply("w_down", "h", "x", add=True)], added("w_down", "h"), x_y)
    if rows == 1:
        yield Pair("norm into head", rows, [multiply("w_head", "x", "logits", normed)],
                   [normalize, multiply("w_head", "normed", "logits")], {"logits": "float32"})  # fmt: skip
    tiled = attention(HEADS, "float32"), ["q", *WHERE, "kv", "attended"], [rows]
    yield Pair("attention in one", rows, [tiled], [spans], attended_y)
    layer = [projected, spans, multiply("w_out", "attended", "x", add=True), gated("x", normed),
             multiply("w_down", "h", "x", add=True)]  # fmt: skip
    yield Pair("a whole layer", rows, layer,
               [normalize, *three, rotate_append, spans, *added("w_out", "attended"), normalize,
                multiply("w_gate_up", "normed", "both"), gate, *added("w_down", "h")], x_y)  # fmt: skip
    yield Pair("a dispatch", rows, [(nothing(), ["y"], [1])], [(nothing(), ["y"], [1])] * 2, {"y": "float32"})


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    blob, described = Blob(), []
    functions: dict[int, tirx.PrimFunc] = {}
    names: dict[int, str] = {}

    def told(pair: Pair, position: int) -> dict[str, Any]:
        held, sizes = buffers(pair.rows, position)
        for func, _, _ in (*pair.fused, *pair.apart):
            functions[id(func)] = func
            names.setdefault(id(func), f"{func.attrs['inpage.name']}_{len(names)}")
        used = {name for _, bound, _ in (*pair.fused, *pair.apart) for name in bound}
        own = {name: each for name, each in held.items() if name in used}
        fused, apart = (
            describe(Case("fusion", pair.name, own, launches, {}, sizes=sizes), names, blob)
            for launches in (pair.fused, pair.apart)
        )
        return {"name": pair.name, "rows": pair.rows, "context": position + 1, "buffers": fused["buffers"],
                "fused": fused["launches"], "apart": apart["launches"], "outputs": pair.outputs}  # fmt: skip

    for rows in (1, 8):
        for pair in pairs(rows):
            positions = POSITIONS if pair.name == "attention in one" else POSITIONS[:1]
            described.extend(told(pair, position) for position in positions)
    (out / "fusion.wgsl").write_text(shaders({names[key]: f for key, f in functions.items()}))
    (out / "fusion.bin").write_bytes(blob.data)
    (out / "fusion.json").write_text(json.dumps(described))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
