"""What the router did when, as a Chrome trace: open it in chrome://tracing, Perfetto or the browser's own viewer.

Tracks: the engine's calls and the router's own work, one after the other each, and every request from its arrival to
its end. In the page the same spans are User Timing measures, which the browser's own profiler shows.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..host.browser import IN_PAGE, host

_EVENTS = 20_000  # the latest are kept
_DEPTHS = {"request": 0, "burst": 2}  # of a request's spans within each other; the others are between


class Tracer:
    """Off until `start`; then every span costs about a microsecond. ``clock``: seconds."""

    def __init__(self) -> None:
        self.on = False
        self._events: deque[dict[str, Any]] = deque(maxlen=_EVENTS)
        self._origin = time.perf_counter()

    def start(self) -> None:
        self.on = True
        self._events.clear()
        self._origin = time.perf_counter()

    def stop(self) -> None:
        self.on = False

    @contextmanager
    def span(self, name: str, track: str = "engine", **facts: Any) -> Iterator[None]:
        """Something that takes its time on a track where one thing happens at once."""
        if not self.on:
            yield
            return
        began = time.perf_counter()
        try:
            yield
        finally:
            ended = time.perf_counter()
            self._add(name, "X", began, {"dur": (ended - began) * 1e6, "tid": track, "args": facts})
            _measure(f"{track}: {name}", began, ended)

    def span_of(self, number: int, name: str, began: float, ended: float, **facts: Any) -> None:
        """A part of request ``number``'s life, told when it is over; times of `time.perf_counter`."""
        if self.on:
            self._add(name, "b", began, {"id": number, "cat": "request", "args": facts})
            self._add(name, "e", ended, {"id": number, "cat": "request"})
            _measure(f"request {number}: {name}", began, ended)

    def mark(self, name: str, **facts: Any) -> None:
        """Something that happens at one moment."""
        if self.on:
            self._add(name, "i", time.perf_counter(), {"s": "p", "tid": "engine", "args": facts})

    def to_json(self) -> str:
        """The trace file's content."""
        events = sorted(self._events, key=_order)
        tracks = {event["tid"]: i for i, event in enumerate({e["tid"]: e for e in events}.values(), 1)}
        named = [
            {"name": "thread_name", "ph": "M", "pid": 1, "tid": number, "args": {"name": name}}
            for name, number in tracks.items()
        ]
        numbered = [{**event, "tid": tracks[event["tid"]]} for event in events]
        return json.dumps({"traceEvents": [*named, *numbered], "displayTimeUnit": "ms"})

    def _add(self, name: str, phase: str, at: float, more: dict[str, Any]) -> None:
        stamp = (at - self._origin) * 1e6
        self._events.append({"name": name, "ph": phase, "ts": stamp, "pid": 1, "tid": "requests", **more})


def _order(event: dict[str, Any]) -> tuple[float, bool, int]:
    """By time; at one moment first what ends, the inner parts of a request before the outer, then what begins."""
    depth = _DEPTHS.get(event["name"], 1)
    ends = event["ph"] == "e"
    return event["ts"], not ends, -depth if ends else depth


def _measure(name: str, began: float, ended: float) -> None:
    """User Timing has a clock of its own: told is how long ago it was."""
    if IN_PAGE:
        now = time.perf_counter()
        host().measure(f"inpage {name}", (now - began) * 1e3, (now - ended) * 1e3)
