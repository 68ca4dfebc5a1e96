"""The results table of the README: made from results.json, dated, with its machine, between two comments."""

from __future__ import annotations

import re
from pathlib import Path

from inpage.errors import InvalidRequest

from ..results import Metric, Results
from .text import MISSING, about, commands, day, list_of, number, quantity
from .view import Figure, View, better_by

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def update_readme(results: Results, path: Path) -> bool:
    """Put `markdown_table` between the two comments of the file; whether that changed it. Raises `InvalidRequest` where
    it has not exactly one of each, in order."""
    text = path.read_text("utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise InvalidRequest(f"{path} needs the lines {BEGIN} and {END} around its results table", field=str(path))
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    fresh = f"{before}{BEGIN}\n{markdown_table(results)}{END}{after}"
    if fresh != text:
        path.write_text(fresh, encoding="utf-8")
    return fresh != text


def markdown_table(results: Results) -> str:
    """For each model a table of engines and figures, under what was measured where; ends with a newline."""
    views = [v for v in (View(results, m.id) for m in results.models) if v.figures]
    if not views:
        return "Nothing was measured.\n"
    return "\n".join(_table(view) for view in views)


def _table(view: View) -> str:
    figures, best = view.figures, view.best
    engines = ([best] if best is not None else []) + [e for e in view.contenders if e != best]
    engines.sort(key=lambda e: (not view.ours(e), not view.results.engines[e].in_page))
    lines = [_said(view), "", "| " + " | ".join(["engine", *(_head(f) for f in figures)]) + " |"]
    lines.append("| --- |" + " ---: |" * len(figures))
    for e in engines:
        engine = view.results.engines[e]
        name = _plain(engine.name) + ("" if engine.in_page else ", outside the browser")
        cells = [f"**{name}**" if e == best else name]
        for f in figures:
            found = view.metric(e, f.scenario, f.metric)
            base = view.metric(best, f.scenario, f.metric) if best is not None and e != best else None
            cells.append(_cell(found, base))
        lines.append("| " + " | ".join(cells) + " |")
    failed = [f"{_plain(e.name)} ({_plain(e.error)})" for e in view.results.engines if e.error]
    if failed:
        lines += ["", f"Could not run: {'; '.join(failed)}."]
    return "\n".join(lines) + "\n"


def _said(view: View) -> str:
    results = view.results
    env, tool = results.environment, results.tool
    revision = f", revision {tool.revision[:10]}{' with changes' if tool.dirty else ''}" if tool.revision else ""
    machine = list_of([_plain(x) for x in (f"{env.cpu} ({env.cores} cores)", env.os, env.browser) if x])
    asked = commands([part.command for part in results.shards] or [results.command])
    told = list_of([f"`{command.replace('`', '')}`" for command in asked])
    said = (
        f"{_plain(view.name)}, {day(results.created)}, {told}{revision}, on {machine}. "
        "Medians; speeds in tokens a second"
    )
    if view.best is not None and len(view.contenders) > 1:
        said += f"; in brackets: how many times better {_plain(view.name_of(view.best))} is"
    return said + "." + (" The machine was busy with other work." if env.busy else "")


def _head(figure: Figure) -> str:
    return f"{figure.head.lower()}, {_plain(figure.note[:1].lower() + figure.note[1:])}"


def _cell(found: Metric | None, base: Metric | None) -> str:
    if found is None:
        return MISSING
    value = number(found.median) if found.unit.endswith("/s") else quantity(found.median, found.unit)
    times = better_by(base.median, found.median, found.better) if base else None
    return f"{value} ({about(times) if times >= 1.15 else f'{times:.2f}×'})" if times else value


def _plain(text: str) -> str:
    """Text that Markdown takes as text, on one line."""
    line = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip()
    line = line if len(line) <= 160 else line[:159] + "…"
    return re.sub(r"([\\`*\[\]|])", r"\\\1", line).replace("&", "&amp;").replace("<", "&lt;")
