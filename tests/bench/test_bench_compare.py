"""Summaries against numpy, and what `compare` finds in runs whose truth is known because it was made up."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from inpage.errors import InvalidRequest
from inpage_bench.compare import compare
from inpage_bench.merge import merge
from inpage_bench.results import Cell, Engine, Environment, Model, Results, Shard, Tool, metric
from inpage_bench.scenarios import ALL, Scenario, select, shard
from inpage_bench.stats import summary

SEEDS = range(4 if "INPAGE_SLOW" in os.environ else 2)


def made_up(
    seed: int, *, slower: float = 1.0, visits: int = 3, noise: float = 0.02, drift: float = 0.0, control: bool = True
) -> Results:
    """A run of two engines of ours and a peer, six samples a cell, one in ten spoilt by other work; ``slower``: how
    much longer everything of the first engine takes; ``drift``: how much faster the machine is."""
    dice = random.Random(seed)
    environment = Environment("cpu", 2, 1, "os", "browser", pace_mbps=1000 * (1 + drift) if control else None)
    run = Results("2026-01-01T00:00:00Z", "inpage bench", 1.0, Tool("1"), environment)
    run.models = [Model("m", "M", 10, 10, 20, "Q4_1", "hash")]
    for e, (name, kind) in enumerate((("ours", "inpage"), ("native", "inpage"), ("theirs", "peer"))):
        run.engines.append(Engine(name, kind, "wasm", "v", 2, "1", "Q4_1"))
        offsets = [dice.gauss(0, 0.015) for _ in range(visits)]
        for scenario in ("prompt-short", "prompt-medium", "stream-long", "decode-batch-8"):
            places = [i * visits // 6 for i in range(6)]
            times = []
            for visit in places:
                time = (
                    100 * (slower if e == 0 else 1.0) / (1 + drift) * (1 + offsets[visit] + abs(dice.gauss(0, noise)))
                )
                times.append(time * (1 + dice.expovariate(3) if dice.random() < 0.1 else 1))
            cell = Cell(e, "m", scenario, scenario, {"new_tokens": 128})
            cell.metrics["e2e_ms"] = metric(times, "ms", "lower", visits=places)
            cell.metrics["decode_tps"] = metric([1e5 / t for t in times], "tokens/s", "higher", visits=places)
            cell.metrics["wasm_bytes"] = metric([1e6, 1e6, 1e6], "bytes", "lower", per="visit", visits=[0, 1, 2])
            run.cells.append(cell)
    run.shards = [Shard("", run.created, run.command, 1.0, run.tool, environment)]
    return run


def test_summaries_are_numpys() -> None:
    samples = list(np.random.default_rng(3).lognormal(2, 1, 101))
    found = summary(samples)
    assert found["n"] == 101
    for name, expected in (
        ("median", np.median(samples)), ("p95", np.quantile(samples, 0.95)), ("p99", np.quantile(samples, 0.99)),
        ("mean", np.mean(samples)), ("stdev", np.std(samples, ddof=1)), ("min", min(samples)), ("max", max(samples)),
    ):  # fmt: skip
        assert found[name] == pytest.approx(expected)
    assert summary([4.0])["stdev"] == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_build_twice_is_within_noise(seed: int) -> None:
    found = compare(made_up(seed), made_up(seed + 100))
    assert not found.slower
    assert not found.faster
    assert {each.verdict for each in (*found.lines, *found.wholes)} == {"within noise"}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_build_that_is_a_fifth_slower_is_found_and_no_other_is_accused(seed: int) -> None:
    found = compare(made_up(seed), made_up(seed + 100, slower=1.2))
    assert {line.engine for line in found.slower} == {"ours"}
    assert not found.faster
    assert len(found.slower) >= 4  # of eight timings
    back = compare(made_up(seed + 100, slower=1.2), made_up(seed))
    assert {line.engine for line in back.faster} == {"ours"}
    assert not back.slower


@pytest.mark.parametrize("seed", SEEDS)
def test_a_quick_run_of_few_samples_tells_a_slow_build_as_a_whole(seed: int) -> None:
    before, same, slow = (quick(made_up(seed + i, slower=slower)) for i, slower in ((0, 1), (100, 1), (200, 1.2)))
    verdicts = {whole.engine: whole.verdict for whole in compare(before, same).wholes}
    assert verdicts == {"ours": "within noise", "native": "within noise"}  # the peer is a control
    verdicts = {whole.engine: whole.verdict for whole in compare(before, slow).wholes}
    assert verdicts == {"ours": "slower", "native": "within noise"}
    assert {whole.engine for whole in compare(slow, before).faster} == {"ours"}


def quick(run: Results) -> Results:
    """Three samples of one visit, and only two scenarios."""
    run.cells = [cell for cell in run.cells if cell.scenario in ("prompt-short", "decode-batch-8")]
    for cell in run.cells:
        for name, found in cell.metrics.items():
            cell.metrics[name] = metric(found.samples[:3], found.unit, found.better, visits=[0] * 3)
        samples = cell.metrics["e2e_ms"].samples
        cell.metrics["ttft_ms"] = metric([x / 9 for x in samples], "ms", "lower", visits=[0] * 3)
    return run


def test_a_slower_machine_is_no_slower_build_where_controls_show_it() -> None:
    found = compare(made_up(1), made_up(2, drift=-0.25))
    assert found.drift == pytest.approx(-0.25, abs=0.04)
    assert not found.slower
    real = compare(made_up(1), made_up(2, drift=-0.25, slower=1.25))
    assert {line.engine for line in real.slower} == {"ours"}


def test_controls_that_err_make_no_slow_build_fast() -> None:
    wrong = made_up(2, slower=1.2)
    wrong.environment.pace_mbps = 500  # half, though the peer did not notice
    wrong.engines[2].version = "2"  # and the peer is another, so nothing contradicts it
    found = compare(made_up(1), wrong)
    assert not found.faster
    assert any("repeat them" in note for note in found.notes)


def test_more_bytes_are_found_however_little_they_vary() -> None:
    before, after = made_up(1), made_up(2)
    after.cells[0].metrics["wasm_bytes"] = metric([2e6] * 3, "bytes", "lower", per="visit", visits=[0, 1, 2])
    lines = [line for line in compare(before, after).lines if line.verdict != "within noise"]
    assert [(line.engine, line.metric, line.verdict) for line in lines] == [("ours", "wasm_bytes", "worse")]


def test_two_samples_decide_nothing_and_strangers_are_refused() -> None:
    before, after = made_up(1), made_up(2, slower=3)
    for run in (before, after):
        for cell in run.cells:
            cell.metrics = {"e2e_ms": metric(cell.metrics["e2e_ms"].samples[:2], "ms", "lower", visits=[0, 0])}
    assert {line.verdict for line in compare(before, after).lines} == {"too few samples"}
    for engine in after.engines:
        engine.threads = 1
    with pytest.raises(InvalidRequest, match="in common"):
        compare(before, after)


def test_shards_cover_the_matrix_once_and_keep_together_what_is_compared() -> None:
    pairs = [(model, scenario) for model in ("a", "b") for scenario in ALL if scenario.suits(embeds=model == "b")]
    parts = [shard(pairs, i, 3) for i in (1, 2, 3)]
    assert sorted(str(p) for part in parts for p in part) == sorted(str(p) for p in pairs)
    assert max(len(part) for part in parts) - min(len(part) for part in parts) <= 2
    for part in parts:
        names = [(model, scenario.name) for model, scenario in part]
        assert (("a", "load-cold") in names) == (("a", "load-cached") in names)
        assert (("b", "embed-batch-64") in names) == (("b", "embed-single") in names)
    assert shard(pairs, 1, 3) == parts[0]
    assert shard(pairs, 1, 1) == pairs


def test_merged_shards_are_the_whole_run_and_other_models_are_refused() -> None:
    whole, one, two = (made_up(1) for _ in range(3))
    one.cells, two.cells = one.cells[::2], two.cells[1::2]
    two.engines.reverse()  # another order, as where an engine of the other part failed
    for cell in two.cells:
        cell.engine = len(two.engines) - 1 - cell.engine
    joined = merge([one, two])
    places = {(joined.engines[c.engine].name, c.scenario): c.metrics["e2e_ms"].samples for c in joined.cells}
    assert places == {(whole.engines[c.engine].name, c.scenario): c.metrics["e2e_ms"].samples for c in whole.cells}
    assert len(joined.shards) == 2
    with pytest.raises(InvalidRequest, match="two parts"):
        merge([one, one])
    two.models[0].sha256 = "another"
    with pytest.raises(InvalidRequest, match="not the same model"):
        merge([one, two])


def test_results_come_back_as_they_went_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    run = made_up(1)
    run.save(path)
    assert Results.load(path) == run
    text = path.read_text()
    for damaged, words in (
        (text.replace('"schema": 1', '"schema": 99'), "schema 99"),
        (text.replace('"threads": 2', '"threads": "two"', 1), r"engines\[0\].threads"),
        (text.replace('"engine": 2', '"engine": 7', 1), "no such engine"),
        (text[:-9], "not JSON"),
    ):
        path.write_text(damaged)
        with pytest.raises(InvalidRequest, match=words):
            Results.load(path)


def test_scenarios_are_chosen_by_form_and_by_name() -> None:
    quick = ["load-cold", "load-cached", "context-1024", "prompt-short", "decode-batch-8"]
    quick += ["embed-batch-64", "embed-single"]
    assert [s.name for s in select(None, "quick")] == quick
    assert set(select(None, "quick")) < set(select(None, "usual")) < set(select(None, "long")) == set(ALL)
    assert [s.name for s in select(["zipf-*", "decode-deep"], "quick")] == ["decode-deep", "zipf-100", "zipf-1000"]
    with pytest.raises(InvalidRequest, match="prompt-shrot"):
        select(["prompt-shrot"], "quick")


def test_prompts_are_exact_unique_and_repeat_where_they_should(small_tokenizer: object) -> None:
    def asked(name: str, iteration: int) -> list[list[int]]:
        scenario: Scenario = select([name], "long")[0]
        return scenario.prompts(small_tokenizer, iteration)  # type: ignore[arg-type]

    crowd = asked("concurrency-32", 0)
    assert {len(ids) for ids in crowd} == {34}
    assert len({tuple(ids) for ids in [*crowd, *asked("concurrency-32", 1)]}) == 64
    repeats = [tuple(ids) for ids in asked("zipf-1000", 0)]
    assert repeats == [tuple(ids) for ids in asked("zipf-1000", 0)]
    counts = sorted((repeats.count(ids) for ids in set(repeats)), reverse=True)
    assert len(counts) <= 100
    assert counts[0] / 1000 == pytest.approx(1 / sum(1 / k for k in range(1, 101)), abs=0.04)  # Zipf's first share
    shared = asked("shared-prefix", 0)
    assert {len(ids) for ids in shared} == {528}
    assert len({tuple(ids[:512]) for ids in shared}) == 1
    assert len({tuple(ids[512:]) for ids in shared}) == 8
