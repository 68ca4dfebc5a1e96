"""From what an engine did to metrics and counts: every number of a cell is made here."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from .driver import Embedded, LoadFacts, Timeline, Usage
from .processes import Cpu, Memory, busiest_s
from .results import Cell, Metric, metric
from .scenarios import Scenario

# name: (unit, which way is better, what a sample is)
METRICS = {
    "ready_ms": ("ms", "lower", "visit"),  # from nothing until a prompt can be sent
    "first_token_ms": ("ms", "lower", "visit"),  # from nothing until the first token of a short prompt
    "bytes_fetched": ("bytes", "lower", "visit"),
    "ttft_ms": ("ms", "lower", "iteration"),  # from asking to the first token received
    "first_ttft_ms": ("ms", "lower", "iteration"),  # shared prefix: of the first conversation, which nobody warmed
    "prefill_tps": ("tokens/s", "higher", "iteration"),  # prompt tokens / ttft
    "decode_tps": ("tokens/s", "higher", "iteration"),  # tokens after the first / time from the first to the last
    "e2e_ms": ("ms", "lower", "iteration"),  # from asking to the end of the answer
    "token20_ms": ("ms", "lower", "iteration"),  # from asking to the 20th token
    "itl_ms": ("ms", "lower", "token"),  # time between arrivals, shared by the tokens that arrived together
    "gap_ms": ("ms", "lower", "token"),  # time between arrivals, whole: what a reader sees
    "sentences_per_s": ("sentences/s", "higher", "iteration"),  # texts / time from asking to the last vector
    "embed_ms": ("ms", "lower", "request"),  # from asking to the vectors of a call
    "requests_per_s": ("requests/s", "higher", "iteration"),
    "kept_per_s": ("requests/s", "higher", "iteration"),  # the same requests once more: every answer is kept by then
    "aggregate_tps": ("tokens/s", "higher", "iteration"),  # new tokens of all requests / time
    "cpu_share": ("share", "neither", "iteration"),  # CPU time of the engine's processes / (wall time × cores)
    "busy_share": ("share", "neither", "iteration"),  # CPU time of the busiest thread / wall time; spinning counts
    "process_bytes": ("bytes", "lower", "visit"),  # peak resident memory of the page's, or the engine's, process
    "pss_bytes": ("bytes", "neither", "visit"),  # its proportional share afterwards, which others' processes change too
    "heap_bytes": ("bytes", "lower", "visit"),  # JavaScript objects, workers included
    "wasm_bytes": ("bytes", "lower", "visit"),
    "gpu_bytes": ("bytes", "lower", "visit"),
}
_PER_REQUEST = ("ttft_ms", "e2e_ms")  # where a scenario makes many requests
_SERIES = 4000  # values kept of a series
_TOGETHER = 0.2  # of the tokens must come while all decode, or there is no rate of that


@dataclass(slots=True)
class Taken:
    """Everything that was measured of one cell so far."""

    samples: dict[str, list[float]] = field(default_factory=dict)
    visits: dict[str, list[int]] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    requests: int = 0
    refused: int = 0
    failed: int = 0
    short: int = 0  # answers that ended before their length
    failures: list[str] = field(default_factory=list)
    spent_s: float = 0.0
    iterations: int = 0

    def add(self, name: str, value: float | None, visit: int) -> None:
        if value is not None:
            self.samples.setdefault(name, []).append(value)
            self.visits.setdefault(name, []).append(visit)

    def load(self, facts: LoadFacts, first: Timeline, visit: int) -> None:
        self.iterations += 1
        self.add("ready_ms", facts.ready_ms, visit)
        if first.at_ms:
            self.add("first_token_ms", facts.ready_ms + first.at_ms[0], visit)
        self.add("bytes_fetched", facts.bytes_fetched, visit)
        for name, ms in facts.phases.items():
            self.add(f"phase_{name}_ms", ms, visit)

    def answers(self, scenario: Scenario, timelines: Sequence[Timeline], visit: int) -> None:
        """One iteration."""
        self.iterations += 1
        done = [t for t in timelines if t.error is None and t.at_ms]
        self.requests += len(timelines)
        self.refused += sum(t.refused for t in timelines)
        self.failed += len(timelines) - len(done)
        self.failures += [t.error or "no token came" for t in timelines if t not in done][: 3 - len(self.failures)]
        self.tokens += sum(len(t.ids) for t in done)
        self.short += sum(len(t.ids) < scenario.new_tokens for t in done)
        if not done or scenario.memory:
            return
        for timeline in done:
            self._gaps(timeline, visit)
        if scenario.together:
            self.add("aggregate_tps", _rate_together(done), visit)
            return
        later = done[1:] if scenario.prefix_tokens else done
        if later != done:
            self.add("first_ttft_ms", done[0].at_ms[0] - done[0].begun_ms, visit)
        for timeline in later:
            self.add("ttft_ms", timeline.at_ms[0] - timeline.begun_ms, visit)
            self.add("e2e_ms", timeline.done_ms - timeline.begun_ms, visit)
        if scenario.kind == "answer":
            self._alone(scenario, done[0], visit)
        else:
            wall = (max(t.done_ms for t in done) - min(t.begun_ms for t in timelines)) / 1e3
            self.add("requests_per_s", len(done) / wall, visit)
            self.add("aggregate_tps", sum(len(t.ids) for t in done) / wall, visit)

    def embedded(self, scenario: Scenario, found: Embedded, visit: int) -> None:
        """One iteration."""
        self.iterations += 1
        self.requests += len(found.at_ms)
        self.add("sentences_per_s", scenario.requests / found.at_ms[-1] * 1e3, visit)
        for before, at in itertools.pairwise([0.0, *found.at_ms]):
            self.add("embed_ms", at - before, visit)

    def kept(self, timelines: Sequence[Timeline], visit: int) -> None:
        """One iteration's requests, asked once more of an engine that keeps answers."""
        wall = (max(t.done_ms for t in timelines) - min(t.begun_ms for t in timelines)) / 1e3
        self.add("kept_per_s", sum(t.error is None for t in timelines) / wall, visit)

    def _alone(self, scenario: Scenario, timeline: Timeline, visit: int) -> None:
        first, last = timeline.at_ms[0] - timeline.begun_ms, timeline.at_ms[-1] - timeline.begun_ms
        self.add("prefill_tps", scenario.prompt_tokens / first * 1e3 if first > 0 else None, visit)
        if last > first:
            self.add("decode_tps", (len(timeline.ids) - 1) / (last - first) * 1e3, visit)
        if len(timeline.at_ms) >= 20:
            self.add("token20_ms", timeline.at_ms[19] - timeline.begun_ms, visit)

    def _gaps(self, timeline: Timeline, visit: int) -> None:
        before = timeline.at_ms[0]
        for now, tokens in itertools.groupby(timeline.at_ms):
            together = len(list(tokens))
            if now > before:
                self.add("gap_ms", now - before, visit)
                for _ in range(together):
                    self.add("itl_ms", (now - before) / together, visit)
            before = now

    def work(self, before: Cpu, after: Cpu, wall_s: float, cores: int, visit: int) -> None:
        """What the processes computed in one iteration."""
        if after.threads:
            self.add("cpu_share", (after.total_s - before.total_s) / wall_s / cores, visit)
            self.add("busy_share", min(1.0, busiest_s(before, after) / wall_s), visit)

    def held(self, memory: Memory, heap: int | None, usage: Usage, visit: int) -> None:
        self.add("process_bytes", memory.peak, visit)
        self.add("pss_bytes", memory.pss, visit)
        self.add("heap_bytes", usage.heap_bytes if usage.heap_bytes is not None else heap, visit)
        self.add("wasm_bytes", usage.wasm_bytes, visit)
        self.add("gpu_bytes", usage.gpu_bytes, visit)

    def counted(self, before: dict[str, int], after: dict[str, int]) -> None:
        for name, count in after.items():
            self.counters[name] = self.counters.get(name, 0) + count - before.get(name, 0)

    def finish(self, cell: Cell, scenario: Scenario) -> None:
        """Write it all into the cell."""
        cell.iterations = self.iterations
        for name, samples in self.samples.items():
            cell.metrics[name] = self._metric(name, samples, scenario)
        if scenario.kind == "load":
            return
        counts = {k: v for k, v in self.counters.items() if not k.startswith("cache_hits.") and k != "buffer_bytes"}
        hits = {k.partition(".")[2]: v for k, v in self.counters.items() if k.startswith("cache_hits.")}
        cell.counts = {**counts, "tokens": self.tokens, "requests": self.requests, "failed": self.failed}
        if scenario.kind == "serve":
            cell.counts |= {"refused": self.refused, "cache_hits": hits}
        for name in ("launches", "steps", "dispatches", "submits", "readbacks", "readback_bytes"):
            if name in counts and self.tokens:
                cell.counts[f"{name}_per_token"] = round(counts[name] / self.tokens, 3)
        if counts.get("working_us"):
            cell.counts["engine_idle_share"] = round(1 - counts["busy_us"] / counts["working_us"], 4)
        if scenario.cut and self.iterations:
            cell.notes.append(f"shortened, because this engine would take long: {scenario.cut}")
        if self.short:
            cell.notes.append(f"{self.short} of {self.requests} answers ended before {scenario.new_tokens} tokens")
        serves = scenario.kind == "serve" and scenario.together
        if serves and self.iterations and "aggregate_tps" not in self.samples:
            cell.notes.append("too few tokens came while all were decoding: no rate can be told")
        if self.failed:
            cell.notes.append(f"{self.failed} of {self.requests} requests failed: {'; '.join(self.failures)}")
        if "itl_ms" in self.samples and not scenario.together:
            cell.series["itl_ms"] = [round(x, 3) for x in self.samples["itl_ms"][:_SERIES]]

    def _metric(self, name: str, samples: list[float], scenario: Scenario) -> Metric:
        unit, better, per = METRICS.get(name, ("ms", "lower", "visit"))  # the phases of loading
        if scenario.kind == "serve" and name in _PER_REQUEST:
            per = "request"
        return metric(samples, unit, better, per=per, visits=None if per == "token" else self.visits[name])


def _rate_together(done: Sequence[Timeline]) -> float | None:
    """Tokens a second of all, while all of them decode: from when the last one began to when the first one ended. None
    where that is too short a part of it to tell."""
    begin, end = max(t.at_ms[0] for t in done), min(t.at_ms[-1] for t in done)
    tokens = sum(begin < at <= end for t in done for at in t.at_ms)
    if end <= begin or tokens < _TOGETHER * sum(len(t.at_ms) for t in done):
        return None
    return tokens / (end - begin) * 1e3
