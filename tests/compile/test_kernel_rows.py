"""Kernels that treat rows one by one, against numpy: embedding, norms, the gated pair, joining, the rotation table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from tvm.tirx import PrimFunc

from inpage_compile.kernels.cpu.isa import Isa
from inpage_compile.kernels.cpu.linear import embed, gated
from inpage_compile.kernels.cpu.norm import rms_norm, rope_table
from inpage_compile.kernels.cpu.parts import gate, join
from inpage_compile.kernels.cpu.quantize import FORM_DTYPE
from inpage_compile.kernels.shared.packed import PackedMatrix
from inpage_compile.quantize import FORMATS, Groups
from support import kernel_reference as reference
from support.kernels import HOST_ISAS, Array, Kernels, same_bits
from support.weights import packed, random_quants, random_weights

ROWS = (0, 1, 2, 3, 5, 16, 17, 35)  # none, one tile, a full one, several of unequal size
COLUMNS = 96
NAMES = ("q4_0", "q4_1", "q8_0", "f16", "f32")
# Weight format, form of the input, form of the result: x86 has all, plain code what it runs.
GATED = {"x86": [("q4_1", "i8", "i8"), ("q4_0", "i16p", "i16p"), ("q8_0", "i16", "f32"), ("f32", "f32", "i16")]}
GATED["portable"] = [("q4_1", "f32", "f32")]
NORMS = ("f32", "i8", "i16", "i16p")
PICKED = ("f32", "i8")
GATES = ("f32", "i8", "i16p")
WIDTHS = (96, 32, 64)
SCALE = 1.2079


def kernels(isa: str) -> dict[str, PrimFunc]:
    out = {f"rms_{form}": rms_norm(Isa(isa), COLUMNS, 1e-5, form) for form in run_on(isa, NORMS)}
    out |= {f"gather_{form}": rms_norm(Isa(isa), COLUMNS, 1e-5, form, gather=True) for form in run_on(isa, PICKED)}
    out |= {
        f"gated_{format}_{form}_{to}": gated(Isa(isa), PackedMatrix(FORMATS[format], 2 * COLUMNS, COLUMNS), form, to)
        for format, form, to in GATED[isa]
    }
    out |= {f"gate_{form}": gate(Isa(isa), COLUMNS, form) for form in run_on(isa, GATES)}
    if isa == HOST_ISAS[0]:  # the same for every instruction set
        out |= {f"embed_{format}": embed(PackedMatrix(FORMATS[format], 40, COLUMNS)) for format in NAMES}
        out |= {"rope_table": rope_table(64), "rope_scaled": rope_table(64, SCALE), "join": join(WIDTHS)}
    return out


def run_on(isa: str, forms: Sequence[str]) -> Sequence[str]:
    """Plain code keeps activations in float32."""
    return ("f32",) if isa == "portable" else forms


def in_forms(forms: Sequence[str]) -> pytest.MarkDecorator:
    cases = [(isa, form) for isa in HOST_ISAS for form in run_on(isa, forms)]
    return pytest.mark.parametrize(("isa", "form"), cases, indirect=["isa"])


once = pytest.mark.parametrize("isa", HOST_ISAS[:1], indirect=True)


@pytest.fixture(scope="module")
def isa(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def library(isa: str) -> Kernels:
    return Kernels(f"rows-{isa}", __file__, partial(kernels, isa))


def outputs_of(form: str, rows: int, width: int) -> list[tuple[tuple[int, ...], Any]]:
    """A kernel's outputs for a result in ``form``."""
    out: list[tuple[tuple[int, ...], Any]] = [((rows, width), np.dtype(FORM_DTYPE[form]))]
    return out if form == "f32" else [*out, ((rows, width // 32, 2), np.float32)]


def check(
    library: Kernels, name: str, by_row: Sequence[Array], others: Sequence[Array], form: str, real: reference.Real
) -> None:
    """All rows at once against numpy, then each alone against itself. Buffers come in the order ``by_row``, others."""
    rows, width = real.value.shape
    made = library.run_split(name, [*by_row, *others], [rows], outputs_of(form, rows, width))
    for got, expected in zip(made, reference.stored(form, real).values(), strict=True):
        assert expected.wrong(got).size == 0
    for row in range(rows):
        inputs = [*(b[row : row + 1] for b in by_row), *others]
        alone = library.run(name, inputs, [1], outputs_of(form, 1, width))
        assert all(same_bits(a[0], b[row]) for a, b in zip(alone, made, strict=True)), f"row {row} of {rows}"


@once
@pytest.mark.parametrize("format", NAMES)
def test_embed_picks_rows_exactly(library: Kernels, format: str) -> None:
    rng = np.random.default_rng(0)
    weights = random_weights(rng, format, 40, COLUMNS)
    for ids in ([], [0], [39], [15, 16, 15, 0, 31, 32, 7], list(range(40))):
        tokens = np.array(ids, np.int32)
        shape = [((len(ids), COLUMNS), np.float32)]
        (y,) = library.run_split(f"embed_{format}", [tokens, packed(weights)], [len(ids)], shape)
        assert reference.embed(weights, tokens).wrong(y).size == 0


@in_forms(NORMS)
def test_rms_norm(library: Kernels, form: str) -> None:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal(COLUMNS).astype(np.float32)
    for rows in ROWS:
        x = rng.standard_normal((rows, COLUMNS)).astype(np.float32) * 10.0 ** rng.integers(-6, 4, (rows, 1))
        x = x.astype(np.float32)
        x[2:3] = 0  # epsilon keeps it from dividing by zero
        check(library, f"rms_{form}", [x], [weight], form, reference.rms_norm(x, weight, 1e-5))


@in_forms(PICKED)
def test_rms_norm_of_picked_rows_only(library: Kernels, form: str) -> None:
    rng = np.random.default_rng(2)
    weight = rng.standard_normal(COLUMNS).astype(np.float32)
    x = rng.standard_normal((9, COLUMNS)).astype(np.float32)
    whole = library.run(f"rms_{form}", [x, weight], [9], outputs_of(form, 9, COLUMNS))
    for picked in ([], [8], [0, 0], [7, 3, 5], list(range(9))):
        index = np.array(picked, np.int32)
        outputs = outputs_of(form, len(picked), COLUMNS)
        made = library.run_split(f"gather_{form}", [x, index, weight], [9, len(picked)], outputs)
        assert all(same_bits(got, all_rows[picked]) for got, all_rows in zip(made, whole, strict=True))


def interleaved(rng: np.random.Generator, format: str) -> tuple[Groups, Groups, Groups]:
    """Gate and up [96, 96] of one packed matrix: 16 rows of the one, 16 of the other, by turns."""
    both = random_weights(rng, format, 2 * COLUMNS, COLUMNS)
    at = np.arange(2 * COLUMNS).reshape(-1, 2, 16)

    def part(which: int) -> Groups:
        rows = at[:, which].reshape(-1)
        d, m = (None if s is None else s[rows] for s in (both.d, both.m))
        return Groups(format, both.q[rows], d, m)

    return both, part(0), part(1)


@pytest.mark.parametrize("isa", HOST_ISAS, indirect=True)
def test_gated_pair(library: Kernels, isa: str) -> None:
    for format, form, to in GATED[isa]:
        rng = np.random.default_rng(3)
        both, gates, ups = interleaved(rng, format)
        for rows in ROWS:
            if form == "f32":
                x = [rng.standard_normal((rows, COLUMNS)).astype(np.float32)]
                real = reference.gate(*(reference.dot_float(w, x[0]) for w in (gates, ups)))
            else:
                quants, scales = random_quants(rng, rows, COLUMNS)
                x = list(reference.activations(form, quants, scales).values())
                real = reference.gate(*(reference.dot_int8(w, quants, scales) for w in (gates, ups)))
            check(library, f"gated_{format}_{form}_{to}", x, [packed(both)], to, real)


@in_forms(GATES)
def test_gate_by_itself(library: Kernels, form: str) -> None:
    rng = np.random.default_rng(4)
    for rows in ROWS:
        gates, ups = (rng.normal(0, 5, (rows, COLUMNS)).astype(np.float32) for _ in range(2))
        gates[:, :4] = [-200, 200, 0, -88]  # where e^-gate leaves float32, or nothing is left of silu
        real = reference.gate(reference.exact(gates), reference.exact(ups))
        check(library, f"gate_{form}", [gates, ups], [], form, real)


@once
def test_join(library: Kernels) -> None:
    rng = np.random.default_rng(5)
    for rows in ROWS:
        parts = [rng.standard_normal((rows, width)).astype(np.float32) for width in WIDTHS]
        (y,) = library.run_split("join", parts, [rows], [((rows, sum(WIDTHS)), np.float32)])
        assert same_bits(y, np.concatenate(parts, axis=1))


@once
def test_rope_table(library: Kernels) -> None:
    freqs = (100000.0 ** (-np.arange(32) / 32)).astype(np.float32)
    for at in ([], [0], [0, 1, 15, 16, 17, 2047, 8191]):
        positions = np.array(at, np.int32)
        for name, scale in (("rope_table", 1.0), ("rope_scaled", SCALE)):
            (table,) = library.run_split(name, [positions, freqs], [len(at)], [((len(at), 32, 2), np.float32)])
            assert reference.rope_table(positions, freqs, scale).wrong(table).size == 0
