"""Two runs side by side: for each cell and metric faster, slower or within noise.

Timings on a shared machine have two kinds of noise: now and then something else takes the processor (outliers, always
to the slow side), and a whole run meets a faster or slower machine (drift). So a change is reported only if

- both the medians and the better quartiles differ by at least `LEAST`: outliers move the one, seldom the other;
- a rank test (Mann and Whitney's, exact by permutation for small samples, two-sided) finds the samples different, with
  Benjamini and Hochberg's correction for the many cells, at a false discovery rate of 5 %;
- where samples come from several visits (pages loaded afresh), the visits tell the runs apart as well: their medians
  overlap in at most one pair in six;

each after taking out the drift that the runs' *controls* show: the fixed work that both did between measurements, and
peers of the same version in both, whose true speed is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from ..errors import InvalidRequest
from .results import Cell, Metric, Results
from .stats import quantile

LEAST = 0.08  # a change of less is not worth a word
_RATE = 0.05  # share of false alarms among what is reported
_OVERLAP = 1 / 6  # of pairs of visits
_FEWEST = 3  # samples on each side
_COMPARED = ("iteration", "visit")  # what a sample must be: tokens and requests of one run are not independent
_TIMED = ("ms", "tokens/s", "requests/s")
_EXACT = 20_000  # arrangements: beyond, the normal approximation is used


@dataclass(frozen=True, slots=True)
class Line:
    """``change``: of the median, drift taken out, as a share; positive is an increase of the metric. ``p``: two-sided.
    ``verdict``: "faster", "slower" ("more", "less" for what is no time), "within noise", "too few samples"."""

    engine: str
    model: str
    scenario: str
    metric: str
    unit: str
    before: float
    after: float
    change: float
    p: float
    verdict: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """``drift``: how much faster the machine was in the second run (0.02 is 2 %). ``notes`` say what weakens it."""

    lines: list[Line]
    drift: float
    notes: list[str]

    @property
    def slower(self) -> list[Line]:
        return [line for line in self.lines if line.verdict == "slower"]

    @property
    def faster(self) -> list[Line]:
        return [line for line in self.lines if line.verdict == "faster"]


def compare(a: Results, b: Results) -> Comparison:
    """Raises `InvalidRequest` where the two have nothing in common."""
    cells = list(_matched(a, b))
    if not cells:
        raise InvalidRequest("the two runs have no engine, model and scenario in common", field="results")
    drift = _drift(a, b, cells)
    found = []
    for name, before, after in cells:
        for metric, old in before.metrics.items():
            new = after.metrics.get(metric)
            if new is not None and old.per in _COMPARED and old.better != "neither":
                found.append((name, before, metric, old, new))
    tests = [_test(old, new, drift) for *_, old, new in found]
    limit = _discoveries([p for p, *_ in tests])
    lines = []
    for (name, cell, metric, old, new), (p, change, large, apart) in zip(found, tests, strict=True):
        verdict = "within noise"
        if min(old.n, new.n) < _FEWEST and old.unit in _TIMED:
            verdict = "too few samples"
        elif large and apart and p <= limit:
            better = (change > 0) == (old.better == "higher")
            timed = ("faster", "slower") if old.unit in _TIMED else ("less", "more")
            verdict = timed[0] if better else timed[1]
        lines.append(
            Line(name, cell.model, cell.scenario, metric, old.unit, old.median, new.median, change, p, verdict)
        )
    return Comparison(lines, drift, list(_notes(a, b)))


def _matched(a: Results, b: Results) -> Iterable[tuple[str, Cell, Cell]]:
    """Cells of the same engine (by name and threads), model, scenario and size in both."""

    def keyed(results: Results) -> dict[tuple[object, ...], tuple[str, Cell]]:
        found: dict[tuple[object, ...], tuple[str, Cell]] = {}
        for cell in results.cells:
            engine = results.engines[cell.engine]
            if cell.metrics:
                key = (engine.name, engine.threads, cell.model, cell.scenario, str(sorted(cell.params.items())))
                found.setdefault(key, (engine.name, cell))
        return found

    before, after = keyed(a), keyed(b)
    return ((name, cell, after[key][1]) for key, (name, cell) in before.items() if key in after)


def _drift(a: Results, b: Results, cells: Sequence[tuple[str, Cell, Cell]]) -> float:
    """How much faster the machine was in ``b``: the median of what its controls say, 0 where there are none."""
    signs = []
    one, two = a.environment.pace_mbps, b.environment.pace_mbps
    if one and two:
        signs.append(math.log(two / one))
    version = [{e.name: (e.kind, e.version) for e in results.engines} for results in (a, b)]
    peers: dict[str, list[float]] = {}
    for name, before, after in cells:
        if version[0][name][0] != "peer" or version[0][name] != version[1][name]:
            continue
        for metric, old in before.metrics.items():
            new = after.metrics.get(metric)
            if new is None or old.per not in _COMPARED or old.unit not in _TIMED or min(old.n, new.n) < _FEWEST:
                continue
            change = math.log(new.median / old.median)
            peers.setdefault(name, []).append(change if old.better == "higher" else -change)
    signs += [quantile(changes, 0.5) for changes in peers.values()]
    return math.exp(quantile(signs, 0.5)) - 1 if signs else 0.0


def _test(old: Metric, new: Metric, drift: float) -> tuple[float, float, bool, bool]:
    """(p, change of the median, whether the change is large in median and better quartile, whether visits agree)."""
    scale = 1.0
    if old.unit in _TIMED:
        scale = 1 / (1 + drift) if old.better == "higher" else 1 + drift
    before, after = old.samples, [x * scale for x in new.samples]
    if not before or not after or min(*before, *after) <= 0:
        return 1.0, 0.0, False, False
    best = 0.75 if old.better == "higher" else 0.25
    changes = [math.log(quantile(after, q) / quantile(before, q)) for q in (0.5, best)]
    least = math.log1p(LEAST)
    large = all(c >= least for c in changes) or all(c <= -least for c in changes)
    up = changes[0] > 0
    apart = _apart(before, old.visits, after, new.visits, up=up)
    if old.unit not in _TIMED and max(len(set(before)), len(set(after))) == 1:
        return 0.0, math.expm1(changes[0]), large, True  # what is counted and never varies needs no test
    return rank_test(before, after), math.expm1(changes[0]), large, apart


def _apart(
    before: Sequence[float],
    visits_before: Sequence[int],
    after: Sequence[float],
    visits_after: Sequence[int],
    *,
    up: bool,
) -> bool:
    """Whether the medians of visits lie on different sides, most pairs of them."""
    one, two = _by_visit(before, visits_before), _by_visit(after, visits_after)
    wrong = sum((y <= x) if up else (y >= x) for x in one for y in two)
    return wrong <= _OVERLAP * len(one) * len(two)


def _by_visit(samples: Sequence[float], visits: Sequence[int]) -> list[float]:
    if len(visits) != len(samples):
        return [quantile(samples, 0.5)]
    groups: dict[int, list[float]] = {}
    for sample, visit in zip(samples, visits, strict=True):
        groups.setdefault(visit, []).append(sample)
    return [quantile(group, 0.5) for group in groups.values()]


def rank_test(x: Sequence[float], y: Sequence[float]) -> float:
    """Mann and Whitney's U, two-sided: exact where there are few arrangements, else normal with a correction for ties
    and continuity. Ties count one half."""
    n, m = len(x), len(y)
    u = sum((a > b) + 0.5 * (a == b) for a in x for b in y)
    u = min(u, n * m - u)
    ties = len({*x, *y}) < n + m
    if not ties and math.comb(n + m, n) <= _EXACT:
        below = sum(_arrangements(n, m, k) for k in range(math.floor(u) + 1))
        return min(1.0, 2 * below / math.comb(n + m, n))
    every = sorted([*x, *y])
    repeats = [every.count(value) for value in set(every)]
    variance = n * m / 12 * (n + m + 1 - sum(t**3 - t for t in repeats) / ((n + m) * (n + m - 1)))
    if variance <= 0:
        return 1.0
    z = max(0.0, n * m / 2 - u - 0.5) / math.sqrt(variance)
    return min(1.0, math.erfc(z / math.sqrt(2)))


@cache
def _arrangements(n: int, m: int, u: int) -> int:
    """Of n and m values without ties: in how many orders U is u."""
    if u < 0:
        return 0
    if n == 0 or m == 0:
        return int(u == 0)
    return _arrangements(n - 1, m, u - m) + _arrangements(n, m - 1, u)


def _discoveries(values: Sequence[float]) -> float:
    """The largest p that is still reported (Benjamini and Hochberg 1995)."""
    ordered = sorted(values)
    passed = [p for i, p in enumerate(ordered, 1) if p <= _RATE * i / len(ordered)]
    return max(passed, default=-1.0)


def _notes(a: Results, b: Results) -> Iterable[str]:
    for which, results in (("first", a), ("second", b)):
        if results.environment.busy:
            share = (results.environment.foreign_cpu_share or 0) * 100
            yield f"the machine was busy during the {which} run: other work took {share:.0f} % of it"
    one, two = a.environment, b.environment
    for name in ("cpu", "cores", "browser"):
        if getattr(one, name) != getattr(two, name):
            yield f"the runs differ in {name}: {getattr(one, name)} and {getattr(two, name)}"
    hashes = [{model.id: model.sha256 for model in results.models} for results in (a, b)]
    for model in hashes[0]:
        if model in hashes[1] and hashes[0][model] != hashes[1][model]:
            yield f"{model} was compiled anew between the runs"
