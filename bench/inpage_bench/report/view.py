"""What the report shows of a model: which engines, which figures, and what plots are made of. No markup here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from ..results import Cell, Engine, Metric, Model, Results
from .frame import Mark

PEER_COLOURS = 6
SAME = ("as published", "the same random weights")  # what a peer's weights are called where they are ours
HEAT = "heat"  # the scenario in which the forms of a peer compete for taking part in all the others

_NAMES = {
    "ttft_ms": "time to first token",
    "itl_ms": "between two tokens",
    "e2e_ms": "end to end",
    "decode_tps": "decode",
    "prefill_tps": "prefill",
    "aggregate_tps": "all together",
    "sentences_per_s": "sentences embedded",
    "embed_ms": "a call's vectors",
    "requests_per_s": "requests answered",
    "kept_per_s": "kept answers given",
    "ready_ms": "ready after",
    "bytes_fetched": "bytes fetched",
    "heap_bytes": "JS heap",
    "wasm_bytes": "wasm memory",
    "gpu_bytes": "GPU buffers",
    "process_bytes": "process memory",
    "cpu_share": "CPU used",
    "busy_share": "engine busy",
}
_UNITS = ("_ms", "_tps", "_bytes", "_share", "_per_s", "_s")


def metric_name(metric: str) -> str:
    """``ttft_ms`` in words; unknown ones without their unit."""
    plain = metric
    for unit in _UNITS:
        plain = plain.removesuffix(unit)
    return _NAMES.get(metric, plain.replace("_", " "))


def known(metric: Metric | None) -> bool:
    """A metric with a number in it."""
    return metric is not None and math.isfinite(metric.median)


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    prompt: float
    depth: float
    concurrency: float
    requests: float = 0  # served at once or in a row; 0: one is asked
    repeats: bool = False  # some prompts come again, so that answers may come from a cache
    new: float = 0  # tokens of an answer

    @property
    def short(self) -> str:
        """The title up to its explanation."""
        return self.title.partition(":")[0]

    @classmethod
    def of(cls, cell: Cell) -> Scenario:
        prompt = _param(cell, "prompt_tokens")
        return cls(
            cell.scenario, cell.title or cell.scenario, prompt, _param(cell, "depth") or prompt,
            _param(cell, "concurrency") or 1, _param(cell, "requests"), _param(cell, "distinct") > 0,
            _param(cell, "new_tokens"),
        )  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A column of the summary: one metric of one scenario."""

    head: str
    note: str
    scenario: str
    metric: str


def marks(engines: list[Engine]) -> list[Mark]:
    """This project's engines in one colour, each family of peers in one of its own; forms of a family by dash."""
    colours: dict[str, str] = {}
    seen: dict[str, int] = {}
    found = []
    for engine in engines:
        family = "inpage" if engine.kind == "inpage" else engine.family or engine.name
        if family not in colours:
            peers = len([f for f in colours if f != "inpage"])
            colours[family] = "c0" if engine.kind == "inpage" else f"c{1 + peers % PEER_COLOURS}"
        style = seen.get(family, 0)
        seen[family] = style + 1
        found.append(Mark(engine.name, colours[family], style))
    return found


class View:
    """One model's share of the results."""

    def __init__(self, results: Results, model: str) -> None:
        self.results = results
        self.id = model
        self.model: Model | None = next((m for m in results.models if m.id == model), None)
        self.name = self.model.name if self.model else model
        self.cells = [cell for cell in results.cells if cell.model == model]
        self.marks = marks(results.engines)

    @cached_property
    def engines(self) -> list[int]:
        """Those with a number for this model, ours first, then as listed."""
        measured = {c.engine for c in self.cells if any(known(m) for m in c.metrics.values())}
        return sorted(measured, key=lambda i: (self.results.engines[i].kind != "inpage", i))

    @cached_property
    def scenarios(self) -> list[Scenario]:
        """In the order of the results; a scenario's facts are those of its first cell."""
        first: dict[str, Scenario] = {}
        for cell in self.cells:
            first.setdefault(cell.scenario, Scenario.of(cell))
        return list(first.values())

    def ours(self, engine: int) -> bool:
        return self.results.engines[engine].kind == "inpage"

    def name_of(self, engine: int) -> str:
        return self.results.engines[engine].name

    def family(self, engine: int) -> str:
        found = self.results.engines[engine]
        return "inpage" if found.kind == "inpage" else found.family or found.name

    def cell(self, engine: int, scenario: str) -> Cell | None:
        return next((c for c in self.cells if c.engine == engine and c.scenario == scenario), None)

    def metric(self, engine: int, scenario: str, metric: str) -> Metric | None:
        cell = self.cell(engine, scenario)
        found = cell.metrics.get(metric) if cell else None
        return found if known(found) else None

    def having(self, metric: str, of: Callable[[Scenario], bool] = lambda _: True) -> list[Scenario]:
        """Scenarios in which someone has this metric."""
        return [s for s in self.scenarios if of(s) and any(self.metric(e, s.name, metric) for e in self.engines)]

    def alone(self, metric: str) -> list[Scenario]:
        """One request at a time, by length of the prompt; of two as long, the shorter answer first."""
        found = self.having(metric, lambda s: not s.requests and s.concurrency == 1 and s.prompt > 0 and s.name != HEAT)
        return sorted(found, key=lambda s: (s.prompt, s.depth, s.new))

    @cached_property
    def best(self) -> int | None:
        """Our engine that the comparison is about: in the page, and the fastest at decoding (or the first)."""
        mine = [e for e in self.engines if self.ours(e)]
        inside = [e for e in mine if self.results.engines[e].in_page] or mine
        if not inside:
            return None
        return min(inside, key=lambda e: -self.speed(e))

    def speed(self, engine: int) -> float:
        """Decoding, tokens a second, after the shortest prompt, or sentences a second; 0 where neither was measured."""
        scenarios = self.alone("decode_tps")
        found = self.metric(engine, scenarios[0].name, "decode_tps") if scenarios else None
        found = found or self.metric(engine, "embed-batch-64", "sentences_per_s")
        return found.median if found else 0.0

    @cached_property
    def contenders(self) -> list[int]:
        """Without those that only ran in the heat."""
        return [e for e in self.engines if any(c.engine == e and c.scenario != HEAT and c.metrics for c in self.cells)]

    def weight_bytes(self, engine: int) -> int | None:
        """What one token reads of weights: known of ours and of peers on the same file."""
        same = self.ours(engine) or self.results.engines[engine].weights.endswith(SAME)
        return self.model.weight_bytes if self.model and same else None

    @cached_property
    def rivals(self) -> list[int]:
        """The fastest engine of each family of peers: the one that counts."""
        best: dict[str, int] = {}
        for engine in self.contenders:
            if not self.ours(engine):
                family = self.family(engine)
                if family not in best or self.speed(engine) > self.speed(best[family]):
                    best[family] = engine
        return list(best.values())

    @cached_property
    def figures(self) -> list[Figure]:
        """The columns of the summary: what there is of first token, prefill, decode, crowd, load and memory."""
        found: list[Figure] = []

        def add(head: str, metric: str, scenarios: Iterable[Scenario], note: Callable[[Scenario], str]) -> None:
            found.extend(Figure(head, note(s), s.name, metric) for s in scenarios)

        first, prefill, decode = self.alone("ttft_ms"), self.alone("prefill_tps"), self.alone("decode_tps")
        add("First token", "ttft_ms", first[:1], lambda s: f"{s.prompt:,.0f}-token prompt")
        add("Prefill", "prefill_tps", _ends(prefill), lambda s: f"{s.prompt:,.0f}-token prompt")
        add("Decode", "decode_tps", _ends(decode), lambda s: f"after {s.depth:,.0f} tokens")
        crowd = self.having("aggregate_tps", lambda s: 1 < s.concurrency <= 64 and not s.repeats)
        crowd.sort(key=self._crowd)
        add("Together", "aggregate_tps", crowd[:1], lambda s: f"{s.concurrency:,.0f} at once")
        embedding = self.having("sentences_per_s", lambda s: s.name != HEAT)
        add("Sentences a second", "sentences_per_s", embedding, lambda s: s.name)
        add("Load", "ready_ms", self.having("ready_ms"), lambda s: s.short)
        return found

    def _crowd(self, scenario: Scenario) -> tuple[bool, int, float]:
        """Decoding side by side comes first, then what most engines have."""
        having = [e for e in self.engines if self.metric(e, scenario.name, "aggregate_tps")]
        return not scenario.name.startswith("decode-batch"), -len(having), scenario.concurrency

    def peak(self, engine: int, metric: str) -> float | None:
        """The most that was seen in any scenario."""
        found = [c.metrics[metric].max for c in self.cells if c.engine == engine and metric in c.metrics]
        finite = [v for v in found if math.isfinite(v)]
        return max(finite) if finite else None


def better_by(ours: float, theirs: float, better: str) -> float | None:
    """How many times better ours is, whichever direction is better; None where that says nothing."""
    if ours <= 0 or theirs <= 0 or better not in ("lower", "higher"):
        return None
    return ours / theirs if better == "higher" else theirs / ours


def _ends(scenarios: list[Scenario]) -> list[Scenario]:
    return scenarios if len(scenarios) < 2 else [scenarios[0], scenarios[-1]]


def _param(cell: Cell, name: str) -> float:
    value = cell.params.get(name)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0
