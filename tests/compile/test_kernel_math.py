"""Half precision by bit patterns, the exponential, and the quantization rule, against numpy."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from tvm import tirx
from tvm.tirx import PrimFunc

from inpage_compile.kernels.cpu import math as vector_math
from inpage_compile.kernels.cpu.build import Args, kernel, parallel, span
from inpage_compile.kernels.cpu.isa import Isa
from inpage_compile.kernels.cpu.parts import requantize
from inpage_compile.kernels.cpu.quantize import FORM_DTYPE
from inpage_compile.kernels.shared.expressions import Expr, let, store
from support.kernel_reference import ordered
from support.kernels import HOST_ISAS, Array, Kernels, same_bits

WIDTH = 96


def elementwise(name: str, source: str, out: str, function: Any, lanes: int = 4) -> PrimFunc:
    """(x, rows → y): ``function`` of every ``lanes`` elements; x has ``lanes`` · rows of them."""

    def build(a: Args) -> None:
        n = tirx.Var("rows", "int64")
        x = a.buffer("x", (n * lanes,), source)
        rows = a.count("rows", n)
        y = a.buffer("y", (n * lanes,), out)
        with parallel(rows) as row:
            at: Expr = span(row * lanes) if lanes > 1 else row
            store(y, function(let(x[at])), at)

    return kernel(name, build)


def kernels(isa: Isa) -> dict[str, PrimFunc]:
    return {
        "encode": elementwise("encode", "float32", "int16", vector_math.f16_encode),
        "decode": elementwise("decode", "int16", "float32", vector_math.f16_decode),
        "decode_one": elementwise("decode_one", "int16", "float32", vector_math.f16_decode_scalar, lanes=1),
        "exponential": elementwise("exponential", "float32", "float32", partial(vector_math.exp, isa)),
        **{form: requantize(isa, WIDTH, form) for form in FORM_DTYPE if form != "f32"},
    }


@pytest.fixture(scope="module", params=HOST_ISAS)
def library(request: pytest.FixtureRequest) -> Kernels:
    return Kernels(f"math-{request.param}", __file__, partial(kernels, Isa(request.param)))


def apply(library: Kernels, name: str, x: Array, dtype: Any) -> Array:
    """``name`` on any number of elements."""
    padded = np.concatenate([x, np.zeros(-x.size % 4, x.dtype)])
    rows = padded.size if name == "decode_one" else padded.size // 4
    return library.run_split(name, [padded], [rows], [((padded.size,), dtype)])[0][: x.size]


def finite_halves() -> Array:
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    return halves[np.isfinite(halves)]


def test_every_half_decodes_as_numpy_does(library: Kernels) -> None:
    halves = finite_halves()
    for name in ("decode", "decode_one"):
        got = apply(library, name, halves.view(np.int16), np.float32)
        assert same_bits(got, halves.astype(np.float32)), name


def test_halves_are_rounded_to_nearest_even_as_numpy_does(library: Kernels) -> None:
    """Every half, the middle between each two, both neighbours of that, and random numbers of all sizes."""
    halves = np.unique(finite_halves().astype(np.float32))
    middle = (halves[1:] + halves[:-1]) / np.float32(2)
    up, down = np.nextafter(middle, np.float32(np.inf)), np.nextafter(middle, np.float32(-np.inf))
    noise = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32)
    noise = noise[np.abs(noise) <= 65504]
    tiny = np.array([0.0, -0.0, 1e-45, -1e-45, 1e-38, 2.0**-25, -(2.0**-25), 2.0**-26], np.float32)
    x = np.concatenate([halves, middle, up, down, noise, tiny])
    got = apply(library, "encode", x, np.int16).view(np.float16)
    wanted = x.astype(np.float16)
    normal = np.abs(x) >= 2.0**-14
    assert np.array_equal(got[normal], wanted[normal])
    # A half's denormals pass through float32's, of 2^-37 here: rounded to those first.
    twice = (np.rint(x[~normal].astype(np.float64) * 2.0**37) * 2.0**-37).astype(np.float16)
    assert np.array_equal(got[~normal], twice)
    assert np.array_equal(np.signbit(got), np.signbit(wanted))


def test_halves_are_clamped(library: Kernels) -> None:
    x = np.array([65504, 65505, 65519.9, 65520, 1e5, 3e38, np.inf], np.float32)
    got = apply(library, "encode", np.concatenate([x, -x]), np.int16).view(np.float16)
    assert got.tolist() == [65504] * x.size + [-65504] * x.size


def test_exp_is_right_to_few_ulp(library: Kernels) -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate(
        [rng.uniform(-87, 88, 50_000), rng.normal(0, 1, 50_000), np.linspace(-87, 88, 7001), [0.0, -0.0]]
    )
    x = x.astype(np.float32)
    got = apply(library, "exponential", x, np.float32)
    true = np.exp(x.astype(np.float64))
    assert (np.abs(got / true - 1) * 2.0**24 <= 2 + 1.25 * np.abs(x)).all()
    assert got[-2:].tolist() == [1, 1]


def test_exp_beyond_its_range(library: Kernels) -> None:
    low = np.array([-88, -89, -100, -104, -105, -1e10, -3e38, -np.inf], np.float32)
    assert np.array_equal(apply(library, "exponential", low, np.float32), np.zeros(low.size, np.float32))
    high = np.array([88, 88.5, 1e4, 3e38, np.inf], np.float32)
    got = apply(library, "exponential", high, np.float32)
    assert np.isfinite(got).all() and (got == got[0]).all()


def quantized(x: Array) -> tuple[Array, Array]:
    """The rule, in float32 step by step: scale = largest / 127, q = x · (127 / largest) to nearest even."""
    groups = x.reshape(x.shape[0], x.shape[1] // 32, 32)
    largest = np.abs(groups).max(axis=2)
    inverse = np.where(largest > 0, np.float32(127) / np.maximum(largest, np.float32(1e-30)), np.float32(0))
    q = np.rint(groups * inverse[:, :, None]).astype(np.int32)
    scale = largest * np.float32(1 / 127)
    return q.reshape(x.shape), np.stack([scale, scale * q.sum(axis=2).astype(np.float32)], axis=2)


def rows_to_quantize() -> Array:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((9, WIDTH)).astype(np.float32)
    x[1] = 0
    x[2, 32:64] = 0  # a zero group between others
    x[3] = np.tile([1, -1], WIDTH // 2)  # everything at ±127
    x[4] = (np.arange(WIDTH) - 47.5) * 2  # halves: 127 at most, ties on the way
    x[4, ::32] = 127
    x[5] *= np.float32(1e30)
    x[6] *= np.float32(1e-28)
    x[7, 40] = 1e6  # one outlier leaves its group with zeros
    x[8, :32] = -0.0
    return x


@pytest.mark.parametrize("form", ["i8", "i16", "i16p"])
def test_activations_are_quantized_by_the_documented_rule(library: Kernels, form: str) -> None:
    x = rows_to_quantize()
    outputs = [(x.shape, np.dtype(FORM_DTYPE[form])), ((x.shape[0], WIDTH // 32, 2), np.float32)]
    q, scales = library.run_split(form, [x], [x.shape[0]], outputs)
    wanted, wanted_scales = quantized(x)
    assert np.array_equal(q, ordered(form, wanted))
    assert np.array_equal(scales, wanted_scales)
    assert np.abs(q.astype(int)).max() == 127
    step = np.repeat(scales[:, :, 0], 32, axis=1)
    assert (np.abs(wanted * step - x) <= step * 0.50001).all()
