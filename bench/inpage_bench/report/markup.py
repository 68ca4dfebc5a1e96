"""HTML and SVG as strings that escape themselves: what is not `Markup` is text, whoever wrote it."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable
from typing import TypeAlias

Value: TypeAlias = str | float | bool | None
Child: TypeAlias = "str | Iterable[Child] | None"

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_VOID = {"meta", "link", "br", "hr"}


class Markup(str):
    """Markup already: goes into a page as it is."""

    __slots__ = ()


def tag(name: str, /, *children: Child, **attributes: Value) -> Markup:
    """``<name attributes>children</name>``. ``class_`` is class and ``aria_label`` is aria-label; True is a bare
    attribute, None and False leave it out. Raises ValueError for a number that is not finite: no drawing has one."""
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        text = "" if value is True else coordinate(value) if isinstance(value, (int, float)) else value
        parts.append(f' {attribute}="{html.escape(printable(text))}"')
    inner = join(children)
    if name in _VOID:
        return Markup("".join(parts) + ">")
    return Markup("".join(parts) + f">{inner}</{name}>")


def join(children: Child) -> Markup:
    """Text escaped, markup as it is, None left out, sequences flattened."""
    if children is None:
        return Markup()
    if isinstance(children, Markup):
        return children
    if isinstance(children, str):
        return Markup(html.escape(printable(children)))
    return Markup("".join(join(child) for child in children))


def printable(text: str) -> str:
    """Without terminal colours, which a peer's error can bring, and control characters, which no XML may hold."""
    text = _COLOURS.sub("", text)
    return "".join(c for c in text if c in "\n\t" or (ord(c) >= 32 and (c.isprintable() or c.isspace())))


def coordinate(value: float) -> str:
    """Two decimals are a fiftieth of a pixel."""
    if not math.isfinite(value):
        raise ValueError(f"a coordinate must be finite, not {value}")
    return f"{value:.2f}".rstrip("0").rstrip(".")
