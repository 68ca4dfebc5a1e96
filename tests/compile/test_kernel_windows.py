"""Attention that sees a window of tokens, in block tables of its own, and with capped scores, against numpy in float64:
windows around pages and chunks of the sum, block tables that name no page where one fell out of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from inpage_compile.kernels.cpu.attention import attention, attention_chunks, attention_merge
from inpage_compile.kernels.cpu.isa import Isa
from inpage_compile.kernels.cpu.pages import rope_append
from inpage_compile.kernels.shared.heads import EVERYTHING, PAGE, Heads
from support import kernel_reference as reference
from support.kernels import HOST_ISAS, Array, Kernels, same_bits

LAYERS, SEQUENCES, BLOCKS = 2, 3, 13
LENGTHS = (1, 12, 16, 17, 40, 64, 65, 79, 80, 81, 129, 200)
WINDOWS = (1, 12, 16, 17, 64, 70, EVERYTHING)
FIRST = BLOCKS  # the second of two tables in a sequence's row
POISON = 0x7BFF  # 65504
GONE = 1 << 17  # a page gigabytes away: who reads it is ended by the system
CAPS = (0.0, 2.0)


def heads_of(cap: float) -> Heads:
    return Heads(3, 1, 32, LAYERS, 2 * SEQUENCES * BLOCKS, SEQUENCES, BLOCKS, True, 2 * BLOCKS, cap=cap)


def kernels(isa: Isa) -> dict[str, Any]:
    out = {"append": rope_append(isa, heads_of(0.0))}
    for i, cap in enumerate(CAPS):
        h = heads_of(cap)
        out |= {f"attend{i}": attention(isa, h, "f32"), f"chunks{i}": attention_chunks(isa, h)}
        out[f"merge{i}"] = attention_merge(isa, h, "f32")
    return out


@pytest.fixture(scope="module", params=HOST_ISAS)
def library(request: pytest.FixtureRequest) -> Kernels:
    return Kernels(f"windows-{request.param}", __file__, partial(kernels, Isa(request.param)))


def cache_of(rng: np.random.Generator, heads: Heads) -> reference.Cache:
    halves = rng.standard_normal((heads.pages, LAYERS, 2, heads.layer_halves // 2)).astype(np.float16)
    return reference.Cache(halves.view(np.int16), heads.kv_heads, heads.dim)


@pytest.mark.parametrize("which", range(len(CAPS)), ids=("plain", "capped"))
@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_shows_its_tokens_and_reads_no_page_before_it(library: Kernels, window: int, which: int) -> None:
    """All lengths in one batch; the same bits split by chunk, on any number of threads, and alone."""
    heads, rng = heads_of(CAPS[which]), np.random.default_rng(window)
    cache, rows = cache_of(rng, heads), len(LENGTHS)
    positions = np.array(LENGTHS, np.int32) - 1
    sequences = np.arange(rows, dtype=np.int32) % SEQUENCES
    tables = rng.permutation(heads.pages).reshape(SEQUENCES, 2 * BLOCKS).astype(np.int32)
    q = (rng.standard_normal((rows, 96)) * 32**-0.5 * reference.F16_SCALE * 2).astype(np.float32)
    for row in range(rows):
        own = tables.copy()
        gone = max(0, LENGTHS[row] - window) // PAGE  # as the KV manager: of these no token is seen
        own[:, :FIRST], own[:, FIRST : FIRST + gone] = GONE, GONE
        poisoned = reference.Cache(cache.kv.copy(), 1, 32)
        poisoned.kv[sorted({*range(heads.pages)} - {*own[sequences[row], FIRST + gone :]})] = POISON
        place = [positions[row : row + 1], sequences[row : row + 1], own, poisoned.kv.reshape(-1)]
        alone, *others = (
            attend(library, which, q[row : row + 1], place, window, split)[0] for split in (None, 1, 2, 3, 7)
        )
        assert all(same_bits(alone, other) for other in others)
        at = [q[row : row + 1], *place[:2], tables[:, FIRST:]]
        real = reference.attention(cache, 3, 1, *at, window=min(window, 1 << 20), cap=CAPS[which])
        assert reference.stored("f32", real)["y"].wrong(alone[None]).size == 0
        together = attend(library, which, q, [positions, sequences, tables, cache.kv.reshape(-1)], window, None)
        assert same_bits(together[row], alone)


def attend(library: Kernels, which: int, q: Array, place: list[Array], window: int, split: int | None) -> Array:
    """On ``split`` threads in the two kernels for few rows, or in the one for many."""
    rows, heads, scalars = len(q), heads_of(CAPS[which]), [len(q), 1, FIRST, window]
    out = ((rows, 96), np.float32)
    if split is None:
        return library.run_split(f"attend{which}", [q, *place], scalars, [out])[0]
    shapes = [(rows, heads.chunks, 96), (rows, heads.chunks, 3, 2)]
    parts, sums = (np.full(shape, np.nan, np.float32) for shape in shapes)
    for thread in range(split):
        library.call(f"chunks{which}", [q, *place, parts, sums], scalars, thread, split)
    (made,) = library.run(f"merge{which}", [parts, sums, place[0]], [rows, FIRST, window], [out], split)
    return made


def test_the_append_writes_to_the_group_of_the_layer(library: Kernels) -> None:
    heads, rng = heads_of(0.0), np.random.default_rng(5)
    before = cache_of(rng, heads)
    positions, sequences = np.array([0, 17, 200], np.int32), np.array([1, 0, 1], np.int32)
    tables = rng.permutation(heads.pages).reshape(SEQUENCES, 2 * BLOCKS).astype(np.int32)
    qkv, table = rng.standard_normal((3, 160)).astype(np.float32), rng.standard_normal((3, 16, 2)).astype(np.float32)
    kv, where = before.kv.reshape(-1).copy(), [positions, sequences, tables]
    expected = reference.rope_append(before, 3, 1, qkv, table, positions, sequences, tables[:, FIRST:])
    library.run("append", [qkv, table, *where, kv], [3, 1, FIRST, 64], [((3, 96), np.float32)], in_place=[kv])
    assert expected["kv"].wrong(kv).size == 0
