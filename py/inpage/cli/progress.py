"""Progress on stderr: one line that renews itself on a terminal; elsewhere a plain line now and then, and none for what
is done, or has failed, at once."""

from __future__ import annotations

import sys
import time
from typing import Any

_EVERY = 2.0  # seconds between lines where the output is no terminal


class Progress:
    """Called with events like ``{"phase": "weights", "loaded": 1, "total": 3}``; ``unit`` "MB" shows bytes."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._tty = sys.stderr.isatty()
        self._quiet = quiet
        self._phase = ""
        self._shown = float("-inf") if self._tty else time.monotonic()
        self._open = False

    def __call__(self, event: dict[str, Any]) -> None:
        if self._quiet:
            return
        phase, loaded, total = str(event.get("phase", "")), event.get("loaded"), event.get("total")
        if total == 1:  # a step without parts: that it began is all there is to say
            loaded = total = None
        done = total is not None and loaded == total
        if phase == self._phase and total is None:
            return
        now = time.monotonic()
        news = self._tty and (phase != self._phase or done)
        if not news and now - self._shown < (0.1 if self._tty else _EVERY):
            return
        self._phase, self._shown = phase, now
        text = " ".join(part for part in (phase, _amount(loaded, total), str(event.get("detail") or "")) if part)
        if self._tty:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            self._open = True
        else:
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Take the line away."""
        if self._open:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._open = False


def _amount(loaded: Any, total: Any) -> str:
    if not isinstance(loaded, int | float) or not isinstance(total, int | float) or total <= 0:
        return ""
    share = min(1.0, loaded / total)
    bar = "█" * round(share * 24)
    amount = f"{loaded / 1e6:.1f} of {total / 1e6:.1f} MB" if total >= 1_000_000 else f"{loaded:g} of {total:g}"
    return f"{bar:░<24} {share:4.0%} {amount}"
