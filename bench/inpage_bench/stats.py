"""Summaries of samples, and what tells two sets of them apart. Pure Python: the samples are few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict


class Summary(TypedDict):
    n: int
    median: float
    p50: float
    p95: float
    p99: float
    mean: float
    stdev: float
    min: float
    max: float


def quantile(samples: Sequence[float], q: float) -> float:
    """Linear interpolation between order statistics (Hyndman and Fan's type 7, numpy's default)."""
    ordered = sorted(samples)
    place = (len(ordered) - 1) * q
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summary(samples: Sequence[float]) -> Summary:
    """At least one sample; ``stdev`` is the sample's (n - 1), 0 for a single one."""
    n = len(samples)
    if n == 0:
        raise ValueError("no samples to sum up")
    mean = math.fsum(samples) / n
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in samples) / (n - 1)) if n > 1 else 0.0
    ordered = sorted(samples)
    median = quantile(ordered, 0.5)
    return Summary(
        n=n,
        median=median,
        p50=median,
        p95=quantile(ordered, 0.95),
        p99=quantile(ordered, 0.99),
        mean=mean,
        stdev=spread,
        min=ordered[0],
        max=ordered[-1],
    )
