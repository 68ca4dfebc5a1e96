"""Whether the router is well, and if not, why: ``healthy``, ``degraded`` or ``unhealthy``, with reasons for people."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_REQUESTS = 100  # that the error rate is taken over
_ENOUGH = 5  # requests before a rate means anything
_ERRORS = 0.05
_MEMORY = 0.9


@dataclass(frozen=True, slots=True)
class Health:
    status: str
    reasons: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"status": self.status, "reasons": list(self.reasons), **self.figures}


class HealthWatch:
    """Fed with how requests end; asked for a verdict. A caller's own mistakes and cancels are no errors of ours."""

    def __init__(self) -> None:
        self._failed: deque[bool] = deque(maxlen=_REQUESTS)
        self.last_error = ""

    def ended(self, error: BaseException | None = None) -> None:
        self._failed.append(error is not None)
        if error is not None:
            self.last_error = f"{type(error).__name__}: {error}"

    @property
    def error_rate(self) -> float:
        """Of the last requests, 0 to 1."""
        return sum(self._failed) / len(self._failed) if self._failed else 0.0

    def verdict(self, *, held: int, budget: int | None, lost: str = "", took_over: str = "", leak: str = "") -> Health:
        """``held`` and ``budget``: bytes; ``lost``: why there is no engine; ``took_over``: why another than the best
        engine runs; ``leak``: what grows without end."""
        bad, poor = [], []
        if lost:
            bad.append(f"the engine is gone: {lost}")
        if len(self._failed) >= _ENOUGH and self.error_rate > _ERRORS:
            count, of = sum(self._failed), len(self._failed)
            bad.append(f"{count} of the last {of} requests failed, the last with {self.last_error}")
        poor += [text for text in (too_full(held, budget), took_over, leak) if text]
        status = "unhealthy" if bad else "degraded" if poor else "healthy"
        figures = {"error_rate": self.error_rate, "memory_bytes": held, "memory_budget": budget}
        return Health(status, (*bad, *poor), figures)


def too_full(held: int, budget: int | None) -> str:
    """Why so many bytes of a budget are too many; empty while they are not."""
    if budget is None or held <= _MEMORY * budget:
        return ""
    return f"{held / 1e6:.0f} MB of the budget of {budget / 1e6:.0f} MB are in use"
