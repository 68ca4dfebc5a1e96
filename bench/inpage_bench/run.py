"""A whole run: engines take turns (A B C, B C A, …), so that whatever the machine does meanwhile meets all of them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inpage.cli import paths
from inpage.errors import InpageError
from inpage.format.manifest import parse_manifest
from inpage.format.schema import Manifest
from inpage.host.capability import host_device
from inpage.text.tokenizer import Tokenizer, load_tokenizer

from . import against_native, embeddings, environment, ours, outcome, processes, room, targets
from .board import Board
from .browser import Browsers, Seen, Where
from .driver import Driver, PeerFactory, Setup, Subject
from .peaks import measure_peaks
from .results import Cell, Engine, Model, Peaks, Results, Shard
from .scenarios import EMBEDDING_HEAT, HEAT, Scenario, shard
from .turn import Limits, Turn, Work, fastest, text_of

_KEEP_S = 30.0  # writing takes up to 0.3 s
_SLOWEST_LOAD = 25e6  # bytes a second


@dataclass(frozen=True, slots=True)
class Options:
    """What a command line asks for. ``peers``: name → factory. ``part``: (i, n) of a split matrix, from 1. ``keep``
    gets the results every few seconds while they grow."""

    models: Sequence[Path]
    backends: Sequence[str]
    scenarios: Sequence[Scenario]
    peers: dict[str, PeerFactory]
    limits: Limits
    where: Where
    threads: int
    command: str
    quick: bool = False
    part: tuple[int, int] = (1, 1)
    keep: Callable[[Results], None] | None = None
    trust: bool = False


@dataclass(slots=True)
class Row:
    """One engine on one model. ``out``: it could not go on; ``content``: it loads so slowly that one visit must do."""

    index: int
    driver: Driver
    works: list[Work] = field(default_factory=list)
    out: bool = False
    content: bool = False


class Run:
    def __init__(self, options: Options) -> None:
        self.options = options
        name = f"{options.part[0]}/{options.part[1]}" if options.part[1] > 1 else ""
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        tool = environment.tool()
        here = environment.environment(Seen(), remote=False, load_before=None, foreign=None, pace=None)
        self.results = Results(created, options.command, 0.0, tool, here, complete=False)
        self.results.shards = [Shard(name, created, options.command, 0.0, tool, here)]
        self.board = Board(self.results, [s.name for s in options.scenarios])
        self._pace = environment.Pace()
        self._began = self._kept = time.perf_counter()
        self._load, self._watch = environment.load_average(), processes.Watch()
        self._seen: Seen = Seen()
        self._peaks: Peaks | None = None

    async def run(self) -> Results:
        """Raises for what makes the whole run pointless (no browser, no model); an engine's failure is a result. What
        was measured before it raised, or was cancelled, is in ``results``."""
        options, results = self.options, self.results
        try:
            async with contextlib.AsyncExitStack() as stack:
                browsers = await stack.enter_async_context(Browsers(options.where))
                webgpu = any(name.startswith("webgpu") for name in options.backends)
                self._seen = await browsers.look(webgpu=webgpu)
                self._peaks = await self._measure_peaks(browsers)
                subjects = [_subject(folder) for folder in options.models]
                results.models = [subject.record for subject, _ in subjects]
                matrix = [
                    (subject.record.id, scenario)
                    for subject, _ in subjects
                    for scenario in options.scenarios
                    if scenario.suits(embeds=subject.record.embeds)
                ]
                mine = shard(matrix, *options.part)
                for subject, tokenizer in subjects:
                    scenarios = [scenario for model, scenario in mine if model == subject.record.id]
                    if scenarios:
                        await self._model(subject, tokenizer, scenarios, browsers)
            results.complete = True
        finally:
            self._watch.end()
            self._sum_up()
            self._pace.close()
            if results.cells:
                self.board.end()
        return results

    def _sum_up(self) -> None:
        """All that the results say of the run as it is now, and what follows from the cells."""
        results, where = self.results, self.options.where
        remote = where.connect is not None  # then it is another machine that counts
        results.environment = environment.environment(
            self._seen, remote=remote, load_before=self._load, foreign=None if remote else self._watch.share(),
            pace=self._pace, peaks=self._peaks,
        )  # fmt: skip
        results.duration_s = round(time.perf_counter() - self._began, 1)
        whole = results.shards[0]
        whole.duration_s, whole.environment = results.duration_s, results.environment
        sum_up(results)

    def _keep(self) -> None:
        """Write down what there is, every few seconds: between measurements, where it disturbs none."""
        keep, now = self.options.keep, time.perf_counter()
        if keep is not None and now - self._kept > _KEEP_S:
            self._sum_up()
            keep(self.results)
            self._kept = time.perf_counter()

    async def _model(
        self, subject: Subject, tokenizer: Tokenizer, scenarios: Sequence[Scenario], browsers: Browsers
    ) -> None:
        if subject.record.random:
            self.board.note(f"{subject.record.id} is measured by shape, with random weights")
        drivers = [
            *ours.drivers(subject, list(self.options.backends), self.options.threads, trust=self.options.trust),
            *await self._peers(subject),
        ]
        rows = [self._row(driver) for driver in drivers]

        def turn(row: Row, limits: Limits) -> Turn:
            return Turn(
                row.driver, tokenizer, limits, browsers, self._pace, host_device().cores,
                tell=lambda what: self.board.tell(row.driver.engine.name, what),
                done=lambda work: self._news(row, work),
                load_s=limits.longest_s + subject.record.weight_bytes / _SLOWEST_LOAD, embeds=subject.record.embeds,
            )  # fmt: skip

        await self._heats(rows, subject, turn)
        for row in rows:
            if not row.out:
                asked = [s for s in scenarios if not s.memory or _in_our_page(row.driver.engine)]
                row.works = [self._work(row, subject, scenario) for scenario in asked]
        for visit in range(self.options.limits.visits):
            first = visit % len(rows) if rows else 0
            for row in [*rows[first:], *rows[:first]]:
                if not row.out and not row.content:
                    await self._turn(row, subject, turn(row, self.options.limits), row.works, visit)

    async def _measure_peaks(self, browsers: Browsers) -> Peaks | None:
        """What the machine can do at most; a machine that cannot be measured is no reason to measure no engine."""
        options = self.options
        self.board.tell("the machine", "what it can do at most")
        try:
            async with browsers.visit() as visit:
                remote = options.where.connect is not None
                return await measure_peaks(visit, [1, options.threads], remote=remote, quick=options.quick)
        except InpageError as error:
            self.board.note(f"the machine's peaks were not measured: {error}")
            return None

    async def _peers(self, subject: Subject) -> list[Driver]:
        options = self.options
        drivers: list[Driver] = []
        for name, factory in options.peers.items():
            self.board.tell(name, "setting up")
            cache = paths.models().parent / "peers"
            cache.mkdir(parents=True, exist_ok=True)
            say = functools.partial(self.board.tell, name)
            try:
                drivers += await factory(Setup(subject, options.threads, cache, say, options.quick))
            except Exception as error:
                failed = Engine(name, "peer", "", "", options.threads, "", "", family=name, error=text_of(error))
                self.results.engines.append(failed)
                self.board.note(f"{name} cannot run: {failed.error}")
        return drivers

    def _row(self, driver: Driver) -> Row:
        self.results.engines.append(driver.engine)
        return Row(len(self.results.engines) - 1, driver)

    def _work(self, row: Row, subject: Subject, scenario: Scenario) -> Work:
        cell = Cell(row.index, subject.record.id, scenario.name, scenario.title, scenario.params)
        self.results.cells.append(cell)
        cell.error = room.lacking(row.driver.engine, subject.record, scenario)
        return Work(scenario, cell)

    async def _heats(self, rows: Sequence[Row], subject: Subject, turn: Callable[[Row, Limits], Turn]) -> None:
        """Of a family with several forms only the fastest goes on."""
        families: dict[str, list[Row]] = {}
        for row in rows:
            if row.driver.engine.family:
                families.setdefault(row.driver.engine.family, []).append(row)
        limits = replace(self.options.limits, iterations=1, warmup=1, visits=1, exact=False)
        for family in families.values():
            if len(family) < 2:
                continue
            heats: list[tuple[Row, Work]] = []
            for row in family:
                work = self._work(row, subject, EMBEDDING_HEAT if subject.record.embeds else HEAT)
                await self._turn(row, subject, turn(row, limits), [work], 0)
                heats.append((row, work))
            best = fastest(work for _, work in heats)
            for row, work in heats:
                if work is not best and best is not None and not row.out and not row.driver.engine.baseline:
                    row.out = True
                    winner = self.results.engines[best.cell.engine].name
                    row.driver.engine.notes.append(f"went no further: {winner} is faster, and the fastest form counts")

    async def _turn(self, row: Row, subject: Subject, turn: Turn, works: Sequence[Work], visit: int) -> None:
        try:
            if row.driver.engine.in_page and self.options.where.connect is None:
                room.check_page(subject)
            await turn.run(works, visit)
            limits = self.options.limits
            if visit == 0 and limits.visits > 1 and turn.loading_s > limits.budget_s:
                row.content = True
                row.driver.engine.notes.append(f"was visited once: loading took {turn.loading_s:.0f} s")
        except Exception as error:
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError from error  # what is interrupted fails in ways of its own
            row.out = True
            text = text_of(error)
            unfinished = [work for work in works if not work.taken.samples and work.cell.error is None]
            for work in unfinished:
                work.cell.error = text
            if all(not work.taken.samples for work in works):
                row.driver.engine.error = text
            else:
                row.driver.engine.notes.append(f"gave up in visit {visit + 1}: {text}")
            self.board.note(f"{row.driver.engine.name} cannot go on: {text}")
        for work in works:
            self._news(row, work)

    def _news(self, row: Row, work: Work) -> None:
        if (task := asyncio.current_task()) and task.cancelling():
            raise asyncio.CancelledError  # whatever came between made an error of the interrupt
        work.cell.notes = []
        work.taken.finish(work.cell, work.scenario)
        self.board.cell(row.index, work.scenario.name)
        self._keep()


def _in_our_page(engine: Engine) -> bool:
    return engine.kind == "inpage" and engine.in_page


def sum_up(results: Results) -> None:
    """What follows from the cells."""
    results.pairs = outcome.pairs(results)
    results.differences = outcome.differences(results)
    outcome.note_cosines(results)
    results.targets = [*targets.targets(results), *against_native.lines(results), *embeddings.lines(results)]


def _subject(folder: Path) -> tuple[Subject, Tokenizer]:
    manifest = parse_manifest((folder / "manifest.json").read_bytes())
    tokenizer = load_tokenizer((folder / manifest.tokenizer.file).read_text("utf-8"), manifest.tokenizer.special)
    plan = json.loads((folder / manifest.variants[0].files["plan"].file).read_text("utf-8"))
    return Subject(_record(manifest, plan), folder, manifest), tokenizer


def _record(manifest: Manifest, plan: dict[str, Any]) -> Model:
    """The context is what the model was compiled for, which may be less than it could."""
    pages = [buffer["page_bytes"] for buffer in plan["buffers"] if buffer["kind"] == "kv"]
    parameters = 0
    weight: dict[str, int] = {}
    for tensor in manifest.tensors:
        count = 1
        for length in tensor.shape:
            count *= length
        parameters += count
        weight[tensor.format] = weight.get(tensor.format, 0) + count
    forms = sorted((name for name in weight if weight[name] * 50 > parameters), key=lambda name: -weight[name])
    return Model(
        id=manifest.id,
        name=manifest.name,
        parameters=parameters,
        weight_bytes=manifest.weights.bytes,
        f16_bytes=2 * parameters,
        weights=", ".join(name.upper() for name in forms),
        sha256=manifest.revision,
        context=int(plan["maxima"]["context"]),
        random=manifest.source.random,
        kv_token_bytes=sum(pages) // plan["page_tokens"],
        embeds=manifest.embedding is not None,
    )
