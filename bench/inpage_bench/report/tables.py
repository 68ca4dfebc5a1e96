"""The report's tables: engines × figures, pair by pair, and every number that was measured."""

from __future__ import annotations

from collections.abc import Sequence

from ..results import Metric
from .markup import Child, Markup, tag
from .text import MISSING, count, number, quantity, ratio
from .view import HEAT, View, better_by, metric_name

LEVEL = 1.03
_QUANTILES = ("median", "p95", "p99", "mean", "stdev", "min", "max")


def summary(view: View) -> Markup:
    """A row an engine; under each value how many times better our best engine is."""
    figures, best = view.figures, view.best
    if not figures:
        return Markup()
    head = [tag("th", "Engine", scope="col")]
    head += [tag("th", f.head, tag("span", f.note), scope="col") for f in figures]
    rows = []
    for e in view.contenders:
        engine = view.results.engines[e]
        cells: list[Child] = [tag("th", engine.name, scope="row")]
        for f in figures:
            found = view.metric(e, f.scenario, f.metric)
            base = view.metric(best, f.scenario, f.metric) if best is not None else None
            cells.append(_summary_cell(found, base if e != best else None, _leads(view, e, f.scenario, f.metric)))
        rows.append(tag("tr", *cells, class_="ours" if view.ours(e) else None))
    return table(head, rows, "Engines and figures")


def _summary_cell(found: Metric | None, base: Metric | None, leads: bool) -> Markup:
    if found is None:
        return tag("td", MISSING, class_="missing")
    value = number(found.median) if found.unit.endswith("/s") else quantity(found.median, found.unit)
    times = better_by(base.median, found.median, found.better) if base else None
    under = tag("span", tag("span", ratio(times), class_=_side(times)), class_="under") if times else None
    return tag("td", value, under, class_="first" if leads else None)


def _leads(view: View, engine: int, scenario: str, metric: str) -> bool:
    """The best of the column."""
    found = {e: m for e in view.contenders if (m := view.metric(e, scenario, metric))}
    if engine not in found or len(found) < 2:
        return False
    pick = max if found[engine].better == "higher" else min
    return found[engine].median == pick(m.median for m in found.values())


def _side(times: float | None) -> str | None:
    if times is None or 1 / LEVEL < times < LEVEL:
        return None
    return "ahead" if times > 1 else "behind"


def pairs(view: View) -> Markup:
    """Our best engine against each family at its fastest, and whoever runs the same weights beside that: a row a
    figure, a column a peer."""
    best = view.best
    found = {(p.scenario, p.metric, p.theirs): p for p in view.results.pairs if p.model == view.id and p.ours == best}
    beside = [e for e in view.contenders if e in view.rivals or view.results.engines[e].baseline]
    rivals = [e for e in beside if any(theirs == e for _, _, theirs in found)]
    if best is None or not rivals:
        return Markup()
    name = view.name_of(best)
    head = [tag("th", "Figure", scope="col"), tag("th", name, scope="col")]
    head += [tag("th", view.name_of(e), tag("span", _outside(view, e)), scope="col") for e in rivals]
    rows: list[Markup] = []
    for scenario in view.scenarios:
        metrics = list(dict.fromkeys(m for s, m, t in found if s == scenario.name and t in rivals))
        if not metrics or scenario.name == HEAT:
            continue
        rows.append(tag("tr", tag("th", scenario.title, colspan=len(rivals) + 2, scope="rowgroup"), class_="group"))
        for metric in metrics:
            mine = view.metric(best, scenario.name, metric)
            unit = mine.unit if mine else ""
            cells: list[Child] = [tag("th", metric_name(metric), scope="row")]
            cells.append(tag("td", quantity(mine.median if mine else None, unit)))
            for e in rivals:
                pair = found.get((scenario.name, metric, e))
                if pair is None:
                    cells.append(tag("td", MISSING, class_="missing"))
                    continue
                theirs = tag("span", quantity(pair.theirs_value, unit), class_="beside")
                cells.append(tag("td", theirs, ratio(pair.ratio), class_=_shade(pair.ratio)))
            rows.append(tag("tr", *cells))
    if not rows:
        return Markup()
    return table(head, rows, "Pair by pair")


def _outside(view: View, engine: int) -> str:
    return "in the page" if view.results.engines[engine].in_page else "not in a page"


def _shade(times: float) -> str | None:
    for least, kind in ((8, "up3"), (2.5, "up2"), (LEVEL, "up1")):
        if times >= least:
            return kind
    if times > 1 / LEVEL:
        return None
    return "down1" if times > 0.5 else "down2"


def measurements(view: View) -> list[Markup]:
    """Every metric of every cell, a folded table a scenario."""
    made = []
    for scenario in view.scenarios:
        rows: list[Markup] = []
        for cell in view.cells:
            if cell.scenario != scenario.name:
                continue
            engine = view.name_of(cell.engine)
            if cell.error:
                rows.append(tag("tr", tag("th", engine, scope="row"), tag("td", cell.error, class_="text", colspan=9)))
            for metric, m in cell.metrics.items():
                values = [quantity(getattr(m, q), m.unit) for q in _QUANTILES]
                numbers = [tag("td", v) for v in (count(m.n), *values)]
                label = tag("td", metric_name(metric), tag("span", metric, class_="under mono"), class_="text")
                rows.append(tag("tr", tag("th", engine, scope="row"), label, *numbers))
        if rows:
            head = [tag("th", "Engine", scope="col"), tag("th", "Metric", class_="text", scope="col")]
            head += [tag("th", h, scope="col") for h in ("n", *_QUANTILES)]
            name = tag("span", scenario.name, class_="soft small mono")
            shown = table(head, rows, scenario.title)
            made.append(tag("details", tag("summary", scenario.title, " ", name), shown))
    return made


def counts(view: View) -> Markup:
    """What engines count: launches, steps, read-backs, cache hits. No timings."""
    names: dict[str, None] = {}
    found = []
    for cell in view.cells:
        flat = _flat(cell.counts)
        if flat:
            names.update(dict.fromkeys(flat))
            found.append((cell, flat))
    if not found:
        return Markup()
    head = [tag("th", "Engine", tag("span", "scenario"), scope="col")]
    head += [tag("th", n.replace("_", " "), scope="col") for n in names]
    rows = []
    for cell, flat in found:
        label = tag("th", view.name_of(cell.engine), tag("span", cell.scenario, class_="under"), scope="row")
        rows.append(tag("tr", label, *(tag("td", flat.get(n, MISSING)) for n in names)))
    shown = table(head, rows, "Counts")
    return shown if len(rows) <= 10 else tag("details", tag("summary", f"{len(rows)} rows"), shown)


def _flat(counted: dict[str, object], prefix: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for key, value in counted.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}: ")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            out[prefix + key] = count(value)
        elif value is not None:
            out[prefix + key] = str(value)
    return out


def table(head: Sequence[Markup], rows: Sequence[Markup], label: str) -> Markup:
    """A table that scrolls by itself where the page is narrow; the keyboard reaches it."""
    inside = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows))
    return tag("div", inside, class_="scroll", role="region", aria_label=label, tabindex="0")
