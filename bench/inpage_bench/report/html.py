"""report.html: one file without scripts or requests. The policy in its head makes the browser hold it to that."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from ..results import Results, Target
from . import charts, facts, tables, wording
from .markup import Child, Markup, join, tag
from .text import MISSING, count, day, list_of, quantity, span
from .view import View

_CSS = Path(__file__).with_name("report.css")
_VERDICTS = {"pass": ("pass", "✓ pass"), "fail": ("fail", "✗ fail")}
_ICON = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M1 15V9h4v6zm5 0V4h4v11zm5 0V1h4v14z' fill='%23005fb3'/%3E%3C/svg%3E"  # noqa: E501


def write_report(results: Results, path: Path) -> None:
    """Write the whole report of a run to ``path``, an .html file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(results), encoding="utf-8")


def page(results: Results) -> str:
    css = _CSS.read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    views = [View(results, m) for m in _models(results)]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"inpage benchmark, {day(results.created)}"),
        tag("link", rel="icon", href=_ICON),
        tag("style", Markup(css)),
    )
    body: list[Child] = [_header(results), _warnings(results)]
    for i, view in enumerate(views):
        body += _model(view, first=i == 0, targets=results.targets if i == 0 else [])
    if not views:
        body += [tag("p", "Nothing was measured.", class_="lead"), _targets(results.targets)]
    body += [_failures(results), _differences(results), facts.environment(results), facts.run(results)]
    return "<!doctype html>\n" + tag("html", head, tag("body", *body), lang="en") + "\n"


def _models(results: Results) -> list[str]:
    """Ids of models with a cell, as listed."""
    return list(dict.fromkeys([m.id for m in results.models] + [c.model for c in results.cells]))


def _model(view: View, first: bool, targets: list[Target]) -> list[Child]:
    said = wording.headline(view)
    parts: list[Child] = [] if first else [tag("h2", view.name)]
    parts += [tag("p", said[0], class_="lead"), *(tag("p", more, class_="lead then") for more in said[1:])]
    groups = dict.fromkeys(t.group for t in targets)
    parts += [_tiles(view), *(_targets([t for t in targets if t.group == group]) for group in groups)]
    summary = tables.summary(view)
    if summary:
        parts.append(tag("h2", "All engines side by side" if first else f"All engines side by side: {view.name}"))
        base = f" Below each: how many times better {view.name_of(view.best)} is." if view.best is not None else ""
        parts += [tag("p", f"Medians; speeds in tokens a second; bold: the best.{base}", class_="soft"), summary]
    plots = charts.all_plots(view)
    if plots:
        parts += [tag("h2", "Plots"), plots]
    pairs = tables.pairs(view)
    if pairs:
        note = (
            f"How many times better {view.name_of(view.best or 0)} is than each peer in its fastest form, and on "
            "the same weights where that is another, with the peer's own median beside it. Above 1 ours is ahead. "
            "Engines took turns."
        )
        parts += [tag("h2", "Pair by pair"), tag("p", note, class_="soft"), pairs]
    measured = tables.measurements(view)
    if measured:
        parts += [tag("h2", "Every measurement"), *measured]
    counted = tables.counts(view)
    if counted:
        parts += [tag("h2", "Counts"), tag("p", "What the engines count; no timings.", class_="soft"), counted]
    return parts


def _header(results: Results) -> Markup:
    env = results.environment
    where = " · ".join(x for x in (day(results.created), env.cpu, f"{env.cores} cores", env.browser) if x)
    return tag("header", tag("h1", "inpage benchmark"), tag("p", where, class_="soft small"))


def _warnings(results: Results) -> Markup:
    found = wording.warnings(results)
    if not found:
        return Markup()
    inside = found[0] if len(found) == 1 else tag("ul", *(tag("li", w) for w in found))
    return tag("div", inside, class_="warning", role="note")


def _tiles(view: View) -> Markup:
    """Our own figures, large."""
    if view.best is None:
        return Markup()
    made = []
    for f in view.figures:
        m = view.metric(view.best, f.scenario, f.metric)
        if m:
            spread = f"{span(m.min, m.max, m.unit)}, n = {count(m.n)}" if m.n > 1 else "measured once"
            label = tag("dt", f.head, ", ", f.note[:1].lower() + f.note[1:])
            value, _, unit = quantity(m.median, m.unit).partition(" ")
            large = tag("dd", value, " ", tag("small", unit))
            made.append(tag("div", label, large, tag("dd", spread, class_="small"), class_="tile"))
    return tag("dl", *made, class_="tiles") if made else Markup()


def _targets(targets: list[Target]) -> Markup:
    if not targets:
        return Markup()
    rows = []
    for t in targets:
        kind, verdict = _VERDICTS.get(t.verdict, ("other", t.verdict))
        rows.append(
            tag(
                "li",
                tag("span", verdict, class_="verdict"),
                tag("span", t.name, class_="name"),
                tag("span", t.target, class_="target soft"),
                tag("span", t.value or MISSING, class_="value"),
                tag("span", t.why, class_="why soft small"),
                class_=kind,
            )
        )
    passed = sum(t.verdict == "pass" for t in targets)
    judged = sum(t.verdict in ("pass", "fail") for t in targets)
    name = targets[0].group or "Targets"
    return join([tag("h2", f"{name}: {passed} of {judged} met"), tag("ul", *rows, class_="targets")])


def _failures(results: Results) -> Markup:
    """Whoever could not run, with what it said. Nobody is dropped in silence."""
    names = [e.name for e in results.engines]
    failed = _together([(e.name, (" did not run", e.error)) for e in results.engines if e.error])
    failed |= _together([(names[c.engine], (f" at {c.title}", c.error)) for c in results.cells if c.error])
    notes = _together([(e.name, ("", n)) for e in results.engines for n in e.notes])
    notes |= _together([(names[c.engine], (f", {c.scenario}", n)) for c in results.cells for n in c.notes])
    parts: list[Child] = []
    if failed:
        items = [tag("li", tag("strong", who), where, tag("pre", error)) for (where, error), who in failed.items()]
        shown = tag("ul", *items, class_="errors")
        parts += [tag("h2", "What could not run"), _folded(shown, len(items), "failures", 8)]
    if notes:
        items = [tag("li", tag("strong", who, where), ": ", what) for (where, what), who in notes.items()]
        parts += [tag("h2", "Notes"), _folded(tag("ul", *items), len(items), "notes", 12)]
    return join(parts)


def _together(said: list[tuple[str, tuple[str, str]]]) -> dict[tuple[str, str], str]:
    """What several engines say in the same words is said once, of all of them."""
    who: dict[tuple[str, str], dict[str, None]] = {}
    for name, what in said:
        who.setdefault(what, {})[name] = None
    return {what: list_of(list(names)) for what, names in who.items()}


def _differences(results: Results) -> Markup:
    """Where two engines answered differently, and where they did not."""
    if not results.differences:
        return Markup()
    titles = {c.scenario: c.title for c in results.cells}
    rows = []
    for d in results.differences:
        names = f"{results.engines[d.a].name} and {results.engines[d.b].name}"
        if d.first_difference is None:
            what = f"the same, all {count(d.compared)} tokens"
        else:
            what = f"the same for {count(d.first_difference)} tokens, then different"
        cells = (titles.get(d.scenario, d.scenario), what)
        rows.append(tag("tr", tag("th", names, scope="row"), *(tag("td", c, class_="text") for c in cells)))
    same = sum(d.first_difference is None for d in results.differences)
    note = (
        f"Greedy answers to the same prompt ids: {same} of {len(rows)} pairs agree to the end. Quantized weights, int8 "
        "activations and the order of additions differ between engines, and one near tie changes all that follows."
    )
    head = [
        tag("th", h, scope="col", class_="text" if i else None)
        for i, h in enumerate(("Engines", "Scenario", "Answers"))
    ]
    table = tables.table(head, rows, "Where outputs differ")
    return join(
        [tag("h2", "Where outputs differ"), tag("p", note, class_="soft"), _folded(table, len(rows), "pairs", 10)]
    )


def _folded(content: Markup, n: int, what: str, most: int) -> Markup:
    """Behind a line to click on where it is long."""
    return content if n <= most else tag("details", tag("summary", f"{n} {what}"), content)
