"""One engine's turn, and what becomes of engines that are slow, single-minded or broken: without a browser."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import pytest

from inpage.errors import Unsupported
from inpage.text.tokenizer import Tokenizer
from inpage_bench.browser import Browsers, Where
from inpage_bench.driver import Embedded, LoadFacts, Pages, Timeline, Usage
from inpage_bench.environment import Pace
from inpage_bench.measures import Taken
from inpage_bench.results import Cell, Engine
from inpage_bench.scenarios import Scenario, select
from inpage_bench.turn import Limits, Speed, Turn, Work, fastest


class Double:
    """A native engine that answers at once, one request at a time; ``hangs`` at prompts of that many tokens."""

    def __init__(self, name: str = "double", hangs: int = -1, delay: float = 0.0) -> None:
        self.engine = Engine(name, "peer", "native", "v", 1, "1", "none", family=name, in_page=False)
        self.calls: list[str] = []
        self.texts: list[list[str]] = []
        self.vector = [0.6, 0.8]
        self._hangs, self._delay = hangs, delay

    async def load(self, pages: Pages) -> LoadFacts:
        self.calls.append("load")
        return LoadFacts(5.0)

    async def settle(self) -> None:
        self.calls.append("settle")

    async def generate(self, prompt: Sequence[int], max_new_tokens: int) -> Timeline:
        self.calls.append(f"{len(prompt)}+{max_new_tokens}")
        if len(prompt) == self._hangs:
            await asyncio.Event().wait()
        await asyncio.sleep(self._delay)
        return Timeline(
            list(range(max_new_tokens)), [float(i + 1) for i in range(max_new_tokens)], max_new_tokens + 1.0
        )

    async def serve(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, clients: int) -> list[Timeline]:
        raise Unsupported("takes one request at a time")

    async def embed(self, texts: Sequence[str], *, together: bool) -> Embedded:
        self.texts.append(list(texts))
        return Embedded([20.0] if together else [5.0 * (i + 1) for i in range(len(texts))], self.vector)

    async def usage(self) -> Usage:
        return Usage()

    async def counters(self) -> dict[str, int]:
        return {"steps": 7 * len(self.calls)}

    def processes(self) -> list[int]:
        return []

    async def close(self) -> None:
        self.calls.append("close")


Go = Callable[..., "dict[str, Cell]"]


@pytest.fixture
def go(small_tokenizer: Tokenizer) -> Go:
    """Run one visit of a double; its cells by scenario."""

    def visit(
        driver: Double, names: str, limits: Limits | None = None, visits: Sequence[int] = (0,), embeds: bool = False
    ) -> dict[str, Cell]:
        works = [Work(s, Cell(0, "m", s.name, s.title, s.params)) for s in select(names.split(","), "quick")]
        with contextlib.closing(Pace()) as pace:
            for number in visits:
                chosen = limits or Limits(2, 1, 1, longest_s=30)
                turn = Turn(
                    driver,
                    small_tokenizer,
                    chosen,
                    Browsers(Where()),
                    pace,
                    2,
                    tell=str,
                    done=lambda work: None,
                    embeds=embeds,
                )
                asyncio.run(turn.run(works, number))
        for work in works:
            work.taken.finish(work.cell, work.scenario)
        return {work.cell.scenario: work.cell for work in works}

    return visit


def test_an_answer_is_timed_from_asking_and_warm_up_does_not_count(go: Go) -> None:
    driver = Double()
    cell = go(driver, "prompt-short")["prompt-short"]
    assert driver.calls == ["load", "16+8", "settle", "34+128", "34+128", "34+128", "close"]
    assert (cell.iterations, cell.warmup, cell.error) == (2, 1, None)
    assert cell.metrics["ttft_ms"].samples == [1, 1]
    assert cell.metrics["decode_tps"].median == 1000
    assert cell.metrics["prefill_tps"].median == 34_000
    assert cell.metrics["e2e_ms"].median == 129
    assert cell.metrics["token20_ms"].median == 20
    assert cell.metrics["itl_ms"].n == 2 * 127
    assert cell.output_ids == list(range(128))
    assert cell.counts["steps"] == 14  # between before and after each answer, and nothing else
    assert cell.counts["tokens"] == 256


def test_texts_are_embedded_in_one_call_and_one_by_one_never_the_same_again(go: Go) -> None:
    driver = Double()
    cells = go(driver, "load-cached,embed-batch-64,embed-single", Limits(2, 1, 1, longest_s=30), embeds=True)
    assert driver.calls == ["load", "close", "load", "settle", "close"]  # and no prompt
    assert [len(texts) for texts in driver.texts] == [1, 1, 64, 64, 64, 16, 16, 16]
    batches = driver.texts[2:5]
    assert len({len(text.split()) for text in batches[0]}) == 8
    lengths = [[len(text.split()) for text in batch] for batch in batches]
    assert lengths[0] == lengths[1] == lengths[2]
    assert len({text for texts in driver.texts[2:] for text in texts}) == 3 * (64 + 16)
    batch, single = cells["embed-batch-64"], cells["embed-single"]
    assert (batch.iterations, batch.warmup, batch.notes) == (2, 1, [])
    assert batch.metrics["sentences_per_s"].samples == [3200, 3200]
    assert single.metrics["sentences_per_s"].samples == [200, 200]
    assert single.metrics["embed_ms"].samples == [5] * 32
    assert "first_token_ms" not in cells["load-cached"].metrics and cells["load-cached"].metrics["ready_ms"].n == 1
    driver.vector = [0.6, 0.7]
    assert "of length 0.922" in (go(driver, "embed-single", embeds=True)["embed-single"].error or "")


def test_memory_is_measured_in_an_engine_that_holds_nothing_else(go: Go) -> None:
    driver = Double()
    cells = go(driver, "prompt-short,context-1024", Limits(2, 1, 2, longest_s=30), visits=(0, 1))
    first, second = (["load", "16+8", "1008+16", "close", "load", "16+8"], ["load", "16+8"])
    timed = ["settle", "34+128", "34+128"]  # once a load the engine's choice of kernels, and a warm-up
    assert driver.calls == [*first, *timed, "close", *second, *timed, "close"]
    assert (cells["context-1024"].iterations, cells["context-1024"].warmup) == (1, 0)
    assert "decode_tps" not in cells["context-1024"].metrics  # it is about memory: nothing was warm


def test_a_rate_together_is_told_only_of_a_time_in_which_all_decode() -> None:
    scenario = select(["decode-batch-8"], "quick")[0]
    late = [
        Timeline([1] * 10, [1000.0 * row + 100 * i for i in range(10)], 0) for row in range(2)
    ]  # one after the other
    beside = [Timeline([1] * 10, [50.0 * row + 100 * i for i in range(10)], 0) for row in range(2)]
    barely = [Timeline([1] * 10, [850.0 * row + 100 * i for i in range(10)], 0) for row in range(2)]
    for timelines, rate in ((late, None), (barely, None), (beside, pytest.approx(20.0, rel=0.1))):
        taken, cell = Taken(), Cell(0, "m", scenario.name, "")
        taken.answers(scenario, timelines, 0)
        taken.finish(cell, scenario)
        found = cell.metrics.get("aggregate_tps")
        assert (found and found.median) == rate
        assert any("no rate" in note for note in cell.notes) == (rate is None)


def test_iterations_are_shared_by_the_visits(go: Go) -> None:
    driver = Double()
    cell = go(driver, "prompt-short", Limits(5, 0, 3, longest_s=30), visits=(0, 1, 2))["prompt-short"]
    assert cell.metrics["ttft_ms"].visits == [0, 0, 1, 1, 2]
    assert driver.calls.count("load") == driver.calls.count("close") == 3


def test_an_engine_that_takes_one_at_a_time_makes_the_others_wait(go: Go) -> None:
    cells = go(Double(), "decode-batch-8,concurrency-8,concurrency-32")
    assert cells["concurrency-8"].counts["requests"] == 2 * 16
    assert cells["concurrency-8"].metrics["e2e_ms"].per == "request"
    waits = cells["concurrency-8"].metrics["ttft_ms"].samples[:16]
    assert waits[:8] == sorted(waits[:8])  # all there from the start: each waits for those before
    assert "concurrency-8 shows" in (cells["concurrency-32"].error or "")
    assert (cells["decode-batch-8"].error or "").startswith("unsupported")


def test_a_call_that_takes_too_long_is_given_up_and_the_rest_goes_on(go: Go) -> None:
    driver = Double(hangs=512)
    cells = go(driver, "prompt-short,prompt-medium,stream-long", Limits(1, 0, 1, longest_s=0.7))
    assert "longer than 0.7 s" in (cells["prompt-medium"].error or "")
    assert cells["prompt-short"].error is None
    assert cells["stream-long"].iterations == 1
    assert driver.calls.count("load") == 2  # afresh, after what hung


def test_what_would_take_too_long_is_not_begun(go: Go) -> None:
    driver = Double()  # 1 ms a token
    cells = go(driver, "prompt-short,stream-long", Limits(1, 0, 1, longest_s=0.2))
    assert cells["prompt-short"].error is None
    assert "would take about" in (cells["stream-long"].error or "")
    assert "34+512" not in driver.calls


def test_a_cell_is_content_when_its_time_is_spent(go: Go) -> None:
    driver = Double(delay=0.05)
    cell = go(driver, "prompt-short", Limits(100, 1, 1, budget_s=0.2, longest_s=30))["prompt-short"]
    assert 1 <= cell.iterations < 10


def test_a_slow_engine_is_asked_for_less_and_the_results_say_so(go: Go) -> None:
    slow, tokens = Double(delay=0.0), 1000.0  # ms a token, told, not waited

    async def generate(prompt: Sequence[int], max_new_tokens: int) -> Timeline:
        slow.calls.append(f"{len(prompt)}+{max_new_tokens}")
        at = [tokens * (i + 1) for i in range(max_new_tokens)]
        return Timeline(list(range(max_new_tokens)), at, at[-1])

    slow.generate = generate  # type: ignore[method-assign]
    limits = Limits(1, 1, 1, budget_s=1e6, longest_s=1e6)
    cells = go(slow, "prompt-medium,concurrency-1", limits)
    assert cells["prompt-medium"].params["new_tokens"] == 32 and "512+32" in slow.calls and "512+128" not in slow.calls
    assert any("32 of 128 new tokens" in note for note in cells["prompt-medium"].notes)
    assert cells["concurrency-1"].counts["requests"] == cells["concurrency-1"].params["requests"] == 3
    assert any("the first 3 of 8 requests" in note for note in cells["concurrency-1"].notes)
    whole = go(Double(), "prompt-medium,concurrency-1", limits)  # 1 ms a token
    assert whole["prompt-medium"].params["new_tokens"] == 128 and not whole["prompt-medium"].notes
    assert whole["concurrency-1"].counts["requests"] == 8
    every = go(slow, "prompt-medium", Limits(1, 1, 1))  # without a budget all of it is asked
    assert every["prompt-medium"].params["new_tokens"] == 128


def test_how_long_a_prompt_will_take_follows_what_shorter_ones_took() -> None:
    quadratic = Speed({34: 34 * 1e-3 + 34**2 * 1e-5, 512: 512 * 1e-3 + 512**2 * 1e-5})
    assert quadratic.prefill(2048) == pytest.approx(2048 * 1e-3 + 2048**2 * 1e-5)
    assert Speed({34: 0.34, 512: 2.56}).prefill(2048) == pytest.approx(10.24)  # a cold start is no law
    assert Speed({512: 5.12}).prefill(34) == pytest.approx(0.34)
    assert Speed().seconds(select(["prompt-short"], "quick")[0]) == 0


def test_the_fastest_form_wins_the_heat() -> None:
    works = []
    for ms in ([30.0, 10.0], [20.0], []):
        work = Work(Scenario("heat", "answer", "", "quick"), Cell(0, "m", "heat", ""))
        for value in ms:
            work.taken.add("e2e_ms", value, 0)
        works.append(work)
    assert fastest(works) is works[0]
    assert fastest(works[2:]) is None
