"""The lines that tell how inpage stands against native: from runs that are made up, so that the truth is known."""

from __future__ import annotations

import pytest

from inpage_bench import embeddings
from inpage_bench.against_native import GROUP, lines
from inpage_bench.outcome import against_peers
from inpage_bench.report.readme import markdown_table
from inpage_bench.results import Cell, Engine, Environment, Model, Peaks, Results, Target, Tool, metric
from inpage_bench.run import sum_up

LLAMA, WLLAMA, ORT = (
    ("llama.cpp Q4_1", "llama.cpp"),
    ("wllama q4_0", "wllama"),
    ("onnxruntime-web int8", "onnxruntime-web"),
)


def run(*figures: tuple[str, str, str, float], threads: int = 2, variant: str = "wasm-relaxed") -> Results:
    """Figures as (engine, scenario, metric, median); "ours" is the engine in the page."""
    peaks = Peaks({"2": 20.0}, {"2": 100.0}, "", read_by_bytes={"2": {"1000": 80.0, "1000000000": 20.0}})
    environment = Environment("cpu", 2, 1, "os", "browser", peaks=peaks)
    out = Results("2026-01-01T00:00:00Z", "inpage bench", 1.0, Tool("1"), environment)
    out.models = [Model("m", "M", 10**8, 9 * 10**7, 2 * 10**8, "Q4_1", "hash", kv_token_bytes=20_000)]
    places = {}
    for name, scenario, measured, value in figures:
        if name not in places:
            places[name] = len(out.engines)
            family = next((f for n, f in (LLAMA, WLLAMA, ORT) if n == name), "llama.cpp" if "llama.cpp" in name else "")
            kind, inside = ("peer" if family else "inpage"), family != "llama.cpp"
            form = name.rpartition(" ")[2].lower() if family else variant
            engine = Engine(name, kind, "wasm" if inside else "native", form, threads, "1", "", family, inside)
            engine.baseline = name == LLAMA[0]
            out.engines.append(engine)
        unit = {"ttft_ms": "ms", "wasm_bytes": "bytes"}.get(measured, "tokens/s")
        cell = out.cell(places[name], "m", scenario)
        if cell is None:
            cell = Cell(places[name], "m", scenario, scenario)
            out.cells.append(cell)
        better = "lower" if unit != "tokens/s" else "higher"
        cell.metrics[measured] = metric([value * 0.5, value, value * 2], unit, better)
    return out


def test_embeddings_are_compared_with_the_best_form_and_looked_at() -> None:
    batch, single = "embed-batch-64", "embed-single"
    out = run(
        ("ours", batch, "sentences_per_s", 310.0), ("peer", batch, "sentences_per_s", 100.0),
        ("ours", single, "sentences_per_s", 290.0), ("peer", single, "sentences_per_s", 50.0),
    )  # fmt: skip
    out.models[0].embeds = True
    out.engines[1].kind, out.engines[1].family = "peer", "transformers.js"
    out.cells[0].series["vector"], out.cells[1].series["vector"] = [0.6, 0.8], [1.0, 0.0]
    sum_up(out)
    assert [(t.group, t.value, t.verdict) for t in out.targets] == [
        ("Embeddings", "3.10 ×", "pass"), ("Embeddings", "5.80 ×", "pass"),
    ]  # fmt: skip
    assert [cell.counts["cosine_with_ours"] for cell in out.cells[:2]] == [1, 0.6]
    assert [(pair.metric, pair.ratio) for pair in out.pairs] == [("sentences_per_s", 3.1), ("sentences_per_s", 5.8)]
    assert "sentences_per_s" in against_peers(out)[0]
    assert "310" in markdown_table(out)
    out.models[0].embeds = False
    assert not embeddings.lines(out)


def test_a_batch_is_judged_against_the_way_in_which_the_peer_embeds_faster() -> None:
    def lines(single: float) -> list[Target]:
        out = run(*(
            (who, scenario, "sentences_per_s", value)
            for who, scenario, value in (
                ("ours", "embed-batch-64", 320.0), ("peer", "embed-batch-64", 100.0), ("peer", "embed-single", single),
            )
            if value
        ))  # fmt: skip
        out.models[0].embeds, out.engines[1].family = True, "transformers.js"
        return embeddings.lines(out)

    slow, fast, unknown = (lines(single)[0] for single in (80.0, 200.0, 0.0))
    assert (slow.value, slow.verdict) == ("3.20 ×", "pass")
    assert (fast.value, fast.verdict) == ("1.60 ×", "fail") and "200 tokens/s of peer in embed-single" in fast.why
    assert unknown.verdict == "reported" and "embed-single was not measured of transformers.js" in unknown.why


def line(found: list[Target], name: str, target: str) -> Target:
    return next(t for t in found if t.name.startswith(name) and target in t.target)


def test_every_goal_has_a_line_with_what_was_measured_of_both() -> None:
    found = lines(
        run(
            ("ours", "prompt-short", "decode_tps", 150.0), ("ours", "prompt-short", "ttft_ms", 80.0),
            ("ours", "prompt-medium", "prefill_tps", 400.0), ("ours", "prompt-long", "decode_tps", 75.0),
            ("ours", "decode-batch-8", "aggregate_tps", 300.0), ("ours", "context-1024", "wasm_bytes", 99e6),
            (LLAMA[0], "prompt-short", "decode_tps", 100.0), (LLAMA[0], "prompt-short", "ttft_ms", 60.0),
            (LLAMA[0], "prompt-medium", "prefill_tps", 400.0), (LLAMA[0], "prompt-long", "decode_tps", 60.0),
            (LLAMA[0], "decode-batch-8", "aggregate_tps", 200.0),
            ("llama.cpp Q4_0", "prompt-short", "decode_tps", 300.0),
            (WLLAMA[0], "prompt-short", "decode_tps", 20.0), (WLLAMA[0], "prompt-medium", "prefill_tps", 20.0),
            (ORT[0], "prompt-short", "decode_tps", 30.0),
        )
    )  # fmt: skip
    assert {t.group for t in found} == {GROUP}
    said = [(t.target, t.value, t.verdict) for t in found if t.name == "decode after 34 tokens"]
    assert said == [
        ("≥ 1.5 × native", "1.50 ×", "pass"),
        ("≥ 8 × wllama", "7.50 ×", "fail"),
        ("≥ 4 × onnxruntime-web", "5.00 ×", "pass"),
    ]
    best = line(found, "decode after 34 tokens, native's best", "no goal")
    assert (best.value, best.verdict) == ("0.50 ×", "reported") and "300 tokens/s of llama.cpp Q4_0" in best.why
    assert line(found, "decode after 2,048", "native").value == "1.25 ×"
    assert line(found, "prefill of 512", "native").verdict == "fail"
    assert line(found, "prefill of 512", "wllama").value == "20.00 ×"
    first = line(found, "time to first token", "better than native")
    assert (first.value, first.verdict) == ("0.75 ×", "fail") and "80 ms against 60 ms" in first.why
    assert line(found, "8 sequences", "1.25 × native").verdict == "pass"
    memory = line(found, "wasm memory", "≤ 100 MB")
    assert (memory.value, memory.verdict) == ("99 MB", "pass")
    assert line(found, "decode, 1 thread", "1.4").why == "needs --threads 1"
    assert line(found, "decode of wasm-simd", "4 × wllama").why == "needs --backends wasm-simd"


def test_a_steps_growth_is_told_beside_the_time_that_reading_the_keys_and_values_takes() -> None:
    deep = (("ours", "prompt-short", "decode_tps", 100.0), ("ours", "prompt-long", "decode_tps", 50.0))
    native = ((LLAMA[0], "prompt-short", "decode_tps", 100.0), (LLAMA[0], "prompt-long", "decode_tps", 40.0))
    found = line(lines(run(*deep, *native)), "a step's growth", "no goal")
    megabytes = 20_000 * (2048 - 34) / 1e6
    assert found.verdict == "reported" and found.value is not None
    # 130 MB lie between the sizes that were measured, nearer to 20 GB/s than to 80.
    gigabytes_a_second = float(found.why.partition("÷ ")[2].partition(" GB/s")[0])
    assert 20 < gigabytes_a_second < 25
    times = 10.0 / (megabytes / gigabytes_a_second)
    assert found.value.startswith("10.00 ms, ")
    assert float(found.value.split()[2]) == pytest.approx(times, rel=0.02)
    assert f"{megabytes:.1f} MB" in found.why and "native's step grows by 15.00 ms" in found.why


def test_neither_a_busy_machine_nor_random_weights_are_judged() -> None:
    for why in ("busy", "own weights"):
        found = run(("ours", "prompt-short", "decode_tps", 90.0), (LLAMA[0], "prompt-short", "decode_tps", 20.0))
        found.environment.busy, found.models[0].random = why == "busy", why != "busy"
        native = line(lines(found), "decode after 34 tokens", "1.5 × native")
        assert (native.value, native.verdict) == ("4.50 ×", "reported") and why in native.why


def test_goals_for_two_threads_are_not_judged_on_one_and_that_for_one_is() -> None:
    figures = (("ours", "prompt-short", "decode_tps", 90.0), (LLAMA[0], "prompt-short", "decode_tps", 75.0))
    found = lines(run(*figures, threads=1))
    one = line(found, "decode, 1 thread", "1.4 × native on 1 thread")
    assert (one.value, one.verdict) == ("1.20 ×", "fail")
    two = line(found, "decode after 34 tokens", "1.5 × native")
    assert (two.value, two.verdict) == ("1.20 ×", "reported") and "two threads" in two.why


def test_wasm_simd_has_a_line_of_its_own_and_nothing_is_said_where_nothing_was_measured() -> None:
    figures = (("ours", "prompt-short", "decode_tps", 90.0), (WLLAMA[0], "prompt-short", "decode_tps", 20.0))
    (found,) = lines(run(*figures, variant="wasm-simd"))
    assert (found.target, found.value, found.verdict) == ("≥ 4 × wllama", "4.50 ×", "pass")
    assert lines(run(("ours", "prompt-short", "decode_tps", 90.0))) == []
    assert lines(run((LLAMA[0], "prompt-short", "decode_tps", 90.0))) == []


def test_shards_are_compared_with_their_own() -> None:
    """Two machines' figures make no ratio."""
    found = run(("ours", "prompt-short", "decode_tps", 90.0), (LLAMA[0], "prompt-short", "decode_tps", 20.0))
    found.cells[0].shard = 1
    assert lines(found) == []
