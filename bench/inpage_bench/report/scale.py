"""From values to pixels, and the round numbers that an axis shows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Values ``low`` to ``high`` lie on pixels ``start`` to ``end``; what is outside is drawn at the edge."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """At most ``most`` round values (two at least), all inside."""
        return _log_ticks(self.low, self.high, most) if self.log else _linear_ticks(self.low, self.high, most)


def fit(values: Iterable[float], start: float, end: float, *, log: bool = False, room: float = 0.0) -> Scale:
    """A scale over the finite values, widened to round ends; ``room`` adds a share above the largest.
    Linear ones start at zero. With nothing to show it is 0 to 1, or 1 to 10."""
    known = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    if not log:
        high = max(known, default=0.0) * (1 + room)
        if high <= 0:
            return Scale(0.0, 1.0, start, end)
        step = _step(high, 5)
        return Scale(0.0, math.ceil(high / step - 1e-9) * step, start, end)
    if not known:
        return Scale(1.0, 10.0, start, end, log=True)
    low, high = _round_down(min(known)), _round_up(max(known) * (1 + room))
    if high / low < 4:  # a scale must span something
        low, high = _round_down(low / 2), _round_up(high * 2)
    return Scale(low, high, start, end, log=True)


def _step(high: float, most: int) -> float:
    """The smallest of 1, 2, 2.5, 5 · 10^k that covers ``high`` in ``most`` steps."""
    rough = high / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    step = _step(high - low, max(1, most - 1))
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, first + most + 1) if k * step <= high * (1 + 1e-9)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for multiples in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1, 3), (1,)):
        found = [m * 10.0**k for k in range(first, last + 1) for m in multiples]
        inside = [v for v in found if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]
        if len(inside) <= most:
            break
    else:
        inside = inside[:: math.ceil(len(inside) / most)]
    return inside if len(inside) > 1 else [low, high]


def _round_down(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return power * max(m for m in (1, 2, 5) if m * power <= value * (1 + 1e-9))


def _round_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return power * min(m for m in (1, 2, 5, 10) if m * power >= value * (1 - 1e-9))
