"""The goals that inpage set itself, as pass or fail lines with what was measured. An engine on the CPU cannot meet all
of them, and the lines say which and why."""

from __future__ import annotations

from collections.abc import Callable

from .results import Cell, Engine, Metric, Model, Results, Target

_SHORT = "prompt-short"
_MEMORY = "context-1024"
_CROWD = "concurrency-100"


def targets(results: Results) -> list[Target]:
    """For the first engine of ours in a page that ran (natively, if none did)."""
    ours = [(i, e) for i, e in enumerate(results.engines) if e.kind == "inpage" and e.error is None]
    ours.sort(key=lambda item: not item[1].in_page)
    models = [model for model in results.models if not model.embeds]
    if not ours or not models:
        return []
    index, engine = ours[0]
    model = models[0]

    def cell(*scenarios: str) -> Cell | None:
        found = (results.cell(index, model.id, name) for name in scenarios)
        return next((c for c in found if c is not None and c.metrics), None)

    short, held, crowded = cell(_SHORT), cell(_MEMORY, _SHORT), results.environment.busy
    lines = [*_alone(short, engine), *_resources(short, held, engine, model, crowded=crowded)]
    lines += _cache(cell("zipf-1000", "zipf-100"))
    lines += _crowd(cell("concurrency-1000", _CROWD))
    for line in lines:
        line.engine = index
    return lines


def _alone(cell: Cell | None, engine: Engine) -> list[Target]:
    what = f"median of {cell.iterations} runs, {cell.title}, {engine.name}" if cell else ""
    return [
        _line(cell, "ttft_ms", "time to first token", "< 100 ms", lambda v: v < 100, lambda v: f"{v:.1f} ms", what),
        _line(
            cell, "decode_tps", "decode speed", "> 30 tokens/s", lambda v: v > 30, lambda v: f"{v:.1f} tokens/s", what
        ),
        _line(
            cell, "token20_ms", "a 20-token answer, end to end", "< 1 s", lambda v: v < 1000,
            lambda v: f"{v / 1e3:.3f} s", f"time to the 20th token; {what}",
        ),
    ]  # fmt: skip


def _resources(cell: Cell | None, holding: Cell | None, engine: Engine, model: Model, *, crowded: bool) -> list[Target]:
    half = model.f16_bytes / 2
    memory = _line(
        cell, "process_bytes", "memory", "< 50 % of the f16 model", lambda v: v < half,
        lambda v: f"{v / model.f16_bytes * 100:.0f} %",
        f"peak memory of the {'page' if engine.in_page else 'process'} against {model.f16_bytes / 1e6:.0f} MB"
        + ("; the browser itself and Python in it count" if engine.in_page else ""),
    )  # fmt: skip
    if memory.value is not None and holding is not None and "wasm_bytes" in holding.metrics:
        held = holding.metrics["wasm_bytes"].median
        what = " with 1,024 tokens" if holding.scenario == _MEMORY else ""
        memory.why += f"; the engine alone holds {held / 1e6:.0f} MB{what}, {held / model.f16_bytes * 100:.0f} %"
    cpu = _line(
        cell, "cpu_share", "CPU use while answering", "< 80 %", lambda v: v < 0.8, lambda v: f"{v * 100:.0f} %",
        "CPU time of its processes over wall time and all cores",
    )  # fmt: skip
    if engine.backend != "webgpu" and cpu.verdict == "fail":
        cpu.verdict = "does not apply"
        cpu.why += "; an engine on the CPU is fastest when it uses all of it"
    busy = _line(
        cell, "busy_share", "engine busy while answering", "> 90 %", lambda v: v > 0.9, lambda v: f"{v * 100:.0f} %",
        "CPU time of the busiest thread over wall time; waiting in a spin counts as busy",
    )  # fmt: skip
    if engine.backend == "webgpu":
        busy = Target(busy.name, busy.target, None, "not measured", "needs timestamps of the GPU")
    if crowded:  # what others took of the processor is missing here, and would look like thrift or idleness
        for line in (cpu, busy):
            line.value, line.verdict, line.why = (
                None,
                "not measured",
                "other work took too much of the machine during the run",
            )
    return [memory, cpu, busy]


def _cache(cell: Cell | None) -> list[Target]:
    name, goal = "cache hit rate, repeated prompts", "> 80 %"
    fast, most = "requests a second from cache", "> 1,000 /s"
    if cell is None:
        return [Target(name, goal, None, "not measured", "no zipf scenario ran"), _unmeasured(fast, most)]
    hits = sum(count for tier, count in cell.counts.get("cache_hits", {}).items() if tier != "prefix")
    asked = cell.counts["requests"]
    if not hits:
        why = f"{asked} requests over {cell.params['distinct']} prompts, and no answer came from a cache"
        return [Target(name, goal, "0 %", "fail", why, scenario=cell.scenario), _unmeasured(fast, most)]
    rate = hits / asked
    kept = _line(
        cell, "kept_per_s", fast, most, lambda v: v > 1000, lambda v: f"{v:,.0f} /s",
        f"asked once more, through the page's client: {cell.title}",
    )  # fmt: skip
    return [Target(name, goal, f"{rate * 100:.0f} %", _verdict(rate > 0.8), cell.title, scenario=cell.scenario), kept]


def _unmeasured(name: str, goal: str) -> Target:
    return Target(name, goal, None, "not measured", "no answer came from a cache")


def _crowd(cell: Cell | None) -> list[Target]:
    name, goal = "concurrent requests", "> 100"
    queued = "p99 of queued short answers"
    if cell is None:
        why = f"{_CROWD} did not run"
        return [Target(name, goal, None, "not measured", why), Target(queued, "< 2 s", None, "not measured", why)]
    clients, counts = cell.params["concurrency"], cell.counts
    answered = counts["requests"] - counts["failed"]
    fine = answered == counts["requests"] and not counts["refused"]
    why = f"{clients} sent at once: {answered} of {counts['requests']} answered"
    if counts["refused"]:
        why += f"; a full queue sent callers back {counts['refused']} times, and they came again"
    verdict = _verdict(fine and clients >= 100)
    return [
        Target(name, goal, f"{clients if fine else 0}", verdict, why, scenario=cell.scenario),
        _line(
            cell, "e2e_ms", queued, "< 2 s", lambda v: v < 2000, lambda v: f"{v / 1e3:.2f} s", cell.title,
            pick=lambda metric: metric.p99,
        ),
    ]  # fmt: skip


def _line(
    cell: Cell | None,
    metric: str,
    name: str,
    goal: str,
    meets: Callable[[float], bool],
    show: Callable[[float], str],
    why: str,
    pick: Callable[[Metric], float] = lambda metric: metric.median,
) -> Target:
    if cell is None or metric not in cell.metrics:
        return Target(name, goal, None, "not measured", "the scenario did not run" if cell is None else "not available")
    value = pick(cell.metrics[metric])
    return Target(name, goal, show(value), _verdict(meets(value)), why, scenario=cell.scenario)


def _verdict(meets: bool) -> str:
    return "pass" if meets else "fail"
