"""Linear layers against numpy: every weight format and activation form, any number of rows, widths inside a block."""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import pytest
from tvm.tirx import PrimFunc

from inpage.errors import Unsupported
from inpage_compile.kernels.cpu.isa import Isa
from inpage_compile.kernels.cpu.linear import Way, form_for, linear, linear_in, ways
from inpage_compile.kernels.shared.packed import PackedMatrix
from inpage_compile.quantize import FORMATS, Groups
from support import kernel_reference as reference
from support.kernels import HOST_ISAS, Array, Kernels, same_bits
from support.weights import columns_of, packed, random_quants, random_weights

Case = tuple[str, str, str, int, bool]  # instruction set, format, form, output rows, residual

ROWS = (0, 1, 2, 3, 5, 16, 17, 35)  # none, one tile, a full one, several of unequal size
COLUMNS = 96  # of what has no super-blocks; see `columns_of`
FORMS = {"q4_0": ["i8"], "q4_1": ["i8", "i16p", "f32"], "q8_0": ["i16", "f32"], "f16": ["f32"], "f32": ["f32"]}
FORMS |= {"bf16": ["f32"]} | {
    f: ["i8", "i16p", "f32"] for f in ("q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k")
}
FORMS |= {f: ["i16", "f32"] for f in ("iq4_nl", "iq4_xs", "mxfp4")}
if "INPAGE_SLOW" not in os.environ:  # what another format of the same parts has in that form, and this one in another
    FORMS |= {f: ["i8"] for f in ("q5_1", "q2_k", "q3_k", "q5_k")} | {"iq4_xs": ["i16"]}
# What this machine's variants run, at a width that ends inside a block; i16p is plain wasm's, but runs here too.
CASES: list[Case] = [
    (isa, format, form, 40, True)
    for isa in HOST_ISAS
    for format, forms in FORMS.items()
    for form in forms
    if isa == "x86" or (form != "i8" and format in ("q4_1", "q8_0", "q6_k"))
]
CASES += [(HOST_ISAS[0], "q8_0", "i16", 48, False), (HOST_ISAS[0], "q4_0", "i16p", 48, True)]  # whole blocks
CASES += [(HOST_ISAS[0], "q4_0", "f32", 24, False)]


def name(format: str, form: str, width: int, residual: bool) -> str:
    return f"{format}_{form}_{width}_{'add' if residual else 'set'}"


def case_id(case: Case) -> str:
    return f"{case[0]}-{name(*case[1:])}"


@pytest.fixture(scope="module")
def libraries() -> dict[str, Kernels]:
    def kernels(isa: str) -> dict[str, PrimFunc]:
        return {
            name(*case[1:]): linear(
                Isa(isa), PackedMatrix(FORMATS[case[1]], case[3], columns_of(case[1])), case[2], case[4]
            )
            for case in CASES
            if case[0] == isa
        }

    return {isa: Kernels(f"linear-{isa}", __file__, partial(kernels, isa)) for isa in HOST_ISAS}


def activations(rng: np.random.Generator, form: str, weights: Groups, rows: int) -> tuple[list[Array], reference.Real]:
    """Random input buffers of a kernel, and what it should make of them."""
    columns = columns_of(weights.format)
    if form == "f32":
        x = rng.standard_normal((rows, columns)).astype(np.float32)
        return [x], reference.dot_float(weights, x)
    quants, scales = random_quants(rng, rows, columns)
    return list(reference.activations(form, quants, scales).values()), reference.dot_int8(weights, quants, scales)


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_any_number_of_rows_agrees_with_numpy_and_each_row_with_itself_alone(
    libraries: dict[str, Kernels], case: Case
) -> None:
    isa, format, form, width, residual = case
    rng = np.random.default_rng(width)
    library, kernel = libraries[isa], name(format, form, width, residual)
    weights = random_weights(rng, format, width, columns_of(format))
    for rows in ROWS:
        x, real = activations(rng, form, weights, rows)
        skip = [rng.standard_normal((rows, width)).astype(np.float32)] if residual else []
        inputs = [*x, packed(weights), *skip]
        (y,) = library.run_split(kernel, inputs, [rows], [((rows, width), np.float32)])
        for expected in reference.stored("f32", real.plus(skip[0]) if skip else real).values():
            assert expected.wrong(y).size == 0
        for row in range(rows):
            inputs = [*(b[row : row + 1] for b in x), packed(weights), *(b[row : row + 1] for b in skip)]
            (alone,) = library.run(kernel, inputs, [1], [((1, width), np.float32)])
            assert same_bits(alone[0], y[row]), f"row {row} of {rows}"


INTEGER = [c for c in CASES if c[2] != "f32" and c[4]]


def extremes(low: int, high: int, rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Numbers: rows all at one end, at the other, by turns, pairs by turns, then random ends."""
    q = rng.choice([low, high], shape)
    q[0], q[1], q[2, ::2], q[2, 1::2] = low, high, low, high
    if shape[1] % 4 == 0:
        q[3] = np.tile([low, low, high, high], shape[1] // 4)
    return q


@pytest.mark.parametrize("case", [c for c in INTEGER if FORMATS[c[1]].super is None], ids=case_id)
def test_sums_at_the_extremes_are_exact(libraries: dict[str, Kernels], case: Case) -> None:
    """Activations at ±127 against quants at both ends; scales are powers of two, so that nothing may round."""
    isa, format, form, width, _ = case
    rng, fmt = np.random.default_rng(1), FORMATS[format]
    shape = (width, COLUMNS // 32)
    d = rng.choice([1, -2], shape).astype(np.float16).view(np.uint16)
    if fmt.scale == "e8m0":
        d = rng.choice([128, 129], shape).astype(np.uint8)
    m = rng.choice([-4, 0, 1], shape).astype(np.float16).view(np.uint16) if fmt.min else None
    low, high = (-128, 127) if fmt.type == "int" else (0, (1 << fmt.bits) - 1)
    if fmt.table is not None:
        low, high = int(np.argmin(fmt.table)), int(np.argmax(fmt.table))
    q = extremes(low, high, rng, (width, COLUMNS)).astype(np.int8 if fmt.type == "int" else np.uint8)
    weights = Groups(format, q, d, m)
    x = rng.choice([-127, 127], (9, COLUMNS))
    x[0], x[1], x[2, ::2], x[2, 1::2] = 127, -127, 127, -127
    x[3], x[4, 32:64] = 0, 0  # an all-zero row, and an all-zero group
    scales = rng.choice([0.5, 1], (9, COLUMNS // 32)).astype(np.float32)
    skip = rng.integers(-100, 100, (9, width)).astype(np.float32)
    inputs = [*reference.activations(form, x, scales).values(), packed(weights), skip]
    (y,) = libraries[isa].run_split(name(*case[1:]), inputs, [9], [((9, width), np.float32)])
    assert np.array_equal(y, reference.dot_int8(weights, x, scales).value + skip)


@pytest.mark.parametrize("case", [c for c in INTEGER if FORMATS[c[1]].super is not None], ids=case_id)
def test_sums_of_a_super_block_at_the_extremes_are_exact(libraries: dict[str, Kernels], case: Case) -> None:
    """Sub-scales, sub-minima, quants and activations at both ends. What one group makes is held exactly; so each row
    of activations has but one group that is not zero."""
    isa, format, form, width, _ = case
    rng, fmt, columns = np.random.default_rng(1), FORMATS[case[1]], columns_of(case[1])
    assert fmt.super is not None
    least, most = (-128, 127) if fmt.super.signed else (0, (1 << fmt.super.scale_bits) - 1)
    most_minimum = (1 << fmt.super.min_bits) - 1
    ones = [rng.choice([1, -1], (width, columns // fmt.span)).astype(np.float16).view(np.uint16) for _ in range(2)]
    shape = (width, columns // fmt.group)
    sub = extremes(least, most, rng, shape).astype(np.int8 if fmt.super.signed else np.uint8)
    minima = (ones[1], rng.choice([0, most_minimum], shape).astype(np.uint8)) if fmt.super.min else (None, None)
    quants = extremes(0, (1 << fmt.bits) - 1, rng, (width, columns)).astype(np.uint8)
    weights = Groups(format, quants, ones[0], minima[0], sub, minima[1])
    rows = columns // 32
    x = np.zeros((rows, rows, 32), np.int64)
    x[np.arange(rows), np.arange(rows)] = extremes(-127, 127, rng, (rows, 32))
    x = x.reshape(rows, columns)
    scales = np.ones((rows, rows), np.float32)
    skip = rng.integers(-100, 100, (rows, width)).astype(np.float32)
    inputs = [*reference.activations(form, x, scales).values(), packed(weights), skip]
    (y,) = libraries[isa].run_split(name(*case[1:]), inputs, [rows], [((rows, width), np.float32)])
    expected = reference.dot_int8(weights, x, scales).value + skip
    largest = (1 << fmt.bits) * (1 << fmt.super.scale_bits) * 127  # of one product, nearly
    assert np.abs(expected).max() > 4 * largest
    assert np.array_equal(y, expected)


@pytest.mark.parametrize("case", INTEGER, ids=case_id)
def test_a_group_with_a_huge_scale_stays_finite_and_right(libraries: dict[str, Kernels], case: Case) -> None:
    isa, format, form, width, _ = case
    rng = np.random.default_rng(2)
    weights = random_weights(rng, format, width, columns_of(format))
    assert weights.d is not None
    weights.d[:, 1] = 143 if weights.format == "mxfp4" else np.float16(65504).view(np.uint16)
    x, scales = random_quants(rng, 5, columns_of(format))
    scales[:, 1] = 1e28
    zero = np.zeros((5, width), np.float32)
    inputs = [*reference.activations(form, x, scales).values(), packed(weights), zero]
    (y,) = libraries[isa].run(name(*case[1:]), inputs, [5], [((5, width), np.float32)])
    assert reference.stored("f32", reference.dot_int8(weights, x, scales))["y"].wrong(y).size == 0


WAYS = [Way(1), Way(2), Way(3), Way(4), Way(1, tiles=True), Way(2, tiles=True)]
WIDTHS = (40, 144)  # fewer blocks than streams and one cut off; some left over
WAY_CASES = [
    (format, form_for(Isa(HOST_ISAS[0]), FORMATS[format], "int8"), width)
    for format, widths in {"q4_1": WIDTHS, "q8_0": WIDTHS[1:], "q4_k": WIDTHS[:1]}.items()
    for width in (WIDTHS if "INPAGE_SLOW" in os.environ else widths)
]


@pytest.fixture(scope="module")
def by_way() -> Kernels:
    def kernels() -> dict[str, PrimFunc]:
        made = {}
        for format, form, width in WAY_CASES:
            weights = PackedMatrix(FORMATS[format], width, columns_of(format))
            for way in WAYS:
                made[f"{format}_{width}_{way}{way.streams}"] = linear_in(Isa(HOST_ISAS[0]), weights, form, True, way)
        return made

    return Kernels("linear-ways", __file__, kernels)


@pytest.mark.parametrize(("format", "form", "width"), WAY_CASES)
def test_every_way_leaves_the_same_bits(by_way: Kernels, format: str, form: str, width: int) -> None:
    rng = np.random.default_rng(width)
    weights = random_weights(rng, format, width, columns_of(format))
    for rows in (0, 1, 2, 7, 35):
        x, _ = activations(rng, form, weights, rows)
        inputs = [*x, packed(weights), rng.standard_normal((rows, width)).astype(np.float32)]
        outs = [
            by_way.run_split(f"{format}_{width}_{way}{way.streams}", inputs, [rows], [((rows, width), np.float32)])[0]
            for way in WAYS
        ]
        assert all(same_bits(outs[0], out) for out in outs[1:]), f"{rows} rows"


def test_the_device_chooses_among_ways_that_take_the_same_arguments() -> None:
    isa, weights = Isa("wasm-relaxed"), PackedMatrix(FORMATS["q4_1"], 64, COLUMNS)
    kernel = linear(isa, weights, "i8", True, single=True)
    others = list(kernel.attrs["inpage.alternatives"])
    names = [str(f.attrs["inpage.name"]) for f in (kernel, *others)]
    assert len(set(names)) == len(names) == len(ways(isa, weights, "i8", single=True)) == 6
    assert len({str(f.attrs["inpage.access"]) for f in (kernel, *others)}) == 1
    assert len(ways(Isa("wasm-simd"), weights, "i16p", single=True)) == 4


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_a_format_is_read_or_refused_by_name(format: str) -> None:
    """A K-quant begins with the same letters as what kernels read."""
    if format in FORMS:
        assert PackedMatrix(FORMATS[format], 16, 256).label == format
        return
    with pytest.raises(Unsupported, match=format):
        PackedMatrix(FORMATS[format], 16, 256)


def test_columns_that_are_no_whole_super_blocks_are_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="columns: 288 are not a multiple of 256, which q4_k needs"):
        PackedMatrix(FORMATS["q4_k"], 16, 288)


def test_forms_that_an_instruction_set_wants() -> None:
    assert (
        form_for(Isa("x86"), FORMATS["q4_1"], "int8") == form_for(Isa("wasm-relaxed"), FORMATS["q4_0"], "int8") == "i8"
    )
    assert form_for(Isa("wasm-simd"), FORMATS["q4_1"], "int8") == "i16p"
    assert form_for(Isa("x86"), FORMATS["q8_0"], "int8") == "i16"
    for isa, format, kind in (("portable", "q4_1", "int8"), ("x86", "f16", "int8"), ("x86", "q4_1", "f32")):
        assert form_for(Isa(isa), FORMATS[format], kind) == "f32"
