"""The gated short convolution over KV pages, against numpy in float64: rows at the beginning of sequences, at edges of
pages that hold fewer tokens than attention's, in a block table of their own; and the same bits however rows come."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from inpage_compile.kernels.cpu.isa import Isa
from inpage_compile.kernels.cpu.short_conv import conv_append, short_conv
from inpage_compile.kernels.shared.heads import Heads
from inpage_compile.kernels.shared.short_conv import ShortConv
from support import kernel_reference as reference
from support.kernels import HOST_ISAS, Array, Kernels, same_bits

LAYERS, SEQUENCES, BLOCKS, WIDTH = 2, 3, 3, 96
TOKENS = 4  # of a page, which has room for 5 and a part
COLUMNS = BLOCKS + BLOCKS * 16 // TOKENS
HEADS = Heads(3, 1, 32, LAYERS, SEQUENCES * COLUMNS, SEQUENCES, BLOCKS, True, COLUMNS)
CONV = ShortConv(HEADS, WIDTH, 3, TOKENS)
PLACES = [(0, 0), (0, 1), (2, 5), (1, 2), (1, 4), (0, 2), (2, 30), (2, 31), (2, 32)]  # (sequence, position)
LAYER, FIRST = 1, BLOCKS


def kernels(isa: Isa) -> dict[str, Any]:
    forms = {"f32", isa.nibble_form} if isa.name != "portable" else {"f32"}
    return {"append": conv_append(CONV)} | {f"conv_{form}": short_conv(isa, CONV, form) for form in forms}


@pytest.fixture(scope="module", params=HOST_ISAS)
def library(request: pytest.FixtureRequest) -> Kernels:
    return Kernels(f"short-conv-{request.param}", __file__, partial(kernels, Isa(request.param)))


def rows_of(kv: Array, layer: int) -> Array:
    """[pages, tokens, channels], a view of float32."""
    own = kv.reshape(HEADS.pages, LAYERS, -1)[:, layer, : TOKENS * WIDTH]
    return own.reshape(HEADS.pages, TOKENS, WIDTH)


@pytest.mark.parametrize("form", ["f32", "i8"])
def test_a_row_sees_itself_and_two_tokens_before_it(library: Kernels, form: str) -> None:
    if f"conv_{form}" not in library._signatures:
        pytest.skip("portable code keeps activations in float32")
    rng = np.random.default_rng(3)
    kv = rng.standard_normal(HEADS.pages * HEADS.page_halves // 2).astype(np.float32)
    tables = rng.permutation(HEADS.pages).reshape(SEQUENCES, COLUMNS).astype(np.int32)
    sequence, positions = (np.array([place[i] for place in PLACES], np.int32) for i in range(2))
    bcx = (rng.standard_normal((len(PLACES), 3 * WIDTH)) * 2).astype(np.float32)
    bcx[1, 5] = bcx[1, 2 * WIDTH + 5] = 300.0  # beyond what a half holds
    weight = rng.standard_normal((3, WIDTH)).astype(np.float32)
    b, c, x = (part.astype(np.float64) for part in np.split(bcx, 3, axis=1))
    where, scalars = [positions, sequence, tables], [len(PLACES), LAYER, FIRST]

    after = kv.copy()
    for row, (own, position) in enumerate(PLACES):
        page = tables[own, FIRST + position // TOKENS]
        rows_of(after, LAYER)[page, position % TOKENS] = bcx[row, :WIDTH] * bcx[row, 2 * WIDTH :]
    for threads in (1, 3):
        found = kv.copy()
        library.run("append", [bcx, *where, found], scalars, [], threads, in_place=[found])
        assert same_bits(found, after)

    value, size = np.zeros(b.shape), np.zeros(b.shape)
    for row, (own, position) in enumerate(PLACES):
        for back in range(min(3, position + 1)):
            seen = position - back
            page = tables[own, FIRST + seen // TOKENS]
            before = b[row] * x[row] if back == 0 else rows_of(after, LAYER)[page, seen % TOKENS]
            value[row] += before * weight[2 - back]
            size[row] += np.abs(before * weight[2 - back])
    real = reference.Real(value * c, 5 * reference.EPS * size * np.abs(c) + reference.TINY)
    outs = [((len(PLACES), WIDTH), np.int8 if form == "i8" else np.float32)]
    outs += [((len(PLACES), WIDTH // 32, 2), np.float32)] if form == "i8" else []
    made = library.run_split(f"conv_{form}", [bcx, weight.reshape(-1), *where, after], scalars, outs)
    for expected, got in zip(reference.stored(form, real).values(), made, strict=True):
        assert expected.wrong(got).size == 0


def test_no_page_is_read_that_no_tap_sees(library: Kernels) -> None:
    """Rows one by one, on tables that name no page but those two tokens lie in: the bits of all together."""
    rng = np.random.default_rng(4)
    tables = rng.permutation(HEADS.pages).reshape(SEQUENCES, COLUMNS).astype(np.int32)
    bcx, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((12, 3 * WIDTH), 3 * WIDTH))
    positions, sequence = np.arange(12, dtype=np.int32), np.zeros(12, np.int32)
    out = [((12, WIDTH), np.float32)]
    kv = np.zeros(HEADS.pages * HEADS.page_halves // 2, np.float32)
    library.run("append", [bcx, positions, sequence, tables, kv], [12, LAYER, FIRST], [], in_place=[kv])
    (wanted,) = library.run("conv_f32", [bcx, weight, positions, sequence, tables, kv], [12, LAYER, FIRST], out)
    kept = np.zeros_like(kv)
    for i in range(12):
        own = np.full_like(tables, 1 << 17)  # a page gigabytes away: who reads it is ended by the system
        first, end = FIRST + max(0, i - 2) // TOKENS, FIRST + i // TOKENS + 1
        own[0, first:end] = tables[0, first:end]
        row = [bcx[i : i + 1], weight, positions[i : i + 1], sequence[:1], own]
        library.run("append", [row[0], *row[2:], kept], [1, LAYER, FIRST], [], in_place=[kept])
        (got,) = library.run("conv_f32", [*row, kept], [1, LAYER, FIRST], [((1, WIDTH), np.float32)])
        assert same_bits(got[0], wanted[i])
    assert same_bits(kept, kv)
