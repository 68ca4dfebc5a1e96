"""Choosing among kernels that do the same: by their times, within a budget, on a native engine too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inpage.backends import device_profile, kernel_choice
from inpage.backends.device_profile import DeviceProfile
from inpage.backends.kernel_choice import GAIN, KernelChoice, choose_kernels, decide, sentence
from inpage.engines.native_kernels import producers
from inpage.engines.protocol import KernelTiming, SequenceInput
from inpage.errors import DeviceLost, InvalidRequest, Unsupported
from inpage.format.plan import parse_plan
from inpage.router import Router
from support.models import TINY_VARIANTS, manifest_of, open_engine, tiny_artifact
from support.paged_double import PagedDouble

QKV = ("qkv_streams2", "qkv_streams1", "qkv_streams3")
HEAD = ("head_streams2", "head_streams1", "head_streams3")
TILES = ("qkv_tiles", "qkv_tiles_quad")


class Timed(PagedDouble):
    """A TEST DOUBLE whose kernels take as long as ``costs`` says, on a clock that nothing else moves."""

    def __init__(self, costs: dict[str, float], *groups: tuple[str, ...]) -> None:
        super().__init__()
        self.info = replace(self.info, alternatives=groups)
        self.costs, self.clock = costs, 0.0
        self.runs = {group: group[0] for group in groups}
        self.least = 0.0  # seconds of one timing
        self.timed: list[str] = []
        self.wrong: set[str] = set()  # fail the exam

    async def choose_kernels(self, names: Sequence[str]) -> None:
        if self.wrong & set(names):
            raise Unsupported("this GPU computes wrong numbers", field="exam")
        self._choose(names)

    def _choose(self, names: Sequence[str]) -> None:
        for name in names:
            (group,) = [g for g in self.runs if name in g]
            self.runs[group] = name

    async def time_kernels(self, kernels: Sequence[KernelTiming], budget_s: float) -> list[float | None]:
        began, times = self.clock, list[float | None]()
        for each in kernels:
            if self.clock - began >= budget_s:
                times.append(None)
                continue
            self._choose([each.name])
            self.timed.append(each.name)
            self.clock += max(self.least, self.costs[each.name] * each.most)
            times.append(self.costs[each.name])
        return times


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(costs: dict[str, float], *groups: tuple[str, ...]) -> Timed:
        engine = Timed(costs, *groups)
        monkeypatch.setattr(kernel_choice.time, "perf_counter", lambda: engine.clock)
        return engine

    return make


@pytest.mark.parametrize("fast", QKV)
async def test_the_fastest_of_each_list_runs_and_each_list_is_judged_by_itself(clocked: Any, fast: str) -> None:
    costs = dict.fromkeys(QKV, 9e-5) | {fast: 5e-5} | dict.fromkeys(HEAD, 1e-3) | {HEAD[2]: 9e-4}
    # Of the last one the others require what the device lacks: its cost is not asked for.
    engine = clocked(costs | {TILES[0]: 2e-3, TILES[1]: 1e-3}, QKV, HEAD, TILES, ("attention_spans",))
    choice = await choose_kernels(engine)
    assert choice.kernels == (fast, HEAD[2], TILES[1], "attention_spans") == tuple(engine.runs.values())
    assert choice.settled and choice.fits(engine.info)
    assert "attention" not in sentence(choice, engine.info.alternatives)
    assert engine.clock <= kernel_choice.BUDGET_S + 2e-3  # what was begun in time is finished


def test_a_small_gain_switches_nothing() -> None:
    slightly = {QKV[0]: 1.0, QKV[1]: 1.0 - 0.9 * GAIN, QKV[2]: 1.1}
    assert decide([QKV], slightly) == [QKV[0]]
    assert decide([QKV], slightly | {QKV[1]: 1.0 - 1.1 * GAIN}) == [QKV[1]]


def test_a_list_that_was_not_timed_follows_one_that_was() -> None:
    times = {QKV[0]: 2.0, QKV[1]: 1.0, QKV[2]: 3.0, HEAD[0]: 1.0}
    assert decide([QKV, HEAD, TILES], times) == [QKV[1], HEAD[1], TILES[0]]
    assert decide([HEAD], times) == [HEAD[0]]
    assert decide([HEAD, QKV], times) == [HEAD[1], QKV[1]]


async def test_a_gpu_has_a_budget_of_its_own_and_keeps_the_first_ones_where_others_compute_wrong_numbers(
    clocked: Any,
) -> None:
    costs = dict.fromkeys(QKV, 1e-3) | {QKV[2]: 5e-4}
    engine = clocked(costs, QKV)
    engine.info = replace(engine.info, backend="webgpu", weight_bytes=10**10)
    engine.wrong = {QKV[2]}
    choice = await choose_kernels(engine)
    assert choice.kernels == (QKV[0],) == tuple(engine.runs.values())
    assert engine.clock <= 0.150 + 1e-3 and QKV[2] in engine.timed
    engine.wrong = set()
    assert (await choose_kernels(engine)).kernels == (QKV[2],)


async def test_a_gpu_that_has_no_time_for_all_lists_times_one_of_each_kind(clocked: Any) -> None:
    names = ("qkv", "out", "up", "down", "head")
    groups = [(f"{name}_1", f"{name}_1_subgroups") for name in names] + [(f"{name}_16", f"{name}_8") for name in names]
    groups += [(f"{name}_32x32", f"{name}_32x64", f"{name}_12") for name in names]
    costs = {name: 2e-5 if name.endswith(("subgroups", "_8", "_12")) else 3e-5 for group in groups for name in group}
    engine = clocked(costs, *groups)
    engine.info, engine.least = replace(engine.info, backend="webgpu"), 4e-3
    assert (await choose_kernels(engine)).kernels == tuple(group[-1] for group in groups)
    assert engine.clock <= 0.150 + 4e-3


async def test_a_model_too_large_for_the_budget_costs_one_launch_more_at_most(clocked: Any) -> None:
    costs = dict.fromkeys((*QKV, *HEAD, *TILES), 0.025)
    engine = clocked(costs | {QKV[2]: 0.01}, QKV, HEAD, TILES)
    await choose_kernels(engine)
    assert engine.clock <= kernel_choice.BUDGET_S + 0.025
    assert all(name in group for group, name in engine.runs.items())


LARGE = {  # milliseconds a launch: a model of a billion weights
    QKV: 0.2,
    ("up_streams2", "up_streams1", "up_streams3"): 1.5,
    HEAD: 9.0,
    TILES: 4.0,
    ("up_tiles", "up_tiles_quad"): 8.0,
    ("head_tiles", "head_tiles_quad"): 45.0,
}


async def test_of_a_large_model_lists_are_timed_as_a_whole_and_the_others_follow(clocked: Any) -> None:
    costs = {name: ms / 1e3 for group, ms in LARGE.items() for name in group}
    fast = {name: cost / 2 for name, cost in costs.items() if name.endswith(("streams3", "quad"))}
    engine = clocked(costs | fast, *LARGE)
    choice = await choose_kernels(engine)
    assert engine.clock <= kernel_choice.BUDGET_S + 8e-3
    assert choice.kernels == (
        "qkv_streams3",
        "up_streams3",
        "head_streams3",
        TILES[1],
        "up_tiles_quad",
        "head_tiles_quad",
    )
    assert {"head_streams3", TILES[1], "head_tiles"}.isdisjoint(engine.timed)
    assert not choice.settled


async def test_weights_of_more_bytes_are_given_more_time(clocked: Any) -> None:
    engine = clocked(dict.fromkeys(QKV, 0.03) | {QKV[2]: 0.02}, QKV)
    assert (await choose_kernels(engine)).kernels == (QKV[0],)  # a round does not fit into the budget
    engine.info = replace(engine.info, weight_bytes=10**9)
    assert (await choose_kernels(engine)).kernels == (QKV[2],)


async def test_hopeless_kernels_are_timed_once(clocked: Any) -> None:
    engine = clocked({QKV[0]: 1e-3, QKV[1]: 1e-3, QKV[2]: 5e-3}, QKV)
    await choose_kernels(engine)
    assert engine.timed.count(QKV[2]) == 1 and engine.timed.count(QKV[1]) > 2


def test_people_read_what_was_chosen() -> None:
    choice = KernelChoice(("qkv_streams3", "head_streams3", "qkv_tiles"), True, 2)
    assert sentence(choice, [QKV, HEAD, TILES]) == "streams3: qkv, head; tiles: qkv"
    assert not KernelChoice(("qkv_streams3",), True, 2).fits(replace(PagedDouble().info, alternatives=(QKV, HEAD)))


def tiny() -> Path:
    return tiny_artifact("mixed")


@pytest.mark.parametrize("variant", [v for v in TINY_VARIANTS["mixed"] if v.startswith("native")])
async def test_every_native_alternative_leaves_the_same_bits(variant: str) -> None:
    engine = await open_engine(tiny(), variant, threads=2)
    assert len(engine.info.alternatives) > 3
    prompt = [(7 * i + 3) % engine.info.vocab for i in range(11)]
    seen = set()
    for k in range(max(map(len, engine.info.alternatives))):
        await engine.choose_kernels([group[k % len(group)] for group in engine.info.alternatives])
        for fed in (1, 3, 11):  # one row, some, all at once
            for start in range(0, 11, fed):
                feed = SequenceInput(prompt[start : start + fed], start, range(4), want_logits=True)
                (out,) = await engine.step([feed])
            seen.add(bytes(out.logits))
    assert len(seen) == 1
    with pytest.raises(InvalidRequest) as caught:
        await engine.choose_kernels(["embed"])
    assert caught.value.field == "kernels"
    await engine.unload()


def test_before_a_kernel_is_timed_what_writes_its_inputs_runs_and_nothing_else() -> None:
    manifest = manifest_of(tiny())
    (variant,) = [v for v in manifest.variants if v.name == "native"]
    plan = parse_plan((tiny() / variant.files["plan"].file).read_bytes(), manifest.tensors)
    for function in plan.functions:
        names = [plan.kernels[launch.kernel].name.split("_")[0] for launch in function.launches]
        (gated, *_) = [i for i, name in enumerate(names) if name == "gated"]
        assert names[gated + 1] == "linear" and producers(plan, function, gated + 1) == [gated - 2, gated]
        assert names[gated - 1] == "rms" and producers(plan, function, gated) == [gated - 1]


async def test_a_native_router_times_once_and_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_profile, "cache_folder", lambda: tmp_path)
    timed: list[int] = []
    plain = kernel_choice.choose_kernels

    async def counted(engine: Any) -> KernelChoice:
        timed.append(1)
        return await plain(engine)

    monkeypatch.setattr("inpage.backends.load.choose_kernels", counted)

    async def visit() -> tuple[str, Sequence[int]]:
        async with await Router.load(tiny(), backend="native") as router:
            answer = await router.complete([5, 6, 7], max_tokens=4, temperature=0)
            return router.kernels, answer.token_ids

    first = await visit()
    assert "streams" in first[0] and len(timed) == 1
    assert await visit() == first and len(timed) == 1
    # Another build has other kernels: they are timed anew.
    original = DeviceProfile.open.__func__  # type: ignore[attr-defined]

    async def stale(cls: Any, *args: Any) -> DeviceProfile:
        found: DeviceProfile = await original(cls, *args)
        found.choices = {name: replace(c, kernels=("gone",)) for name, c in found.choices.items()}
        return found

    monkeypatch.setattr(DeviceProfile, "open", classmethod(stale))
    assert (await visit())[1] == first[1] and len(timed) == 2


async def test_an_engine_on_which_timing_fails_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_profile, "cache_folder", lambda: tmp_path)
    opened: list[Any] = []

    async def broken(engine: Any) -> KernelChoice:
        opened.append(engine)
        raise DeviceLost("gone")

    monkeypatch.setattr("inpage.backends.load.choose_kernels", broken)
    with pytest.raises(DeviceLost):
        await Router.load(tiny(), backend="native")
    assert opened and all(engine._lib is None for engine in opened)
