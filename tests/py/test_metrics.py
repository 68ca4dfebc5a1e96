"""Metrics, read back by Prometheus' own parser."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from inpage.observe.prometheus import Counter, Gauge, Histogram, Registry


def read(registry: Registry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(registry.text())
        for sample in family.samples
    }


def test_what_was_counted_is_what_prometheus_reads() -> None:
    registry = Registry()
    requests = registry.add(Counter("inpage_requests_total", 'by "finish"\nand more', ["finish"]))
    registry.add(Counter("inpage_tokens_total", "tokens")).add(2.5)
    registry.add(Gauge("inpage_bytes", "by kind", lambda: {"kv": 5.0, "weights": 7.0}, ["kind"]))
    registry.add(Gauge("inpage_waiting", "requests", lambda: 3))
    wait = registry.add(Histogram("inpage_wait_seconds", "in the queue", [0.1, 1]))
    requests.add(finish="stop")
    requests.add(2, finish='odd "\\\n')
    for value in (0.05, 0.1, 0.5, 7):
        wait.observe(value)
    assert read(registry) == {
        ("inpage_requests_total", (("finish", "stop"),)): 1,
        ("inpage_requests_total", (("finish", 'odd "\\\n'),)): 2,
        ("inpage_tokens_total", ()): 2.5,
        ("inpage_bytes", (("kind", "kv"),)): 5,
        ("inpage_bytes", (("kind", "weights"),)): 7,
        ("inpage_waiting", ()): 3,
        ("inpage_wait_seconds_bucket", (("le", "0.1"),)): 2,
        ("inpage_wait_seconds_bucket", (("le", "1"),)): 3,
        ("inpage_wait_seconds_bucket", (("le", "+Inf"),)): 4,
        ("inpage_wait_seconds_sum", ()): pytest.approx(7.65),
        ("inpage_wait_seconds_count", ()): 4,
    }


@given(st.lists(st.floats(0, 50), min_size=1, max_size=50), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], q: float) -> None:
    histogram = Histogram("h", "", [1, 2, 5, 10, 20, 50])
    for value in values:
        histogram.observe(value)
    true = sorted(values)[math.ceil(q * len(values)) - 1]
    high = min(bound for bound in histogram.bounds if bound >= true)
    low = max((bound for bound in histogram.bounds if bound < high), default=0)
    assert low <= histogram.quantile(q) <= high


def test_misuse_is_an_error() -> None:
    registry = Registry()
    counter = registry.add(Counter("a", "", ["x"]))
    with pytest.raises(ValueError, match="already"):
        registry.add(Counter("a", ""))
    with pytest.raises(ValueError, match="labels"):
        counter.add(y="1")
    with pytest.raises(ValueError, match="rise"):
        counter.add(-1, x="1")
    with pytest.raises(ValueError, match="no metric"):
        Counter("1a", "")
    with pytest.raises(ValueError, match="rise"):
        Histogram("h", "", [2, 1])
    assert math.isnan(Histogram("h", "").quantile(0.5))
