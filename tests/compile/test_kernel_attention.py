"""Rotation, the append to KV pages and attention over them, against numpy in float64: lengths around pages and chunks,
several sequences on shuffled pages, every kind of head shape."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from tvm.tirx import PrimFunc

from inpage.errors import Unsupported
from inpage_compile.kernels.cpu.attention import attention, attention_chunks, attention_merge
from inpage_compile.kernels.cpu.isa import Isa
from inpage_compile.kernels.cpu.pages import rope_append
from inpage_compile.kernels.shared.heads import CHUNK, PAGE, Heads
from support import kernel_reference as reference
from support.kernels import HOST_ISAS, Array, Kernels, Out, same_bits

LAYERS, SEQUENCES, BLOCKS = 2, 4, 13
CONTEXT = BLOCKS * PAGE
LENGTHS = (1, 15, 16, 17, 63, 64, 65, 200)
SHAPES = ((4, 2, 16), (9, 3, 64), (3, 1, 64), (2, 2, 32))
FORMS = ("f32", "i8")
SLOW = "INPAGE_SLOW" in os.environ
# What a key head's query heads make is no whole group of 32, or all heads together are none, or they are made in parts,
# or in parts that overlap. No whole group goes out as float32 alone.
ODD = {
    (1, 1, 16): ("f32",),
    (4, 4, 16): ("f32",),
    (9, 1, 16): ("f32",),
    (5, 1, 40): ("f32",),
    (2, 2, 80): ("f32",),
    (3, 1, 80): ("f32",),
    (14, 2, 96): ("i8",),
    (8, 1, 128): ("i8",),
    (12, 1, 160): ("i8",),
    (11, 1, 32): FORMS,
    (32, 1, 16): FORMS,
    (32, 1, 256): ("i8",),
    (1, 1, 256): ("f32",),
}
# Of plain code beside this machine's own, which does the same by other operations: no whole group, heads in parts.
PLAIN = ((5, 1, 40), (11, 1, 32))


def forms_of(isa: str) -> dict[tuple[int, int, int], tuple[str, ...]]:
    if isa != "portable":
        return dict.fromkeys(SHAPES, FORMS) | ODD
    # What runs there keeps activations in float32.
    return dict.fromkeys((*SHAPES, *(ODD if SLOW or HOST_ISAS == ["portable"] else PLAIN)), ("f32",))


CASES = [
    pytest.param(isa, shape, form, id=f"{isa}-{shape}-{form}")
    for isa in HOST_ISAS
    for shape, forms in forms_of(isa).items()
    for form in forms
]
on_each = pytest.mark.parametrize("library", HOST_ISAS, indirect=True)


def heads_of(shape: tuple[int, int, int]) -> Heads:
    return Heads(*shape, LAYERS, SEQUENCES * BLOCKS, SEQUENCES, BLOCKS)


def kernels(name: str) -> dict[str, PrimFunc]:
    out: dict[str, PrimFunc] = {}
    isa = Isa(name)
    for shape, forms in forms_of(name).items():
        out[f"append_{shape}"] = rope_append(isa, heads_of(shape))
        out[f"chunks_{shape}"] = attention_chunks(isa, heads_of(shape))
        for form in forms:
            out[f"attend_{form}_{shape}"] = attention(isa, heads_of(shape), form)
            out[f"merge_{form}_{shape}"] = attention_merge(isa, heads_of(shape), form)
    return {"".join(c if c.isalnum() else "_" for c in name): func for name, func in out.items()}


def kernel(what: str, shape: tuple[int, int, int]) -> str:
    return "".join(c if c.isalnum() else "_" for c in f"{what}_{shape}")


@pytest.fixture(scope="module")
def library(request: pytest.FixtureRequest) -> Kernels:
    return Kernels(f"attention-{request.param}", __file__, partial(kernels, request.param))


@dataclass
class Batch:
    """Rows at given positions of given sequences; every sequence has pages of its own, in no order."""

    positions: Array
    row_sequence: Array
    tables: Array

    @classmethod
    def of(cls, rng: np.random.Generator, places: list[tuple[int, int]]) -> Batch:
        """``places``: (sequence, position) a row."""
        sequences, positions = (np.array([place[i] for place in places], np.int32) for i in range(2))
        return cls(
            positions, sequences, rng.permutation(SEQUENCES * BLOCKS).reshape(SEQUENCES, BLOCKS).astype(np.int32)
        )

    def inputs(self) -> list[Array]:
        return [self.positions, self.row_sequence, self.tables]

    def row(self, i: int) -> Batch:
        return Batch(self.positions[i : i + 1], self.row_sequence[i : i + 1], self.tables)


def random_cache(rng: np.random.Generator, heads: Heads, scale: float = 1.0) -> reference.Cache:
    halves = (rng.standard_normal((heads.pages, LAYERS, 2, heads.layer_halves // 2)) * scale).astype(np.float16)
    return reference.Cache(halves.view(np.int16), heads.kv_heads, heads.dim)


def queries(rng: np.random.Generator, rows: int, heads: Heads) -> Array:
    """As rope_append leaves them."""
    q = rng.standard_normal((rows, heads.heads * heads.dim)) * heads.dim**-0.5 * reference.F16_SCALE
    out: Array = q.astype(np.float32)
    return out


def attend(
    library: Kernels, shape: tuple[int, int, int], form: str, q: Array, batch: Batch, cache: reference.Cache, layer: int
) -> list[Array]:
    rows, width = len(q), heads_of(shape).columns
    outputs: list[tuple[tuple[int, ...], Any]] = [((rows, width), np.float32 if form == "f32" else np.int8)]
    if form != "f32":
        outputs.append(((rows, width // 32, 2), np.float32))
    inputs = [q, *batch.inputs(), cache.kv.reshape(-1)]
    return library.run_split(kernel(f"attend_{form}", shape), inputs, [rows, layer], outputs)


def expected_of(
    shape: tuple[int, int, int], form: str, q: Array, batch: Batch, cache: reference.Cache, layer: int
) -> list[reference.Expected]:
    """Attention, and exact zeros behind its last column up to a whole group."""
    real = reference.attention(cache, shape[0], layer, q, *batch.inputs())
    missing = ((0, 0), (0, -(shape[0] * shape[2]) % 32))
    wide = reference.Real(np.pad(real.value, missing), np.pad(real.error, missing))
    return list(reference.stored(form, wide).values())


@pytest.mark.parametrize(("library", "shape", "form"), CASES, indirect=["library"])
def test_attention_at_lengths_around_pages_and_chunks(library: Kernels, shape: tuple[int, int, int], form: str) -> None:
    """All lengths in one batch, spread over the sequences; each row the same bits as alone."""
    heads, rng = heads_of(shape), np.random.default_rng(0)
    cache = random_cache(rng, heads)
    batch = Batch.of(rng, [(i % SEQUENCES, length - 1) for i, length in enumerate(LENGTHS)])
    q = queries(rng, len(LENGTHS), heads)
    for layer in range(LAYERS):
        made = attend(library, shape, form, q, batch, cache, layer)
        wanted = expected_of(shape, form, q, batch, cache, layer)
        for got, expected in zip(made, wanted, strict=True):
            assert expected.wrong(got).size == 0
        for row in range(len(LENGTHS)):
            alone = attend(library, shape, form, q[row : row + 1], batch.row(row), cache, layer)
            assert all(same_bits(a[0], b[row]) for a, b in zip(alone, made, strict=True))


@pytest.mark.parametrize(("library", "shape", "form"), CASES, indirect=["library"])
def test_attention_split_by_chunk_makes_the_same_bits(library: Kernels, shape: tuple[int, int, int], form: str) -> None:
    """One row or many, of any lengths, on up to 7 threads, several of which have nothing to do. Chunks that a row does
    not have are never written."""
    heads, rng = heads_of(shape), np.random.default_rng(6)
    cache = random_cache(rng, heads)
    for lengths in (*((length,) for length in LENGTHS), LENGTHS, LENGTHS[::-1])[6 if shape in ODD else 0 :]:
        batch = Batch.of(rng, [(i % SEQUENCES, length - 1) for i, length in enumerate(lengths)])
        q, rows = queries(rng, len(lengths), heads), len(lengths)
        whole = attend(library, shape, form, q, batch, cache, 1)
        inputs = [q, *batch.inputs(), cache.kv.reshape(-1)]
        shapes = [(rows, heads.chunks, heads.heads * heads.dim), (rows, heads.chunks, heads.heads, 2)]
        formed = [(made.shape, made.dtype) for made in whole]
        for threads in (1, 2, 3, 7):
            parts, sums = (Out(each, np.float32) for each in shapes)
            for thread in range(threads):
                buffers = [*inputs, parts.array, sums.array]
                library.call(kernel("chunks", shape), buffers, [rows, 1], thread, threads)
            for out in (parts, sums):
                out.check_guards()
                for row, length in enumerate(lengths):
                    chunks = -(-length // CHUNK)
                    written = out.written()[row]
                    assert written[:chunks].all() and not written[chunks:].any()
            merged = library.run(
                kernel(f"merge_{form}", shape), [parts.array, sums.array, batch.positions], [rows], formed, threads
            )
            assert all(same_bits(a, b) for a, b in zip(merged, whole, strict=True))


@pytest.mark.parametrize("shape", [(1, 1, 16), (9, 1, 16), (5, 1, 40), (2, 2, 80)], ids=str)
def test_attention_of_no_whole_groups_is_never_stored_quantized(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no whole groups"):
        attention(Isa("portable"), heads_of(shape), "i8")
    with pytest.raises(ValueError, match="no whole groups"):
        attention_merge(Isa("portable"), heads_of(shape), "i8")


@pytest.mark.parametrize(
    ("shape", "field"), [((2, 1, 12), "head_dim"), ((2, 1, 4), "head_dim"), ((3, 2, 16), "kv_heads")]
)
def test_heads_that_no_kernel_takes_are_named(shape: tuple[int, int, int], field: str) -> None:
    with pytest.raises(Unsupported, match=str(shape[0] if field == "kv_heads" else field)) as e:
        heads_of(shape)
    assert e.value.field == field


@on_each
@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_attention_reads_no_later_token_and_no_page_of_another(library: Kernels, shape: tuple[int, int, int]) -> None:
    """Whatever lies behind a row's position, or on other pages, changes no bit, however large it is."""
    heads, rng = heads_of(shape), np.random.default_rng(1)
    cache = random_cache(rng, heads)
    for position in (0, 5, 15, 16, 63, 70):
        batch = Batch.of(rng, [(2, position)])
        q = queries(rng, 1, heads)
        (before,) = attend(library, shape, "f32", q, batch, cache, 1)
        other = reference.Cache(np.full_like(cache.kv, 0x7BFF), heads.kv_heads, heads.dim)  # 65504 everywhere else
        for block in range(position // PAGE + 1):
            page, tokens = batch.tables[2, block], min(PAGE, position + 1 - block * PAGE)
            other.keys(1)[page, :, :, :tokens] = cache.keys(1)[page, :, :, :tokens]
            other.values(1)[page, :, :tokens] = cache.values(1)[page, :, :tokens]
        (after,) = attend(library, shape, "f32", q, batch, other, 1)
        assert same_bits(before, after)


@on_each
def test_attention_with_scores_far_apart(library: Kernels) -> None:
    """Scores of hundreds: only the largest counts, whichever chunk holds it, and nothing overflows."""
    shape = SHAPES[2]
    heads, rng = heads_of(shape), np.random.default_rng(2)
    cache = random_cache(rng, heads, 100.0)
    batch = Batch.of(rng, [(i % SEQUENCES, length - 1) for i, length in enumerate(LENGTHS)])
    q = queries(rng, len(LENGTHS), heads)
    (y,) = attend(library, shape, "f32", q, batch, cache, 0)
    assert np.isfinite(y).all()
    real = reference.attention(cache, heads.heads, 0, q, *batch.inputs())
    assert reference.stored("f32", real)["y"].wrong(y).size == 0


@on_each
def test_attention_over_equal_keys_is_the_mean(library: Kernels) -> None:
    shape = SHAPES[0]
    heads, rng = heads_of(shape), np.random.default_rng(3)
    cache = random_cache(rng, heads)
    cache.keys(0)[:] = 0
    batch = Batch.of(rng, [(0, 99)])
    (y,) = attend(library, shape, "f32", queries(rng, 1, heads), batch, cache, 0)
    values = (
        cache.values(0).view(np.float16)[batch.tables[0]].transpose(1, 0, 2, 3).reshape(heads.kv_heads, -1, heads.dim)
    )
    mean = values[:, :100].astype(np.float64).mean(axis=1).repeat(heads.shared, axis=0)
    assert np.allclose(y.reshape(mean.shape), mean, rtol=0, atol=2e-6)


@on_each
def test_append_of_nothing_changes_nothing(library: Kernels) -> None:
    heads, rng = heads_of(SHAPES[0]), np.random.default_rng(5)
    kv, none = random_cache(rng, heads).kv.reshape(-1), np.zeros((0, 8), np.float32)
    inputs = [none, none, *Batch.of(rng, []).inputs(), kv]
    library.run(kernel("append", SHAPES[0]), inputs, [0, 0], [((0, 64), np.float32)])  # checks that kv stays


@pytest.mark.parametrize(
    ("library", "shape"), [(isa, shape) for isa in HOST_ISAS for shape in forms_of(isa)], indirect=["library"], ids=str
)
def test_append_rotates_and_stores_into_pages_and_nowhere_else(library: Kernels, shape: tuple[int, int, int]) -> None:
    """Page borders, several sequences at once; the kernel's own table, and every other half of the cache unchanged."""
    heads, rng = heads_of(shape), np.random.default_rng(4)
    freqs = (10000.0 ** (-np.arange(heads.dim // 2) * 2 / heads.dim)).astype(np.float32)
    name, width = kernel("append", shape), (heads.heads + 2 * heads.kv_heads) * heads.dim
    for places in (
        [(1, 0)],
        [(0, p) for p in (0, 15, 16, 17, 31)],
        [(3, 207), (0, 0), (2, 15), (1, 16), (0, 1), (2, 16), (0, 2), (1, 17), (3, 206)],
    ):
        batch, layer = Batch.of(rng, places), 1
        rows = len(places)
        table = reference.rope_table(batch.positions, freqs).want.astype(np.float32)
        qkv = rng.standard_normal((rows, width)).astype(np.float32)
        qkv[:1, -1], qkv[:1, -2] = 1e6, -1e6  # values that halves do not hold
        before = random_cache(rng, heads)
        expected = reference.rope_append(before, heads.heads, layer, qkv, table, *batch.inputs())
        made = []
        for threads in (1, 2, 3):
            kv = before.kv.reshape(-1).copy()
            inputs = [qkv, table, *batch.inputs(), kv]
            outputs = [((rows, heads.heads * heads.dim), np.float32)]
            (q,) = library.run(name, inputs, [rows, layer], outputs, threads, in_place=[kv])
            assert expected["q"].wrong(q).size == 0 and expected["kv"].wrong(kv).size == 0
            made.append((q, kv))
        assert all(same_bits(a, b) for other in made[1:] for a, b in zip(made[0], other, strict=True))
        kv = before.kv.reshape(-1).copy()
        for row in range(rows):  # one by one, as decoding does
            inputs = [qkv[row : row + 1], table[row : row + 1], *batch.row(row).inputs(), kv]
            (q,) = library.run(name, inputs, [1, layer], [((1, heads.heads * heads.dim), np.float32)], in_place=[kv])
            assert same_bits(q[0], made[0][0][row])
        assert same_bits(kv, made[0][1])
