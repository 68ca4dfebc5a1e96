"""Which of the kernels that do the same run on this device: timed with the model's own weights, on the threads that
compute, for some tens of milliseconds, and remembered.

How many runs of weights are best read side by side, or which dot product is the fastest, depends on the CPU: on its
registers, on how it hides memory's latency, on instructions that a browser may or may not use. All candidates leave the
same bits, so nothing but speed hangs on the choice. Every time is compared with others that were taken next to it, and
the smallest of a kernel's times counts: whatever disturbs a measurement makes it longer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from ..engines.protocol import EngineInfo, KernelTiming, Tunable
from ..errors import Unsupported

BUDGET_S = 0.060
_GPU_BUDGET_S = 0.150  # a wait for a GPU takes about a millisecond, however little it did
_GPU_TIMING_S = 0.004  # launches of so long are timed, and waited for, at once: see web/engine/webgpu/timing.js
_SECONDS_A_BYTE = 0.2e-9  # of weights, where that is more: a large model's kernels take longer, as its loading does
GAIN = 0.03  # what a kernel must be faster by to be preferred to the one that runs if none is chosen
_SLICE_S = 0.001  # a kernel's launches in a round take about so long
_LAUNCHES = 64
_ROUNDS = 6
_HOPELESS = 1.5  # so many times as slow as the fastest: not timed again
_FIRST_LOOK = 1 / 3  # of the budget, to see how long a launch of each list takes
_ROUND = 1.5  # of what a list's round would take if all were like its first: others may be slower


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """Of one variant on one device. ``kernels``: the one that runs, of each list of alternatives. ``settled``: whether
    all of them were timed, and when the browser had compiled them well. ``threads`` compute; ``threads_measured`` is
    what the engine found when it chose their number, if it did."""

    kernels: tuple[str, ...]
    settled: bool
    threads: int
    threads_measured: dict[str, float] | None = None

    def fits(self, info: EngineInfo) -> bool:
        """Whether it speaks of this engine's kernels."""
        return len(self.kernels) == len(info.alternatives) and all(
            sum(name in self.kernels for name in group) == 1 for group in info.alternatives
        )


Times = Mapping[str, float]  # by kernel: seconds a launch, the smallest


def decide(alternatives: Sequence[Sequence[str]], times: Times) -> list[str]:
    """The kernel of each list that is clearly faster than the first; a list that was not timed as a whole follows the
    last one before it whose kernels differ in the same way, else the first one behind it."""

    def winner(group: Sequence[str]) -> str:
        best = min(group, key=lambda name: times[name])
        return best if times[best] < (1 - GAIN) * times[group[0]] else group[0]

    won = {i: winner(group) for i, group in enumerate(alternatives) if all(name in times for name in group)}
    # By the lists' labels: the label that won, of the first list that was timed to begin with.
    seen = {_labels(alternatives[i]): _label(won[i], alternatives[i]) for i in reversed(won)}
    chosen: list[str] = []
    for i, group in enumerate(alternatives):
        labels = _labels(group)
        if i in won:
            seen[labels] = _label(won[i], group)
        chosen.append(won[i] if i in won else group[labels.index(seen[labels])] if labels in seen else group[0])
    return chosen


async def choose_kernels(engine: Tunable, times_the_budget: int = 1) -> KernelChoice:
    """Time the engine's alternatives and let the fastest run. Settled if that took no longer than the budget. No step
    may run then."""
    info, began = engine.info, time.perf_counter()
    groups = [group for group in info.alternatives if len(group) > 1]  # the device may be able to run just the first
    budget_s = times_the_budget * max(BUDGET_S, _SECONDS_A_BYTE * info.weight_bytes)
    if info.backend == "webgpu":
        budget_s = _GPU_BUDGET_S

    def left() -> float:
        return budget_s - (time.perf_counter() - began)

    async def timed(names: Sequence[str], most: Mapping[str, int], within: float) -> dict[str, float]:
        times: dict[str, float] = {}
        rest, until = list(names), time.perf_counter() + within
        while rest and (now := time.perf_counter()) < until:  # in short calls: a request that arrives waits for one
            wanted = [KernelTiming(name, most[name]) for name in rest]
            found = await engine.time_kernels(wanted, min(BUDGET_S, until - now))
            done = {name: took for name, took in zip(rest, found, strict=True) if took is not None}
            if not done:
                break
            times |= done
            rest = [name for name in rest if name not in done]
        return times

    firsts = [group[0] for group in info.alternatives]
    look = [group[0] for turn in zip_longest(*_kinds(groups)) for group in turn if group]
    once = await timed(look, dict.fromkeys(firsts, 1), budget_s * _FIRST_LOOK)
    most = {name: max(1, min(_LAUNCHES, round(_SLICE_S / max(took, 1e-9)))) for name, took in once.items()}
    least = _GPU_TIMING_S if info.backend == "webgpu" else 0.0
    costs = {name: max(least, took * most[name]) for name, took in once.items()}
    affordable = _affordable(groups, costs, left())
    most = {name: most[group[0]] for group in affordable for name in group}
    times: dict[str, float] = {}
    # All lists' first ones, then their second ones: until a list's weights are read again, others have passed through
    # the caches, as they do in a step.
    going = [name for row in zip_longest(*affordable) for name in row if name is not None]
    for _ in range(_ROUNDS):
        if not going or left() <= 0:
            break
        for name, took in (await timed(going, most, left())).items():
            times[name] = min(took, times.get(name, took))
        fastest = {name: min(times.get(n, 1e9) for n in group) for group in groups for name in group}
        # Those that lie close together are timed again, now the other way round.
        going = [name for name in reversed(going) if times.get(name, 1e9) < _HOPELESS * fastest[name]]
    kernels = decide(info.alternatives, times)
    try:
        await engine.choose_kernels(kernels)
    except Unsupported:  # with these the GPU computes wrong numbers, with the first ones it passed its exam
        kernels = firsts
        await engine.choose_kernels(kernels)
    complete = all(name in times for group in groups for name in group)
    return KernelChoice(tuple(kernels), complete, info.threads, info.threads_measured)


def _affordable(
    alternatives: Sequence[Sequence[str]], costs: Mapping[str, float], seconds: float
) -> list[Sequence[str]]:
    """The lists that a round can time as a whole within ``seconds``: one that is timed in part decides nothing.
    ``costs``: by a list's first kernel, how long its launches in a round take. First one list of each kind, which the
    others of that kind can follow: the one that weighs most within the kind's share of the time, else the shortest."""

    def cost(group: Sequence[str]) -> float:
        return _ROUND * len(group) * costs.get(group[0], math.inf)

    kinds = _kinds(sorted(alternatives, key=cost))
    chosen: list[Sequence[str]] = []
    for n, groups in enumerate(kinds):
        share = seconds / (len(kinds) - n)
        within = [group for group in groups if cost(group) <= share] or groups[:1]
        if cost(within[-1]) <= seconds:
            chosen.append(within[-1])
            seconds -= cost(within[-1])
    for group in sorted(alternatives, key=cost, reverse=True):
        if group not in chosen and cost(group) <= seconds:
            chosen.append(group)
            seconds -= cost(group)
    return [group for group in alternatives if group in chosen]


def _kinds(alternatives: Sequence[Sequence[str]]) -> list[list[Sequence[str]]]:
    """Lists whose kernels differ in the same way, together; in order of the first of each kind."""
    kinds: dict[tuple[str, ...], list[Sequence[str]]] = {}
    for group in alternatives:
        kinds.setdefault(_labels(group), []).append(group)
    return list(kinds.values())


def sentence(choice: KernelChoice, alternatives: Sequence[Sequence[str]]) -> str:
    """What was chosen, for people, without a full stop; empty where there was nothing to choose from."""
    by_label: dict[str, list[str]] = {}
    for name, group in zip(choice.kernels, alternatives, strict=True):
        if len(group) == 1:
            continue
        label = _label(name, group)
        by_label.setdefault(label, []).append(name.removesuffix(f"_{label}"))
    return "; ".join(f"{label}: {', '.join(names)}" for label, names in by_label.items())


def _labels(group: Sequence[str]) -> tuple[str, ...]:
    return tuple(_label(name, group) for name in group)


def _label(name: str, group: Sequence[str]) -> str:
    """What tells a kernel from the others of its list: its name from the last word on that all begin with."""
    words = [each.split("_") for each in group]
    same = 0
    while all(len(parts) > same + 1 and parts[same] == words[0][same] for parts in words):
        same += 1
    return "_".join(name.split("_")[same:])
