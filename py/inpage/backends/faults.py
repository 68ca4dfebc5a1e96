"""What went wrong with which variant, and when it may be tried again. No engine code: names, reasons and times.

A variant that failed is left alone for a while, four times as long after each time that it had to be left, so that a
device that keeps breaking costs little, and one that broke by chance is used again soon.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import DeviceLost, InpageError, PoisonRequest, Timeout
from ..requests.request import Request

_RECENT_S = 60.0  # losing the device twice within this long is no accident
_FIRST_REST_S, _LONGEST_REST_S, _GROWTH = 60.0, 86_400.0, 4.0
_MOST_TIMES = 100  # in a row: the longest rest is reached long before
_KEPT = 5  # faults remembered of a variant


@dataclass(frozen=True, slots=True)
class Fault:
    """``at``: seconds since 1970."""

    code: str
    message: str
    at: float


class FaultLog:
    """By variant: the last faults and until when it rests. ``clock`` gives seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._faults: dict[str, list[Fault]] = {}
        self._rests: dict[str, tuple[float, int]] = {}  # until, how many times in a row

    def note(self, variant: str, error: InpageError) -> None:
        known = self._faults.setdefault(variant, [])
        known.append(Fault(error.code, str(error), self.clock()))
        del known[:-_KEPT]

    def lost_again(self, variant: str) -> bool:
        """Whether its device was lost twice within a minute."""
        since = self.clock() - _RECENT_S
        return sum(f.code == DeviceLost.code and f.at >= since for f in self._faults.get(variant, ())) >= 2

    def rest(self, variant: str) -> None:
        """Leave it alone for a while."""
        now = self.clock()
        until, times = self._rests.get(variant, (0.0, 0))
        times = min(times + 1, _MOST_TIMES) if now - until < _LONGEST_REST_S else 1
        self._rests[variant] = now + min(_FIRST_REST_S * _GROWTH ** (times - 1), _LONGEST_REST_S), times

    def forgive(self, variant: str) -> None:
        """It was a request's fault: forget what was noted."""
        self._faults.pop(variant, None)
        self._rests.pop(variant, None)

    def resting(self, variant: str) -> float:
        """Seconds until it may be tried again; 0 where it may be now."""
        return max(0.0, self._rests.get(variant, (0.0, 0))[0] - self.clock())

    def last(self, variant: str) -> Fault | None:
        return next(reversed(self._faults.get(variant, ())), None)

    def sentence(self, variant: str) -> str:
        """For people; empty where nothing ever went wrong."""
        last = self.last(variant)
        if last is None:
            return ""
        again = self.resting(variant)
        when = f"; tried again in {_span(again)}" if again else ""
        return f"failed {_span(self.clock() - last.at)} ago ({last.code}: {last.message}){when}"

    def dump(self) -> dict[str, Any]:
        """As JSON, for `load`."""
        return {
            name: {
                "faults": [[f.code, f.message, f.at] for f in faults],
                "rest": list(self._rests.get(name, (0.0, 0))),
            }
            for name, faults in self._faults.items()
        }

    def load(self, noted: Mapping[str, Any]) -> None:
        faults, rests = {}, {}
        for name, entry in noted.items():
            faults[name] = [Fault(str(c), str(m), _finite(at)) for c, m, at in entry["faults"][-_KEPT:]]
            until, times = entry["rest"]
            # Clocks go wrong: no rest lasts longer than the longest from now.
            rests[name] = min(_finite(until), self.clock() + _LONGEST_REST_S), min(max(int(times), 0), _MOST_TIMES)
        self._faults, self._rests = faults, rests  # all of it or nothing


def _finite(seconds: float) -> float:
    if not math.isfinite(seconds):
        raise ValueError("no time")
    return float(seconds)


class Suspects:
    """Finds the request that ends engines, so that it fails alone.

    Whoever was in the call in which an engine died is a suspect: until a new token of theirs comes out, suspects run
    one at a time. One that ends an engine alone, again without a new token, is the one: on its only variant twice, or
    on two variants, so that a broken device is not taken for a broken request."""

    def turn(self, active: list[Request]) -> list[Request]:
        """Who runs in the next call."""
        return next(([r] for r in active if r.suspect), active)

    def died(self, batch: list[Request], variant: str, variants: int) -> Request | None:
        """The engine died in a call of ``batch``. Gives the request to blame, if that is clear. ``variants``: how many
        could run here."""
        for request in batch:
            request.suspect = True
        if len(batch) != 1:
            return None
        killed = batch[0].killed
        killed.append(variant)
        return batch[0] if len(killed) > 1 and (variants == 1 or len(set(killed)) > 1) else None

    def progressed(self, request: Request) -> None:
        request.suspect = False
        request.killed.clear()


def poisoned(request: Request, error: InpageError) -> InpageError:
    """What such a request fails with."""
    if not isinstance(error, DeviceLost):
        return error
    return PoisonRequest(
        f"this request ended the engine {len(request.killed)} times, the last time with: {error}; it is not tried again"
    )


def too_late(request: Request) -> Timeout:
    """What a request whose time is over fails with."""
    if request.started is None:
        return Timeout("the request waited too long for its turn: ask again when less is waiting, or allow more time")
    return Timeout(f"the time given to this request is over after {len(request.tokens)} tokens: allow more")


def _span(seconds: float) -> str:
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}s"
    return f"{max(seconds, 0):.0f} seconds"
