"""Cases for kernels that multiply by matrix units (`gpu_content` has the rest): activations and weights rounded to
float16, products added up in float32, and the same bits for few rows and tiles.

No adapter of Chromium's here has such units. In its tests their instructions are written out as loops (`emulated`),
with float16 rounded in float32: that tries everything around them. With units themselves, on Mesa 26's lavapipe, they
run in Node: see tests/support/gpu_kernels.mjs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from gpu_content import Array, Case, interleaved, stored
from tvm import tirx

from inpage_compile.kernels.shared.packed import PackedMatrix
from inpage_compile.kernels.webgpu import linear, rows
from inpage_compile.kernels.webgpu.linear import Input
from inpage_compile.kernels.webgpu.linear_matrices import MatrixShape
from inpage_compile.kernels.webgpu.matrix_units import MatrixUnits
from inpage_compile.quantize import FORMATS, Groups
from support.kernel_reference import EPS, Real, gate, rms_norm
from support.weights import packed, random_weights

FORMAT_NAMES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k",
                "iq4_nl", "iq4_xs", "mxfp4")  # fmt: skip
_NORMAL = 2.0**-14  # below, devices may take float16 for 0
_EPSILON = 1e-5


def _dot(w: Groups, x: Array) -> Real:
    """x · Wᵀ, both rounded to float16 before."""
    sides = [each.astype(np.float16).astype(np.float64) for each in (x, w.to_float32())]
    a, b = (np.abs(each) for each in sides)
    dropped = (a * (a < _NORMAL)) @ b.T + a @ (b * (b < _NORMAL)).T
    return Real(sides[0] @ sides[1].T, (x.shape[1] + 8) * EPS * (a @ b.T) + dropped)


class UnitsContent:
    """``units``: those to try; ``dtype``: of activations. ``formats``: by all kinds of kernels; of one only, not by all
    of them, as each without units takes the adapter seconds."""

    def __init__(self, units: Sequence[MatrixUnits], dtype: str, formats: Sequence[str]) -> None:
        self.units, self.dtype, self.formats = units, dtype, formats

    def cases(self) -> Iterator[Case]:
        rng = np.random.default_rng(12)
        every = len(self.formats) > 1
        for units in self.units:
            few, small, large = (MatrixShape(units, rows) for rows in (16, 32, 64))
            for fmt in self.formats:
                span = max(FORMATS[fmt].span, 32)
                shapes = ((few, 9), (few, 1), *([(small, 9)] if every else []))
                yield from self._linear(rng, fmt, 20, 3 * span, shapes)
            # More than a tile of rows and of outputs, neither of them whole; a share of nothing.
            if every:
                yield from self._linear(rng, "q4_1", 84, 96, ((large, 70), (small, 70), (few, 17)))
            yield from self._gated(rng, "q8_0", 48, 96, ((large, 70), *([(small, 70)] if every else []), (few, 17)))
        x, norm = rng.standard_normal((3, 96)).astype(np.float32) * 1e5, rng.standard_normal(96).astype(np.float32)
        func = rows.norm_rows(96, _EPSILON, self.dtype)
        want = stored(rms_norm(x, norm, _EPSILON), self.dtype)
        yield Case("units", "norm of 3 rows", {"x": x, "norm": norm, "y": None}, [(func, ["x", "norm", "y"], [3])],
                   {"y": want})  # fmt: skip

    def _linear(self, rng: np.random.Generator, fmt: str, n: int, k: int,
                shapes: Sequence[tuple[MatrixShape, int]]) -> Iterator[Case]:  # fmt: skip
        w, x = random_weights(rng, fmt, n, k), (rng.standard_normal((70, k)) * 0.02).astype(self.dtype)
        weights = PackedMatrix(FORMATS[fmt], n, k)
        yield from self._cases(f"{fmt} {n}x{k}", x, packed(w), _dot(w, x), shapes, lambda shape: linear.linear(
            weights, shape, Input(self.dtype), self.dtype))  # fmt: skip

    def _gated(self, rng: np.random.Generator, fmt: str, hidden: int, k: int,
               shapes: Sequence[tuple[MatrixShape, int]]) -> Iterator[Case]:  # fmt: skip
        gates, ups = random_weights(rng, fmt, hidden, k), random_weights(rng, fmt, hidden, k)
        x = (rng.standard_normal((70, k)) * 0.02).astype(self.dtype)
        weights = PackedMatrix(FORMATS[fmt], 2 * hidden, k)
        want = gate(_dot(gates, x), _dot(ups, x))
        yield from self._cases(f"gated {fmt} {hidden}x{k}", x, packed(interleaved(gates, ups)), want, shapes,
                               lambda shape: linear.gated(weights, shape, Input(self.dtype), self.dtype))  # fmt: skip

    def _cases(
        self, name: str, x: Array, w: Array, want: Real, shapes: Sequence[tuple[MatrixShape, int]],
        make: Callable[[MatrixShape], tirx.PrimFunc],
    ) -> Iterator[Case]:  # fmt: skip
        """All as the first, bit for bit."""
        like = None
        for shape, count in shapes:
            expected = stored(Real(want.value[:count], want.error[:count]), self.dtype)
            own = f"{name}, {count} rows by {shape}"
            buffers: dict[str, Array | None] = {"x": x[:count], "w": w.view(np.uint32), "y": None}
            yield Case("units", own, buffers, [(make(shape), ["x", "w", "y"], [count])], {"y": expected}, like=like)
            like = like or own


_HALVED = """
fn halved(v : vec4<f32>) -> vec4<f32> {
  let bits = bitcast<vec4<u32>>(v);
  return bitcast<vec4<f32>>((bits + 4095u + ((bits >> vec4(13u)) & vec4(1u))) & vec4(0xffffe000u));
}
"""  # not quantizeToF16, which may round towards 0
_MATRIX = re.compile(r"subgroup_matrix_(?:left|right|result)<f\d\d, (\d+), (\d+)>")
_LOAD = re.compile(r"(\w+) = subgroupMatrixLoad<[^(]*(row|col)_major>\(&(\w+), (.*?), (u32\(\d+i\))\);")
_STORE = re.compile(r"subgroupMatrixStore<row_major>\(&(\w+), (.*?), (\w+), (u32\(\d+i\))\);")
_MULTIPLY = re.compile(r"(\w+) = subgroupMatrixMultiplyAccumulate\((\w+), (\w+), \w+\);")


def emulated(source: str) -> str:
    """A kernel with its matrices as arrays, which each thread of the subgroup works on for itself, and float16 as
    float32 that is rounded."""
    sizes = {name: (int(c), int(r)) for name, c, r in re.findall(rf"var (\w+) : {_MATRIX.pattern};", source)}

    def each(name: str, do: str) -> str:
        columns, rows_ = sizes[name]
        return (f"for (var r = 0u; r < {rows_}u; r++) {{ for (var c = 0u; c < {columns}u; c++) {{ "
                f"let i = r * {columns}u + c; {do} }} }}")  # fmt: skip

    def multiplied(found: re.Match[str]) -> str:
        sums, left, right = found.groups()
        depth, width = sizes[left][0], sizes[right][0]
        product = f"fma({left}[r * {depth}u + k], {right}[k * {width}u + c], {sums}[i])"
        return each(sums, f"for (var k = 0u; k < {depth}u; k++) {{ {sums}[i] = {product}; }}")

    def loaded(found: re.Match[str]) -> str:
        name, order, memory, start, stride = found.groups()
        line, at = ("r", "c") if order == "row" else ("c", "r")
        return each(name, f"{name}[i] = {memory}[{start} + {line} * {stride} + {at}];")

    source = _LOAD.sub(loaded, source)
    source = _STORE.sub(lambda f: each(f[3], f"{f[1]}[{f[2]} + r * {f[4]} + c] = {f[3]}[i];"), source)
    source = _MATRIX.sub(lambda f: f"array<f32, {int(f[1]) * int(f[2])}>", _MULTIPLY.sub(multiplied, source))
    source = re.sub(r"^(?:enable (?:f16|chromium_\w+)|diagnostic\(.*\));\n", "", source, flags=re.MULTILINE)
    source = source.replace("vec4<f16>(", "halved(").replace("f16>", "f32>").replace("array<f16,", "array<f32,")
    return source + _HALVED
