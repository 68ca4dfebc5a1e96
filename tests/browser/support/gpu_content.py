"""The cases that kernels for WebGPU are tried with, and what numpy says of each: shapes at the edges of tiles, of
pages and of workgroups, in every number format.

A case is a run of launches over named buffers. Expected values come from `support.kernel_reference` and, for what only
these kernels do, from float64 here; no kernel code is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType
from tvm import tirx

from inpage_compile.kernels.shared.heads import Heads
from inpage_compile.kernels.shared.packed import PackedMatrix
from inpage_compile.kernels.shared.short_conv import ShortConv
from inpage_compile.kernels.webgpu import attention as attn
from inpage_compile.kernels.webgpu import linear, rows
from inpage_compile.kernels.webgpu.attention_tiles import attention
from inpage_compile.kernels.webgpu.embedding import embed as embed_kernel
from inpage_compile.kernels.webgpu.linear import Input, Shape
from inpage_compile.kernels.webgpu.linear_subgroups import SharedReads
from inpage_compile.kernels.webgpu.linear_tiles import TILES
from inpage_compile.kernels.webgpu.pages import Into, slots
from inpage_compile.kernels.webgpu.short_conv import conv_append, short_conv
from inpage_compile.quantize import FORMATS, Groups, joined, pack, read_groups
from support.ggml_blocks import random_blocks
from support.kernel_reference import EPS, Expected, Real, dot_float, embed, exact, gate, rope_table
from support.weights import columns_of, packed, random_weights

Array = npt.NDArray[Any]
PAGE = 16
SMALLEST_HALF = 2.0**-24
SLOW = "INPAGE_SLOW" in os.environ
NAMES = ("f32", "f16", "q8_0", "q4_0", "q4_1")
LATER = (
    "bf16",
    "q5_0",
    "q2_k",
    "q4_k",
    "q6_k",
    "mxfp4",
    *(["q5_1", "q3_k", "q5_k", "iq4_xs", "iq4_nl"] if SLOW else []),
)

# More heads a key head than one workgroup has room for, in parts that overlap; the widest heads; one head; no whole
# group of columns at the end; parts that do not overlap.
ODD = ((37, 1, 16), (4, 1, 256), *(((1, 1, 16), (3, 1, 80), (40, 1, 8)) if SLOW else ()))


@dataclass
class Case:
    """``buffers``: what each holds before; where None, poison. ``outputs``: flat, NaN where nothing may be written.
    ``like``: the case whose outputs these are bit for bit."""

    family: str
    name: str
    buffers: dict[str, Array | None]
    launches: list[tuple[tirx.PrimFunc, list[str], list[int]]]
    outputs: dict[str, Expected]
    like: str | None = None
    sizes: dict[str, int] = field(default_factory=dict)


def stored(real: Real, dtype: str) -> Expected:
    """Float32 results as a buffer of ``dtype`` holds them."""
    error = real.error
    if dtype == "float16":
        error = error + np.abs(real.value) * 2.0**-10 + SMALLEST_HALF
    return Expected(real.value, error, dtype)


class Content:
    """All cases for activations of one dtype."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.half = dtype == "float16"

    def cases(self) -> Iterator[Case]:
        yield from self.linear()
        yield from self.gated()
        yield from self.embed()
        yield from self.rows()
        yield from self.append()
        yield from self.attention()
        yield from self.short_conv()

    def activations(self, rng: np.random.Generator, count: int, columns: int, dtype: str | None = None) -> Array:
        x = rng.standard_normal((count, columns)) * (0.02 if self.half else 1.0)
        return x.astype(dtype or self.dtype)

    def linear(self) -> Iterator[Case]:
        rng = np.random.default_rng(1)
        for fmt in NAMES:
            for n, k in ((20, 96), *(((48, 64), (7, 32), (64, 576), (32, 1536)) if fmt == "q4_1" else ())):
                w, x = random_weights(rng, fmt, n, k), self.activations(rng, 9, k)
                few = ((16, 9), (16, 1)) if n in (20, 7) else ()
                few += ((4, 9), (4, 4)) if fmt == "q4_1" and n == 20 else ()
                few += ((SharedReads(1), 9),) if SLOW else ()
                for tile, count in ((1, 9), *few, (TILES[-1], 9)):
                    yield self._linear(f"{fmt} {n}x{k}", w, x[:count], tile, like=None if tile == 1 else 9)
        # Three super-blocks, where a share of the columns has parts of two, and one. A pipeline takes the
        # adapter most of a second: some tiles are for Q6_K only.
        for fmt, n, k in (*((fmt, 20, 3 * max(FORMATS[fmt].span, 32)) for fmt in LATER), ("q6_k", 7, 256)):
            w, x = random_weights(rng, fmt, n, k), self.activations(rng, 9, k)
            if fmt == "mxfp4" and w.d is not None:
                w.d[w.d < 2] = 2  # adapters may take float32's denormals for 0
            some = ((16, 9), (16, 1), (4, 9), (4, 4)) if n == 20 else ()
            some += ((SharedReads(1), 9), (SharedReads(4), 9)) if SLOW else ()
            for tile, count in ((1, 9), (TILES[-1], 9), *(some if SLOW or fmt == "q6_k" else ())):
                yield self._linear(f"{fmt} {n}x{k}", w, x[:count], tile, like=None if tile == 1 else 9)
        w, x = random_weights(rng, "q4_0", 36, 96), self.activations(rng, 8, 96, "float32")
        norm = rng.standard_normal(96).astype(np.float32)
        for tile, count in ((1, 8), (4, 8), (16, 8), (16, 3), (SharedReads(1), 8), (SharedReads(4), 8)):
            yield self._linear("norm", w, x[:count], tile, norm=norm, like=None if tile == 1 else 8)
        # Rows of 32 and of 64 shares of columns, not all of them of one size.
        w, x = random_weights(rng, "q4_0", 20, 4128), self.activations(rng, 9, 4128)
        for tile, count in ((1, 9), (16, 9), (TILES[-1], 9)):
            yield self._linear("q4_0 20x4128", w, x[:count], tile, like=None if tile == 1 else 9)
        w, x = random_weights(rng, "q8_0", 7, 8288), self.activations(rng, 9, 8288, "float32")
        norm = rng.standard_normal(8288).astype(np.float32)
        for tile, count in ((1, 9), (16, 9), (TILES[-1], 9), (SharedReads(1), 9)):
            yield self._linear("norm of 8288", w, x[:count], tile, norm=norm, like=None if tile == 1 else 9)
        # More than a tile of rows and of outputs, neither of them whole ones.
        w, x = random_weights(rng, "q4_1", 84, 160), self.activations(rng, 70, 160, "float32")
        norm = rng.standard_normal(160).astype(np.float32)
        for tile in (1, 12, *TILES[:-1]):
            yield self._linear("tiles", w, x, tile, norm=norm, like=None if tile == 1 else 70)
        for tile in (1, TILES[-1]):
            w, x = random_weights(rng, "q8_0", 32, 64), self.activations(rng, 5, 64)
            y = rng.standard_normal((5, 32)).astype(np.float32)
            yield self._linear("add", w, x, tile, add=y)
        for first, width in ((16, 80), (3, 41)):
            w, x = random_weights(rng, "q4_1", 32, 64), self.activations(rng, 5, 64)
            yield self._linear(f"at {first} of {width}", w, x, 4, first=first, width=width)

    def _linear(
        self, name: str, w: Groups, x: Array, tile: Shape, *, norm: Array | None = None,
        add: Array | None = None, first: int = 0, width: int = 0, like: int | None = None,
    ) -> Case:  # fmt: skip
        n, k = w.q.shape
        source = Input(str(x.dtype), 1e-5 if norm is not None else None)
        out = "float32" if add is not None else self.dtype
        func = linear.linear(
            PackedMatrix(FORMATS[w.format], n, k), tile, source, out, add is not None, width, first, width > 0
        )
        real = dot_float(w, x) if norm is None else _normed_dot(w, x, norm)
        if add is not None:
            real = real.plus(add)
        buffers: dict[str, Array | None] = {"x": x, "w": packed(w).view(np.uint32), "norm": norm}
        buffers = {key: value for key, value in buffers.items() if value is not None}
        names = ["x", "w", *(["norm"] if norm is not None else []), "y"]
        buffers["y"] = add
        want = stored(real, out)
        if width:
            full = [np.full((len(x), width), np.nan), np.zeros((len(x), width))]
            for whole, part in zip(full, (want.want, want.tolerance), strict=True):
                whole[:, first : first + n] = part
            want = Expected(full[0], full[1], out)
        return Case("linear", f"{name}, {len(x)} rows by {tile}", buffers, [(func, names, [len(x)])], {"y": want},
                    like=None if like is None else f"{name}, {like} rows by 1")  # fmt: skip

    def gated(self) -> Iterator[Case]:
        rng = np.random.default_rng(2)
        shapes = (("q4_1", 96, 64), ("q8_0", 32, 576), ("f16", 16, 32), ("q4_k", 32, 256), ("q4_0", 16, 4128))
        for fmt, hidden, k in shapes:
            gates, ups = random_weights(rng, fmt, hidden, k), random_weights(rng, fmt, hidden, k)
            both = interleaved(gates, ups)
            x, norm = self.activations(rng, 9, k, "float32"), rng.standard_normal(k).astype(np.float32) * 0.01
            for tile, count in (
                *(
                    ((1, 9), (16, 2), (TILES[-1], 9))
                    if fmt in ("q4_k", "q4_0")
                    else ((1, 9), (16, 9), (16, 2), (TILES[0], 9))
                ),
                *(((SharedReads(1), 9),) if SLOW or fmt == "q8_0" else ()),
                *(((SharedReads(4), 9),) if SLOW else ()),
            ):
                func = linear.gated(PackedMatrix(FORMATS[fmt], 2 * hidden, k), tile, Input("float32", 1e-5), self.dtype)
                real = gate(_normed_dot(gates, x[:count], norm), _normed_dot(ups, x[:count], norm))
                buffers = {"x": x[:count], "w": pack(both).view(np.uint32), "norm": norm, "h": None}
                yield Case("gated", f"{fmt} {hidden}x{k}, {count} rows by {tile}", buffers,
                           [(func, ["x", "w", "norm", "h"], [count])], {"h": stored(real, self.dtype)},
                           like=None if tile == 1 else f"{fmt} {hidden}x{k}, 9 rows by 1")  # fmt: skip

    def embed(self) -> Iterator[Case]:
        rng = np.random.default_rng(3)
        for fmt in (*NAMES, *LATER):
            columns = columns_of(fmt)
            raw, values = random_blocks(rng, GGMLQuantizationType[fmt.upper()], 52, columns)
            ids = np.array([0, 51, 15, 16, 17, 31], np.int32)
            w = packed(read_groups(raw, fmt, 52, columns)).view(np.uint32)
            func = embed_kernel(PackedMatrix(FORMATS[fmt], 52, columns), 0, False)
            want = Expected(values[ids].astype(np.float64), np.zeros((len(ids), columns)), "float32")
            yield Case("embed", fmt, {"ids": ids, "w": w, "y": None}, [(func, ["ids", "w", "y"], [6])], {"y": want})
        low, high = random_weights(rng, "q8_0", 32, 64), random_weights(rng, "q8_0", 20, 64)
        ids = np.array([3, 31, 32, 51], np.int32)
        want = np.concatenate([embed(low, ids[:2]).want, embed(high, ids[2:] - 32).want])
        launches = [
            (embed_kernel(PackedMatrix(FORMATS["q8_0"], 32, 64), 0, False), ["ids", "low", "y"], [4]),
            (embed_kernel(PackedMatrix(FORMATS["q8_0"], 20, 64), 32, True), ["ids", "high", "y"], [4]),
        ]
        buffers = {"ids": ids, "low": packed(low).view(np.uint32), "high": packed(high).view(np.uint32), "y": None}
        yield Case("embed", "in slices", buffers, launches, {"y": Expected(want, np.zeros(want.shape), "float32")})

    def rows(self) -> Iterator[Case]:
        rng = np.random.default_rng(4)
        for dim, theta, scale in ((64, 1e5, 1.0), (16, 1e4, 1.2079), (128, 5e5, 1.0)):
            freqs = (theta ** (-2.0 * np.arange(dim // 2) / dim)).astype(np.float32)
            positions = np.array([0, 1, 2, 3, 100, 2047, 8191, 131071], np.int32)
            want = rope_table(positions, freqs, scale)
            yield Case("rows", f"rope table {dim}", {"p": positions, "f": freqs, "t": None},
                       [(rows.rope_table(dim, scale), ["p", "f", "t"], [8])],
                       {"t": Expected(want.want, want.tolerance * 2, "float32")})  # fmt: skip
        for width in (96, 260):
            gates, ups = self.activations(rng, 3, width) * 20, self.activations(rng, 3, width)
            real = gate(exact(gates), exact(ups))
            yield Case("rows", f"gate {width}", {"g": gates, "u": ups},
                       [(rows.gate(width, self.dtype), ["g", "u"], [3])],
                       {"g": stored(real, self.dtype), "u": stored(exact(ups), self.dtype)})  # fmt: skip
        for width, pick in ((32, [5]), (576, [7, 0, 0, 3, 6]), (256, [2, 1])):
            x, weight = self.activations(rng, 8, width, "float32"), rng.standard_normal(width).astype(np.float32)
            chosen = x[pick].astype(np.float64)
            want = chosen * weight / np.sqrt((chosen**2).mean(1, keepdims=True) + np.float64(np.float32(1e-5)))
            yield Case("rows", f"norm {width}", {"x": x, "p": np.array(pick, np.int32), "n": weight, "y": None},
                       [(rows.norm(width, 1e-5), ["x", "p", "n", "y"], [len(pick)])],
                       {"y": Expected(want, np.abs(want) * (width + 16) * EPS, "float32")})  # fmt: skip
        widths = (48, 16, 10)
        parts = [self.activations(rng, 3, w) for w in widths]
        named = {f"p{i}": part for i, part in enumerate(parts)}
        want = np.concatenate(parts, axis=1).astype(np.float64)
        yield Case("rows", "join", {**named, "y": None}, [(rows.join(widths, self.dtype), [*named, "y"], [3])],
                   {"y": Expected(want, np.zeros(want.shape), self.dtype)})  # fmt: skip

    def append(self) -> Iterator[Case]:
        """By themselves, in one of two groups of layers, and as the end of a projection: whole, and only of some
        columns, where queries are or are not among them."""
        rng = np.random.default_rng(5)
        for heads, kv_heads, dim in ((9, 3, 64), (4, 2, 16), (3, 1, 8), (8, 1, 128)):
            h = Heads(heads, kv_heads, dim, 1, 24, 3, 4, heads == 4, 8, firsts=(0, 4) if heads == 4 else (4,))
            where = Where.of(rng, h, [(0, 0), (0, 15), (1, 16), (2, 63), (1, 17)])
            qkv, table = self.activations(rng, 5, h.width), _turns(rng, 5, dim)
            buffers = {"qkv": qkv, "table": table, **where.buffers(), "slots": None, "kv": None, "q": None}
            launches = [(slots(h), [*where.buffers(), "slots"], [5]),
                        (attn.rope_append(h, self.dtype), ["qkv", "table", "slots", "kv", "q"],
                         [5, *([1] if heads == 4 else [])])]  # fmt: skip
            q, kv = _appended(h, where, exact(qkv), table)
            sizes = {"kv": h.pages * attn.page_words(h) * 4, "slots": 4 * 5 * len(h.firsts)}
            yield Case("append", f"{heads}/{kv_heads} of {dim}", buffers, launches,
                       {"q": stored(q, self.dtype), "kv": kv}, sizes=sizes)  # fmt: skip
        h = Heads(3, 1, 40, 1, 12, 3, 4)
        where = Where.of(rng, h, [(0, 0), (0, 15), (1, 16), (2, 63), (1, 17)])
        w, x = random_weights(rng, "q4_0", h.width, 64), self.activations(rng, 5, 64, "float32")
        norm, bias = (rng.standard_normal(n).astype(np.float32) for n in (64, h.width))
        table, places = _turns(rng, 5, h.dim), where.slots(h)
        real = _normed_dot(w, x, norm)
        for tile, name in ((1, "whole"), (TILES[-1], "in parts"), (SharedReads(1), "by subgroups")):
            whole = name != "in parts"
            buffers: dict[str, Array | None] = {"x": x, "norm": norm, "bias": bias, "table": table, "slots": places}
            launches, first = [], 0
            for rows_ in (h.width,) if whole else (64, 96, 40):
                part, into = f"w{first}", Into(h, first, whole)
                buffers[part] = pack(w.rows(lambda x, at=first, n=rows_: x[at : at + n])).view(np.uint32)
                func = linear.project(PackedMatrix(FORMATS["q4_0"], rows_, 64), tile, Input("float32", 1e-5),
                                      self.dtype, into)  # fmt: skip
                names = ["x", part, "norm", *(["bias"] if whole else []), "table", "slots", "kv"]
                launches.append((func, [*names, *(["q"] if into.has_queries else [])], [5]))
                first += rows_
            q, kv = _appended(h, where, real.plus(bias) if whole else real, table)
            sizes = {"kv": h.pages * attn.page_words(h) * 4}
            buffers |= {"kv": None, "q": None}
            yield Case("append", f"a projection {name}", buffers, launches,
                       {"q": stored(q, self.dtype), "kv": kv}, sizes=sizes,
                       like="a projection whole" if tile == SharedReads(1) else None)  # fmt: skip

    def attention(self) -> Iterator[Case]:
        rng = np.random.default_rng(6)
        edges = [0, 14, 15, 16, 127, 128, 129, 255, 256, 299]
        batches = {
            "edges": [(i % 3, p) for i, p in enumerate(edges)],
            "a prompt": [(1, p) for p in range(120, 131)],
            "two in a tile": [(0, 40), (0, 41), (2, 200), (2, 201), (1, 0)],
            "one": [(2, 150)],
        }
        odd = {"odd": [(0, 15), (1, 16), (1, 17), (2, 128)]}
        for heads, kv_heads, dim in ((9, 3, 64), (16, 8, 128), (5, 5, 40), *ODD):
            h = Heads(heads, kv_heads, dim, 1, 60, 3, 20)
            kv = _pages(rng, h)
            for name, rows_ in (odd if (heads, kv_heads, dim) in ODD else batches).items():
                if name in batches and name != "edges" and heads != 9:
                    continue
                yield from self._attention(rng, h, kv, f"{heads}/{kv_heads} of {dim}, {name}", rows_)

        # Layers with block tables of their own, here the second one, and windows; scores that are capped.
        h = Heads(4, 2, 16, 1, 120, 3, 20, grouped=True, table_columns=40, cap=3.0)
        for name, window in (("edges", 1), ("two in a tile", 20), ("edges", 130)):
            yield from self._attention(rng, h, _pages(rng, h), f"{name}, window {window}", batches[name], window)

    def _attention(
        self, rng: np.random.Generator, h: Heads, kv: Array, name: str, rows_: list[tuple[int, int]], window: int = 0
    ) -> Iterator[Case]:
        where, count = Where.of(rng, h, rows_), len(rows_)
        rest = [h.blocks, window] if h.grouped else []
        q = self.activations(rng, count, h.heads * h.dim) * (60 if self.half else 1.5)
        real, missing = (
            _attended(h, where, q, kv, window),
            ((0, 0), (0, -(h.heads * h.dim) % 32)),
        )
        want = {"y": stored(Real(np.pad(real.value, missing), np.pad(real.error, missing)), self.dtype)}
        shared = {"q": q, **where.buffers(), "kv": kv, "y": None}
        others = {"other": q[::-1].copy() * 0.5, "state": None}
        behind = [*where.buffers(), "kv", "state", "y"]
        for kind in ("spans", *(["subgroups"] if SLOW or (h.heads == 9 and "edges" in name) else [])):
            func = attn.attention_spans(h, self.dtype, kind == "subgroups")
            # First with other queries: the second one finds what the first one left for it.
            launches = [(attn.clear_state(h), ["positions", "state"], [count]),
                        *((func, [queries, *behind], [count, *rest]) for queries in ("other", "q"))]  # fmt: skip
            yield Case("attention", f"{name}, by {kind}", {**shared, **others}, launches,
                       want, sizes={"state": count * attn.row_words(h) * 4},
                       like=None if kind == "spans" else f"{name}, by spans")  # fmt: skip
        yield Case("attention", f"{name}, in tiles", shared,
                   [(attention(h, self.dtype), ["q", *where.buffers(), "kv", "y"], [count, *rest])],
                   want, like=f"{name}, by spans")  # fmt: skip

    def short_conv(self) -> Iterator[Case]:
        """In the second of two block tables, whose pages hold 4 tokens: rows of a step, and one that an earlier step
        wrote."""
        rng = np.random.default_rng(7)
        h = Heads(3, 1, 32, 1, 3 * 20, 3, 4, grouped=True, table_columns=20)
        for width, tokens in ((96, 4), (160, 2)):
            c = ShortConv(h, width, 3, tokens)
            where = Where.of(rng, h, [(0, 0), (0, 1), (1, 2), (2, 6), (2, 7), (1, 3), (1, 4)])
            bcx = self.activations(rng, 7, 3 * width) * (60 if self.half else 1)
            kv = rng.standard_normal((h.pages, attn.page_words(h))).astype(np.float32)
            weight = rng.standard_normal((3, width)).astype(np.float32)
            after, real = _convolved(c, where, bcx, weight, kv)
            buffers = {"bcx": bcx, "weight": weight, **where.buffers(), "kv": kv, "y": None}
            launches = [
                (conv_append(c, self.dtype), ["bcx", *where.buffers(), "kv"], [7, h.blocks]),
                (short_conv(c, self.dtype), ["bcx", "weight", *where.buffers(), "kv", "y"], [7, h.blocks]),
            ]
            yield Case("short_conv", f"{width} channels", buffers, launches,
                       {"kv": after, "y": stored(real, self.dtype)})  # fmt: skip


@dataclass
class Where:
    """Rows as (sequence, position), and a block table of pages in no order."""

    positions: Array
    sequence: Array
    tables: Array

    @classmethod
    def of(cls, rng: np.random.Generator, h: Heads, rows_: Sequence[tuple[int, int]]) -> Where:
        tables = rng.permutation(h.pages)[: h.sequences * h.columns_of_table].reshape(h.sequences, -1)
        sequence, positions = (np.array(part, np.int32) for part in zip(*rows_, strict=True))
        return cls(positions, sequence, tables.astype(np.int32))

    def slots(self, h: Heads) -> Array:
        """page · ``PAGE`` + slot of each row, for each of ``h.firsts``."""
        columns = np.array(h.firsts)[None] + self.positions[:, None] // PAGE
        pages: Array = self.tables[self.sequence[:, None], columns]
        return pages * PAGE + self.positions[:, None] % PAGE

    def buffers(self) -> dict[str, Array | None]:
        return {"positions": self.positions, "sequence": self.sequence, "tables": self.tables}


def _normed_dot(w: Groups, x: Array, norm: Array) -> Real:
    """norm(x) · Wᵀ; the norm's weight is multiplied in first, in float32, and 1/rms last."""
    scaled = x.astype(np.float32) * norm
    real = dot_float(w, scaled)
    root = 1 / np.sqrt((x.astype(np.float64) ** 2).mean(1, keepdims=True) + np.float64(np.float32(1e-5)))
    slack = (x.shape[1] + 16) * EPS
    return Real(real.value * root, (real.error + np.abs(real.value) * slack) * root)


def interleaved(gates: Groups, ups: Groups) -> Groups:
    def rows16(parts: Sequence[Array]) -> Array:
        width = parts[0].shape[1]
        return np.stack([part.reshape(-1, 16, width) for part in parts], axis=1).reshape(-1, width)

    return joined([gates, ups], rows16)


def _keys(h: Heads, halves: Array) -> Array:
    """[pages, kv heads, pairs, tokens, 2] of a buffer of halves [pages, …], a view."""
    return halves.reshape(-1, 2, h.kv_heads * h.dim * PAGE)[:, 0].reshape(-1, h.kv_heads, h.dim // 2, PAGE, 2)


def _values(h: Heads, halves: Array) -> Array:
    """[pages, kv heads, tokens, dim], a view."""
    return halves.reshape(-1, 2, h.kv_heads * h.dim * PAGE)[:, 1].reshape(-1, h.kv_heads, PAGE, h.dim)


def _pages(rng: np.random.Generator, h: Heads) -> Array:
    halves = rng.standard_normal((h.pages, attn.page_words(h) * 2)).astype(np.float16)
    return halves.view(np.uint32)


def _turns(rng: np.random.Generator, count: int, dim: int) -> Array:
    angles = rng.uniform(0, 6, (count, dim // 2))
    return np.stack([np.cos(angles), np.sin(angles)], axis=2).astype(np.float32)


def _appended(h: Heads, where: Where, qkv: Real, table: Array) -> tuple[Real, Expected]:
    """Rotated and scaled queries, and the pages: NaN where nothing is written."""
    count, pairs = len(qkv.value), h.dim // 2
    by_head, doubt = (x.reshape(count, -1, pairs, 2) for x in (qkv.value, qkv.error))
    c, s = (table[:, None, :, i].astype(np.float64) for i in range(2))
    a, b = by_head[..., 0], by_head[..., 1]

    def turned(a: Array, b: Array, c: Array, s: Array, sign: int) -> Array:
        return np.stack([a * c + sign * b * s, a * s + b * c], axis=3)

    by_turn = turned(a, b, c, s, -1)
    error = 6 * EPS * turned(*map(np.abs, (a, b, c, s)), 1) + turned(
        doubt[..., 0], doubt[..., 1], np.abs(c), np.abs(s), 1
    )
    queries, factor = slice(0, h.heads), h.dim**-0.5
    q = Real(*(np.ascontiguousarray(x[:, queries] * factor).reshape(count, -1) for x in (by_turn, error)))
    halves = h.pages * attn.page_words(h) * 2
    want, room = np.full(halves, np.nan), np.zeros(halves)
    slots = where.slots(h)[:, -1]
    keys, values = slice(h.heads, h.heads + h.kv_heads), slice(h.heads + h.kv_heads, None)
    for row in range(count):
        page, slot = slots[row] // PAGE, slots[row] % PAGE
        key, value = by_turn[row, keys], by_head[row, values].reshape(h.kv_heads, h.dim)
        _keys(h, want)[page, :, :, slot] = key
        _keys(h, room)[page, :, :, slot] = error[row, keys] + np.abs(key) * 2.0**-10
        _values(h, want)[page, :, slot] = value
        _values(h, room)[page, :, slot] = doubt[row, values].reshape(value.shape) + np.abs(value) * 2.0**-10
    return q, Expected(want, room + SMALLEST_HALF, "float16")


def _convolved(c: ShortConv, where: Where, bcx: Array, weight: Array, kv: Array) -> tuple[Expected, Real]:
    """All pages with B·x of the rows, and C · convolution."""
    b, gate_c, x = (part.astype(np.float64) for part in np.split(bcx, 3, axis=1))
    want = kv.astype(np.float64)
    room = np.zeros(want.shape)

    def row(buffer: Array, i: int, position: int) -> Array:
        page = where.tables[where.sequence[i], c.heads.blocks + position // c.tokens]
        return buffer[page, position % c.tokens * c.width :][: c.width]

    for i, position in enumerate(where.positions):
        row(want, i, position)[:] = b[i] * x[i]
        row(room, i, position)[:] = np.abs(b[i] * x[i]) * 2 * EPS
    value, error = np.zeros(b.shape), np.zeros(b.shape)
    for i, position in enumerate(where.positions):
        for back in range(min(c.taps, position + 1)):
            before, tap = row(want, i, position - back), weight[c.taps - 1 - back]
            value[i] += before * tap
            error[i] += np.abs(before * tap) * 8 * EPS
    return Expected(want, room, "float32"), Real(value * gate_c, error * np.abs(gate_c))


def _attended(h: Heads, where: Where, q: Array, kv: Array, window: int) -> Real:
    """Causal attention of each row over its sequence's pages, up to and with its own position, of which it sees
    ``window`` (0: all); of several block tables the second is meant."""
    queries = q.astype(np.float64).reshape(len(q), h.heads, h.dim)
    out, error = np.zeros(queries.shape), np.zeros(queries.shape)
    halves = kv.view(np.float16)
    for row in range(len(q)):
        length = where.positions[row] + 1
        seen = slice(max(0, length - window) if window else 0, length)
        pages = where.tables[where.sequence[row], h.columns_of_table - h.blocks :][: -(-length // PAGE)]
        keys = _keys(h, halves)[pages].transpose(1, 0, 3, 2, 4).reshape(h.kv_heads, -1, h.dim)[:, seen]
        values = _values(h, halves)[pages].transpose(1, 0, 2, 3).reshape(h.kv_heads, -1, h.dim)[:, seen]
        for head in range(h.heads):
            k, v = (x[head // h.shared].astype(np.float64) for x in (keys, values))
            scores = k @ queries[row, head]
            doubt = (h.dim + 2) * EPS * (np.abs(k) @ np.abs(queries[row, head])).max()
            if h.cap:
                scores, doubt = h.cap * np.tanh(scores / h.cap), doubt + 2.0**-19 * h.cap
            share = np.exp(scores - scores.max())
            share /= share.sum()
            out[row, head] = share @ v
            # WGSL's exp is good to 3 + 2|x| units in the last place.
            relative = 2 * doubt + (16 + 8 * np.minimum(scores.max() - scores, 104)) * EPS
            spread = (share * relative) @ np.abs(v) + np.abs(out[row, head]) * (share @ relative)
            error[row, head] = spread + (length + 16) * EPS * (share @ np.abs(v))
    return Real(out.reshape(len(q), -1), error.reshape(len(q), -1))
