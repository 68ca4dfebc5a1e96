"""What the C runtime computes besides the step loop: scores, SHA-256, libm for wasm, scratch memory, program checks."""

from __future__ import annotations

import ctypes
import hashlib
from typing import Any

import numpy as np
import pytest

from support.runtime import Runtime, math_library


@pytest.fixture(scope="module")
def runtime() -> Any:
    made = Runtime(8, 777, threads=2)
    yield made
    made.close()


def test_scores_are_those_of_a_log_softmax_in_double(runtime: Runtime) -> None:
    rng = np.random.default_rng(2)
    x = (rng.normal(0, 1, (8, 777)) * np.array([[0.01, 1, 3, 10, 30, 100, 1000, 1]]).T).astype(np.float32)
    x[7, [100, 200]] = 50.0  # a tie: the lowest id
    runtime.logits[:] = x
    targets = np.array([0, 776, 5, 5, int(np.argmax(x[4])), 400, -1, 200], np.int32)
    out = np.zeros((8, 3), np.int32)
    at = ctypes.c_void_p
    assert runtime.lib.inpage_score(at(targets.ctypes.data), 8, at(out.ctypes.data)) == 0
    wide = x.astype(np.float64)
    lse = np.log(np.exp(wide - wide.max(1, keepdims=True)).sum(1)) + wide.max(1)
    told = np.where(targets < 0, 0, lse - wide[np.arange(8), targets])
    np.testing.assert_allclose(out[:, 1].view(np.float32), told, rtol=2e-7, atol=3e-7)
    np.testing.assert_array_equal(out[:, 0], np.argmax(x, 1))
    ordered = np.sort(x, 1)
    np.testing.assert_array_equal(out[:, 2].view(np.float32), ordered[:, -1] - ordered[:, -2])
    targets[3] = 777
    assert runtime.lib.inpage_score(at(targets.ctypes.data), 8, at(out.ctypes.data)) == -2


def test_sha256_in_pieces_of_any_size(runtime: Runtime) -> None:
    rng = np.random.default_rng(0)
    for size in [*range(200), 1000, 4096, 100_001]:
        data = rng.bytes(size)
        state, out = ctypes.create_string_buffer(112), ctypes.create_string_buffer(32)
        runtime.lib.inpage_sha256_init(state)
        at = 0
        while at < size:
            piece = data[at : at + int(rng.integers(1, 1 + max(1, size // 2)))]
            runtime.lib.inpage_sha256_update(state, piece, len(piece))
            at += len(piece)
        runtime.lib.inpage_sha256_final(state, out)
        assert out.raw == hashlib.sha256(data).digest()


def ulps(got: np.ndarray[Any, Any], exact: np.ndarray[Any, Any]) -> float:
    """The largest error in units of the last place of the right float32."""
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    normal = np.isfinite(rounded) & (np.abs(rounded) >= np.finfo(np.float32).tiny)
    error = np.abs(got[normal].astype(np.float64) - exact[normal]) / np.spacing(np.abs(rounded[normal]))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(rounded))
    np.testing.assert_array_equal(got[np.isinf(rounded)], rounded[np.isinf(rounded)])
    return float(error.max(initial=0))


SPECIAL = np.array([0.0, -0.0, 1, -1, 2, 0.5, np.inf, -np.inf, np.nan, 1e-45, 1e-39, 3.4e38, -3.4e38, 88.7, 88.8, -87.3,
                    -103, -104, -110, 127.9, 128, -126, -150], np.float32)  # fmt: skip
RANGES = {
    "expf": (np.exp, (-104, 89)),
    "exp2f": (np.exp2, (-150, 128)),
    "logf": (np.log, None),
    "log2f": (np.log2, None),
    "sinf": (np.sin, (-(2.0**17), 2.0**17)),
    "cosf": (np.cos, (-(2.0**17), 2.0**17)),
}


@pytest.mark.parametrize("name", RANGES)
def test_math_is_right_to_an_ulp(name: str) -> None:
    function, limits = RANGES[name]
    rng = np.random.default_rng(9)
    anything = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)  # every exponent, NaN and inf too
    around_one = (1 + rng.normal(0, 1e-3, 50_000)).astype(np.float32)
    x = np.concatenate([SPECIAL, anything, around_one])
    if limits:
        x = np.concatenate([x, rng.uniform(*limits, 300_000).astype(np.float32)])
    y = np.empty_like(x)
    getattr(math_library(), f"loop_{name}")(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), x.size)
    with np.errstate(all="ignore"):
        exact = function(x.astype(np.float64))
    assert ulps(y, exact) <= 0.52


def test_powf_is_right_to_an_ulp_and_follows_c99() -> None:
    rng = np.random.default_rng(4)
    grid = np.array(np.meshgrid(SPECIAL, np.append(SPECIAL, [3, -3, 2.5, 16777217]).astype(np.float32)))
    x = np.concatenate([grid[0].ravel(), rng.uniform(0, 10, 200_000), np.full(1000, 1e5), -rng.uniform(0, 9, 9000)])
    e = np.concatenate([grid[1].ravel(), rng.uniform(-20, 20, 200_000), -np.arange(1000) / 1000,
                        rng.integers(-9, 9, 9000)])  # fmt: skip
    x, e = x.astype(np.float32), e.astype(np.float32)
    y = np.empty_like(x)
    at = ctypes.c_void_p
    math_library().loop_powf(at(x.ctypes.data), at(e.ctypes.data), at(y.ctypes.data), x.size)
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), e.astype(np.float64))
    assert ulps(y, exact) <= 0.52


def test_scratch_is_private_to_a_thread_and_aligned() -> None:
    rt = Runtime(4, 8, threads=4)
    wrong = np.full(16, -1, np.int32)
    inputs = np.zeros(64, np.int32)
    buffers = (ctypes.c_void_p * 3)(inputs.ctypes.data, rt.logits.ctypes.data, wrong.ctypes.data)
    launches = 50
    words = [1, 4, launches] + [4, 1, 2, 1, 0, 30_000] * launches
    program = (ctypes.c_int32 * len(words))(*words)
    io = (ctypes.c_int32 * 11)(0, 0, 0, 0, 0, 1, 8, 4, 4, 4, 1)
    assert rt.lib.inpage_load(buffers, 3, program, len(words), io) == 0
    assert rt.lib.inpage_step(1, 1, 1) == 0
    np.testing.assert_array_equal(wrong, [0] * 4 + [-1] * 12)
    rt.close()


@pytest.mark.parametrize(
    "words",
    [
        [],
        [0],
        [1, 4],
        [1, 4, 1],
        [1, 4, 1, 99, 0, 0],  # no such kernel
        [1, 4, 1, -1, 0, 0],
        [1, 4, 1, 0x10004, 1, 0, 1, 0, 8],  # the first launch is serial: there is no barrier before it
        [1, 4, 2, 4, 1, 0, 1, 0, 8, 0x10063, 0, 0],  # no such kernel
        [1, 4, 1, 2, 1, 9, 0],  # no such buffer
        [1, 4, 1, 2, 1, -1, 0],
        [1, 4, 1, 2, 0, 17, *[0, 0] * 17],  # more scalars than a launch has room for
        [1, 4, 1, 2, 0, 1, 2, 0],  # no such kind of scalar
        [1, 4, 1, 2, 0, 1, 1, 3],  # no such variable
        [1, 4, 1, 2, 0, 1, 1],
        [1, 4, 0, 7],  # words left over
        [1, 3, 0],  # does not take max_rows
        [2, 4, 0, 4, 0],  # not rising
        [1, 4, 2**30],
    ],
)
def test_a_malformed_program_is_refused(words: list[int]) -> None:
    rt = Runtime(4, 8)
    inputs = np.zeros(64, np.int32)
    buffers = (ctypes.c_void_p * 2)(inputs.ctypes.data, rt.logits.ctypes.data)
    program = (ctypes.c_int32 * max(1, len(words)))(*words)
    io = (ctypes.c_int32 * 11)(0, 0, 0, 0, 0, 1, 8, 4, 4, 4, 1)
    assert rt.lib.inpage_load(buffers, 2, program, len(words), io) == -1
    assert rt.lib.inpage_step(1, 1, 1) == -2  # nothing is loaded


def test_threads_dismissed_before_they_ever_ran_end() -> None:
    rt = Runtime(2, 8)
    for _ in range(200):
        assert rt.lib.inpage_set_threads(4) == 0
        assert rt.lib.inpage_set_threads(1) == 0


def test_a_step_taken_apart_leaves_what_the_step_leaves() -> None:
    rt = Runtime(4, 8, threads=3)
    wrong = np.zeros(16, np.int32)
    inputs = np.zeros(64, np.int32)
    buffers = (ctypes.c_void_p * 3)(inputs.ctypes.data, rt.logits.ctypes.data, wrong.ctypes.data)
    words = [1, 4, 2, *[4, 1, 2, 1, 0, 1000] * 2]
    io = (ctypes.c_int32 * 11)(0, 0, 0, 0, 0, 1, 8, 4, 4, 4, 1)
    assert rt.lib.inpage_load(buffers, 3, (ctypes.c_int32 * len(words))(*words), len(words), io) == 0
    counters = ctypes.cast(rt.lib.inpage_counters, ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_uint32 * 6)))
    for launch, result in ((-1, 0), (0, 0), (1, 0), (2, -2), (-2, -2)):
        wrong[:] = -1
        assert rt.lib.inpage_step_launch(1, 1, 1, launch) == result
        assert list(wrong[:3]) == ([0] * 3 if launch in (0, 1) else [-1] * 3)
    assert list(counters().contents[:4]) == [0, 0, 0, 0]
    assert rt.lib.inpage_step_launch(5, 1, 1, 0) == -2  # a batch that inpage_step would refuse
    rt.close()


def test_serial_launches_are_one_threads_between_two_shared_ones() -> None:
    """`scratch` writes a word a thread, so that it shows who took part."""
    rt = Runtime(4, 8, threads=3)
    marks = np.zeros((4, 16), np.int32)
    inputs = np.zeros(64, np.int32)
    buffers = (ctypes.c_void_p * 6)(inputs.ctypes.data, rt.logits.ctypes.data, *(row.ctypes.data for row in marks))
    words = [1, 4, 4, *(word for i, k in enumerate((4, 0x10004, 0x10004, 4)) for word in (k, 1, 2 + i, 1, 0, 1000))]
    io = (ctypes.c_int32 * 11)(0, 0, 0, 0, 0, 1, 8, 4, 4, 4, 1)
    assert rt.lib.inpage_load(buffers, 6, (ctypes.c_int32 * len(words))(*words), len(words), io) == 0
    for apart in (False, True):
        marks[:] = -1
        for launch in range(4) if apart else ():
            assert rt.lib.inpage_step_launch(1, 1, 1, launch) == 0
        assert apart or rt.lib.inpage_step(1, 1, 1) == 0
        assert (marks == 0).sum(1).tolist() == [3, 1, 1, 3]
    marks[:] = -1
    assert rt.lib.inpage_step_kernel(1, 1, 1, 4, 9) == 4
    assert (marks == 0).sum(1).tolist() == [3, 1, 1, 3]
    rt.close()


@pytest.mark.parametrize(("threads", "shares"), [(1, 1), (2, 16), (3, 18), (4, 20), (6, 6)])
def test_whoever_is_done_takes_the_next_share(threads: int, shares: int) -> None:
    """The second thread's first share ends when all others are done, by the threads that were free."""
    rt = Runtime(4, 8, threads=threads)
    marks = np.zeros(64, np.int32)
    inputs = np.zeros(64, np.int32)
    buffers = (ctypes.c_void_p * 3)(inputs.ctypes.data, rt.logits.ctypes.data, marks.ctypes.data)
    launch = [6, 1, 2, 1, 0, 60]
    words = [1, 4, 1, *launch]
    io = (ctypes.c_int32 * 11)(0, 0, 0, 0, 0, 1, 8, 4, 4, 4, 1)
    assert rt.lib.inpage_load(buffers, 3, (ctypes.c_int32 * len(words))(*words), len(words), io) == 0
    for run in (lambda: rt.lib.inpage_step(1, 1, 1), lambda: rt.lib.inpage_step_launch(1, 1, 1, 0)) * 2:
        marks[:] = 0
        assert run() == 0
        assert marks.tolist() == [1] * shares + [0] * (60 - shares) + [shares] + [0] * 3
    rt.close()


def test_few_rows_are_computed_by_fewer_threads_and_all_come_back_for_many() -> None:
    """`scratch` writes a word a thread, so that it shows who took part."""
    rt = Runtime(4, 8, threads=4)
    wrong = np.zeros(16, np.int32)
    inputs = np.zeros(64, np.int32)
    buffers = (ctypes.c_void_p * 3)(inputs.ctypes.data, rt.logits.ctypes.data, wrong.ctypes.data)
    launch = [4, 1, 2, 1, 0, 1000]
    words = [2, 2, 1, *launch, 4, 2, *launch, *launch]
    io = (ctypes.c_int32 * 11)(0, 0, 0, 0, 0, 1, 8, 4, 4, 4, 1)
    assert rt.lib.inpage_load(buffers, 3, (ctypes.c_int32 * len(words))(*words), len(words), io) == 0

    def took_part(rows: int) -> int:
        wrong[:] = -1
        assert rt.lib.inpage_step(rows, 1, 1) == 0
        return int((wrong == 0).sum())

    assert (took_part(1), took_part(4)) == (4, 4)
    assert rt.lib.inpage_set_decoders(2) == 0
    for _ in range(200):  # in quick turns, so that a thread which is not needed reads some announcements late
        assert (took_part(2), took_part(3)) == (2, 4)
    assert rt.lib.inpage_set_threads(3) == 0
    assert (took_part(1), took_part(4)) == (2, 3)
    assert rt.lib.inpage_set_threads(1) == 0
    assert (took_part(1), took_part(4)) == (1, 1)
    assert rt.lib.inpage_set_threads(4) == 0
    assert rt.lib.inpage_set_decoders(0) == 0
    assert took_part(1) == 4
    assert rt.lib.inpage_set_decoders(-1) == rt.lib.inpage_set_decoders(17) == -2
    rt.close()
