"""What every plot shares: the drawing itself, axes, and text that does not lie on other text.

A plot is drawn twice, for a wide column and for a phone, so that letters keep their size; the page shows one of them.
Colours are classes of report.css: ``c0`` is this project, ``c1`` and on are the peers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .markup import Child, Markup, tag
from .scale import Scale
from .text import tick

WIDE, NARROW = 540, 340
LETTER = 7.2  # pixels of an average letter at the 12 pixels that plots use, on the generous side


@dataclass(frozen=True)
class Mark:
    """How an engine is drawn: its name, the class of its colour and which dash or shape of that colour."""

    label: str
    colour: str
    style: int = 0


@dataclass(frozen=True)
class Axis:
    """``title`` says what and in which unit."""

    title: str
    log: bool = False


def svg(width: float, height: float, title: str, description: str, *children: Child) -> Markup:
    """One drawing, named for those who do not see it."""
    label = f"{title}. {description}" if description else title
    return tag(
        "svg",
        *children,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_label=label,
    )


def text_width(text: str) -> float:
    return LETTER * len(text)


def words(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> Markup:
    """A text whose baseline is ``y``; ``anchor`` is start, middle or end."""
    return tag("text", content, x=x, y=y, class_=kind or None, text_anchor=None if anchor == "start" else anchor)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def path(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    return tag("path", d="M" + " ".join(f"{x:.2f},{y:.2f}" for x, y in points), class_=kind)


def dot(x: float, y: float, kind: str, shape: int = 0, size: float = 4, title: str = "") -> Markup:
    """A circle, square, diamond or triangle with its value as a tooltip."""
    label = tag("title", title) if title else None
    if shape % 4 == 0:
        return tag("circle", label, cx=x, cy=y, r=size, class_=kind)
    if shape % 4 == 1:
        side = size * 1.8
        return tag("rect", label, x=x - side / 2, y=y - side / 2, width=side, height=side, class_=kind)
    reach = size * 1.35
    corners = [(0, -1), (1, 0), (0, 1), (-1, 0)] if shape % 4 == 2 else [(0, -1), (1, 0.8), (-1, 0.8)]
    d = "M" + "L".join(f"{x + dx * reach:.2f},{y + dy * reach:.2f}" for dx, dy in corners) + "Z"
    return tag("path", label, d=d, class_=kind)


def x_axis(scale: Scale, axis: Axis, top: float, bottom: float, width: float) -> list[Markup]:
    """Grid lines, numbers under them and the axis' title under all, right."""
    ticks = scale.ticks(max(3, int(abs(scale.end - scale.start) / 52)))
    parts = [line(scale(t), top, scale(t), bottom, "grid") for t in ticks]
    parts += [
        words(scale(t), bottom + 16, tick(t), "tick", "end" if scale(t) > width - 14 else "middle") for t in ticks
    ]
    parts.append(words(max(scale.start, scale.end), bottom + 33, axis.title, "axis", "end"))
    return parts


def y_axis(scale: Scale, axis: Axis, left: float, right: float) -> list[Markup]:
    """Grid lines, numbers left of them and the axis' title above all, left."""
    ticks = scale.ticks(max(3, int(abs(scale.end - scale.start) / 38)))
    parts = [line(left, scale(t), right, scale(t), "grid") for t in ticks]
    parts += [words(left - 6, scale(t) + 4, tick(t), "tick", "end") for t in ticks]
    parts.append(words(0, min(scale.start, scale.end) - 12, axis.title, "axis"))
    return parts


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions as near to the wanted ones as a distance of ``gap`` allows, in their order, within the ends."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    placed = [0.0] * len(wanted)
    edge = low
    for i in order:
        placed[i] = max(wanted[i], edge)
        edge = placed[i] + gap
    edge = high
    for i in reversed(order):
        placed[i] = min(placed[i], edge)
        edge = placed[i] - gap
    return placed
