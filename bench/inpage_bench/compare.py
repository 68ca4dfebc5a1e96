"""Two runs side by side: for each cell and metric faster, slower or within noise.

Timings on a shared machine have three kinds of noise. Now and then something else takes the processor: outliers, always
to the slow side. A page loaded anew is a little faster or slower all through its visit. And a whole run meets a faster
or slower machine: drift. So everything is compared as the logarithm of how slow it was, and

- drift is what the runs' *controls* show: the fixed work that both did between measurements, and peers of the same
  version in both, whose true speed is the same. Controls err too, so a change must be there with the drift and without
  it, and counts as the smaller of the two;
- the size of a change is the smaller of two: that of the median and that of the best tenth, which outliers seldom move;
  less than `LEAST` is not worth a word;
- how often chance alone makes a change of that size is found by trying: as many samples as there are, drawn again and
  again from how all samples of the engine lie around their cell's median (outliers included), with the spread of visits
  and of the controls on top;
- Benjamini and Hochberg's correction for the many cells keeps the share of false alarms among what is reported below
  `RATE`;
- a build that is slower is mostly slower everywhere, and many figures together tell what each alone cannot in a quick
  run: so each engine is also judged *as a whole*, by the median change of its first tokens and rates. What chance does
  to that is tried in the same way, with the noise of a visit shared by all that was measured in it.
"""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from inpage.errors import InvalidRequest

from .results import Cell, Metric, Results
from .stats import quantile

LEAST = 0.08
LEAST_BYTES = 0.15  # memory varies with when it was collected
RATE = 0.05
_UNLIKE = 0.15  # drift beyond which a comparison says little
_FEWEST = 3  # samples on each side
_POOL = 24  # with fewer samples to draw from, those of all engines are taken together
_DRAWS = 8000
_DRAWS_WHOLE = 2000
_VISIT_NOISE = 0.02  # standard deviation of a visit, at least, whatever the samples seem to say
_DRIFT_NOISE = 0.015  # of what the controls say
_COMPARED = ("iteration", "visit")  # what a sample must be: tokens and requests of one run are not independent
_TIMED = ("ms", "tokens/s", "requests/s")
_WHOLE = ("ttft_ms", "decode_tps", "aggregate_tps")  # of an engine as a whole: each tells of other milliseconds


@dataclass(frozen=True, slots=True)
class Line:
    """``change``: of the median, as a share; positive is an increase of the metric. ``p``: two-sided.
    ``verdict``: "faster", "slower" ("better", "worse" for what is no time), "within noise", "too few samples"."""

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
class Whole:
    """An engine over ``figures`` first tokens and rates: ``change`` is how much slower it became, as a share (-0.1: a
    tenth faster); ``verdict``: "faster", "slower" or "within noise"."""

    engine: str
    figures: int
    change: float
    p: float
    verdict: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """``drift``: how much faster the machine was in the second run (0.02 is 2 %). ``notes`` say what weakens it."""

    lines: list[Line]
    wholes: list[Whole]
    drift: float
    notes: list[str]

    @property
    def slower(self) -> list[Line | Whole]:
        return self._with("slower")

    @property
    def faster(self) -> list[Line | Whole]:
        return self._with("faster")

    def _with(self, verdict: str) -> list[Line | Whole]:
        every: list[Line | Whole] = [*self.wholes, *self.lines]
        return [found for found in every if found.verdict == verdict]


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
            if new is not None and old.per in _COMPARED and old.better == new.better != "neither":
                found.append((name, before, metric, old, new))
    chance = {name: _Chance(_of(found, name), [(old, new) for *_, old, new in found]) for name, *_ in found}
    tests = [_test(old, new, drift, chance[name]) for name, *_, old, new in found]
    limit = _discoveries([p for (*_, old, _), (p, *_) in zip(found, tests, strict=True) if old.unit in _TIMED])
    lines = []
    for (name, cell, metric, old, new), (p, change, large) in zip(found, tests, strict=True):
        verdict = "within noise"
        if min(old.n, new.n) < _FEWEST and old.unit in _TIMED:
            verdict = "too few samples"
        elif large and (p <= limit or old.unit not in _TIMED):
            better = (change > 0) == (old.better == "higher")
            words = ("faster", "slower") if old.unit in _TIMED else ("better", "worse")
            verdict = words[0] if better else words[1]
        lines.append(
            Line(name, cell.model, cell.scenario, metric, old.unit, old.median, new.median, change, p, verdict)
        )
    notes = list(_notes(a, b))
    if abs(math.log1p(drift)) > math.log1p(_UNLIKE):
        notes.append("the machine was too unlike itself in the two runs to tell much: repeat them when it is quiet")
    wholes = _wholes({name: _of(found, name, _WHOLE) for name in chance}, drift, chance, _controls(a, b))
    return Comparison(lines, wholes, drift, notes)


def _wholes(
    pairs: Mapping[str, Sequence[tuple[Metric, Metric]]],
    drift: float,
    chance: Mapping[str, _Chance],
    controls: Collection[str],
) -> list[Whole]:
    """Of every engine that is no control and was measured in two figures or more."""
    found = []
    for name, all_of in pairs.items():
        figures = [(old, new) for old, new in all_of if min(old.n, new.n) > 1 and min(old.min, new.min) > 0]
        if name in controls or len(figures) < 2:
            continue
        slow = [(_slowness(old), _slowness(new)) for old, new in figures]
        changes = [quantile([_change(*one, shift) for one in slow], 0.5) for shift in (0.0, math.log1p(drift))]
        size = min(map(abs, changes)) if (changes[0] > 0) == (changes[1] > 0) else 0.0
        found.append((name, len(figures), changes[0], size, chance[name].of_all(size, figures)))
    limit = _discoveries([p for *_, p in found])
    return [
        Whole(
            name,
            figures,
            math.expm1(change),
            p,
            ("slower" if change > 0 else "faster") if p <= limit and size >= math.log1p(LEAST) else "within noise",
        )
        for name, figures, change, size, p in found
    ]


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
    controls = _controls(a, b)
    peers: dict[str, list[float]] = {}
    for name, before, after in cells:
        if name not in controls:
            continue
        for metric, old in before.metrics.items():
            new = after.metrics.get(metric)
            if new is None or old.per not in _COMPARED or old.unit not in _TIMED or min(old.n, new.n) < _FEWEST:
                continue
            change = math.log(new.median / old.median)
            peers.setdefault(name, []).append(change if old.better == "higher" else -change)
    signs += [quantile(changes, 0.5) for changes in peers.values()]
    return math.exp(quantile(signs, 0.5)) - 1 if signs else 0.0


def _controls(a: Results, b: Results) -> set[str]:
    """Engines whose true speed is the same in both runs: peers of the same version."""
    one, two = ({(e.name, e.version) for e in results.engines if e.kind == "peer"} for results in (a, b))
    return {name for name, _ in one & two}


class _Chance:
    """What chance alone does to one engine's timings, from all of them in both runs (from ``every`` engine's, where
    it has too few)."""

    def __init__(self, own: Sequence[tuple[Metric, Metric]], every: Sequence[tuple[Metric, Metric]]) -> None:
        pool, self._visit = self._learn(own)
        if len(pool) < _POOL:
            pool, self._visit = self._learn(every)
        self._pool = pool or [0.0]
        self._sizes: dict[tuple[int, int, int, int], list[float]] = {}

    def _learn(self, pairs: Sequence[tuple[Metric, Metric]]) -> tuple[list[float], float]:
        pool: list[float] = []
        visits: list[float] = []
        for metric in (m for pair in pairs for m in pair if m.unit in _TIMED and m.min > 0):
            if metric.n >= _FEWEST:
                pool += _residuals(_slowness(metric))
            visits += _residuals([quantile(group, 0.5) for group in _by_visit(metric)])
        # The standard deviation that a median absolute deviation means where there are no outliers.
        spread = 1.4826 * quantile([abs(x) for x in visits], 0.5) if visits else 0.0
        return pool, max(_VISIT_NOISE, spread)

    def of(self, size: float, old: Metric, new: Metric) -> float:
        """How probable a change of this size is, in either direction."""
        shape = (len(old.samples), len(new.samples), len(_by_visit(old)), len(_by_visit(new)))
        if shape not in self._sizes:
            self._sizes[shape] = self._draw(*shape)
        sizes = self._sizes[shape]
        return (len(sizes) - bisect.bisect_left(sizes, size) + 1) / (len(sizes) + 1)

    def of_all(self, size: float, pairs: Sequence[tuple[Metric, Metric]]) -> float:
        """How probable it is that the median change of them all has this size."""
        dice = random.Random(1)
        shift = self._shift(*(min(len(_by_visit(pair[i])) for pair in pairs) for i in (0, 1)))
        shapes = [(len(old.samples), len(new.samples)) for old, new in pairs]
        larger = 0
        for _ in range(_DRAWS_WHOLE):
            shared = dice.gauss(0, shift)
            changes = [_change(dice.choices(self._pool, k=n), dice.choices(self._pool, k=m), shared) for n, m in shapes]
            larger += abs(quantile(changes, 0.5)) >= size
        return (larger + 1) / (_DRAWS_WHOLE + 1)

    def _shift(self, visits: int, others: int) -> float:
        """The standard deviation of what visits and controls add to a change."""
        return math.sqrt(self._visit**2 * (1 / visits + 1 / others) + _DRIFT_NOISE**2)

    def _draw(self, n: int, m: int, visits: int, others: int) -> list[float]:
        dice = random.Random(1)
        shift = self._shift(visits, others)
        sizes = []
        for _ in range(_DRAWS):
            before, after = dice.choices(self._pool, k=n), dice.choices(self._pool, k=m)
            sizes.append(abs(_change(before, after, dice.gauss(0, shift))))
        return sorted(sizes)


def _test(old: Metric, new: Metric, drift: float, chance: _Chance) -> tuple[float, float, bool]:
    """(p, change of the median as a share, whether it is large)."""
    if min(old.n, new.n) == 0 or min(old.min, new.min) <= 0:
        return 1.0, 0.0, False
    timed = old.unit in _TIMED
    before, after = _slowness(old), _slowness(new)
    changes = [_change(before, after, shift) for shift in ((0.0, math.log1p(drift)) if timed else (0.0,))]
    size = min(map(abs, changes)) if len({x > 0 for x in changes}) == 1 else 0.0
    change = quantile(after, 0.5) - quantile(before, 0.5)
    p = chance.of(size, old, new) if timed else 0.0  # sizes do not depend on the weather
    return (
        p,
        math.expm1(change if old.better == "lower" else -change),
        size >= math.log1p(LEAST if timed else LEAST_BYTES),
    )


def _change(before: Sequence[float], after: Sequence[float], shift: float) -> float:
    """The change that both the median and the best tenth show: the smaller one; 0 where they differ in direction."""
    middle, edge = (quantile(after, q) - quantile(before, q) + shift for q in (0.5, 0.1))
    return min(middle, edge, key=abs) if (middle > 0) == (edge > 0) else 0.0


def _slowness(metric: Metric) -> list[float]:
    """Logarithms, larger is worse."""
    sign = 1 if metric.better == "lower" else -1
    return [sign * math.log(x) for x in metric.samples]


def _by_visit(metric: Metric) -> list[list[float]]:
    values = _slowness(metric)
    if len(metric.visits) != len(values):
        return [values]
    groups: dict[int, list[float]] = {}
    for value, visit in zip(values, metric.visits, strict=True):
        groups.setdefault(visit, []).append(value)
    return list(groups.values())


def _residuals(values: Sequence[float]) -> list[float]:
    """What is left without their median, as wide as they were (the median took a degree of freedom)."""
    if len(values) < 2:
        return []
    middle, wider = quantile(values, 0.5), math.sqrt(len(values) / (len(values) - 1))
    return [(x - middle) * wider for x in values]


def _of(
    found: Sequence[tuple[str, Cell, str, Metric, Metric]], engine: str, metrics: Collection[str] = ()
) -> list[tuple[Metric, Metric]]:
    return [(old, new) for name, _, metric, old, new in found if name == engine and (not metrics or metric in metrics)]


def _discoveries(values: Sequence[float]) -> float:
    """The largest p that is still reported (Benjamini and Hochberg 1995)."""
    ordered = sorted(values)
    passed = [p for i, p in enumerate(ordered, 1) if p <= RATE * i / len(ordered)]
    return max(passed, default=-1.0)


def _notes(a: Results, b: Results) -> Iterable[str]:
    for which, results in (("first", a), ("second", b)):
        if not results.complete:
            yield f"the {which} run was cut short"
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
