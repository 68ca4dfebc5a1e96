"""The C sampler against a plain numpy one: the set that stays after the filters, and the token for a known uniform."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from inpage.engines import batch as flat
from inpage.engines.protocol import Sampling, SequenceInput
from inpage.format.abi import SEQUENCE_RESULTS
from support.runtime import Runtime
from support.sampler_reference import EDGES, choose, clean, kept, modified, philox
from support.sampler_reference import rows_of_logits as any_rows

VOCAB = 2003  # no multiple of anything that the runtime works in
rows_of_logits = partial(any_rows, VOCAB)
LIMITS = flat.Limits(1 << 20, 1 << 20, 16, 1, 1024, 1024, 1024, 1 << 20)


def test_philox_answers_as_published() -> None:
    assert philox((0, 0), (0, 0, 0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    ones = 0xFFFFFFFF
    assert philox((ones, ones), (ones,) * 4) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert philox((0xA4093822, 0x299F31D0), pi) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    made = Runtime(24, VOCAB, threads=2)
    yield made
    made.close()


@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_the_filters_keep_exactly_the_right_tokens(runtime: Runtime, edge: dict[str, Any]) -> None:
    for x in rows_of_logits(np.random.default_rng(3), 10):
        assert runtime.kept(x, **edge) == set(kept(x, **edge))


def test_ties_at_a_cut_go_to_the_lowest_ids(runtime: Runtime) -> None:
    x = np.zeros(VOCAB, np.float32)
    assert runtime.kept(x, top_k=7) == set(range(7))
    assert runtime.kept(x[:4], top_p=0.5) == {0, 1}
    assert runtime.kept(x, top_p=0.5) == set(range(1002))  # 1001.5 of 2003 equal shares
    x[::2] = -0.0  # equal to 0
    assert runtime.kept(x, top_k=7) == set(range(7))
    x[500], x[1500] = 3, 3
    assert runtime.kept(x, top_k=1) == {500}
    assert runtime.kept(x, top_k=4) == {500, 1500, 0, 1}


def test_numbers_that_are_none_never_stay(runtime: Runtime) -> None:
    x = np.full(VOCAB, -np.inf, np.float32)
    x[[3, 9, 11]] = [1.0, np.nan, 0.5]
    for edge in EDGES:
        assert runtime.kept(x, **edge) == set(kept(clean(x), **edge)) <= {3, 11}


def structs(samplings: list[Sampling], histories: list[list[int]], positions: list[int],
            masks: list[int] | None = None) -> tuple[array[int], array[int]]:  # fmt: skip
    """Packed as an engine packs them; ``positions`` are those of the tokens to choose."""
    bias = array("i")
    words = array("i")
    for i, (s, h, p) in enumerate(zip(samplings, histories, positions, strict=True)):
        one = flat._pack(SequenceInput([0], p - 1, [], s, h), p - 1, 0, bias)
        if masks is not None:
            one[25] = masks[i]
        words.extend(one)
    return words, bias


def chosen(words: array[int], n: int) -> list[tuple[int, float, float]]:
    view = memoryview(words).cast("B")
    at = [4 * (i * flat.SEQUENCE_WORDS + 283) for i in range(n)]
    return [SEQUENCE_RESULTS.unpack_from(view, a) for a in at]


@pytest.mark.parametrize("temperature", [0.0, 1e-3, 0.7, 1.0, 1.5, 100.0])
@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_the_token_is_the_one_of_the_known_uniform(runtime: Runtime, edge: dict[str, Any], temperature: float) -> None:
    rng = np.random.default_rng(11)
    x = rows_of_logits(rng, 15)
    runtime.logits[:15] = x
    samplings = [Sampling(temperature=temperature, seed=int(rng.integers(2**63)) * 2 + 1, **edge) for _ in x]
    positions = [int(p) for p in rng.integers(1, 8000, 15)]
    words, bias = structs(samplings, [[]] * 15, positions)
    assert runtime.sample(words, 15, bias) == 0
    told = [choose(row, s, p) for row, s, p in zip(x, samplings, positions, strict=True)]
    assert [c[0] for c in chosen(words, 15)] == told
    np.testing.assert_array_equal(runtime.logits[:15], x)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_bias_mask_and_penalties_come_first_and_leave_no_trace(runtime: Runtime, temperature: float) -> None:
    rng = np.random.default_rng(5)
    n = 20
    x = rows_of_logits(rng, n)
    runtime.logits[:n] = x
    samplings, histories, masks, table, allowed = [], [], [], [], []
    for i in range(n):
        bias = [(int(t), float(v)) for t, v in zip(rng.integers(0, VOCAB, 30), rng.normal(0, 5, 30), strict=True)]
        samplings.append(
            Sampling(temperature, 30, 0.95, 0.01, *rng.uniform(0.5, 2, 1), *rng.uniform(-1, 2, 2), seed=i,
                     logit_bias=tuple(bias if i % 3 else []) + (((7, 3.0), (7, 4.0)) if i % 4 == 0 else ()))
        )  # fmt: skip
        # Short, longer than the ring, empty; tokens repeat.
        histories.append([int(t) for t in rng.integers(0, 60, (0, 5, 300)[i % 3])])
        bits = rng.random((VOCAB + 31) // 32 * 32) < (0.5 if i % 2 else 0.002)
        bits[3 + i] = True
        masks.append(-1 if i % 5 == 0 else len(table))
        table += np.packbits(bits, bitorder="little").view(np.uint32).tolist()
        allowed.append(None if i % 5 == 0 else bits[:VOCAB])
    words, bias_words = structs(samplings, histories, [100 + i for i in range(n)], masks)
    assert runtime.sample(words, n, bias_words, np.array(table, np.uint32)) == 0
    for i, (token, logprob, margin) in enumerate(chosen(words, n)):
        changed = modified(x[i], samplings[i], histories[i][-256:], allowed[i])
        assert token == choose(changed, samplings[i], 100 + i)
        wide = x[i].astype(np.float64)
        lse = np.log(np.exp(wide - wide.max()).sum()) + wide.max()
        assert logprob == pytest.approx(wide[token] - lse, rel=1e-6, abs=1e-5)
        second, best = np.sort(x[i])[-2:]
        assert margin == best - second
    np.testing.assert_array_equal(runtime.logits[:n], x)


def test_results_do_not_depend_on_the_thread_count() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(0, 4, (3, 49152)).astype(np.float32)
    seen = []
    for threads in (1, 2, 3, 4):
        runtime = Runtime(3, 49152, threads)
        runtime.logits[:] = x
        words, bias = structs([Sampling(t, top_p=0.9, seed=4) for t in (0.0, 0.7, 1.3)], [[]] * 3, [9, 9, 9])
        for _ in range(50):
            assert runtime.sample(words, 3, bias) == 0
        seen.append(words.tobytes())
        runtime.close()
    assert len(set(seen)) == 1
    assert chosen(words, 3)[0][0] == int(np.argmax(x[0]))


def test_logits_that_are_not_numbers_neither_hang_nor_crash(runtime: Runtime) -> None:
    x = runtime.logits
    x[:6] = 0
    x[0] = np.nan
    x[1] = -np.inf
    x[2, ::3] = np.nan
    x[2, 1000] = 5
    x[3, 77] = np.inf
    x[4, [5, 6]] = [np.inf, np.inf]
    x[5] = np.finfo(np.float32).max
    for temperature, sure in ((0.0, [0, 0, 1000, 77, 5, 0]), (0.9, [0, 0, None, 77, None, None])):
        words, bias = structs([Sampling(temperature, top_p=0.9, repetition_penalty=1.3)] * 6, [[5, 77]] * 6, [4] * 6)
        assert runtime.sample(words, 6, bias) == 0
        for (token, logprob, margin), expected in zip(chosen(words, 6), sure, strict=True):
            assert 0 <= token < VOCAB and not np.isnan(logprob) and not np.isnan(margin)
            assert expected is None or token == expected
    assert chosen(words, 2)[0][1] == -np.inf


def test_a_mask_that_allows_nothing_gives_token_0(runtime: Runtime) -> None:
    runtime.logits[:2] = np.arange(VOCAB)
    words, bias = structs([Sampling(), Sampling(0.8, 4)], [[]] * 2, [4, 4], [0, 0])
    assert runtime.sample(words, 2, bias, np.zeros(63, np.uint32)) == 0
    assert [c[0] for c in chosen(words, 2)] == [0, 0]


def test_structs_out_of_bounds_are_refused(runtime: Runtime) -> None:
    words, bias = structs([Sampling()], [[]], [1])
    assert runtime.sample(words, 0, bias) == -2
    assert runtime.sample(words, 25, bias) == -2
    for at, value in ((14, 9), (14, -1), (23, -1), (23, 1025), (26, -1)):
        bad = words[:]
        bad[at] = value
        assert runtime.sample(bad, 1, bias) == -2
    assert runtime.sample(words, 1, bias) == 0
