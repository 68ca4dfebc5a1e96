"""The plots, each a function of a width and plain data; none knows what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..stats import quantile
from .frame import LETTER, Axis, Mark, dot, line, path, spread, svg, text_width, words, x_axis, y_axis
from .markup import Markup, tag
from .scale import Scale, fit
from .text import quantity, shorten

_PHONE = 420  # below this width, labels lie inside the plot
_GOLDEN = 0.6180339887498949
_MOST_DOTS = 250


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    tip: str = ""


@dataclass(frozen=True)
class Line:
    mark: Mark
    points: Sequence[Point]


@dataclass(frozen=True)
class Bar:
    """Parts from left to right, each (class, name, value); ``text`` is what stands at the end."""

    label: str
    parts: Sequence[tuple[str, str, float]]
    text: str
    weak: bool = False
    colour: str = "ink"

    @property
    def total(self) -> float:
        return sum(value for _, _, value in self.parts)


@dataclass(frozen=True)
class Sample:
    mark: Mark
    values: Sequence[float]
    unit: str = "ms"


@dataclass(frozen=True)
class Spot:
    """A point of a roofline plot: operations a byte, operations a second."""

    mark: Mark
    x: float
    y: float
    tip: str = ""


@dataclass(frozen=True)
class Roof:
    """A machine's limits: bytes a second and operations a second; ``label`` names them."""

    label: str
    bytes_per_s: float
    ops_per_s: float
    kind: str = "roof"


@dataclass(frozen=True)
class Reference:
    """A vertical line across bars: a target or a limit."""

    value: float
    label: str


@dataclass(frozen=True)
class Text:
    """What a plot is called, to the eye and to a screen reader."""

    title: str
    description: str = ""
    extra: Sequence[Reference] = field(default=())


def lines(width: float, text: Text, series: Sequence[Line], x: Axis, y: Axis) -> Markup:
    """Lines with a point a measurement, whiskers where given, each labelled at its end; on a phone below, where
    there is room."""
    phone = width < _PHONE
    series = sorted(series, key=lambda s: -max(s.points, key=lambda p: p.x).y)
    labels = [shorten(s.mark.label, 40 if phone else 24) for s in series]
    left, top, bottom = 46.0, 34.0, 300.0 if phone else 320.0
    right = width - 12 if phone else width - 16 - max((text_width(s) for s in labels), default=0)
    every = [p for s in series for p in s.points]
    down = fit([v for p in every for v in (p.y, p.high or p.y)], bottom, top, log=y.log, room=0.04)
    across = fit([p.x for p in every], left, right, log=x.log)
    parts = [*y_axis(down, y, left, right), *x_axis(across, x, top, bottom, width)]
    ends: list[tuple[float, float]] = []
    for s in series:
        mark, points = s.mark, sorted(s.points, key=lambda p: p.x)
        at = [(across(p.x), down(p.y)) for p in points]
        parts.append(path(at, f"line {mark.colour} d{mark.style % 4}") if len(at) > 1 else Markup())
        for p, (px, py) in zip(points, at, strict=True):
            if p.low is not None and p.high is not None:
                parts.append(line(px, down(p.low), px, down(p.high), f"whisker {mark.colour}"))
            parts.append(dot(px, py, f"dot {mark.colour}", mark.style, title=p.tip))
        ends.append(at[-1])
    height = bottom + 42
    if phone:
        for s, label in zip(series, labels, strict=True):
            height += 18
            parts.append(line(left, height - 12, left + 28, height - 12, f"line {s.mark.colour} d{s.mark.style % 4}"))
            parts.append(dot(left + 14, height - 12, f"dot {s.mark.colour}", s.mark.style))
            parts.append(words(left + 36, height - 8, label, f"label {s.mark.colour}"))
        return svg(width, height + 4, text.title, text.description, parts)
    wanted = spread([py + 4 for _, py in ends], 14, top + 4, bottom)
    for s, label, (px, py), at_y in zip(series, labels, ends, wanted, strict=True):
        parts.append(words(right + 10, at_y, label, f"label {s.mark.colour}"))
        parts.append(line(min(px + 6, right), py, right + 8, at_y - 4, f"leader {s.mark.colour}"))
    return svg(width, height, text.title, text.description, parts)


def distribution(width: float, text: Text, samples: Sequence[Sample], axis: Axis) -> Markup:
    """A strip a sample: every value as a dot (a fair selection of many), box of the middle half, median, p95, p99."""
    phone = width < _PHONE
    row, left, right = 68.0 if phone else 52.0, 8.0, width - 14
    bottom = 14 + row * len(samples)
    across = fit([v for s in samples for v in s.values], left, right, log=axis.log, room=0.02)
    parts = x_axis(across, axis, 12, bottom, width)
    for i, s in enumerate(samples):
        values, top = sorted(s.values), 14 + row * i
        middle, colour = top + row - 19, s.mark.colour
        q = {share: quantile(values, share) for share in (0.25, 0.5, 0.75, 0.95, 0.99)}
        picked = values if len(values) <= _MOST_DOTS else [
            values[round(k * (len(values) - 1) / (_MOST_DOTS - 1))] for k in range(_MOST_DOTS)
        ]  # fmt: skip
        for k, v in enumerate(picked):
            offset = ((k * _GOLDEN) % 1 - 0.5) * 20
            parts.append(tag("circle", cx=across(v), cy=middle + offset, r=1.7, class_=f"raw {colour}"))
        x25, x75 = across(q[0.25]), across(q[0.75])
        parts.append(tag("rect", x=x25, y=middle - 8, width=max(1, x75 - x25), height=16, class_=f"box {colour}", rx=2))
        parts.append(line(across(q[0.5]), middle - 12, across(q[0.5]), middle + 12, f"median {colour}"))
        for share in (0.95, 0.99):
            parts.append(line(across(q[share]), middle - 6, across(q[share]), middle + 6, f"tail {colour}"))
        said = [quantity(q[share], s.unit) for share in (0.5, 0.95, 0.99)]
        tail = f"median {said[0]} · p95 {said[1]} · p99 {said[2]}"
        room = right - left if phone else right - left - text_width(tail)
        name = shorten(s.mark.label, max(8, int(room / LETTER) - 1))
        parts.append(words(left, top + 13, name, f"label halo {colour}"))
        if phone:
            parts.append(words(left, top + 29, tail, "tick halo"))
        else:
            parts.append(words(right, top + 13, tail, "value halo", "end"))
    return svg(width, bottom + 42, text.title, text.description, parts)


def bars(width: float, text: Text, rows: Sequence[Bar], axis: Axis) -> Markup:
    """Horizontal bars of one part or several, the name above each and the total at its end."""
    refs = text.extra
    row, left = 40.0, 8.0
    top = 26.0 if refs else 10.0
    room = max((text_width(r.text) for r in rows), default=0) + 12
    right = max(width - 14 - room, width * 0.45)
    bottom = top + row * len(rows)
    across = fit([r.total for r in rows] + [r.value for r in refs], left, right)
    parts = x_axis(across, axis, top, bottom, width)
    for ref in refs:
        at = across(ref.value)
        parts.append(line(at, top - 6, at, bottom, "reference"))
        anchor = "end" if at + text_width(ref.label) > width else "start"
        parts.append(words(at, top - 11, ref.label, "tick", anchor))
    for i, r in enumerate(rows):
        y, x = top + row * i, across(0)
        parts.append(words(left, y + 15, shorten(r.label, int((width - 16) / LETTER)), f"label {r.colour} halo"))
        done = 0.0
        for kind, name, value in r.parts:
            start, end = across(done), across(done + value)
            done += value
            tip = tag("title", f"{r.label}: {name} {r.text}" if len(r.parts) == 1 else f"{r.label}: {name}")
            weak = " weak" if r.weak else ""
            parts.append(
                tag("rect", tip, x=start, y=y + 20, width=max(0.5, end - start), height=14, class_=f"bar {kind}{weak}")
            )
            x = end
        parts.append(words(x + 6, y + 31, r.text, "value halo"))
    return svg(width, bottom + 42, text.title, text.description, parts)


def roofline(width: float, text: Text, roofs: Sequence[Roof], spots: Sequence[Spot]) -> Markup:
    """Operations a second against operations a byte, both logarithmic, under what the machine was measured to do."""
    phone = width < _PHONE
    left, right, top, bottom = 46.0, width - 14, 34.0, 330.0
    ridges = [r.ops_per_s / r.bytes_per_s for r in roofs]
    xs = [s.x for s in spots] + ridges
    across = fit([v * f for v in xs for f in (0.4, 3)], left, right, log=True)
    tops = [r.ops_per_s for r in roofs]
    down = fit([v for s in spots for v in (s.y / 1.5, s.y)] + tops, bottom, top, log=True, room=2)
    x, y = Axis("operations a byte of weights", log=True), Axis("billion operations a second", log=True)
    giga = Scale(down.low / 1e9, down.high / 1e9, down.start, down.end, log=True)
    parts = [*y_axis(giga, y, left, right), *x_axis(across, x, top, bottom, width)]
    for i, (r, ridge) in enumerate(zip(roofs, ridges, strict=True)):
        foot, top_y = max(across.low, down.low / r.bytes_per_s), down(r.ops_per_s)
        parts.append(path([(across(foot), down(foot * r.bytes_per_s)), (across(ridge), top_y), (right, top_y)], r.kind))
        y_of = top + 14 + 16 * i  # named where no point can be: above the roof
        parts.append(line(left + 6, y_of - 4, left + 30, y_of - 4, r.kind))
        parts.append(words(left + 36, y_of, r.label, "tick halo"))
    wanted = spread([down(s.y) + 4 for s in spots], 14, top + 8, bottom - 4)
    for s, text_y in zip(spots, wanted, strict=True):
        px, py = across(s.x), down(s.y)
        parts.append(dot(px, py, f"dot {s.mark.colour}", s.mark.style, 5, s.tip))
        label = shorten(s.mark.label, 24 if phone else 34)
        leftward = px + 12 + text_width(label) > right
        parts.append(
            words(
                px - 10 if leftward else px + 10,
                text_y,
                label,
                f"label halo {s.mark.colour}",
                "end" if leftward else "start",
            )
        )
    return svg(width, bottom + 42, text.title, text.description, parts)
