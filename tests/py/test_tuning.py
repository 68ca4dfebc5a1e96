"""Measuring and switching while nobody waits, and what is remembered of it, with the strict double."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inpage.backends import device_profile as notes_module
from inpage.backends.device_profile import DeviceProfile
from inpage.backends.failover import Backends
from inpage.backends.load import load_engine
from inpage.backends.measurement import Measurement, measure, pages_needed
from inpage.backends.memory_ceiling import beyond
from inpage.backends.selection import Candidate, Choice, choose
from inpage.engines import registry
from inpage.engines.protocol import SequenceInput
from inpage.engines.registry import LoadJob, engine_kind
from inpage.errors import DeviceLost, InpageError, Unsupported
from inpage.format.schema import Exam, ExamAnswer, FileRef, GraphRef, Variant, Weights
from inpage.host.capability import Adapter, Device, host_device
from inpage.router import Router
from inpage.scheduling import tuning
from inpage.settings import Settings
from inpage.text.tokenizer import Tokenizer
from support.mortal import Mortal
from support.paged_double import PagedDouble
from support.small import small_manifest

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 30}
FAST, SLOW = Measurement(100, 300, 2, 1e9), Measurement(20, 60, 2, 1e9)


def test_a_figure_is_what_a_typical_request_takes() -> None:
    assert Measurement(100, 1000, 1, 0).typical_s == pytest.approx(0.128 + 1.28)


async def test_measuring_feeds_only_the_pages_it_was_given() -> None:
    engine = PagedDouble()
    count = pages_needed(engine.info)
    await engine.reserve_pages(count + 3)
    measurement = await measure(engine, range(3, count + 3))
    assert measurement.decode_tps > 0 and measurement.prefill_tps > 0
    assert {page for _, feeds in engine.calls for feed in feeds for page in feed.pages} == set(range(3, count + 3))


async def test_a_slow_engine_is_known_after_three_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))  # every look at the clock finds a second gone
    monkeypatch.setattr("inpage.backends.measurement.time.perf_counter", lambda: float(next(clock)))
    engine = PagedDouble()
    await engine.reserve_pages(pages_needed(engine.info))
    measurement = await measure(engine, range(pages_needed(engine.info)))
    assert measurement.decode_tps == 1
    assert [kind for kind, _ in engine.calls] == ["run"] * 3


async def test_one_slow_step_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that is timed took a second, the others a hundredth."""
    looks = iter(range(100))
    monkeypatch.setattr("inpage.backends.measurement.time.perf_counter", lambda: 0.01 * (n := next(looks)) + (n > 2))
    engine = PagedDouble()
    await engine.reserve_pages(pages_needed(engine.info))
    measurement = await measure(engine, range(pages_needed(engine.info)))
    assert measurement.decode_tps > 99 and measurement.prefill_tps > 1000


class House:
    """A router over doubles that are as fast as ``speeds`` says, and load when they are asked to."""

    def __init__(self, tokenizer: Tokenizer, speeds: dict[str, Measurement], profile: DeviceProfile) -> None:
        self.speeds, self.profile = speeds, profile
        self.loads: list[str] = []
        self.engines: list[Mortal] = []
        self.dying: set[str] = set()
        self.refuse: dict[str, InpageError] = {}
        self.hold: asyncio.Event | None = None
        self.learnt = 0
        ranked = tuple(
            Candidate(Variant(name, name.partition("-")[0], (), {}), True, "made for tests") for name in speeds
        )
        self.choice = Choice(ranked, ranked, 2, "2 of 2 cores compute", None)
        self.backends = Backends(ranked, self._load, profile.log)
        self.tokenizer = tokenizer

    async def _load(self, candidate: Candidate) -> Mortal:
        self.loads.append(candidate.name)
        if self.hold is not None:
            await self.hold.wait()
        if candidate.name in self.refuse:
            raise self.refuse[candidate.name]

        def fate(kind: str, feeds: Sequence[SequenceInput]) -> InpageError | None:
            return DeviceLost("gone") if candidate.name in self.dying else None

        self.engines.append(Mortal(PagedDouble(vocab=320), fate, variant=candidate.name))
        return self.engines[-1]

    async def router(self) -> Router:
        engine = await self.backends.first()
        return Router(small_manifest(), self.choice, engine, self.tokenizer, load_ms=1, backends=self.backends,
                      profile=self.profile, on_change=self._changed)  # fmt: skip

    def _changed(self) -> None:
        self.learnt += 1


@pytest.fixture
def house(small_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> House:
    monkeypatch.setattr(tuning, "_PATIENCE_S", 0)
    monkeypatch.setattr(notes_module, "cache_folder", lambda: tmp_path)
    house = House(small_tokenizer, {"slow-a": SLOW, "fast-b": FAST}, DeviceProfile("small", "here"))

    async def measured(engine: Mortal, pages: Sequence[int]) -> Measurement:
        await measure(engine, pages)
        return house.speeds[engine.info.variant]

    monkeypatch.setattr(tuning, "measure", measured)
    return house


async def settled(house: House, loads: int) -> None:
    """Until so many engines were loaded, and all but one are gone again."""
    while len(house.loads) < loads or sum(not engine.unloaded for engine in house.engines) != 1:
        await asyncio.sleep(0)


async def test_the_faster_one_is_found_after_the_first_answer(house: House) -> None:
    async with await house.router() as router:
        await router._tuner.measure_current()
        assert router.scheduler.kv.pool.used == len(router.scheduler.kv.prefix)
        first = await router.complete("hello", **GREEDY)
        await settled(house, 2)
        assert router.info["variant"] == "fast-b"
        second = await router.complete("hello", **GREEDY)
        assert (first.variant, second.variant) == ("slow-a", "fast-b")
        assert second.why == "fast-b: measured 100 tokens a second here; 2 of 2 cores compute"
        await asyncio.sleep(0)
        assert house.loads == ["slow-a", "fast-b"]  # nothing is left to find out
        assert house.learnt >= 2
        assert router.explain().splitlines() == [
            "Running fast-b: measured 100 tokens a second here; 2 of 2 cores compute.",
            "fast, 2 threads: 100 tokens a second; slow, 2 threads: 20.",
            "  slow-a: made for tests; 20 tokens a second, prompt 60",
            "* fast-b: made for tests; 100 tokens a second, prompt 300",
        ]


async def test_what_was_measured_at_a_bad_moment_is_measured_again(house: House) -> None:
    house.profile.measurements["slow-a"] = SLOW
    house.speeds["slow-a"] = replace(FAST, decode_tps=2 * FAST.decode_tps)
    async with await house.router() as router:
        await router.complete("hello", **GREEDY)
        await settled(house, 2)
        assert (router.info["variant"], house.profile.measurements["slow-a"]) == ("slow-a", house.speeds["slow-a"])


async def test_the_present_engines_fault_is_not_the_others(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await house.router() as router:
        await router._tuner.measure_current()
        known = tuning.measure

        async def lost(engine: Mortal, pages: Sequence[int]) -> Measurement:
            if engine.info.variant == "slow-a":
                raise DeviceLost("gone")
            return await known(engine, pages)

        monkeypatch.setattr(tuning, "measure", lost)
        await router.complete("hello", **GREEDY)
        await settled(house, 2)
        assert (router.info["variant"], house.backends.log.resting("fast-b")) == ("slow-a", False)


async def test_a_request_ends_the_timing_of_kernels(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.profile.measurements |= house.speeds
    async with await house.router() as router:
        tuner = router._tuner
        monkeypatch.setattr(tuner, "_unsettled", lambda: router.scheduler.engine)
        monkeypatch.setattr(tuner, "_settle_kernels", lambda: asyncio.Event().wait())  # it would take for ever
        measuring = asyncio.create_task(router.measure())
        while tuner._search is None:
            await asyncio.sleep(0)
        monkeypatch.setattr(tuner, "_unsettled", lambda: None)
        assert (await router.complete("hello", **GREEDY)).variant == "slow-a"
        assert {each["decode_tps"] for each in await measuring} == {20, 100}


async def test_a_request_ends_the_search(house: House) -> None:
    async with await house.router() as router:
        await router._tuner.measure_current()
        await router.complete("hello", **GREEDY)
        house.hold = asyncio.Event()
        while len(house.loads) < 2:
            await asyncio.sleep(0)
        assert (await router.complete("hello", **GREEDY)).variant == "slow-a"
        house.hold.set()
        await settled(house, 3)
        assert router.info["variant"] == "fast-b"


async def test_one_that_dies_being_measured_rests(house: House) -> None:
    house.dying.add("fast-b")
    async with await house.router() as router:
        await router.measure()
        await router.complete("hello", **GREEDY)
        for _ in range(20):
            await asyncio.sleep(0)
        assert house.loads == ["slow-a", "fast-b"]
        said = "fast-b: made for tests; not measured yet; failed 0 seconds ago (device_lost: gone); tried again in 60"
        assert said in router.explain()


async def test_one_that_cannot_be_loaded_rests(house: House) -> None:
    async with await house.router() as router:
        house.refuse["fast-b"] = Unsupported("not this graph")
        await router._tuner.measure_current()
        for _ in range(3):
            await router.complete("hello", **GREEDY)
            for _ in range(20):
                await asyncio.sleep(0)
        assert house.loads == ["slow-a", "fast-b"]


async def test_nothing_is_downloaded_unasked(house: House) -> None:
    asked: list[str] = []

    async def stored(candidate: Candidate) -> bool:
        asked.append(candidate.name)
        return False

    house.backends.stored = stored
    async with await house.router() as router:
        await router._tuner.measure_current()
        await router.complete("hello", **GREEDY)
        while not asked:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (asked, house.loads) == (["fast-b"], ["slow-a"])
        await router.measure()
        assert house.loads == ["slow-a", "fast-b"]


async def test_a_variants_own_weights_need_room(house: House) -> None:
    graph = GraphRef(500, (), (), (), "float32", "logits", Weights(500, ()))
    onnx = Candidate(Variant("onnx-wasm", "onnx", (), {}), True, "made for tests")
    ours = Candidate(Variant("wasm", "wasm", (), {"plan": FileRef("plan.json", 1, "0" * 64)}), True, "made for tests")
    async with await house.router() as router:
        router.manifest = replace(router.manifest, weights=Weights(100, ()), graph=graph)
        found = []
        for memory in (None, 1900, 2100):
            router.device = replace(host_device(), memory=memory)
            found.append([router._room(candidate) for candidate in (ours, onnx)])
        assert found == [[True, True], [True, False], [True, True]]
        tab = replace(router.device, place="page", memory=1900)
        manifest = replace(router.manifest, variants=(ours.variant, onnx.variant))
        assert list(beyond(tab, manifest)) == ["onnx-wasm"]  # more than a quarter
        assert beyond(replace(tab, memory=2100), manifest) == beyond(replace(tab, memory=None), manifest) == {}


async def test_after_its_rest_the_faster_one_runs_again(house: House) -> None:
    now = [1e9]
    house.profile.log.clock = lambda: now[0]
    house.profile.measurements |= house.speeds
    house.backends.ranked.reverse()
    house.backends.current = house.backends.ranked[0]
    house.dying.add("fast-b")
    async with await house.router() as router:
        assert (await router.complete("hello", **GREEDY)).variant == "slow-a"
        assert house.loads == ["fast-b", "fast-b", "slow-a"]
        house.dying.clear()
        await router.complete("hello", **GREEDY)
        assert len(house.loads) == 3  # it rests
        now[0] += 61
        await router.complete("hello", **GREEDY)
        await settled(house, 4)
        assert (await router.complete("hello", **GREEDY)).variant == "fast-b"


async def test_what_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(notes_module, "cache_folder", lambda: tmp_path)
    manifest, here = small_manifest(), host_device()
    profile = await DeviceProfile.open(manifest, here, None)
    profile.measurements["native"] = FAST
    profile.log.note("native", DeviceLost("gone"))
    await profile.save()
    again = await DeviceProfile.open(manifest, here, None)
    assert again.measurements == {"native": FAST}
    assert "gone" in again.log.sentence("native")
    # Another browser, adapter or artifact, or another number of threads, is another story.
    elsewhere = Device("page", here.features, here.cores, here.threads, adapter=Adapter("a GPU", software=False))
    assert not (await DeviceProfile.open(manifest, elsewhere, None)).measurements
    assert not (await DeviceProfile.open(manifest, here, 1)).measurements
    assert not (await DeviceProfile.open(replace(manifest, revision="1" * 64), here, None)).measurements
    (file,) = (tmp_path / "notes").glob("*.json")
    whole = file.read_text("utf-8")
    key = next(iter(json.loads(whole)["devices"]))
    other = json.dumps({"version": 1, "devices": {key: {"figures": [], "faults": 3}}})
    words = whole.replace('"decode_tps": 100', '"decode_tps": "x"')
    for damaged in ("", "{", "[]", '{"version": 1}', whole[:-20], words, other):
        file.write_text(damaged, "utf-8")
        assert not (await DeviceProfile.open(manifest, here, None)).measurements


async def test_an_exam_is_sat_once_and_strikes_off_who_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(notes_module, "cache_folder", lambda: tmp_path)
    why, jobs = "this GPU computes wrong numbers: token 3 has 2.0 nats", list[LoadJob]()
    fine: Any = SimpleNamespace(info=SimpleNamespace(alternatives=()))

    async def load(job: LoadJob) -> Any:
        jobs.append(job)
        if job.variant.name == "webgpu-f16":
            raise Unsupported(why, field="exam")
        return fine

    monkeypatch.setitem(registry._engines, "webgpu", replace(engine_kind("webgpu"), load=load))
    files = dict.fromkeys(("plan", "kernels"), FileRef("x", 1, "0" * 64))
    variants = [Variant(name, "webgpu", ("webgpu",), files) for name in ("webgpu-f16", "webgpu-f32")]
    manifest = replace(small_manifest(), exam=Exam((1, 2), (ExamAnswer(1, 1.0, 1.0),)))
    here = Device("page", frozenset({"webgpu"}), 2, 2, adapter=Adapter("a GPU", software=False))
    store: Any = SimpleNamespace(base="")

    async def load_on_a_visit(variant: Variant) -> DeviceProfile:
        profile = await DeviceProfile.open(manifest, here, None)
        await load_engine(variant, 1, False, store, manifest, "", lambda _: None, Settings(), profile)
        return await DeviceProfile.open(manifest, here, None)

    with pytest.raises(Unsupported, match="wrong numbers"):
        await load_on_a_visit(variants[0])
    await load_on_a_visit(variants[1])
    profile = await load_on_a_visit(variants[1])
    with pytest.raises(Unsupported, match="wrong numbers"):  # also when it is tried beside the one that runs
        await load_on_a_visit(variants[0])
    assert [job.examined for job in jobs] == [False, False, True]
    assert profile.struck_off == {"webgpu-f16": why}
    choice = choose(variants, here, refused=profile.struck_off)
    assert [c.name for c in choice.ranked] == ["webgpu-f32"]
    assert [str(c) for c in choice.candidates if not c.can_run] == [f"webgpu-f16: {why}"]


def test_measured_figures_decide() -> None:
    names = ("wasm-relaxed", "wasm-simd", "webgpu-f32")
    variants = [Variant(name, name.partition("-")[0], (), {}) for name in names]
    gpu = Device("page", frozenset({"webgpu"}), 2, 2, isolated=True, adapter=Adapter("a GPU", software=False))
    soft = Device("page", frozenset({"webgpu"}), 2, 2, isolated=True, adapter=Adapter("SwiftShader", software=True))
    none = Device("page", frozenset(), 2, 2, isolated=True, no_adapter="WebGPU finds no adapter on this device")
    assert [c.name for c in choose(variants, gpu).ranked] == ["webgpu-f32", "wasm-relaxed", "wasm-simd"]
    assert [c.name for c in choose(variants, soft).ranked] == ["wasm-relaxed", "wasm-simd", "webgpu-f32"]
    assert [c.name for c in choose(variants, none).ranked] == ["wasm-relaxed", "wasm-simd"]
    found = choose(variants, gpu, measurements={"wasm-simd": FAST, "webgpu-f32": SLOW})
    assert [c.name for c in found.ranked] == ["wasm-simd", "webgpu-f32", "wasm-relaxed"]
    pinned = choose(variants, gpu, backend="wasm", measurements={"webgpu-f32": FAST})
    assert [c.name for c in pinned.ranked] == ["wasm-relaxed", "wasm-simd"]
