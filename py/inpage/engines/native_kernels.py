"""Choosing and timing kernels that do the same, in CPython: what web/engine/core/alternatives.js does in the page."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence

from ..errors import InvalidRequest, quoted
from ..format.plan_types import Function, Plan
from .native_library import check
from .protocol import KernelTiming

DEPTH = 31  # tokens before the rows that are timed
_MANY = 8  # rows with which kernels for many rows are timed, where the plan takes so many

_BARRIER_S, _IDLE_S = 0.00026, 0.00004  # what a thread waits, spinning, before it sleeps: at a barrier, between jobs
_SPIN_TURNS = 2000

Trial = Callable[[int, int], "tuple[int, int, int] | None"]  # (rows, depth) → rows, sequences, logit rows of a batch


def calibrate_spins(lib: ctypes.CDLL) -> None:
    """Set how many turns of a spin make the times that a thread waits before it sleeps: their length is the CPU's."""
    best = min(_seconds(lambda: lib.inpage_spin(_SPIN_TURNS)) for _ in range(3))
    rate = _SPIN_TURNS / max(best, 1e-6)
    check(lib.inpage_set_spins(*(max(1, round(rate * seconds)) for seconds in (_BARRIER_S, _IDLE_S))))


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def choose(lib: ctypes.CDLL, plan: Plan, names: Sequence[str]) -> None:
    """Raises `InvalidRequest` for a name that is none of the alternatives."""
    for name in names:
        group, one = _find(plan, name)
        for other in group:
            if other != one:
                check(lib.inpage_choose_kernel(other, one))


def time_kernels(
    lib: ctypes.CDLL, plan: Plan, kernels: Sequence[KernelTiming], budget_s: float, trial: Trial
) -> list[float | None]:
    """See `Tunable.time_kernels`. ``trial`` places a batch."""
    began = time.perf_counter()
    times: list[float | None] = []
    for each in kernels:
        if time.perf_counter() - began >= budget_s:
            times.append(None)
            continue
        choose(lib, plan, [each.name])
        times.append(_time(lib, plan, *_find(plan, each.name), each.most, trial))
    return times


def _time(
    lib: ctypes.CDLL, plan: Plan, group: Sequence[int], kernel: int, most: int, trial: Trial
) -> float | None:  # fmt: skip
    before = 0  # with so many rows another function would run
    for function in plan.functions:
        start = next((i for i, launch in enumerate(function.launches) if launch.kernel == group[0]), None)
        if start is not None:
            break
        before = function.max_rows
    else:
        return None
    rows = max(before + 1, min(function.max_rows, _MANY))
    batch = trial(rows, DEPTH) if DEPTH + rows <= plan.maxima.context else None
    if batch is None:
        return None
    for i in producers(plan, function, start):
        check(lib.inpage_step_launch(*batch, i))
    began = time.perf_counter()
    done = check(lib.inpage_step_kernel(*batch, kernel, most))
    return (time.perf_counter() - began) / done


def producers(plan: Plan, function: Function, launch: int) -> list[int]:
    """The launches that last wrote what a launch reads, in order: run before it, untimed, they leave in its inputs what
    would be there. No more of the layer: for a large model that would take all the time there is."""

    def touched(i: int, ways: str) -> list[int]:
        one = function.launches[i]
        access = plan.kernels[one.kernel].access
        return [
            id for id, way in zip(one.buffers, access, strict=True) if way in ways and plan.buffers[id].kind == "arena"
        ]

    last = (next((i for i in reversed(range(launch)) if id in touched(i, "wx")), None) for id in touched(launch, "rx"))
    return sorted({i for i in last if i is not None})


def _find(plan: Plan, name: str) -> tuple[tuple[int, ...], int]:
    """The list that a kernel stands in, and its number."""
    for group in plan.alternatives:
        for one in group:
            if plan.kernels[one].name == name:
                return group, one
    raise InvalidRequest(f"{quoted(name)} is no kernel that can be chosen", field="kernels")
