"""The C sampler against a plain numpy one: the set that stays after the filters, and the token for a known uniform."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from inpage.engines import batch as flat
from inpage.engines.protocol import Feed, Sampling
from support.runtime import Floats, Runtime

VOCAB = 2003  # no multiple of anything that the runtime works in
LIMITS = flat.Limits(1 << 20, 1 << 20, 16, 1, 1024, 1024, 1024, 1 << 20)


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 as in Salmon et al., SC11."""
    k0, k1 = key
    c = list(counter)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k1, p0 & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c[0], c[1], c[2], c[3]


def test_philox_answers_as_published() -> None:
    assert philox((0, 0), (0, 0, 0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    ones = 0xFFFFFFFF
    assert philox((ones, ones), (ones,) * 4) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert philox((0xA4093822, 0x299F31D0), pi) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


def uniform(seed: int, position: int) -> float:
    r = philox((seed & 0xFFFFFFFF, seed >> 32), (position, 0, 0, 0))
    return ((r[0] >> 5) * 67108864 + (r[1] >> 6)) / 2**53


def clean(x: Floats) -> Floats:
    return np.where(np.isnan(x), -np.inf, np.minimum(x, np.finfo(np.float32).max)).astype(np.float32)


def modified(x: Floats, s: Sampling, history: list[int], allowed: npt.NDArray[np.bool_] | None) -> Floats:
    """Bias, mask and penalties."""
    x = x.copy()
    for token, value in s.logit_bias:
        x[token] += np.float32(value)
    for token in set(history):
        n = np.float32(history.count(token))
        penalty = np.float32(s.repetition_penalty)
        x[token] = x[token] * penalty if x[token] <= 0 else x[token] / penalty
        x[token] -= n * np.float32(s.frequency_penalty) + np.float32(s.presence_penalty)
    x = clean(x)
    return x if allowed is None else np.where(allowed, x, -np.inf).astype(np.float32)


def kept(x: Floats, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> list[int]:
    """The ids that stay, best first: a full sort, what the C code avoids."""
    order = [int(i) for i in np.lexsort((np.arange(x.size), -x.astype(np.float64))) if x[i] > -np.inf]
    best = np.float64(x[order[0]])
    if 0 < top_k < x.size:
        order = order[:top_k]
    if top_p < 1:
        w = np.exp(x[order].astype(np.float64) - best)
        reached = np.cumsum(w) >= float(np.float32(top_p)) * w.sum()
        order = order[: int(np.argmax(reached)) + 1] if reached.any() else order
    if min_p > 0:
        least = min(best, np.float32(best + np.log(np.float64(np.float32(min_p)))))
        order = [i for i in order if x[i] >= least]
    return order


def choose(x: Floats, s: Sampling, position: int) -> int:
    """The token that the sampler must choose from modified logits; ``position`` is the token's own."""
    if s.temperature <= 0:
        return int(np.argmax(x))
    ids = sorted(kept(x, s.top_k, s.top_p, s.min_p))
    w = np.exp((x[ids].astype(np.float64) - np.float64(x.max())) / np.float32(s.temperature))
    return ids[int(np.searchsorted(np.cumsum(w), uniform(s.seed, position) * w.sum(), side="right"))]


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    made = Runtime(24, VOCAB, threads=2)
    yield made
    made.close()


def rows_of_logits(rng: np.random.Generator, n: int) -> Floats:
    """Peaked, flat, coarse (many ties) and wide rows."""
    shapes = [
        lambda: rng.normal(0, 3, VOCAB),
        lambda: rng.normal(0, 0.01, VOCAB),
        lambda: np.round(rng.normal(0, 2, VOCAB)),
        lambda: rng.normal(0, 1, VOCAB) * 30,
        lambda: np.where(rng.random(VOCAB) < 0.01, rng.normal(8, 2, VOCAB), rng.normal(-5, 1, VOCAB)),
    ]
    return np.array([shapes[i % len(shapes)]() for i in range(n)]).astype(np.float32)


EDGES: list[dict[str, Any]] = [
    {},
    {"top_k": 1},
    {"top_k": 2},
    {"top_k": 40},
    {"top_k": 1024},
    {"top_k": 1500},
    {"top_k": VOCAB - 1},
    {"top_k": VOCAB},
    {"top_k": VOCAB + 5},
    {"top_p": 0.0},
    {"top_p": 1e-6},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"top_p": 0.999},
    {"min_p": 1e-6},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"top_k": 50, "top_p": 0.9},
    {"top_k": 50, "min_p": 0.1},
    {"top_k": 1100, "top_p": 0.9, "min_p": 0.02},
]


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
        one = flat._pack(Feed([0], p - 1, [], s, h), p - 1, 0, bias)
        if masks is not None:
            one[25] = masks[i]
        words.extend(one)
    return words, bias


def chosen(words: array[int], n: int) -> list[tuple[int, float, float]]:
    view = memoryview(words).cast("B")
    at = [4 * (i * flat.SEQUENCE_WORDS + 283) for i in range(n)]
    return [flat._RESULT.unpack_from(view, a) for a in at]


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
