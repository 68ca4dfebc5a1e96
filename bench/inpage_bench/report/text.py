"""Numbers as a person reads them: three digits, thousands separators, a unit that fits."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import PurePath

MISSING = "–"

_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
           "December")  # fmt: skip
_HERE = ("--out", "--browser", "--connect", "--shard")  # options that say where, not what
_NAMES = {"tokens/s": "tok/s", "requests/s": "req/s", "bytes": "B"}


def number(value: float | None, digits: int = 3) -> str:
    """``digits`` significant ones, never fewer than the integer part has: 0.0123, 5.50, 97.3, 1,234."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}")))))
    return f"{value:,.{decimals}f}"


def count(value: float | None) -> str:
    """A whole number in full; anything else with three digits."""
    if value is not None and math.isfinite(value) and value == int(value):
        return f"{int(value):,}"
    return number(value)


def quantity(value: float | None, unit: str) -> str:
    """With its unit, scaled to it: 97.3 ms, 1.20 s, 96.6 MB, 43.1 %, 209 tok/s."""
    if value is None or not math.isfinite(value):
        return MISSING
    scaled, name = scale(value, unit)
    if name in ("", "count"):
        return count(scaled)
    return f"{number(scaled, 2 if name == '%' else 3)} {name}"


def span(low: float, high: float, unit: str) -> str:
    """From one value to another, the unit said once where both have it: 72.0 to 74.0 ms."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return MISSING
    same = scale(low, unit)[1] == scale(high, unit)[1]
    return f"{number(scale(low, unit)[0]) if same else quantity(low, unit)} to {quantity(high, unit)}"


def scale(value: float, unit: str) -> tuple[float, str]:
    """The value in the unit that suits its size, and that unit's name."""
    if unit == "ms":
        return (value / 1e3, "s") if abs(value) >= 999.5 else (value, "ms")
    if unit == "s":
        return (value * 1e3, "ms") if 0 < abs(value) < 1 else (value, "s")
    if unit in ("share", "fraction"):
        return value * 100, "%"
    if unit == "bytes":
        for size, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if abs(value) >= size * 0.9995:
                return value / size, name
    return value, _NAMES.get(unit, unit)


def tick(value: float) -> str:
    """An axis number: 0.5, 20, 1,000, 2M."""
    if value == 0:
        return "0"
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.6g}{suffix}"
    return f"{value:,.6g}" if abs(value) < 1e3 else f"{value:,.0f}"


def ratio(value: float | None) -> str:
    """10.4×, 1.07×, 0.93×."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:,.0f}×" if value >= 100 else f"{value:.1f}×" if value >= 10 else f"{value:.2f}×"


def share(value: float) -> str:
    """A share in a sentence: 55 %."""
    return f"{value * 100:.0f} %"


def about(value: float) -> str:
    """A ratio in a sentence: 10×, 2.9×."""
    return f"{value:,.0f}×" if value >= 9.95 else f"{value:.1f}×"


def list_of(items: list[str]) -> str:
    """a, b and c."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1] if items else ""


def day(created: str) -> str:
    """An ISO time as "5 March 2026"."""
    try:
        when = datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{when.day} {_MONTHS[when.month - 1]} {when.year}"  # strftime's names would follow the locale


def commands(asked: Sequence[str]) -> list[str]:
    """Command lines as others can repeat them: without folders of one machine, browsers or parts of a whole; each
    once."""
    found: dict[str, None] = {}
    for command in asked:
        try:
            words = iter(shlex.split(command))
        except ValueError:  # not written by a shell's rules
            words = iter(command.split())
        kept = []
        for word in words:
            option, _, value = word.partition("=")
            if option in _HERE:
                if not value:
                    next(words, None)
            else:
                kept.append(",".join(PurePath(part).name or part for part in word.split(",")))
        found[shlex.join(kept)] = None
    return list(found)


def shorten(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(1, most - 1)].rstrip() + "…"
