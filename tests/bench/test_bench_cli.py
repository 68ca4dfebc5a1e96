"""`inpage bench` from end to end on a tiny model: what it does and writes, never how fast."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from inpage.cli import main
from inpage.errors import Unsupported
from inpage_bench.browser import Where
from inpage_bench.driver import Driver, Setup
from inpage_bench.ours import NativeDriver
from inpage_bench.peers import PEERS
from inpage_bench.results import Results
from inpage_bench.run import Options, Run
from inpage_bench.run import _subject as subject_of
from inpage_bench.scenarios import select
from inpage_bench.turn import Limits
from support.encoders import WITNESS, bert_artifact
from support.models import tiny_artifact
from support.tiny import MODELS, VOCAB
from support.tiny_bert import TEXTS

SCENARIOS = "load-*,prompt-short,prompt-medium,decode-batch-8,concurrency-100,zipf-100"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the quick form wrote."""
    out = tmp_path_factory.mktemp("bench")
    arguments = ["--quick", "--peers", "none", "--threads", "2", "--iterations", "2", "--warmup", "1"]
    model = ["--models", str(tiny_artifact("mixed")), "--scenarios", SCENARIOS]
    assert main(["bench", *arguments, *model, "--out", str(out)]) == 0
    return out


@pytest.fixture(autouse=True)
def _peaks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's peaks take seconds: ``written`` has measured them, which is made before this."""

    async def measure(*_: object, **__: object) -> None:
        raise Unsupported("they are measured in another test")

    monkeypatch.setattr("inpage_bench.run.measure_peaks", measure)


@pytest.fixture(scope="module")
def results(written: Path) -> Results:
    return Results.load(written / "results.json")


def test_every_engine_has_a_cell_for_every_scenario(results: Results) -> None:
    assert [engine.name for engine in results.engines] == ["inpage wasm-relaxed", "inpage native"]
    assert [engine.error for engine in results.engines] == [None, None]
    assert [engine.threads for engine in results.engines] == [2, 2]
    names = [scenario.name for scenario in select(SCENARIOS.split(","), "quick")]
    assert [(cell.engine, cell.scenario) for cell in results.cells] == [(e, name) for e in (0, 1) for name in names]
    for cell in results.cells:
        if cell.scenario == "prompt-medium":
            assert cell.error == "unsupported: needs 640 tokens; the model's context is 256"
        elif (cell.engine, cell.scenario) == (1, "load-cold"):
            assert (cell.error or "").startswith("unsupported: a native engine")
        else:
            assert (cell.error, bool(cell.metrics)) == (None, True)


@pytest.mark.parametrize("engine", [0, 1])
def test_answers_are_counted_token_by_token(results: Results, engine: int) -> None:
    cell = results.cell(engine, results.models[0].id, "prompt-short")
    assert cell is not None and cell.output_ids is not None
    counts = cell.counts
    assert (cell.iterations, cell.warmup, counts["requests"], counts["failed"]) == (2, 1, 2, 0)
    assert counts["steps"] == counts["sampled"] == counts["tokens"]  # the prompt's only step gives the first token
    assert counts["rows"] == 2 * 33 + counts["tokens"]
    plan = json.loads((tiny_artifact("mixed") / ("wasm-relaxed", "native")[engine] / "plan.json").read_text())
    launches = {function["name"]: len(function["launches"]) for function in plan["functions"]}
    assert counts["launches"] == 2 * launches["step"] + (counts["steps"] - 2) * launches["decode"]  # 34 rows, then one
    assert 0 < len(cell.output_ids) <= 128
    assert cell.metrics["itl_ms"].n == counts["tokens"] - 2
    assert len(cell.series["itl_ms"]) == counts["tokens"] - 2
    for name in ("ttft_ms", "prefill_tps", "decode_tps", "e2e_ms"):
        metric = cell.metrics[name]
        assert (metric.n, metric.visits, metric.per) == (2, [0, 0], "iteration")
        assert metric.min <= metric.p50 <= metric.p95 <= metric.p99 <= metric.max
    # The first token arrives at once, the others together as time goes by.
    assert cell.metrics["gap_ms"].n >= 2


def test_a_second_visit_fetches_no_weights(results: Results) -> None:
    model = results.models[0]
    cold, cached = (results.cell(0, model.id, name) for name in ("load-cold", "load-cached"))
    assert cold is not None and cached is not None
    assert cold.metrics["bytes_fetched"].median > model.weight_bytes
    assert cached.metrics["bytes_fetched"].median < model.weight_bytes
    for cell in (cold, cached):
        assert {"phase_python_ms", "phase_weights_ms", "phase_kernels_ms", "first_token_ms"} < set(cell.metrics)


@pytest.mark.parametrize("engine", [0, 1])
def test_a_crowd_is_answered_whoever_is_sent_back(results: Results, engine: int) -> None:
    crowd = results.cell(engine, results.models[0].id, "concurrency-100")
    repeats = results.cell(engine, results.models[0].id, "zipf-100")
    together = results.cell(engine, results.models[0].id, "decode-batch-8")
    assert crowd is not None and repeats is not None and together is not None
    for cell in (crowd, repeats):
        assert (cell.counts["requests"], cell.counts["failed"]) == (200, 0)
        assert cell.metrics["e2e_ms"].n == 200
    assert repeats.counts["refused"] == 0  # eight at once fit any queue
    assert repeats.counts["cache_hits"]["memory"] > 0 and repeats.metrics["kept_per_s"].n == 2
    assert together.counts["requests"] == 16
    assert together.counts["steps"] < together.counts["tokens"] / 2  # they really decode together


def test_the_page_is_measured_and_the_machine_described(results: Results) -> None:
    cell = results.cell(0, results.models[0].id, "prompt-short")
    assert cell is not None
    for name in ("process_bytes", "pss_bytes", "heap_bytes", "wasm_bytes", "cpu_share", "busy_share"):
        assert cell.metrics[name].min > 0
    assert cell.metrics["process_bytes"].median > cell.metrics["wasm_bytes"].median
    environment = results.environment
    assert environment.browser.startswith("Chromium ")
    assert environment.isolated
    assert environment.pace_mbps
    assert [target.name for target in results.targets][:2] == ["time to first token", "decode speed"]
    assert {target.verdict for target in results.targets} <= {"pass", "fail", "not measured", "does not apply"}
    assert {(d.scenario, d.a, d.b) for d in results.differences} >= {("prompt-short", 0, 1)}


def test_there_is_a_report_and_a_comparison(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "<html" in (written / "report.html").read_text("utf-8")
    same = str(written / "results.json")
    assert main(["bench", "compare", same, same, "--fail-on-slower"]) == 0
    assert "within noise" in capsys.readouterr().out
    assert main(["bench", "merge", same, same, "--out", str(written / "merged")]) == 1
    assert "not shards of one run" in capsys.readouterr().err


def test_shards_make_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Natively, which is quick: a shard of two, then the other, then both."""
    common = ["--quick", "--peers", "none", "--backends", "native", "--models", str(tiny_artifact("mixed"))]
    files = []
    for part in ("1/2", "2/2"):
        out = tmp_path / part[0]
        assert main(["bench", *common, "--shard", part, "--iterations", "1", "--out", str(out)]) == 0
        files.append(str(out / "results.json"))
    assert main(["bench", "merge", *files, "--out", str(tmp_path / "whole")]) == 0
    whole = Results.load(tmp_path / "whole" / "results.json")
    assert {cell.scenario for cell in whole.cells} == {"load-cold", "load-cached", "prompt-short", "decode-batch-8"}
    assert [part.part for part in whole.shards] == ["1/2", "2/2"]
    assert len(whole.engines) == 1


@pytest.mark.skipif("INPAGE_SLOW" not in os.environ, reason="a signal to pytest itself: alone, with -n0")
def test_a_run_that_is_cut_short_keeps_what_it_had_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = Results.save

    def cut(results: Results, path: Path) -> None:
        """The first time that a cell has numbers in it, the system asks the run to end."""
        save(results, path)
        if not results.complete and any(cell.metrics for cell in results.cells):
            monkeypatch.setattr(Results, "save", save)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("inpage_bench.run._KEEP_S", 0)
    monkeypatch.setattr(Results, "save", cut)
    asked = ["--backends", "native", "--peers", "none", "--models", str(tiny_artifact("mixed")), "--iterations", "1"]
    scenarios = ["--scenarios", "prompt-short,decode-batch-8,concurrency-8"]
    assert main(["bench", *asked, *scenarios, "--out", str(tmp_path)]) == 130
    results = Results.load(tmp_path / "results.json")
    assert not results.complete
    assert [(cell.scenario, bool(cell.metrics)) for cell in results.cells] == [
        ("prompt-short", True), ("decode-batch-8", False), ("concurrency-8", False),
    ]  # fmt: skip
    assert results.environment.browser.startswith("Chromium ") and results.targets
    assert "cut short" in capsys.readouterr().out
    (tmp_path / "report.html").unlink()
    assert main(["bench", "report", str(tmp_path / "results.json")]) == 0
    assert "The run was cut short" in (tmp_path / "report.html").read_text("utf-8")


def test_a_peer_that_cannot_run_is_reported_with_its_error() -> None:
    async def absent(setup: Setup) -> Sequence[Driver]:
        raise Unsupported("needs a module that is not there")

    options = Options(
        models=[tiny_artifact("mixed")], backends=["native", "no-such-variant"], peers={"absent": absent},
        scenarios=select(["prompt-short"], "quick"), limits=Limits(1, 0, 1), where=Where(), threads=1,
        command="inpage bench",
    )  # fmt: skip
    results = asyncio.run(Run(options).run())
    errors = {engine.name: engine.error for engine in results.engines}
    assert errors["absent"] == "unsupported: needs a module that is not there"
    assert errors["inpage native"] is None
    assert "no backend 'no-such-variant'" in (errors["inpage no-such-variant"] or "")
    assert results.cells[0].metrics


@pytest.mark.skipif("INPAGE_SLOW" not in os.environ, reason="compiles a model of a billion weights' shape")
def test_a_model_by_shape_is_compiled_on_demand_and_whoever_cannot_run_it_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = tmp_path / "shapes"
    shapes.mkdir()
    lender = MODELS["f32"].write(tmp_path / "lender.gguf")
    (shapes / "dwarf.toml").write_text(
        'id = "dwarf-shape"\nname = "Dwarf"\ncontext = 256\n[shape]\nlayers = 1\nhidden = 64\nheads = 2\nkv_heads = 1\n'
        f'head_dim = 32\nffn = 96\nvocab = {VOCAB}\ntied = true\ntokenizer = "{lender}"\n'
    )
    monkeypatch.setattr("inpage_compile.sources.recipe.FOLDERS", (tmp_path,))
    monkeypatch.setattr("inpage.cli.paths.models", lambda: tmp_path / "models")
    monkeypatch.setattr("inpage_bench.room.available_bytes", lambda: 300_000_000)  # too little for any page
    peers = {"onnx": PEERS["onnxruntime-web"]}
    monkeypatch.setattr("inpage_bench.peers.PEERS", peers)
    asked = ["--models", "shape:dwarf", "--scenarios", "prompt-short", "--iterations", "1", "--quick"]
    assert main(["bench", *asked, "--backends", "wasm-simd,native", "--out", str(tmp_path / "out")]) == 0
    results = Results.load(tmp_path / "out" / "results.json")
    assert (results.models[0].random, results.models[0].name) == (True, "Dwarf by shape, random weights")
    errors = {engine.name: engine.error or "" for engine in results.engines}
    assert errors["inpage native"] == "" and "weights are random" in errors["onnx"]
    page = errors["inpage wasm-simd"]
    assert page.startswith("out_of_memory: needs 4") and "300000000 bytes" in page
    ours = [engine.name for engine in results.engines].index("inpage native")
    cell = results.cell(ours, "dwarf-shape", "prompt-short")
    assert cell is not None and cell.counts["tokens"] == 128  # nothing ends an answer early
    assert "by shape, random weights" in (tmp_path / "out" / "report.html").read_text()
    said = capsys.readouterr().err
    assert "measured by shape, with random weights" in said and "onnx cannot run" in said


def test_a_profile_names_every_kernel_of_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_artifact("mixed")
    assert main(["bench", "--profile", "--threads", "1", "--models", str(folder)]) == 0
    said = capsys.readouterr().out
    plan = json.loads((folder / "wasm-relaxed" / "plan.json").read_text())
    used = {launch["kernel"] for function in plan["functions"] for launch in function["launches"]}
    assert all(plan["kernels"][kernel]["name"] in said for kernel in used)
    for rows in ("1 row, 1 thread, after 34", "8 rows, 1 thread", "128 rows, 1 thread"):
        assert rows in said
    assert "2048" not in said  # beyond this model's context


def test_a_wrong_command_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["--scenarios", "prompt-shrot"], "there is no scenario 'prompt-shrot'"),
        (["--models", "no-such-model"], "no compiled model"),
        (["--peers", "nobody"], "there is no peer 'nobody'"),
    ):
        assert main(["bench", "--peers", "none", *arguments]) == 1
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["bench", "--shard", "3/2"])
    assert "no part of a whole" in capsys.readouterr().err


async def test_the_native_engine_embeds_in_a_process_of_its_own() -> None:
    subject, _ = subject_of(bert_artifact("mean"))
    assert subject.record.embeds and not [s.name for s in select(["prompt-*"], "quick") if s.suits(embeds=True)]
    driver = NativeDriver(subject, "native-f32", 1, trust=True)
    await driver.load(cast("Any", None))
    try:
        both, each = [await driver.embed(TEXTS[:2], together=together) for together in (True, False)]
    finally:
        await driver.close()
    assert [len(both.at_ms), len(each.at_ms)] == [1, 2] and each.at_ms[0] < each.at_ms[1]
    assert both.vector == each.vector == pytest.approx(WITNESS["mean"]["vectors"][0], abs=1e-4)
