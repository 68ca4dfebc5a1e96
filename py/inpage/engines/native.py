"""The native engine, for CPython: kernels.so in this process, through ctypes.

Weights are the artifact's files, mapped and verified (`mapping`); KV pages are a large reservation that the operating
system backs page by page as they are first written. Calls run in a worker thread, so the event loop goes on and a burst
can be interrupted through the doorbell.
"""

from __future__ import annotations

import _ctypes
import asyncio
import contextlib
import ctypes
import os
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ArtifactInvalid, DeviceLost, InvalidRequest, OutOfMemory
from ..format.abi import MAX_THREADS, SCORE_WORDS, SEQUENCE_WORDS
from ..format.plan import parse_plan
from ..format.plan_types import Buffer, Plan
from ..format.schema import Manifest
from . import batch as flat
from .block_tables import pages_needed, tables_on
from .guided_decoding import Held, likeliest
from .mapping import MappedWeights, available_bytes, base, lay_out, physical_bytes, prefer_huge_pages, reserve
from .native_guidance import Guidance
from .native_kernels import calibrate_spins, choose, time_kernels
from .native_library import address, check, open_kernels, read_file
from .native_program import check_room, kind_of, load_program
from .native_trust import require_trust
from .protocol import (
    RUNTIME_COUNTS,
    EngineInfo,
    Grammar,
    KernelTiming,
    OnTokens,
    Progress,
    RunOutput,
    SequenceInput,
    StepOutput,
)

T = TypeVar("T")
KV_BYTES = 1 << 32  # kernels count halves in 32 bits, sign included


class NativeEngine:
    """See `inpage.engines.protocol.Engine`. Make one with `load`; several may live in one process."""

    def __init__(self, plan: Plan, kernels: bytes, weights: MappedWeights, *, variant: str, threads: int,
                 max_pages: int, started: float, guidance: Guidance, warnings: tuple[str, ...] = (),
                 ) -> None:  # fmt: skip
        """Place buffers, load the program, start the threads. ``weights`` are the engine's from now on."""
        self._plan = plan
        self._weights = weights
        self._guidance = guidance
        self._kv = reserve(max_pages * plan.page_bytes, "KV pages")
        self._lib: ctypes.CDLL | None = open_kernels(kernels)
        self._offsets, size = lay_out(plan)
        self._work = reserve(size, "the arena")
        prefer_huge_pages(self._work)
        load_program(self._lib, plan, self._address)
        if self._lib.inpage_set_threads(threads) != 0:
            raise OutOfMemory(f"{threads} threads cannot be started")
        calibrate_spins(self._lib)
        self._doorbell = ctypes.c_int32.from_address(self._lib.inpage_doorbell())
        self._pages = 0
        self._busy = asyncio.Lock()
        self._busy_s = 0.0
        self._rung = False
        m = plan.maxima
        self._info = EngineInfo(
            backend="native",
            grammars=guidance.there,
            variant=variant,
            threads=threads,
            vocab=plan.vocab,
            context=m.context,
            page_tokens=plan.page_tokens if plan.paged else 1,
            page_bytes=plan.page_bytes,
            max_rows=m.rows,
            max_sequences=m.sequences,
            max_logit_rows=m.logit_rows,
            max_pages=max_pages,
            **kind_of(plan),
            weight_bytes=weights.bytes,
            arena_bytes=plan.arena_bytes,
            alternatives=tuple(tuple(plan.kernels[k].name for k in group) for group in plan.alternatives),
            groups=plan.kv_groups,
            load_ms=(time.perf_counter() - started) * 1e3,
            warnings=warnings,
        )

    @classmethod
    async def load(
        cls,
        folder: Path,
        manifest: Manifest,
        *,
        variant: str = "native",
        threads: int | None = None,
        max_pages: int | None = None,
        trust: bool = False,
        grammars: bool = False,
        mlock: bool = False,
        on_progress: Progress | None = None,
    ) -> NativeEngine:
        """Load a variant of the artifact in ``folder``. ``max_pages``: KV pages to reserve room for, by default a
        whole context for every sequence, as far as three quarters of the machine's memory go; at most `KV_BYTES` of
        them in any case. ``trust``: run kernels that this machine did not compile. ``grammars``: follow them,
        which takes what `native_needs` names. ``mlock``: keep the weights in memory, as far as the system allows, which
        `EngineInfo.warnings` says. Progress is in bytes.
        Raises `ArtifactInvalid` for a file that is missing or is not what the manifest says, `Untrusted`,
        `Unsupported`, `OutOfMemory`, `InvalidRequest`."""
        started = time.perf_counter()
        files = manifest.variant(variant).files
        count = threads if threads is not None else min(MAX_THREADS, os.cpu_count() or 1)
        if not 1 <= count <= MAX_THREADS:
            raise InvalidRequest(f"{count} threads; must be 1 to {MAX_THREADS}", field="threads")

        def read() -> NativeEngine:
            plan = parse_plan(read_file(folder, files["plan"], "plan"), manifest.tensors)
            if plan.vocab != manifest.architecture.vocab:
                raise ArtifactInvalid("the plan's vocabulary is not the model's", field="plan.vocab")
            if plan.maxima.context > manifest.architecture.context:
                raise ArtifactInvalid("the plan's context is longer than the model's", field="plan.maxima.context")
            grouped = sum(len(group.layers) for group in plan.kv_groups)
            if plan.kv_groups and grouped != manifest.architecture.layers:
                raise ArtifactInvalid("the plan's groups do not have the model's layers", field="plan.kv_groups")
            kernels = read_file(folder, files["kernels"], "kernels")
            require_trust(folder, files["kernels"].file, kernels, trust)
            if plan.width != manifest.width:
                raise ArtifactInvalid("the plan's width is not the model's", field="plan.width")
            pages = plan.maxima.sequences * plan.blocks_per_sequence if plan.paged else 0
            if plan.paged:
                pages = min(pages, physical_bytes() * 3 // 4 // plan.page_bytes) if max_pages is None else max_pages
                pages = min(pages, KV_BYTES // plan.page_bytes)
            check_room(manifest.weights.bytes, plan)
            follows = grammars and plan.paged
            guidance = Guidance.open(folder, manifest, plan.maxima.sequences) if follows else Guidance()
            weights = MappedWeights.open(folder, manifest, report)
            try:
                warnings = _lock(weights) if mlock else ()
                return cls(plan, kernels, weights, variant=variant, threads=count, max_pages=pages, started=started,
                           guidance=guidance, warnings=warnings)  # fmt: skip
            except BaseException:
                weights.close()
                raise

        loop = asyncio.get_running_loop()

        def report(event: dict[str, Any]) -> None:
            if on_progress is not None:
                loop.call_soon_threadsafe(on_progress, event)

        engine = await asyncio.to_thread(read)
        total = manifest.weights.bytes
        if on_progress is not None:
            on_progress({"phase": "ready", "loaded": total, "total": total, "fromCache": False, "shard": None})
        return engine

    @property
    def info(self) -> EngineInfo:
        return self._info

    def counters(self) -> dict[str, int]:
        """What the runtime did since load."""
        words = (ctypes.c_uint32 * len(RUNTIME_COUNTS)).from_address(self._library().inpage_counters())
        return dict(zip(RUNTIME_COUNTS, words, strict=True))

    async def counts(self) -> dict[str, int]:
        return self.counters()

    async def reserve_pages(self, pages: int) -> None:
        self._library()
        if pages < 0:
            raise InvalidRequest("must not be negative", field="pages")
        more = (pages - self._pages) * self._plan.page_bytes
        if pages > self._info.max_pages or (more > 0 and more > available_bytes()):
            raise OutOfMemory(f"{pages} KV pages of {self._plan.page_bytes} bytes do not fit in memory", field="pages")
        self._pages = max(self._pages, pages)

    async def read_pages(self, pages: Sequence[int]) -> bytes:
        places = self._places(pages)
        return await self._call(lambda _: b"".join(self._kv[place] for place in places))

    async def write_pages(self, pages: Sequence[int], data: bytes) -> None:
        size, places = self._plan.page_bytes, self._places(pages)
        if len(data) != len(places) * size:
            raise InvalidRequest(f"{len(data)} bytes for {len(places)} KV pages of {size}", field="data")

        def write(_: ctypes.CDLL) -> None:
            for i, place in enumerate(places):
                self._kv[place] = data[i * size : (i + 1) * size]

        await self._call(write)

    async def prepare(self, grammar: Grammar) -> None:
        await asyncio.to_thread(self._guidance.prepare, grammar)

    async def step(self, feeds: Sequence[SequenceInput]) -> list[StepOutput]:
        held = self._guidance.held([feed for feed in feeds if feed.sample])
        batch = flat.step_batch(feeds, self._limits())
        return await self._call(lambda lib: self._step(lib, batch, feeds, held))

    async def run(
        self, feeds: Sequence[SequenceInput], max_steps: int, on_tokens: OnTokens | None = None
    ) -> list[RunOutput]:
        held = self._guidance.held(feeds)
        batch = flat.run_batch(feeds, max_steps, self._limits())
        tell = None if on_tokens is None else _from_thread(on_tokens)
        self._guidance.serve(held)
        if held or any(feed.top is not None for feed in feeds):
            return await self._call(lambda lib: self._stepwise(lib, batch, max_steps, feeds, held, tell))
        if tell is None:
            return await self._call(lambda lib: self._run(lib, batch, max_steps))
        return await self._call(lambda lib: self._tell(lib, batch, max_steps, tell))

    async def choose_kernels(self, names: Sequence[str]) -> None:
        await self._call(lambda lib: choose(lib, self._plan, names))

    async def time_kernels(self, kernels: Sequence[KernelTiming], budget_s: float) -> list[float | None]:
        return await self._call(lambda lib: time_kernels(lib, self._plan, kernels, budget_s, self._trial))

    def _trial(self, rows: int, depth: int) -> tuple[int, int, int] | None:
        """Place a batch of ``rows`` made-up tokens, after ``depth`` others, on pages that belong to no sequence. Rows,
        sequences and logit rows; None where there are no such pages."""
        info, m = self._info, self._plan.maxima
        if not self._plan.paged:
            whole = SequenceInput([(37 * i + 1) % info.vocab for i in range(rows)], 0, (), want_logits=True)
            self._place(flat.step_batch([whole], self._limits()))
            return rows, 1, 1
        each = pages_needed(info, depth + 1)
        if rows > min(m.sequences, m.logit_rows) or self._pages + rows * each > info.max_pages:
            return None
        feeds = []
        for i in range(rows):
            tables = tables_on(info, depth + 1, range(self._pages + i * each, self._pages + (i + 1) * each))
            token = (37 * i + 1) % info.vocab
            feeds.append(SequenceInput([token], depth, tables[0], tables=tables, want_logits=True))
        self._place(flat.step_batch(feeds, replace(self._limits(), pages=self._pages + rows * each)))
        return rows, rows, rows

    def drop(self, request: str) -> None:
        """Nothing is kept of a sequence but its pages."""

    async def interrupt(self) -> None:
        if self._lib is not None and self._busy.locked():
            self._rung = True  # the runtime forgets that its bell rang when a burst's last step ends
            self._doorbell.value = 1

    @property
    def busy_s(self) -> float:
        return self._busy_s

    async def unload(self) -> None:
        await self.interrupt()
        async with self._busy:
            if self._lib is None:
                return
            lib, self._lib = self._lib, None
            lib.inpage_set_threads(1)  # ends the workers
            _ctypes.dlclose(lib._handle)
            for memory in (self._weights, self._kv, self._work):
                memory.close()

    # -- in the worker thread ----------------------------------------------------------------------------------

    def _timed(self, work: Callable[[ctypes.CDLL], T], lib: ctypes.CDLL) -> T:
        began = time.perf_counter()
        try:
            return work(lib)
        finally:
            self._busy_s += time.perf_counter() - began

    def _step(self, lib: ctypes.CDLL, batch: flat.StepBatch, feeds: Sequence[SequenceInput],
              held: dict[int, Held]) -> list[StepOutput]:  # fmt: skip
        mask = self._guidance.mask(held, batch.sequences)
        self._place(batch)
        rows, logit_rows = len(batch.token_ids), len(batch.logit_rows)
        check(lib.inpage_step(rows, len(feeds), logit_rows))
        scores = None
        if batch.targets is not None:
            scores = array("i", bytes(4 * SCORE_WORDS * logit_rows))
            check(lib.inpage_score(address(batch.targets), logit_rows, address(scores)))
        if batch.sequences is not None:
            n = len(batch.sequences) // SEQUENCE_WORDS
            check(lib.inpage_sample(address(batch.sequences), n, address(batch.bias), mask and address(mask)))
        logits = None
        if batch.want_logits:
            at = self._offsets[self._plan.io["logits"]]
            logits = self._work[at : at + 4 * logit_rows * self._plan.width]
        outs = flat.step_outputs(batch, batch.sequences, logits, scores, self._plan.width)
        for row, feed, out in zip(batch.chosen, feeds, outs, strict=True):
            if row is not None and feed.top is not None and out.token is not None and out.logprob is not None:
                out.logprobs = [likeliest(self._logits(row), out.token, out.logprob, feed.top)]
        return outs

    def _run(self, lib: ctypes.CDLL, batch: flat.RunBatch, steps: int, mask: array[int] | None = None,
             ) -> list[RunOutput]:  # fmt: skip
        self._put("block_tables", batch.block_tables)
        done, out = self._steps(lib, batch, steps, mask)
        return flat.run_outputs(batch.n, done, out, flat.finished_words(batch.n, batch.sequences))

    def _stepwise(self, lib: ctypes.CDLL, batch: flat.RunBatch, max_steps: int, feeds: Sequence[SequenceInput],
                  held: dict[int, Held], tell: OnTokens | None) -> list[RunOutput]:  # fmt: skip
        """A step at a time: the next choice may depend on this one, and logits last until the next step."""
        outs, told = _empty(batch.n), 0.0
        for left in reversed(range(max_steps)):
            stepped = self._run(lib, batch, 1, self._guidance.mask(held, batch.sequences))
            for row, i in enumerate(i for i, out in enumerate(stepped) if out.tokens):
                token, logprob, _ = flat.choice(batch.sequences, i)
                top = feeds[i].top
                outs[i].tokens.append(token)
                if top is not None:
                    outs[i].logprobs = [*outs[i].logprobs, likeliest(self._logits(row), token, logprob, top)]
                if i in held:
                    held[i].tokens.append(token)
            for i, out in enumerate(stepped):
                outs[i].finished = out.finished
                if out.finished and i in held:
                    self._guidance.ended(held.pop(i))
            if self._rung or left == 0 or all(out.finished for out in outs):
                break
            if tell and time.perf_counter() - told >= flat.tell_seconds(batch.n):
                tell(outs)
                outs, told = _empty(batch.n), time.perf_counter()
        return outs

    def _tell(self, lib: ctypes.CDLL, batch: flat.RunBatch, max_steps: int, tell: OnTokens) -> list[RunOutput]:
        """The same in slices. What the last one brought is returned."""
        self._put("block_tables", batch.block_tables)
        done, some = 0, 1
        while True:
            some = min(some, max_steps - done)
            began = time.perf_counter()
            steps, out = self._steps(lib, batch, some)
            took = time.perf_counter() - began
            outs = flat.run_outputs(batch.n, steps, out, flat.finished_words(batch.n, batch.sequences))
            done += steps
            if steps < some or done == max_steps or self._rung or all(out.finished for out in outs):
                return outs
            tell(outs)
            some = flat.next_slice(some, took, flat.tell_seconds(batch.n))

    def _steps(self, lib: ctypes.CDLL, batch: flat.RunBatch, most: int, mask: array[int] | None = None,
               ) -> tuple[int, array[int]]:  # fmt: skip
        out = array("i", bytes(4 * most * batch.n))
        sequences, bias, masks = address(batch.sequences), address(batch.bias), mask and address(mask)
        return check(lib.inpage_run(sequences, batch.n, most, bias, masks, address(out))), out

    def _logits(self, row: int) -> memoryview[float]:
        vocab = self._plan.vocab
        at = self._offsets[self._plan.io["logits"]] + 4 * row * vocab
        return memoryview(self._work)[at : at + 4 * vocab].cast("f")

    def _place(self, batch: flat.StepBatch) -> None:
        for name in ("token_ids", "positions", "row_sequence", "block_tables", "logit_rows"):
            self._put(name, getattr(batch, name))

    def _put(self, name: str, words: array[int]) -> None:
        at = self._offsets[self._plan.io[name]]
        self._work[at : at + 4 * len(words)] = words.tobytes()

    # -- plumbing ----------------------------------------------------------------------------------------------

    def _limits(self) -> flat.Limits:
        self._library()
        p, m = self._plan, self._plan.maxima
        return flat.Limits(p.vocab, m.context, p.page_tokens, p.blocks_per_sequence, m.rows, m.sequences, m.logit_rows,
                           self._pages, p.kv_groups, not p.paged)  # fmt: skip

    def _places(self, pages: Sequence[int]) -> list[slice]:
        size = self._plan.page_bytes
        if pages and not 0 <= min(pages) <= max(pages) < self._pages:
            raise InvalidRequest(f"{min(pages)} to {max(pages)}: must lie in 0 to {self._pages - 1}", field="pages")
        return [slice(page * size, (page + 1) * size) for page in pages]

    def _library(self) -> ctypes.CDLL:
        if self._lib is None:
            raise DeviceLost("the engine was unloaded")
        return self._lib

    async def _call(self, work: Callable[[ctypes.CDLL], T]) -> T:
        """Run in a thread, one call at a time. A cancelled caller ends its burst and still waits for it: memory and
        program are in use until then."""
        async with self._busy:
            self._rung = False
            task = asyncio.ensure_future(asyncio.to_thread(self._timed, work, self._library()))
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                self._doorbell.value = 1
                while not task.done():
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait([task])
                self._doorbell.value = 0
                raise

    def _address(self, i: int, buffer: Buffer) -> int:
        if buffer.kind == "weight":
            return self._weights.base + buffer.offset
        return base(self._kv) + buffer.offset if buffer.kind == "kv" else base(self._work) + self._offsets[i]


def _lock(weights: MappedWeights) -> tuple[str, ...]:
    """A warning where the system refuses."""
    locked = weights.lock()
    if locked == weights.bytes:
        return ()
    return (
        f"engine.mlock: the system locked {locked} of {weights.bytes} bytes of weights in memory; raise the limit "
        "(ulimit -l, or the capability CAP_IPC_LOCK)",
    )


def _from_thread(on_tokens: OnTokens) -> OnTokens:
    """The same, for a worker thread to call."""
    loop = asyncio.get_running_loop()

    def tell(outs: list[RunOutput]) -> None:
        loop.call_soon_threadsafe(on_tokens, outs)

    return tell


def _empty(n: int) -> list[RunOutput]:
    return [RunOutput([], None) for _ in range(n)]
