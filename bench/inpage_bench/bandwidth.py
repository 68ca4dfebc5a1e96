"""Bytes a second that this machine reads, of as many bytes as one asks for: between the sizes that were measured."""

from __future__ import annotations

import math
from itertools import pairwise

from .results import Peaks


def bandwidth(peaks: Peaks, threads: str, size: int) -> float:
    """GB/s for reading ``size`` bytes again and again, between the sizes that were measured, or from beyond caches; 0
    where nothing is known of so many threads."""
    curve = peaks.read_by_bytes.get(threads, {})
    known = sorted((int(n), v) for n, v in curve.items() if n.isdecimal() and int(n) > 0 and v > 0)
    if not known:
        return peaks.read_gbps.get(threads, 0.0)
    if size <= known[0][0] or size >= known[-1][0]:
        return known[0 if size <= known[0][0] else -1][1]
    (a, low), (b, high) = next((x, y) for x, y in pairwise(known) if x[0] <= size <= y[0])
    way = math.log(size / a) / math.log(b / a)
    return math.exp(math.log(low) * (1 - way) + math.log(high) * way)
