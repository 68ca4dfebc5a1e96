"""The plots of one model, made from a `View`. One with nothing to show is left out, never empty."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..bandwidth import bandwidth
from ..results import Cell, Peaks
from .frame import NARROW, WIDE, Axis, Mark
from .markup import Child, Markup, tag
from .plots import Bar, Line, Point, Reference, Roof, Sample, Spot, Text, bars, distribution, lines, roofline
from .text import list_of, number, quantity, share
from .view import HEAT, Scenario, View

_MEMORY = (("wasm_bytes", "wasm memory"), ("heap_bytes", "JS heap"), ("gpu_bytes", "GPU buffers"))
_PHASES = ("p0", "p1", "p2", "p3", "p5", "p6", "p7", "p8")  # p4 is for the rest
_MOST_ENGINES = 9  # in one plot of lines; more is a tangle


def all_plots(view: View) -> Markup:
    makers = (speed, first_token, between_tokens, depth, crowd, load, memory, roof)
    shown = [p for p in (make(view) for make in makers) if p]
    return tag("div", *shown, class_="plots") if shown else Markup()


def figure(text: Text, draw: Callable[[float], Markup], note: str = "", key: Sequence[tuple[str, str]] = ()) -> Markup:
    """The plot for a column and for a phone under one caption. ``key``: (class, name) of a stacked bar's parts."""
    caption: list[Child] = [tag("h3", text.title)]
    if note:
        caption.append(tag("p", note))
    if len(key) > 1:
        caption.append(tag("ul", *(tag("li", _swatch(kind), name) for kind, name in key), class_="key"))
    both = [Markup(draw(w).replace("<svg ", f'<svg class="{c}" ', 1)) for w, c in ((WIDE, "wide"), (NARROW, "narrow"))]
    return tag("figure", tag("figcaption", *caption), *both)


def _swatch(kind: str) -> Markup:
    square = tag("rect", width=11, height=11, rx=2, class_=f"bar {kind}")
    return tag("svg", square, viewBox="0 0 11 11", width=11, height=11, aria_hidden="true")


def speed(view: View) -> Markup | None:
    """Decoding speed of every engine, the first thing anyone asks."""
    scenarios = view.alone("decode_tps")
    if not scenarios:
        return None
    return _ranking(view, scenarios[0], "decode_tps", "Decoding speed", "tokens a second, more is better")


def first_token(view: View) -> Markup | None:
    scenarios = view.alone("ttft_ms")
    return _ranking(view, scenarios[0], "ttft_ms", "Time to first token", "ms, less is better") if scenarios else None


def _ranking(view: View, scenario: Scenario, metric: str, title: str, unit: str) -> Markup | None:
    rows = []
    for e in view.engines:
        found = view.metric(e, scenario.name, metric) or view.metric(e, HEAT, metric)
        if found:
            rows.append((found.median, e, found))
    if not rows:
        return None
    higher = rows[0][2].better == "higher"
    rows.sort(key=lambda r: -r[0] if higher else r[0])
    made = []
    for value, e, found in rows:
        said = number(value) if found.unit != "ms" else quantity(value, "ms")
        part = (view.marks[e].colour, "", value)
        colour, paler = "c0" if view.ours(e) else "ink", not view.results.engines[e].in_page
        made.append(Bar(view.name_of(e), [part], said, weak=paler, colour=colour))
    text = Text(title, f"{scenario.title}: " + _spoken([(b.label, b.text) for b in made]))
    outside = " Paler: not in a page." if any(b.weak for b in made) else ""
    return figure(text, lambda w: bars(w, text, made, Axis(unit)), f"{scenario.title}. Medians.{outside}")


def between_tokens(view: View) -> Markup | None:
    """Latency between two tokens of one answer, in the scenario where most engines have it."""
    found: list[tuple[int, Scenario, list[Sample]]] = []
    for scenario in view.scenarios:
        if scenario.concurrency > 1:
            continue
        samples = []
        for e in _chosen(view):
            cell = view.cell(e, scenario.name)
            values = [v for v in _latencies(cell) if v >= 0] if cell else []
            if len(values) > 1:
                samples.append(Sample(view.marks[e], values))
        if samples:
            found.append((len(samples), scenario, samples))
    if not found:
        return None
    _, scenario, samples = max(found, key=lambda f: f[0])
    text = Text(
        "Latency between tokens", f"{scenario.title}, distributions of {list_of([s.mark.label for s in samples])}"
    )
    note = f"{scenario.title}. Dots: single tokens. Box: the middle half, with the median; ticks: p95 and p99."
    spread = [v for s in samples for v in s.values if v > 0]
    log = bool(spread) and max(spread) > 12 * min(spread)
    axis = Axis("ms after the token before" + (", log scale" if log else ""), log=log)
    return figure(text, lambda w: distribution(w, text, samples, axis), note)


def _latencies(cell: Cell) -> list[float]:
    series = cell.series.get("itl_ms")
    if series:
        return series
    metric = cell.metrics.get("itl_ms")
    return metric.samples if metric and metric.n > 1 else []


def depth(view: View) -> Markup | None:
    """Decoding speed against the length of the context."""
    series = []
    for e in _chosen(view):
        points: list[Point] = []
        for scenario in view.alone("decode_tps"):
            found = view.metric(e, scenario.name, "decode_tps")
            if found:
                tip = f"{view.name_of(e)}: {number(found.median)} tokens/s after {scenario.depth:,.0f}"
                if all(p.x != scenario.depth for p in points):  # of two scenarios as deep, the first
                    points.append(Point(scenario.depth, found.median, found.min, found.max, tip))
        if points:
            series.append(Line(view.marks[e], points))
    if not any(len(s.points) > 1 for s in series):
        return None
    text = Text("Decoding speed against context length", _described(series))
    x, y = Axis("tokens in context, log scale", log=True), Axis("tokens a second")
    return figure(text, lambda w: lines(w, text, series, x, y), "One sequence. Points: medians; lines: least to most.")


def crowd(view: View) -> Markup | None:
    """Tokens a second of all requests together against how many are at once."""
    series = []
    for e in _chosen(view):
        best: dict[float, Point] = {}
        for scenario in view.having("aggregate_tps"):
            found = view.metric(e, scenario.name, "aggregate_tps")
            if found and scenario.name.startswith(("concurrency", "alone", "prompt")):
                tip = f"{view.name_of(e)}: {number(found.median)} tokens/s, {scenario.title}"
                best.setdefault(scenario.concurrency, Point(scenario.concurrency, found.median, tip=tip))
        if best:
            series.append(Line(view.marks[e], list(best.values())))
    if not any(len(s.points) > 1 for s in series):
        return None
    text = Text("Throughput against concurrency", _described(series))
    x, y = Axis("requests at once, log scale", log=True), Axis("tokens a second, all requests together")
    return figure(text, lambda w: lines(w, text, series, x, y), "Unique prompts, each answered in full.")


def load(view: View) -> Markup | None:
    """What loading is spent on, first visit and later ones."""
    scenarios = view.having("ready_ms")
    names: dict[str, str] = {}
    rows = []
    for scenario in scenarios:
        for e in view.contenders:
            cell, ready = view.cell(e, scenario.name), view.metric(e, scenario.name, "ready_ms")
            if cell is None or ready is None:
                continue
            phases = {n: m.median for n, m in cell.metrics.items() if n.startswith("phase_") and n.endswith("_ms")}
            total = sum(phases.values())
            fit = min(1.0, ready.median / total) if total > 0 else 1.0
            parts = []
            for n, v in phases.items():
                kind = names.setdefault(_phase(n), _PHASES[len(names) % len(_PHASES)])
                parts.append((kind, f"{_phase(n)} {quantity(v, 'ms')}", v * fit / 1e3))
            rest = ready.median - total * fit
            if rest > ready.median * 0.005:
                parts.append(("p4", f"the rest {quantity(rest, 'ms')}", rest / 1e3))
            rows.append(Bar(f"{view.name_of(e)} · {scenario.short}", parts, quantity(ready.median, "ms")))
    if not rows:
        return None
    key = [(kind, name) for name, kind in names.items()]
    if any(kind == "p4" for r in rows for kind, _, _ in r.parts):
        key.append(("p4", "the rest"))
    note = "Medians." + ("" if key else " None tells its phases.")
    text = Text("Load time", _spoken([(r.label, r.text) for r in rows]))
    return figure(text, lambda w: bars(w, text, rows, Axis("seconds until a prompt can be sent")), note, key)


def _phase(metric: str) -> str:
    return metric.removeprefix("phase_").removesuffix("_ms").replace("_", " ")


def memory(view: View) -> Markup | None:
    """Peak memory of the engine's processes and what is known of its parts, beside half of the model in float16."""
    rows, used = [], set()
    for e in view.engines:
        whole = view.peak(e, "process_bytes")
        known = [(f"p{i}", name, view.peak(e, metric) or 0.0) for i, (metric, name) in enumerate(_MEMORY)]
        parts = [(kind, f"{name} {quantity(v, 'bytes')}", v) for kind, name, v in known if v > 0]
        inside = sum(v for _, _, v in parts)
        if whole is not None and inside < whole:
            parts.append(("p4", f"the rest of the process {quantity(whole - inside, 'bytes')}", whole - inside))
        elif whole is not None and parts:  # what the parts reserve may not be resident
            parts = [(kind, name, v * whole / inside) for kind, name, v in parts]
        if parts:
            used |= {kind for kind, _, _ in parts}
            rows.append((whole if whole is not None else inside, view.name_of(e), parts))
    if not rows:
        return None
    rows.sort(key=lambda r: r[0])
    in_mb = [Bar(name, [(k, n, v / 1e6) for k, n, v in parts], quantity(total, "bytes")) for total, name, parts in rows]
    refs = [Reference(view.model.f16_bytes / 2e6, "half of the model in f16")] if view.model else []
    key = [(f"p{i}", name) for i, (_, name) in enumerate(_MEMORY) if f"p{i}" in used]
    key += [("p4", "the rest of the process")] if "p4" in used else []
    text = Text("Peak memory", _spoken([(b.label, b.text) for b in in_mb]), refs)
    return figure(text, lambda w: bars(w, text, in_mb, Axis("MB")), "The most that was seen in any scenario.", key)


def roof(view: View) -> Markup | None:
    """Measured speed under what this machine was measured to do."""
    peaks = view.results.environment.peaks
    model = view.model
    if peaks is None or model is None or not model.parameters or not model.weight_bytes:
        return None
    roofs = _roofs(peaks, model.weight_bytes)
    if not roofs:
        return None
    spots: list[Spot] = []
    for e in _chosen(view):
        weights = view.weight_bytes(e)
        if not weights:
            continue
        density = 2 * model.parameters / weights
        name, mark = view.name_of(e), view.marks[e]
        speed = view.speed(e)
        if speed:
            ops = 2 * model.parameters * speed
            tip = f"{name} decoding: {quantity(speed * weights, 'bytes')}/s, {number(ops / 1e9)} Gop/s"
            spots.append(Spot(Mark(f"{name}, decode", mark.colour, 0), density, ops, tip))
        for scenario in view.alone("prefill_tps")[-1:]:
            found = view.metric(e, scenario.name, "prefill_tps")
            if found:
                ops = 2 * model.parameters * found.median
                tip = f"{name}, prefill of {scenario.prompt:,.0f} tokens: {number(ops / 1e9)} Gop/s"
                spots.append(Spot(Mark(f"{name}, prefill", mark.colour, 2), density * scenario.prompt, ops, tip))
    if not spots:
        return None
    text = Text(
        "Roofline", _spoken([(s.mark.label, f"{number(s.y / 1e9)} billion operations a second") for s in spots])
    )
    note = (
        f"{_reached(view, peaks, spots)} Lines: what this machine was measured to do in the browser, "
        "reading as many bytes as the weights have. Two operations a "
        "parameter and token; decoding (circles) reads all weights once a token, prefill (diamonds) at best once a "
        "prompt."
    )
    return figure(text, lambda w: roofline(w, text, roofs, spots), note)


def _roofs(peaks: Peaks, size: int) -> list[Roof]:
    found: list[Roof] = []
    for threads in sorted(set(peaks.read_gbps) & set(peaks.dot_gops), key=lambda t: (len(t), t), reverse=True):
        read, dots = bandwidth(peaks, threads, size), peaks.dot_gops[threads]
        if read > 0 and dots > 0:
            many = "1 thread" if threads == "1" else f"{threads} threads"
            label = f"{many}: {number(read)} GB/s, {number(dots)} Gop/s"
            found.append(Roof(label, read * 1e9, dots * 1e9, "roof second" if found else "roof"))
    return found


def _reached(view: View, peaks: Peaks, spots: Sequence[Spot]) -> str:
    """How near our best engine comes to the limits of its number of threads."""
    best = view.best
    threads = str(view.results.engines[best].threads) if best is not None else ""
    dots = peaks.dot_gops.get(threads, 0)
    read = bandwidth(peaks, threads, view.model.weight_bytes) if view.model else 0
    if best is None or read <= 0 or dots <= 0:
        return ""
    said = []
    for spot in spots:
        if spot.mark.label == f"{view.name_of(best)}, decode":
            rate = spot.y / spot.x / 1e9
            said.append(
                f"decoding reads {number(rate)} GB/s of weights, {share(rate / read)} of what such reading reached"
            )
        if spot.mark.label == f"{view.name_of(best)}, prefill":
            said.append(
                f"prefill reaches {number(spot.y / 1e9)} Gop/s, {share(spot.y / 1e9 / dots)} of the dot-product peak"
            )
    return f"{view.name_of(best)}: {'; '.join(said)}." if said else ""


def _chosen(view: View) -> list[int]:
    """Engines for a plot that holds few: all, or ours and each family's best."""
    if len(view.contenders) <= _MOST_ENGINES:
        return view.contenders
    kept = [e for e in view.contenders if view.ours(e)][:4] + view.rivals
    return [e for e in view.contenders if e in kept]


def _spoken(rows: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{name} {value}" for name, value in rows)


def _described(series: Sequence[Line]) -> str:
    return _spoken([(s.mark.label, f"{number(s.points[0].y)} to {number(s.points[-1].y)}") for s in series])
