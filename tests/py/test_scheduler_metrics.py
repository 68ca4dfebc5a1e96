"""What a router tells of itself: metrics, health, a trace, memory that grows."""

from __future__ import annotations

import asyncio
import itertools
import json
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from inpage.errors import DeviceLost, InvalidRequest, OutOfMemory
from inpage.observe.health import HealthWatch
from inpage.observe.leaks import LeakDetector
from inpage.openai import Api
from inpage.router import Completion, Router
from inpage.router.status import MemoryWatch
from inpage.settings import MemorySettings
from inpage.text.tokenizer import Tokenizer
from support.paged_double import PagedDouble
from support.small import small_router


@pytest.fixture
async def router(small_tokenizer: Tokenizer) -> AsyncIterator[Router]:
    async with small_router(small_tokenizer) as router:
        yield router


async def ask(router: Router, text: str = "hello", tokens: int = 10) -> Completion:
    return await router.chat(text, temperature=0, max_tokens=tokens)


def read(router: Router) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(router.metrics()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def test_metrics_count_what_happened(router: Router) -> None:
    answers = await asyncio.gather(*(ask(router, text) for text in ("one", "two", "three")))
    again = await ask(router, "one")
    found = read(router)
    assert found["inpage_requests_total{finish=length}"] == 4
    assert found["inpage_tokens_total{kind=answer}"] == 40
    assert found["inpage_tokens_total{kind=prompt}"] == sum(len(a.prompt_ids) for a in [*answers, again])
    cached = sum(answer.cached_tokens for answer in answers) + again.cached_tokens
    assert found["inpage_tokens_total{kind=cached}"] == cached > 0
    # Every token fed is counted once: what was not cached is read, and each answer's first token comes with it.
    assert found["inpage_engine_rows_total{call=prefill}"] == found["inpage_tokens_total{kind=prompt}"] - cached
    assert found["inpage_engine_rows_total{call=decode}"] == 40 - 4
    assert found["inpage_time_to_first_token_seconds_count"] == 4
    assert found["inpage_inter_token_seconds_count"] == 36
    assert found["inpage_requests_running"] == found["inpage_requests_waiting"] == 0
    assert found["inpage_kv_pages{use=used}"] == 0 < found["inpage_kv_pages{use=kept}"]


async def test_refused_requests_and_errors_are_counted(router: Router) -> None:
    outcomes = await asyncio.gather(*(ask(router, str(i)) for i in range(20)), return_exceptions=True)
    refused = sum(isinstance(outcome, Exception) for outcome in outcomes)
    assert read(router)["inpage_refused_total"] == refused > 0
    assert router.health().status == "healthy"  # a full queue is no fault


async def test_health_names_what_is_wrong(router: Router) -> None:
    api = Api(router)
    assert (await api.handle("GET", "/health")).status == 200
    await ask(router)
    assert isinstance(router.engine, PagedDouble)
    router.engine.failure = DeviceLost("unplugged")
    with pytest.raises(DeviceLost):
        await ask(router)
    health = router.health()
    assert health.status == "unhealthy" and "unplugged" in health.reasons[0]
    reply = await api.handle("GET", "/health")
    assert reply.status == 503 and json.loads(str(reply.body))["reasons"] == list(health.reasons)
    assert (await api.handle("GET", "/metrics")).body == router.metrics()


@pytest.mark.parametrize(("failures", "status"), [(0, "healthy"), (5, "healthy"), (6, "unhealthy")])
def test_more_than_five_percent_errors_are_unhealthy(failures: int, status: str) -> None:
    watch = HealthWatch()
    for i in range(100):
        watch.ended(OutOfMemory("full") if i < failures else None)
    assert watch.verdict(held=0, budget=None).status == status


@pytest.mark.parametrize(("held", "status"), [(90, "healthy"), (91, "degraded")])
def test_more_than_ninety_percent_of_the_budget_is_degraded(held: int, status: str) -> None:
    assert HealthWatch().verdict(held=held, budget=100).status == status


async def test_a_callers_mistake_is_no_error_of_ours(router: Router) -> None:
    for _ in range(10):
        with pytest.raises(InvalidRequest):
            await router.chat("hello", temperature=9)
        router.scheduler.metrics.health.ended(None)
    assert router.health().status == "healthy"


async def test_a_trace_shows_calls_one_after_the_other_and_each_request(router: Router) -> None:
    router.trace.start()
    await asyncio.gather(ask(router, "one"), ask(router, "two"))
    events = json.loads(router.trace.to_json())["traceEvents"]
    tracks = {event["args"]["name"]: event["tid"] for event in events if event["ph"] == "M"}
    for track, names in (("engine", {"prefill", "decode"}), ("router", {"encode", "admit"})):
        calls = [event for event in events if event["ph"] == "X" and event["tid"] == tracks[track]]
        assert {call["name"] for call in calls} == names
        for before, after in itertools.pairwise(calls):
            assert before["ts"] + before["dur"] <= after["ts"]
    begun = {(event["id"], event["name"]) for event in events if event["ph"] == "b"}
    assert len({number for number, _ in begun}) == 2
    assert {name for _, name in begun} == {"request", "waiting", "reading", "answering", "burst"}
    for number in {number for number, _ in begun}:
        open_ = []  # spans of one request are within each other
        for event in events:
            if event.get("id") == number and event["ph"] == "b":
                open_.append(event["name"])
            elif event.get("id") == number:
                assert open_.pop() == event["name"]
        assert not open_
    assert begun == {(event["id"], event["name"]) for event in events if event["ph"] == "e"}
    router.trace.stop()
    await ask(router)
    assert json.loads(router.trace.to_json())["traceEvents"] == events


def test_growth_that_goes_on_is_suspicious_and_a_jump_is_not() -> None:
    steady, jump, leak = LeakDetector(), LeakDetector(), LeakDetector()
    for minute in range(100):
        assert not leak.suspicion()
        steady.sample(minute * 60, {"kv": 100 + minute % 7, "weights": 1000})
        jump.sample(minute * 60, {"kv": 100 if minute < 10 else 900})
        leak.sample(minute * 60, {"kv": 100 + 2 * minute, "weights": 10})
    assert not steady.suspicion() and not jump.suspicion()
    assert "most of it kv" in leak.suspicion()
    assert len(leak.report()) == 100


async def test_each_kind_of_operation_tells_what_it_left_behind(router: Router) -> None:
    page, reserved = router.engine.info.page_bytes, router.info["kv_pages"]["reserved"]
    await ask(router, "hello" * 10, tokens=100)
    await ask(router, "hello" * 10, tokens=100)
    profile = router.memory.report()["operations"]
    assert set(profile) >= {"encode", "admit", "grow", "prefill", "decode"}
    assert (profile["encode"]["count"], profile["decode"]["grew"]) == (2, 0)
    pages = router.info["kv_pages"]["reserved"] - reserved
    assert profile["admit"]["grew"] + profile["grow"]["grew"] == pages * page > 0
    assert max(usage["peak"] for usage in profile.values()) == sum(router.memory.report()["held"].values())
    assert read(router)["inpage_operation_bytes{operation=admit}"] == profile["admit"]["grew"]


async def test_what_grows_without_end_is_reported_once(
    router: Router, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    memory = MemorySettings(report_path=str(tmp_path / "reports"), trace=True)
    router.scheduler.settings = replace(router.scheduler.settings, memory=memory)
    router.memory = watch = MemoryWatch(router.scheduler, seconds=0)
    held = []
    pool = router.scheduler.kv.pool
    watch.start()
    for minute in range(130):
        pool.reserved = 10 + minute
        held.append(bytearray(1 << 14))  # beside the pages: so Python's own lines grow, too
        while len(watch.leaks.report()) < min(minute + 1, 100):
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    watch.stop()
    pool.reserved = 0
    tracemalloc.stop()
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "most of it python" in record.message
    (file,) = (tmp_path / "reports").iterdir()
    report = json.loads(file.read_text())
    assert report == json.loads(record.message.partition("\n")[2]) == watch.suspected
    assert [grown["what"] for grown in report["growers"]] == ["python", "kv"]
    assert all(grown["before"] < grown["now"] for grown in report["growers"])
    assert report["samples"][-1]["kv"] > 0
    assert any(__file__ in line["line"] and line["grew"] > 90 << 14 for line in report["lines"])
    assert report["objects"][0]["count"] > 0


async def test_memory_is_looked_at_while_the_model_is_loaded(router: Router) -> None:
    router.memory = watch = MemoryWatch(router.scheduler, seconds=0)
    watch.start()
    while len(watch.leaks.report()) < 3:
        await asyncio.sleep(0)
    assert watch.leaks.report()[0].keys() == {"at", "weights", "arena", "kv", "swap"}
    watch.stop()


async def test_what_the_engine_computed_of_the_time_in_which_somebody_waited(router: Router) -> None:
    await ask(router)
    counted, found = await router.counters(), read(router)
    calls = len(router.engine.calls)  # type: ignore[attr-defined]
    assert counted["busy_us"] == pytest.approx(1e3 * calls)  # the double's clock: a millisecond a call
    assert found["inpage_engine_busy_seconds_total"] == pytest.approx(calls * 1e-3)
    busy, working = counted["busy_us"], counted["working_us"]
    assert found["inpage_engine_idle_share"] == pytest.approx(max(0.0, 1 - busy / working), abs=1e-3)
