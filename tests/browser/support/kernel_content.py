"""Kernels, what is put into them and what must come out: random and extreme inputs for one WebAssembly instruction set.

Expected values come from `support.kernel_reference`, which is numpy alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import tirx

from inpage_compile.kernels.cpu.attention import attention
from inpage_compile.kernels.cpu.isa import Isa
from inpage_compile.kernels.cpu.linear import embed, form_for, gated, gated_in, linear, linear_in, ways
from inpage_compile.kernels.cpu.norm import rms_norm, rope_table
from inpage_compile.kernels.cpu.pages import rope_append
from inpage_compile.kernels.cpu.parts import gate, join, requantize
from inpage_compile.kernels.cpu.softmax import whole_groups
from inpage_compile.kernels.shared.heads import PAGE, Heads
from inpage_compile.kernels.shared.packed import PackedMatrix
from inpage_compile.quantize import FORMATS, Groups
from support import kernel_reference as reference
from support.kernel_reference import Cache, Expected, Real
from support.weights import columns_of, packed, random_quants, random_weights

Array = npt.NDArray[Any]

ROWS = (1, 2, 3, 4, 5, 8, 9)
QUANTIZED = ("q4_0", "q4_1", "q8_0")
# With planes, super-blocks or tables: fewer cases.
OTHERS = ("q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "mxfp4", "bf16")
ALL = (*QUANTIZED, "f16", "f32")
LENGTHS = (1, 15, 16, 17, 63, 64, 65, 200)
LAYERS, BLOCKS = 2, 13
SHAPES = ((9, 3, 64), (4, 2, 16))
# Heads that make no whole groups of 32, or are made in parts, or in parts that overlap; the largest, for the stack.
ODD = ((1, 1, 16), (3, 1, 40), (2, 2, 80), (14, 2, 96), (11, 1, 32), (32, 1, 256), (8, 1, 512))

SLOW = "INPAGE_SLOW" in os.environ


@dataclass(frozen=True)
class Case:
    """``inputs`` and ``outputs`` by the kernel's own argument names; what is in both is written in place."""

    family: str
    name: str
    kernel: tirx.PrimFunc
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Expected]
    scalars: Mapping[str, int] = field(default_factory=dict)


def all_cases(isa: Isa) -> Iterator[Case]:
    rng = np.random.default_rng(20)
    for format in ALL:
        yield from _linear(rng, isa, format)
        yield from _gated(rng, isa, format)
        if format in QUANTIZED:
            yield from _ways(rng, isa, format)
        yield from _embed(rng, format)
    for format in OTHERS:
        yield from _others(rng, isa, format)
        yield from _embed(rng, format)
    yield from _norms(rng, isa)
    yield from _parts(rng, isa)
    for shape in (*SHAPES, *ODD):
        yield from _append(rng, isa, shape)
        yield from _attention(rng, isa, shape)


def _forms(isa: Isa) -> list[str]:
    """Every form that some linear layer of this instruction set reads."""
    return sorted({form_for(isa, FORMATS[format], "int8") for format in ALL})


def _extremes(format: str, rows: int, columns: int, which: str) -> Groups:
    """Quants all at one end, or at both by chance; scales one, none, the largest or the smallest that a half has."""
    rng = np.random.default_rng(21)
    fmt = FORMATS[format]
    low, high = (-128, 127) if format == "q8_0" else (0, 15)
    ends = {"highest": [high], "lowest": [low]}.get(which, [low, high])
    q = rng.choice(np.array(ends), (rows, columns)).astype(np.int8 if format == "q8_0" else np.uint8)
    sizes = {"huge": [65504.0, -65504.0], "tiny": [2.0**-24, -(2.0**-20)], "zeros": [0.0, 1.0]}.get(which, [1.0])
    d, m = (rng.choice(np.array(sizes), (rows, columns // 32)).astype(np.float16) for _ in range(2))
    return Groups(format, q, d.view(np.uint16), m.view(np.uint16) if fmt.min else None)


def _extreme_quants(rows: int, columns: int, which: str) -> tuple[Array, Array]:
    """Activations of ±127 only, whole groups of them zero where asked."""
    rng = np.random.default_rng(22)
    ends = {"highest": [127], "lowest": [-127]}.get(which, [-127, 127])
    quants = rng.choice(np.array(ends), (rows, columns))
    scales = np.full((rows, columns // 32), {"huge": 1e25, "tiny": 1e-30}.get(which, 1.0), np.float32)
    if which == "zeros":
        quants[:, :32], scales[:, 0] = 0, 0
        quants[0], scales[0] = 0, 0
    return quants, scales


def _dot(weights: Groups, form: str, x: Array | tuple[Array, Array]) -> tuple[dict[str, Array], Real]:
    """A linear kernel's activation arguments, and the product."""
    if isinstance(x, tuple):
        return reference.activations(form, *x), reference.dot_int8(weights, *x)
    return {"x": x}, reference.dot_float(weights, x)


def _random_x(rng: np.random.Generator, form: str, rows: int, columns: int) -> Array | tuple[Array, Array]:
    return _normal(rng, rows, columns) if form == "f32" else random_quants(rng, rows, columns)


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def _linear(rng: np.random.Generator, isa: Isa, format: str) -> Iterator[Case]:
    form = form_for(isa, FORMATS[format], "int8")
    sizes: list[tuple[int, int, bool, tuple[int, ...]]] = [(40, 96, True, ROWS), (48, 64, False, (1, 5))]
    for width, columns, residual, many in [*sizes, (5, 32, False, (2, 4))] if format == "q4_1" else sizes:
        kernel = linear(isa, PackedMatrix(FORMATS[format], width, columns), form, residual)
        weights = random_weights(rng, format, width, columns)
        for rows in many:
            inputs, y = _dot(weights, form, _random_x(rng, form, rows, columns))
            skip = {"residual": _normal(rng, rows, width)} if residual else {}
            y = y.plus(skip["residual"]) if residual else y
            name = f"{format} {width}x{columns}, {rows} rows"
            inputs |= {"w": packed(weights), **skip}
            yield Case("linear", name, kernel, inputs, reference.stored("f32", y), {"rows": rows})
    kernel = linear(isa, PackedMatrix(FORMATS[format], 48, 64), form, False)
    if format not in QUANTIZED:
        x = np.where(_normal(rng, 5, 64) > 0, np.float32(1e30), np.float32(-1e30))
        x[1], x[2] = 0, 1e-42
        weights = _float_extremes(rng, format)
        inputs, y = _dot(weights, form, x)
        inputs["w"] = packed(weights)
        yield Case("linear", f"{format} extremes", kernel, inputs, reference.stored("f32", y), {"rows": 5})
        return
    for which in ("highest", "lowest", "both ends", "zeros", "huge", "tiny"):
        for activations in {which, "highest", "lowest"} - ({"highest"} if which == "huge" else set()):
            weights = _extremes(format, 48, 64, which)
            inputs, y = _dot(weights, form, _extreme_quants(5, 64, activations))
            inputs["w"] = packed(weights)
            name = f"{format} {which}, activations {activations}"
            yield Case("linear", name, kernel, inputs, reference.stored("f32", y), {"rows": 5})


def _ways(rng: np.random.Generator, isa: Isa, format: str) -> Iterator[Case]:
    """All that a device may choose, where blocks are left over, and at the ends of what the dot products take."""
    form = form_for(isa, FORMATS[format], "int8")
    for width in (24, 144) if format == "q4_1" or SLOW else (144,):  # streams without a block are alike in all formats
        shape = PackedMatrix(FORMATS[format], width, 64)
        for single in (True, False):
            for way in ways(isa, shape, form, single=single):
                kernel = linear_in(isa, shape, form, False, way)
                for rows in (1, 6):
                    weights = random_weights(rng, format, width, 64)
                    inputs, y = _dot(weights, form, _random_x(rng, form, rows, 64))
                    inputs["w"] = packed(weights)
                    name = f"{format} {width}x64, {way}, {rows} rows"
                    yield Case("linear", name, kernel, inputs, reference.stored("f32", y), {"rows": rows})
                for which in ("highest", "lowest", "both ends") if width == 144 else ():
                    weights = _extremes(format, width, 64, which)
                    inputs, y = _dot(weights, form, _extreme_quants(5, 64, which))
                    inputs["w"] = packed(weights)
                    name = f"{format} {width}x64, {way}, {which}"
                    yield Case("linear", name, kernel, inputs, reference.stored("f32", y), {"rows": 5})
                if width == 144 and format == "q4_1":
                    both = random_weights(rng, format, 128, 64)
                    own = gated_in(isa, PackedMatrix(FORMATS[format], 128, 64), form, form, way)
                    x = _random_x(rng, form, 5, 64)
                    assert isinstance(x, tuple)
                    x = (x[0], x[1] * np.float32(0.02))
                    yield _gated_case(own, f"{format}, {way}", both, form, x, form)


def _float_extremes(rng: np.random.Generator, format: str) -> Groups:
    """Weights among which are zero, both zeros' neighbours and the largest half."""
    ends = np.array([0.0, -0.0, 2.0**-24, -(2.0**-24), 2.0**-14, 1.0, -1.0, 65504.0, -65504.0], np.float32)
    values = rng.choice(ends, (48, 64))
    return Groups(format, values.view(np.uint32) if format == "f32" else values.astype(np.float16).view(np.uint16))


def _halves(both: Groups) -> tuple[Groups, Groups]:
    """Gate and up of one matrix: 16 rows of the one, 16 of the other, by turns."""
    at = np.arange(both.q.shape[0]).reshape(-1, 2, 16)
    gates, ups = (both.rows(lambda part, i=i: part[at[:, i].reshape(-1)]) for i in range(2))
    return gates, ups


def _others(rng: np.random.Generator, isa: Isa, format: str) -> Iterator[Case]:
    """Every dot product that a device may choose, at random and where activations are at their ends; gate and up."""
    form, columns = form_for(isa, FORMATS[format], "int8"), columns_of(format)
    shape = PackedMatrix(FORMATS[format], 40, columns)
    for way in ways(isa, shape, form, single=False):
        kernel = linear_in(isa, shape, form, True, way)
        for rows in (1, 6):
            weights = random_weights(rng, format, 40, columns)
            ends = form != "f32" and rows == 6
            x = _extreme_quants(rows, columns, "both ends") if ends else _random_x(rng, form, rows, columns)
            inputs, y = _dot(weights, form, x)
            skip = _normal(rng, rows, 40)
            inputs |= {"w": packed(weights), "residual": skip}
            name = f"{format} 40x{columns}, {way}, {rows} rows"
            yield Case("linear", name, kernel, inputs, reference.stored("f32", y.plus(skip)), {"rows": rows})
    both = random_weights(rng, format, 128, columns)
    if both.d is not None:  # gates of a size where silu bends
        size = 117 if FORMATS[format].scale == "e8m0" else 0x1000
        both = replace(both, d=np.full_like(both.d, size), m=None if both.m is None else np.full_like(both.m, size))
    kernel = gated(isa, PackedMatrix(FORMATS[format], 128, columns), form, form)
    yield _gated_case(kernel, f"{format} to {form}", both, form, _random_x(rng, form, 5, columns), form)


def _gated(rng: np.random.Generator, isa: Isa, format: str) -> Iterator[Case]:
    form = form_for(isa, FORMATS[format], "int8")
    others = {"q4_1": ["q8_0"], "q8_0": ["q4_1", "f32"]}.get(format, [])  # what the layer after may have
    for out in (form, *(form_for(isa, FORMATS[other], "int8") for other in others)):
        kernel = gated(isa, PackedMatrix(FORMATS[format], 128, 64), form, out)
        for rows in ROWS if out == form else (5,):
            both = random_weights(rng, format, 128, 64)
            x = _random_x(rng, form, rows, 64)
            if isinstance(x, tuple):  # gates of a size where silu bends
                x = (x[0], x[1] * np.float32(0.02))
            yield _gated_case(kernel, f"{format} to {out}, {rows} rows", both, form, x, out)
        if format in QUANTIZED:
            for which in ("highest", "both ends", "zeros"):
                name = f"{format} to {out}, {which}"
                x = _extreme_quants(5, 64, which)
                yield _gated_case(kernel, name, _extremes(format, 128, 64, which), form, x, out)


def _gated_case(
    kernel: tirx.PrimFunc, name: str, both: Groups, form: str, x: Array | tuple[Array, Array], out: str
) -> Case:
    (inputs, gates), (_, ups) = (_dot(part, form, x) for part in _halves(both))
    inputs["w"] = packed(both)
    outputs = reference.stored(out, reference.gate(gates, ups), "h")
    return Case("gated", name, kernel, inputs, outputs, {"rows": gates.value.shape[0]})


def _embed(rng: np.random.Generator, format: str) -> Iterator[Case]:
    kernel = embed(PackedMatrix(FORMATS[format], 40, columns_of(format)))
    weights = random_weights(rng, format, 40, columns_of(format))
    for ids in ([0], [39], [15, 16, 15, 0, 31, 32, 7], list(range(40))):
        tokens = np.array(ids, np.int32)
        outputs = {"y": reference.embed(weights, tokens)}
        inputs = {"token_ids": tokens, "w": packed(weights)}
        yield Case("embed", f"{format}, {len(ids)} rows", kernel, inputs, outputs, {"rows": len(ids)})


def _norms(rng: np.random.Generator, isa: Isa) -> Iterator[Case]:
    weight = _normal(rng, 96)
    for form in _forms(isa):
        for rows in (1, 2, 5, 9):
            x = _normal(rng, rows, 96)
            for row, size in enumerate((1.0, 0.0, 1e-18, 1e15)[:rows]):
                x[row] *= np.float32(size)
            outputs = reference.stored(form, reference.rms_norm(x, weight, 1e-5))
            kernel = rms_norm(isa, 96, 1e-5, form)
            yield Case("norm", f"{form}, {rows} rows", kernel, {"x": x, "weight": weight}, outputs, {"rows": rows})
        x = _normal(rng, 9, 96)
        for picked in ([8], [0, 0], [7, 3, 5]):
            index = np.array(picked, np.int32)
            outputs = reference.stored(form, reference.rms_norm(x[index], weight, 1e-5))
            inputs = {"x": x, "row_index": index, "weight": weight}
            scalars = {"rows": 9, "logit_rows": len(picked)}
            kernel = rms_norm(isa, 96, 1e-5, form, gather=True)
            yield Case("norm", f"{form}, rows {picked}", kernel, inputs, outputs, scalars)


def _parts(rng: np.random.Generator, isa: Isa) -> Iterator[Case]:
    positions = np.array([0, 1, 15, 16, 17, 2047, 8191], np.int32)
    freqs = (100000.0 ** (-np.arange(32) / 32)).astype(np.float32)
    table = {"table": reference.rope_table(positions, freqs)}
    inputs = {"positions": positions, "freqs": freqs}
    yield Case("parts", "rope table", rope_table(64), inputs, table, {"rows": len(positions)})
    for rows in (1, 5):
        parts = [_normal(rng, rows, width) for width in (96, 32, 64)]
        named = {f"part{i}": part for i, part in enumerate(parts)}
        joined = {"y": reference.join(parts)}
        yield Case("parts", f"join, {rows} rows", join((96, 32, 64)), named, joined, {"rows": rows})
        gates, ups = (rng.normal(0, 5, (rows, 64)).astype(np.float32) for _ in range(2))
        gates[:, :6] = [-1e6, -200, -88, 0, 88, 1e6]
        real = reference.gate(reference.exact(gates), reference.exact(ups))
        for form in _forms(isa):
            outputs = reference.stored(form, real, "h")
            inputs = {"gate": gates, "up": ups}
            yield Case("parts", f"gate to {form}, {rows} rows", gate(isa, 64, form), inputs, outputs, {"rows": rows})
    x = np.concatenate([_normal(rng, 3, 64), np.zeros((1, 64), np.float32), np.tile(np.float32([1, -1]), (1, 32))])
    x[2] *= np.float32(1e30)
    x[1, :32] = np.arange(32) * 4.0 + 0.5  # halves that round to even
    x[1, 0] = 127
    for form in _forms(isa):
        if form != "f32":
            outputs = reference.stored(form, reference.exact(x))
            yield Case("parts", f"quantize to {form}", requantize(isa, 64, form), {"x": x}, outputs, {"rows": 5})


def _heads(shape: tuple[int, int, int], sequences: int, pages: int) -> Heads:
    return Heads(*shape, LAYERS, pages, sequences, BLOCKS)


def _random_cache(rng: np.random.Generator, h: Heads) -> Cache:
    kv = _normal(rng, h.pages, LAYERS, 2, h.kv_heads * h.dim * PAGE).astype(np.float16).view(np.int16)
    return Cache(kv, h.kv_heads, h.dim)


def _append(rng: np.random.Generator, isa: Isa, shape: tuple[int, int, int]) -> Iterator[Case]:
    h = _heads(shape, sequences=3, pages=7)
    tables = np.full((3, BLOCKS), -1, np.int32)
    tables[0, :2], tables[1, :3], tables[2, :1] = [6, 0], [3, 5, 1], [2]
    where = {"positions": [0, 15, 16, 31, 47, 40, 7], "row_sequence": [0, 0, 0, 1, 1, 1, 2]}
    inputs = {name: np.array(values, np.int32) for name, values in where.items()} | {"block_tables": tables}
    rows = len(where["positions"])
    qkv = _normal(rng, rows, (h.heads + 2 * h.kv_heads) * h.dim)
    qkv[:, -8:] = [65504, 65519, 65521, 1e6, -1e30, 2.0**-24, 2.0**-25, -(2.0**-26)]  # values that halves barely hold
    angle = rng.uniform(0, 7, (rows, h.dim // 2))
    table = np.stack([np.cos(angle), np.sin(angle)], axis=2).astype(np.float32)
    for layer in range(LAYERS) if shape in SHAPES else [1]:
        cache = _random_cache(rng, h)
        outputs = reference.rope_append(cache, h.heads, layer, qkv, table, *inputs.values())
        given = {"qkv": qkv, "table": table, **inputs, "kv": cache.kv}
        scalars = {"rows": rows, "layer": layer}
        yield Case("append", f"{shape} layer {layer}", rope_append(isa, h), given, outputs, scalars)


def _attention(rng: np.random.Generator, isa: Isa, shape: tuple[int, int, int]) -> Iterator[Case]:
    """A row for each length, each with its own sequence, on shuffled pages."""
    n = len(LENGTHS)
    h = _heads(shape, sequences=n, pages=n * BLOCKS)
    tables = rng.permutation(n * BLOCKS).astype(np.int32).reshape(n, BLOCKS)
    where = {
        "positions": np.array(LENGTHS, np.int32) - 1,
        "row_sequence": rng.permutation(n).astype(np.int32),
        "block_tables": tables,
    }
    cache = _random_cache(rng, h)
    missing = ((0, 0), (0, h.columns - h.heads * h.dim))
    kinds = (("random", 1.0), ("peaked", 60.0), ("flat", 0.0), ("far below zero", -400.0))
    for what, size in kinds if shape in SHAPES else kinds[:1]:
        q = _normal(rng, n, h.heads * h.dim) * np.float32(size)
        if what == "far below zero":  # every key is near 1, every score near -400
            keys = cache.keys(1).view(np.float16)
            keys[...] = (1 + 0.01 * rng.standard_normal(keys.shape)).astype(np.float16)
            q[...] = np.float32(size / h.dim)
        q = (q * np.float32(reference.F16_SCALE * (1.0 if what == "far below zero" else h.dim**-0.5))).astype(
            np.float32
        )
        real = reference.attention(cache, h.heads, 1, q, *where.values())
        real = Real(np.pad(real.value, missing), np.pad(real.error, missing))
        inputs = {"q": q, **where, "kv": cache.kv.copy()}
        forms = _forms(isa) if whole_groups(h) and shape[2] > 16 else ["f32"]
        if shape in ODD and not SLOW:  # by turns: how a result is stored is apart from how it is made
            forms = [forms[(ODD.index(shape) + 1) % len(forms)]]
        for form in forms:
            outputs = reference.stored(form, real)
            scalars = {"rows": n, "layer": 1}
            yield Case("attention", f"{shape} {what}, {form}", attention(isa, h, form), inputs, outputs, scalars)
