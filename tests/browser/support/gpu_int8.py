"""Cases for WebGPU's kernels with activations in 8 bits (`gpu_content` has the rest): rounded as the CPU's kernels
round them, exact within a group (`support.kernel_reference.dot_int8`), and the same bits for one row, few and tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from gpu_content import SLOW, Array, Case, interleaved, stored
from tvm import tirx

from inpage_compile.kernels.shared.packed import PackedMatrix
from inpage_compile.kernels.webgpu import linear
from inpage_compile.kernels.webgpu.linear import Input, Shape
from inpage_compile.kernels.webgpu.linear_tiles import TILES
from inpage_compile.kernels.webgpu.quantize_rows import quantize_rows, words_of
from inpage_compile.quantize import FORMATS, Groups
from support.kernel_reference import EPS, GROUP, Real, dot_int8, gate
from support.weights import packed, random_weights

Make = Callable[[Input], tirx.PrimFunc]
Launch = tuple[tirx.PrimFunc, list[str], list[int]]

EPSILON = 1e-5
FORMAT_NAMES = ("q4_0", "q4_1", "q8_0", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k")


@dataclass(frozen=True)
class Rows:
    """Activations, what numpy rounds them to, and 1/rms of each, which is left to the result."""

    x: Array
    norm: Array | None = None

    def dot(self, w: Groups) -> Real:
        scaled = self.x if self.norm is None else self.x * self.norm
        groups = scaled.reshape(len(scaled), -1, GROUP)
        largest = np.abs(groups).max(2)
        inverse = np.where(largest > 0, np.float32(127) / np.maximum(largest, np.float32(1e-30)), np.float32(0))
        wide = groups.astype(np.float64) * inverse[:, :, None]
        quants, scales = np.rint(wide).reshape(scaled.shape), largest / np.float32(127)
        real = dot_int8(w, quants, scales)
        # WGSL's division is good to 2.5 units in the last place, so what lies so near a tie may go either way.
        tie = np.abs(np.abs(wide - np.trunc(wide)) - 0.5) <= 8 * EPS * np.abs(wide)
        moved = (tie * scales[:, :, None]).reshape(scaled.shape) @ np.abs(w.to_float32().astype(np.float64)).T
        real = Real(real.value, real.error + 2 * EPS * np.abs(real.value) + moved)
        if self.norm is None:
            return real
        root = 1 / np.sqrt((self.x.astype(np.float64) ** 2).mean(1, keepdims=True) + np.float64(np.float32(EPSILON)))
        slack = (self.x.shape[1] + 16) * EPS
        return Real(real.value * root, (real.error + np.abs(real.value) * slack) * root)

    def launches(self, of: int, shape: Shape, make: Make) -> tuple[dict[str, Array | None], list[Launch]]:
        """Of the first ``of`` rows: buffers but for weights and what is made, and the launches."""
        columns, epsilon = self.x.shape[1], None if self.norm is None else EPSILON
        norm = {} if self.norm is None else {"norm": self.norm}
        buffers: dict[str, Array | None] = {"x": self.x[:of], **norm}
        if shape == 1:
            func = make(Input("float32", epsilon, int8=True))
            return buffers, [(func, ["x", "w", *norm, "y"], [of])]
        quantize = quantize_rows(columns, "float32", epsilon)
        func = make(Input("uint32", epsilon, int8=True))
        return {**buffers, "q": None}, [(quantize, ["x", *norm, "q"], [of]), (func, ["q", "w", "y"], [of])]


class Int8Content:
    """A pipeline takes the adapter most of a second: every format by every kind of kernel only where there is time."""

    def cases(self) -> Iterator[Case]:
        rng = np.random.default_rng(11)
        some: Sequence[tuple[Shape, int]] = ((16, 9), (TILES[-1], 70))
        for fmt in FORMAT_NAMES if SLOW else ("q6_k",):
            columns = 3 * max(FORMATS[fmt].span, GROUP)
            w, x = random_weights(rng, fmt, 20, columns), self._activations(rng, 70, columns)
            more = ((16, 1), (4, 4), *((tile, 70) for tile in TILES)) if SLOW and fmt in ("q4_0", "q6_k") else ()
            yield from self._linear(fmt, w, Rows(x), (*some, *more))
        # A norm folded in; a width that is no whole number of shares, and rows of 64 shares, a part at a time.
        for fmt, n, k in (("q4_1", 36, 96), *((("q8_0", 7, 8288), ("q4_k", 20, 14336)) if SLOW else ())):
            w, x = random_weights(rng, fmt, n, k), self._activations(rng, 70, k)
            norm = rng.standard_normal(k).astype(np.float32)
            yield from self._linear(f"norm {fmt}", w, Rows(x, norm), some if SLOW else ((4, 70),))
        for fmt in ("q8_0", "q4_k") if SLOW else ("q8_0",):
            yield from self._gated(rng, fmt, 96, 256 if fmt == "q4_k" else 64)

    def _activations(self, rng: np.random.Generator, rows: int, columns: int) -> Array:
        """A group of nothing among them."""
        x = rng.standard_normal((rows, columns)).astype(np.float32)
        x[1, :GROUP] = 0
        return x

    def _linear(self, name: str, w: Groups, rows: Rows, shapes: Sequence[tuple[Shape, int]]) -> Iterator[Case]:
        n, k = w.q.shape
        weights, most = PackedMatrix(FORMATS[w.format], n, k), len(rows.x)
        want = rows.dot(w)
        for shape, count in ((1, most), *shapes):
            buffers, launches = rows.launches(
                count, shape, lambda x, shape=shape: linear.linear(weights, shape, x, "float32")
            )
            yield self._case(name, f"{n}x{k}", shape, count, {**buffers, "w": packed(w).view(np.uint32)}, launches,
                             want, most)  # fmt: skip

    def _gated(self, rng: np.random.Generator, fmt: str, hidden: int, k: int) -> Iterator[Case]:
        gates, ups = random_weights(rng, fmt, hidden, k), random_weights(rng, fmt, hidden, k)
        rows = Rows(self._activations(rng, 70, k), rng.standard_normal(k).astype(np.float32) * np.float32(0.01))
        weights = PackedMatrix(FORMATS[fmt], 2 * hidden, k)
        want = gate(rows.dot(gates), rows.dot(ups))
        w = packed(interleaved(gates, ups)).view(np.uint32)
        for shape, count in ((1, 70), (TILES[0], 70), *(((16, 70), (TILES[1], 70)) if SLOW else ())):
            buffers, launches = rows.launches(
                count, shape, lambda x, shape=shape: linear.gated(weights, shape, x, "float32")
            )
            yield self._case(f"gated {fmt}", f"{hidden}x{k}", shape, count, {**buffers, "w": w}, launches, want, 70)

    def _case(
        self, name: str, size: str, shape: Shape, count: int, buffers: dict[str, Array | None],
        launches: list[Launch], want: Real, most: int,
    ) -> Case:  # fmt: skip
        sizes = {"q": count * words_of(buffers["x"].shape[1]) * 4} if "q" in buffers else {}  # type: ignore[union-attr]
        expected = stored(Real(want.value[:count], want.error[:count]), "float32")
        return Case("int8", f"{name} {size}, {count} rows by {shape}", {**buffers, "y": None}, launches,
                         {"y": expected}, like=None if shape == 1 else f"{name} {size}, {most} rows by 1",
                         sizes=sizes)  # fmt: skip
