"""One engine's turn: load it, as a first and as a second visitor would, and ask it what the scenarios ask.

Whatever goes wrong here is an entry in the results. A call that takes too long is given up, and the engine loaded anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from inpage.errors import DeviceLost, InpageError, Unsupported
from inpage.text.tokenizer import Tokenizer

from . import processes, prompts
from .browser import Browsers, Visit
from .driver import Driver, Embedded, Files, LoadFacts, Pages, Tab, Timeline
from .environment import Pace
from .measures import Taken
from .results import Cell
from .scenarios import HEAT, LOAD_PROMPT, Scenario

T = TypeVar("T")
_SLOW_S = 5.0  # a run that takes longer needs none before it to warm up
_LONG_S = 15.0  # one that takes longer is made once, however few that is
_SURE = 0.8  # of the limit: what would take longer is not begun, since speed falls as the context grows
_FIRST = 8  # tokens asked right after loading, to know how fast this engine is
_STAY_S = 2.0  # between the first load and the second visit: until then pages store what that needs
_ONE_AT_A_TIME = 8  # clients: more make no difference to an engine that takes one request at a time


@dataclass(frozen=True, slots=True)
class Limits:
    """``iterations`` of a cell, over ``visits`` turns; ``warmup`` runs before them in each. ``budget_s``: when a cell
    has taken this long, warming up apart, it is content with the iterations that it has (one a visit, if they are
    short); ``longest_s``: no call takes longer. ``exact``: the number of iterations was asked for, so scenarios do not
    make fewer."""

    iterations: int
    warmup: int
    visits: int
    budget_s: float = math.inf
    longest_s: float = 600.0
    exact: bool = False

    @property
    def may_shorten(self) -> bool:
        """Who sets no budget, or a number of iterations, wants the whole of everything."""
        return math.isfinite(self.budget_s)

    def share(self, scenario: Scenario, visit: int) -> int:
        """Iterations of a scenario in one visit: the first visits have the odd ones, so that a run that is cut short
        has something of everything."""
        total = self.iterations if self.exact and not scenario.memory else min(self.iterations, scenario.most)
        return -(-total * (visit + 1) // self.visits) + (-total * visit // self.visits)


@dataclass(slots=True)
class Work:
    """A cell under way."""

    scenario: Scenario
    cell: Cell
    taken: Taken = field(default_factory=Taken)

    def shorten(self) -> None:
        """Ask for less from now on, and say so."""
        self.scenario = self.scenario.shortened()
        self.cell.params = self.scenario.params


@dataclass(slots=True)
class Speed:
    """How fast an engine has shown to be, to guess how long something will take, by length of the prompt: ``first_s``,
    seconds to the first token, and ``decode``, tokens a second."""

    first_s: dict[int, float] = field(default_factory=dict)
    decode: dict[int, float] = field(default_factory=dict)

    def learn(self, prompt: int, timeline: Timeline) -> None:
        if len(timeline.at_ms) > 1 and timeline.at_ms[-1] > timeline.at_ms[0] > 0:
            self.first_s[prompt] = timeline.at_ms[0] / 1e3
            self.decode[prompt] = (len(timeline.at_ms) - 1) / (timeline.at_ms[-1] - timeline.at_ms[0]) * 1e3

    def seconds(self, scenario: Scenario) -> float:
        """If requests came one after another; 0 where nothing is known."""
        if not self.first_s:
            return 0.0
        length = scenario.prompt_tokens
        like = max((n for n in self.decode if n <= length), default=min(self.decode))
        return scenario.requests * (self.prefill(length) + scenario.new_tokens / self.decode[like])

    def prefill(self, tokens: int) -> float:
        """Seconds: a n + b n², attention being b's part, as the two longest prompts show that are no longer."""
        known = sorted(self.first_s.items())
        *before, (length, took) = [pair for pair in known if pair[0] <= tokens] or known[:1]
        rate, bend = took / length, 0.0
        if before and length < tokens:
            shorter, quick = before[-1]
            bend = max(0.0, (took / length - quick / shorter) / (length - shorter))
        return rate * tokens + bend * tokens * (tokens - length)


class Turn:
    """``tell`` is called with a line about what is being done, ``done`` with each cell that has news; ``load_s``: no
    load takes longer (None: as any call); ``embeds``: the model makes vectors, not answers."""

    def __init__(
        self,
        driver: Driver,
        tokenizer: Tokenizer,
        limits: Limits,
        browsers: Browsers,
        pace: Pace,
        cores: int,
        tell: Callable[[str], None],
        done: Callable[[Work], None],
        load_s: float | None = None,
        embeds: bool = False,
    ) -> None:
        self._driver = driver
        self._tokenizer = tokenizer
        self._limits = limits
        self._browsers = browsers
        self._pace = pace
        self._cores = cores
        self._tell = tell
        self._done = done
        self._load_s = load_s
        self._embeds = embeds
        self._pages: Visit | None = None
        self._settled = False
        self.speed = Speed()
        self.loading_s = 0.0  # what loads took, with the first tokens after them

    async def run(self, works: Sequence[Work], visit: int) -> None:
        """One visit. Raises what the engine's loading raises, `InpageError` or not."""
        driver = self._driver
        opening = (
            self._browsers.visit(webgpu=driver.engine.backend == "webgpu")
            if driver.engine.in_page
            else contextlib.nullcontext(None)
        )
        async with opening as pages:
            self._pages = pages
            try:
                await self._visit(works, visit)
            finally:
                await driver.close()
                self._pages = None

    async def _visit(self, works: Sequence[Work], visit: int) -> None:
        loads = {work.scenario.name: work for work in works if work.scenario.kind == "load"}
        await self._load(loads.get("load-cold") if self._pages else None, visit)
        if "load-cold" in loads and self._pages is None:
            loads["load-cold"].cell.error = "unsupported: a native engine fetches nothing"
        asked = [work for work in works if work.scenario.kind != "load" and self._limits.share(work.scenario, visit)]
        holding = [work for work in asked if work.scenario.memory and work.cell.error is None]
        for work in holding:  # in an engine that holds nothing else, and whose pages nobody finds afterwards
            await self._try(work, visit)
        if "load-cached" in loads or holding:
            if self._pages is not None and not holding:
                await asyncio.sleep(_STAY_S)
            await self._driver.close()
            await self._load(loads.get("load-cached"), visit)
        for work in asked:
            if not work.scenario.memory:
                await self._try(work, visit)

    async def _try(self, work: Work, visit: int) -> None:
        """A cell that fails says why; what hung or broke is loaded anew for the next."""
        if work.cell.error is not None:
            return
        try:
            await self._measure(work, visit)
        except Exception as error:
            work.cell.error = text_of(error)
            if not isinstance(error, Unsupported):
                await self._driver.close()
                await self._load(None, visit)
        finally:
            self._done(work)

    async def _load(self, work: Work | None, visit: int) -> None:
        self._tell("loading" if work is None else work.scenario.title)
        self._pace.sample()
        pages: Pages = self._pages if self._pages is not None else _NoPages()
        if work is not None and self._pages is not None:
            await self._pages.rest()
        began = time.perf_counter()
        self._settled = False
        facts: LoadFacts = await self._limited(self._driver.load(pages), self._load_s)
        first = await self._first()
        self.loading_s += time.perf_counter() - began
        self.speed.learn(LOAD_PROMPT, first)
        if work is not None:
            work.taken.load(facts, first, visit)
            self._done(work)

    async def _first(self) -> Timeline:
        if self._embeds:
            found = await self._limited(self._driver.embed([prompts.text("hello", LOAD_PROMPT)], together=True))
            return Timeline([], [], found.at_ms[-1])
        prompt = prompts.prompt(self._tokenizer, "hello", LOAD_PROMPT)
        first = await self._limited(self._driver.generate(prompt, _FIRST))
        if first.error is not None:
            raise InpageError(first.error)
        return first

    async def _measure(self, work: Work, visit: int) -> None:
        taken, limits = work.taken, self._limits
        short, expected = work.scenario.short, self.speed.seconds(work.scenario)
        if short is not None and expected > short.after_s and not taken.iterations and limits.may_shorten:
            work.shorten()
            expected = self.speed.seconds(work.scenario)
        scenario = work.scenario
        # Requests that are served together overlap, so that they take less; a single answer takes what it takes.
        if expected > limits.longest_s * (1.5 if scenario.kind == "serve" else _SURE):
            raise Unsupported(
                f"would take about {expected:.0f} s, too near to the limit of {limits.longest_s:g} s to begin"
            )
        share, warm = limits.share(scenario, visit), 0
        warms = scenario.kind == "embed" or (scenario.kind == "answer" and not scenario.memory) or scenario.together
        if warms:
            warm = 0 if expected > _SLOW_S and not limits.exact and scenario.name != HEAT.name else limits.warmup
        work.cell.warmup = max(work.cell.warmup, warm)
        allowed = limits.budget_s * (visit + 1) / limits.visits
        likely = max(expected, _typical(taken))
        enough = taken.iterations >= (scenario.least if likely <= _LONG_S else 1)
        if share == 0 or (enough and likely > _SLOW_S and taken.spent_s + likely > allowed):
            return
        if warms and not self._settled:
            self._settled = True
            await self._limited(self._driver.settle())
        for i in range(warm):
            self._tell(f"{scenario.title} · warming up")
            number = -1 - visit * 1000 - i
            if scenario.kind == "embed":
                await self._embed(scenario, number)
            else:
                await self._ask(scenario, scenario.prompts(self._tokenizer, number))
        pids = self._pids()
        processes.reset_peaks(pids)
        began, spent = time.perf_counter(), taken.spent_s
        for i in range(share):
            taken.spent_s = spent + time.perf_counter() - began
            if i and taken.spent_s + _typical(taken) > allowed:
                break
            number = taken.iterations
            self._tell(f"{scenario.title} · {number + 1} of {number + share - i}")
            await self._iteration(work, number, pids, visit)
        taken.spent_s = spent + time.perf_counter() - began
        heap = None if self._pages is None else await self._pages.heap()
        taken.held(processes.memory_of(pids), heap, await self._limited(self._driver.usage()), visit)

    async def _iteration(self, work: Work, number: int, pids: list[int], visit: int) -> None:
        scenario, taken = work.scenario, work.taken
        embeds = scenario.kind == "embed"
        asked = [] if embeds else scenario.prompts(self._tokenizer, number)
        self._pace.sample()
        counted = await self._limited(self._driver.counters())
        before, began = processes.cpu_of(pids), time.perf_counter()
        if embeds:
            found = await self._embed(scenario, number)
            taken.work(before, processes.cpu_of(pids), time.perf_counter() - began, self._cores, visit)
            if taken.iterations == 0:
                work.cell.series["vector"] = found.vector
            taken.embedded(scenario, found, visit)
            taken.counted(counted, await self._limited(self._driver.counters()))
            return
        timelines = await self._ask(scenario, asked)
        wall, after = time.perf_counter() - began, processes.cpu_of(pids)
        if scenario.kind == "answer":
            if timelines[0].error is not None:
                raise InpageError(timelines[0].error)
            self.speed.learn(scenario.prompt_tokens, timelines[0])
        if taken.iterations == 0:
            work.cell.output_ids = timelines[0].ids or None
        taken.answers(scenario, timelines, visit)
        taken.work(before, after, wall, self._cores, visit)
        taken.counted(counted, await self._limited(self._driver.counters()))
        if scenario.distinct and taken.counters.get("cache_hits.memory"):
            taken.kept(await self._ask(scenario, asked), visit)  # by now all of them are

    async def _embed(self, scenario: Scenario, number: int) -> Embedded:
        found = await self._limited(self._driver.embed(scenario.texts(number), together=scenario.together))
        length = math.hypot(*found.vector)
        if not math.isclose(length, 1, abs_tol=1e-3):
            raise InpageError(f"made a vector of length {length:.3g}, not 1")
        return found

    async def _ask(self, scenario: Scenario, asked: list[list[int]]) -> list[Timeline]:
        driver, new = self._driver, scenario.new_tokens
        if scenario.kind == "answer":
            return [await self._limited(driver.generate(asked[0], new))]
        try:
            return await self._limited(driver.serve(asked, new, scenario.clients))
        except Unsupported as error:
            if scenario.together:
                raise
            if scenario.clients > _ONE_AT_A_TIME:
                raise Unsupported(f"{error}; concurrency-{_ONE_AT_A_TIME} shows what queueing gives") from error
            return await self._queue(asked, new, scenario.clients)

    async def _queue(self, asked: list[list[int]], new_tokens: int, clients: int) -> list[Timeline]:
        """Requests to an engine that takes one at a time, as callers see it: those at once wait for each other."""
        began = time.perf_counter()
        ends: list[float] = []
        timelines = []
        for place, prompt in enumerate(asked):
            offset = (time.perf_counter() - began) * 1e3
            timeline = await self._limited(self._driver.generate(prompt, new_tokens))
            timeline.at_ms = [at + offset for at in timeline.at_ms]
            timeline.done_ms += offset
            # The first ``clients`` are there from the start; each further one comes when an answer ends.
            timeline.begun_ms = 0.0 if place < clients else ends[place - clients]
            ends.append(timeline.done_ms)
            timelines.append(timeline)
        return timelines

    def _pids(self) -> list[int]:
        if self._pages is None:
            return self._driver.processes()
        if self._pages.profile is None:  # a browser elsewhere
            return []
        gpu = self._driver.engine.backend == "webgpu"
        return processes.renderers(self._pages.profile, gpu=gpu)

    async def _limited(self, call: Awaitable[T], seconds: float | None = None) -> T:
        longest = seconds or self._limits.longest_s
        try:
            async with asyncio.timeout(longest):
                return await call
        except TimeoutError:
            raise DeviceLost(f"took longer than {longest:.3g} s and was given up") from None


class _NoPages:
    """What a native engine is given."""

    async def open(self, files: Files, path: str) -> Tab:
        raise Unsupported("this engine was started without a browser: its row must say in_page")


def text_of(error: BaseException) -> str:
    """One line for the results."""
    text = " ".join(str(error).split()) or type(error).__name__
    known = isinstance(error, InpageError)
    code = error.code if isinstance(error, InpageError) else type(error).__name__
    return text if known and text.startswith(code) else f"{code}: {text}"


def _typical(taken: Taken) -> float:
    """Seconds that one more iteration will take."""
    return taken.spent_s / taken.iterations if taken.iterations else 0.0


def fastest(works: Iterable[Work]) -> Work | None:
    """The heat's winner: the shortest answer, or call for vectors, from asking to its end."""

    def took(work: Work) -> list[float]:
        return work.taken.samples.get("e2e_ms") or work.taken.samples.get("embed_ms") or []

    return min(filter(took, works), key=lambda work: min(took(work)), default=None)
