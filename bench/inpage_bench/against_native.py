"""How inpage's WebAssembly engine stands against llama.cpp on the same weights, natively and in the browser: a line for
each goal that the engine was built for, with what was measured of both, and nothing compared across machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .bandwidth import bandwidth
from .results import Cell, Engine, Metric, Model, Results, Target

GROUP = "Against native"
_SHORT, _MEDIUM, _LONG, _TOGETHER, _MEMORY = (
    "prompt-short", "prompt-medium", "prompt-long", "decode-batch-8", "context-1024",
)  # fmt: skip
_DEPTHS = (34, 2048)  # tokens before the answers of the first and the third

Rivals = Callable[[Engine], bool]


def lines(results: Results) -> list[Target]:
    """For our first engine of each kind that ran in a page; none where nothing was measured that they speak of."""
    found: list[Target] = []
    for model in [model for model in results.models if not model.embeds][:1]:
        relaxed = _ours(results, lambda e: e.backend == "wasm" and e.variant != "wasm-simd")
        plain = _ours(results, lambda e: e.variant == "wasm-simd")
        if relaxed is not None:
            found += _relaxed(Side(results, model, relaxed))
        if relaxed is not None or plain is not None:
            found.append(_plain(Side(results, model, plain) if plain is not None else None))
    for line in found:
        line.group = GROUP
    return found if any(line.value is not None for line in found) else []


def _ours(results: Results, wanted: Rivals) -> int | None:
    engines = enumerate(results.engines)
    return next((i for i, e in engines if e.kind == "inpage" and e.in_page and not e.error and wanted(e)), None)


@dataclass(frozen=True, slots=True)
class Side:
    """One of our engines and what it was measured beside."""

    results: Results
    model: Model
    engine: int

    @property
    def threads(self) -> int:
        return self.results.engines[self.engine].threads

    def busy(self, cell: Cell) -> bool:
        shards = self.results.shards
        return (shards[cell.shard] if cell.shard < len(shards) else self.results).environment.busy

    def cell(self, scenario: str, metric: str) -> Cell | None:
        cell = self.results.cell(self.engine, self.model.id, scenario)
        return cell if cell is not None and metric in cell.metrics else None

    def rival(self, mine: Cell, metric: str, wanted: Rivals, scenarios: Sequence[str] = ()) -> Cell | None:
        """The best of those wanted, measured in the same run: in ``mine``'s scenario, or in any of ``scenarios``."""
        beside = [
            cell
            for cell in self.results.cells
            if (cell.model, cell.shard) == (mine.model, mine.shard)
            and cell.scenario in (scenarios or (mine.scenario,))
            and metric in cell.metrics
            and wanted(self.results.engines[cell.engine])
        ]
        pick = max if mine.metrics[metric].better == "higher" else min
        return pick(beside, key=lambda cell: cell.metrics[metric].median, default=None)

    def line(
        self,
        name: str,
        scenario: str,
        metric: str,
        wanted: Rivals,
        whom: str,
        times: float | None,
        threads: int = 2,
        theirs_in: Sequence[str] = (),
    ) -> Target:
        """``times``: how many times better ours is to be; None: that is only told. ``threads``: what the goal is set
        for, 2 meaning several. ``theirs_in``: scenarios that ask the same of both in several ways, of which the rival
        takes the one that suits it best; not judged where one of them was not measured of it."""
        goal = "(no goal)" if times is None else f"≥ {times:g} × {whom}" if times != 1 else f"better than {whom}"
        line = Target(name, goal, None, "not measured", "", engine=self.engine, scenario=scenario)
        if threads == 1 and self.threads != 1:
            line.why = "needs --threads 1"
            return line
        mine = self.cell(scenario, metric)
        theirs = None if mine is None else self.rival(mine, metric, wanted, theirs_in)
        if mine is None or theirs is None:
            line.why = f"{scenario} did not run" if mine is None else f"{scenario} was not measured of {whom}"
            return line
        a, b = mine.metrics[metric], theirs.metrics[metric]
        ratio = a.median / b.median if a.better == "higher" else b.median / a.median
        line.value = f"{ratio:.2f} ×"
        line.verdict = "reported" if times is None else "pass" if ratio >= times else "fail"
        line.why = (
            f"{_said(a)} against {_said(b)} of {self.results.engines[theirs.engine].name}"
            f"{f' in {theirs.scenario}' if theirs.scenario != scenario else ''}; medians of {a.n} and {b.n}"
        )
        missing = [each for each in theirs_in if self.rival(mine, metric, wanted, (each,)) is None]
        if times is not None and threads != 1 and self.threads == 1:
            line.verdict, line.why = "reported", f"{line.why}; the goal is set for two threads"
        elif times is not None and self.model.random:
            line.verdict, line.why = "reported", f"{line.why}; the goals are set for a model's own weights"
        elif times is not None and self.busy(mine):  # whoever ran while others did lost
            line.verdict, line.why = "reported", f"{line.why}; not judged, because the machine was busy"
        elif times is not None and missing:
            why = f"not judged, because {', '.join(missing)} was not measured of {whom}"
            line.verdict, line.why = "reported", f"{line.why}; {why}"
        return line


def _relaxed(side: Side) -> list[Target]:
    after = "decode after {:,} tokens".format
    short, deep = after(_DEPTHS[0]), after(_DEPTHS[1])
    return [
        side.line(short, _SHORT, "decode_tps", _native, "native", 1.5),
        side.line(short, _SHORT, "decode_tps", _wllama, "wllama", 8),
        side.line(short, _SHORT, "decode_tps", _onnx, "onnxruntime-web", 4),
        side.line(f"{short}, native's best format", _SHORT, "decode_tps", _native_best, "native's Q4_0", None),
        side.line("decode, 1 thread", _SHORT, "decode_tps", _native, "native on 1 thread", 1.4, threads=1),
        side.line(deep, _LONG, "decode_tps", _native, "native", 1.5),
        _growth(side),
        side.line("prefill of 512 tokens", _MEDIUM, "prefill_tps", _native, "native", 1.25),
        side.line("prefill of 512 tokens", _MEDIUM, "prefill_tps", _wllama, "wllama", 12),
        side.line("time to first token, 34 tokens, warm", _SHORT, "ttft_ms", _native, "native", 1),
        side.line("8 sequences decoding together", _TOGETHER, "aggregate_tps", _native, "native", 1.25),
        _memory(side),
    ]


def _plain(side: Side | None) -> Target:
    name, times = "decode of wasm-simd", 4
    if side is None:
        return Target(name, f"≥ {times} × wllama", None, "not measured", "needs --backends wasm-simd")
    return side.line(name, _SHORT, "decode_tps", _wllama, "wllama", times)


def _growth(side: Side) -> Target:
    """What a step takes longer at depth, against the time in which the machine reads the keys and values of that."""
    low, high = _DEPTHS
    line = Target(f"a step's growth from {low:,} to {high:,} tokens", "(no goal)", None, "not measured", "")
    line.engine, line.scenario = side.engine, _LONG
    first, last = side.cell(_SHORT, "decode_tps"), side.cell(_LONG, "decode_tps")
    if first is None or last is None:
        line.why = f"{_SHORT if first is None else _LONG} did not run"
        return line
    grown = _step(last) - _step(first)
    line.value, line.verdict = f"{grown:.2f} ms", "reported"
    line.why = f"{_step(first):.2f} to {_step(last):.2f} ms"
    peaks, more = side.results.environment.peaks, side.model.kv_token_bytes * (high - low)
    read = bandwidth(peaks, str(side.threads), side.model.weight_bytes + more) if peaks else 0.0
    if read > 0 and more:
        least = more / read / 1e6
        line.value += f", {grown / least:.1f} × reading the KV"
        line.why += f"; {more / 1e6:.1f} MB of keys and values ÷ {read:.1f} GB/s that were measured = {least:.2f} ms"
    natives = [side.rival(cell, "decode_tps", _native) for cell in (first, last)]
    if natives[0] is not None and natives[1] is not None:
        line.why += f"; native's step grows by {_step(natives[1]) - _step(natives[0]):.2f} ms"
    return line


def _memory(side: Side) -> Target:
    half = side.model.f16_bytes / 2
    goal = f"≤ {half / 1e6:,.0f} MB, half of the f16 model"
    line = Target("wasm memory with a context of 1,024 tokens", goal, None, "not measured", f"{_MEMORY} did not run")
    line.engine, line.scenario = side.engine, _MEMORY
    cell = side.cell(_MEMORY, "wasm_bytes")
    if cell is not None:
        held = cell.metrics["wasm_bytes"].median
        line.value, line.verdict = f"{held / 1e6:,.0f} MB", "pass" if held <= half else "fail"
        line.why = f"all that the engine's memory holds, {held / side.model.f16_bytes * 100:.0f} % of the f16 model"
    return line


def _step(cell: Cell) -> float:
    return 1e3 / cell.metrics["decode_tps"].median


def _said(metric: Metric) -> str:
    return f"{metric.median:.4g} {metric.unit}"


def _native(engine: Engine) -> bool:
    """On our weights."""
    return engine.family == "llama.cpp" and engine.baseline


def _native_best(engine: Engine) -> bool:
    return engine.family == "llama.cpp" and engine.variant == "q4_0"


def _wllama(engine: Engine) -> bool:
    return engine.family == "wllama"


def _onnx(engine: Engine) -> bool:
    """The one engine, called as it is and by transformers.js."""
    return engine.family in ("onnxruntime-web", "transformers.js")
