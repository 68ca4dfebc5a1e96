"""Counters, gauges and histograms, and their Prometheus text (exposition format 0.0.4).

Own code, because it runs in the page, where no client library is; only what a router needs.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
Labels = tuple[str, ...]
# Seconds: from a cache hit to a long answer on a slow device.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class _Metric:
    kind = "untyped"

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        for word, pattern in ((name, _NAME), *((label, _LABEL) for label in labels)):
            if not pattern.match(word):
                raise ValueError(f"{word!r} is no metric or label name")
        self.name, self.help, self.labels = name, help, tuple(labels)

    def samples(self) -> Iterator[tuple[str, str, float]]:
        """(suffix of the name, label text, value)"""
        raise NotImplementedError

    def _key(self, labels: Mapping[str, str]) -> Labels:
        if set(labels) != set(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {tuple(labels)}")
        return tuple(str(labels[name]) for name in self.labels)

    def _text(self, key: Labels, *more: tuple[str, str]) -> str:
        pairs = [*zip(self.labels, key, strict=True), *more]
        return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs) + "}" if pairs else ""


class Counter(_Metric):
    """Only ever rises."""

    kind = "counter"

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, help, labels)
        self._values: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, amount: float = 1.0, **labels: str) -> None:
        if not amount >= 0:
            raise ValueError(f"{self.name} cannot rise by {amount}")
        key = self._key(labels)
        self._values[key] = self._values.get(key, 0.0) + amount

    def value(self, **labels: str) -> float:
        return self._values.get(self._key(labels), 0.0)

    @property
    def total(self) -> float:
        """Over all labels."""
        return sum(self._values.values())

    def samples(self) -> Iterator[tuple[str, str, float]]:
        for key, value in sorted(self._values.items()):
            yield "", self._text(key), value


class Gauge(_Metric):
    """A value of now, asked for when it is read: one number, or one for each label's value."""

    kind = "gauge"

    def __init__(
        self, name: str, help: str, read: Callable[[], float | Mapping[str, float]], labels: Sequence[str] = ()
    ) -> None:
        super().__init__(name, help, labels)
        self._read = read

    def samples(self) -> Iterator[tuple[str, str, float]]:
        value = self._read()
        if isinstance(value, Mapping):
            for label, each in sorted(value.items()):
                yield "", self._text((label,)), each
        else:
            yield "", "", value


class Histogram(_Metric):
    """Observations by bucket; ``bounds`` are the buckets' upper ends, inclusive."""

    kind = "histogram"

    def __init__(self, name: str, help: str, bounds: Sequence[float] = SECONDS, labels: Sequence[str] = ()) -> None:
        super().__init__(name, help, labels)
        if list(bounds) != sorted(set(bounds)) or not bounds:
            raise ValueError(f"{name}: bounds must rise")
        self.bounds = tuple(bounds)
        self._rows: dict[Labels, list[float]] = {}  # a count a bucket, beyond all bounds, then the sum
        if not labels:
            self._row(())

    def observe(self, value: float, count: int = 1, **labels: str) -> None:
        """``count`` equal observations."""
        row = self._row(self._key(labels))
        row[bisect.bisect_left(self.bounds, value)] += count
        row[-1] += value * count

    def count(self, **labels: str) -> int:
        return int(sum(self._row(self._key(labels))[:-1]))

    def quantile(self, q: float, **labels: str) -> float:
        """Estimated within its bucket, as Prometheus does; NaN without observations."""
        row = self._row(self._key(labels))
        total = sum(row[:-1])
        if not total:
            return math.nan
        rank, seen, low = q * total, 0.0, 0.0
        for bound, count in zip(self.bounds, row, strict=False):
            if seen + count >= rank and count:
                return low + (bound - low) * (rank - seen) / count
            seen, low = seen + count, bound
        return self.bounds[-1]

    def samples(self) -> Iterator[tuple[str, str, float]]:
        for key, row in sorted(self._rows.items()):
            seen = 0.0
            for bound, count in zip((*self.bounds, math.inf), row, strict=False):
                seen += count
                yield "_bucket", self._text(key, ("le", _number(bound))), seen
            yield "_sum", self._text(key), row[-1]
            yield "_count", self._text(key), seen

    def _row(self, key: Labels) -> list[float]:
        return self._rows.setdefault(key, [0.0] * (len(self.bounds) + 2))


M = TypeVar("M", bound=_Metric)


class Registry:
    """All metrics of one router."""

    def __init__(self) -> None:
        self._metrics: dict[str, _Metric] = {}

    def add(self, metric: M) -> M:
        if metric.name in self._metrics:
            raise ValueError(f"there is a metric {metric.name} already")
        self._metrics[metric.name] = metric
        return metric

    def __iter__(self) -> Iterator[_Metric]:
        return iter(self._metrics.values())

    def text(self) -> str:
        """What a Prometheus server scrapes."""
        return "\n".join(line for metric in self for line in [*_head(metric), *_lines(metric)]) + "\n"


def merged(registries: Sequence[tuple[Mapping[str, str], Registry]]) -> str:
    """The text of several registries with the same metrics, each one's samples under labels of its own."""
    families: dict[str, list[str]] = {}
    for labels, registry in registries:
        pairs = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels.items())
        for metric in registry:
            if set(labels) & set(metric.labels):
                raise ValueError(f"{metric.name} has labels {metric.labels} of its own")
            family = families.setdefault(metric.name, _head(metric))
            family += _lines(metric, pairs)
    return "".join(f"{line}\n" for family in families.values() for line in family)


def _head(metric: _Metric) -> list[str]:
    return [f"# HELP {metric.name} {_escaped(metric.help, quotes=False)}", f"# TYPE {metric.name} {metric.kind}"]


def _lines(metric: _Metric, pair: str = "") -> Iterator[str]:
    for suffix, labels, value in metric.samples():
        inner = ",".join(part for part in (pair, labels[1:-1]) if part)
        yield f"{metric.name}{suffix}{'{' + inner + '}' if inner else ''} {_number(value)}"


def _escaped(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))
