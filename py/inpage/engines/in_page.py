"""The engine in the page: web/engine/client.js, which drives the engine worker, behind the protocol.

Each call crosses to JavaScript once, with typed arrays; a burst of many tokens costs as much here as one.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import count
from typing import Any

from ..format.plan_types import KvGroup
from ..host.browser import host, settle
from .batch import Limits, run_batch, run_outputs, step_batch, step_outputs, tell_seconds
from .guided_decoding import guidance, logprobs_in
from .protocol import (
    EngineInfo,
    Flags,
    Grammar,
    KernelTiming,
    OnTokens,
    PageData,
    Progress,
    RunOutput,
    SequenceInput,
    StepOutput,
)
from .registry import LoadJob, engine_kind

_DAMAGED = "artifact_damaged"  # a warning: a stored file was damaged, and was fetched and stored again


async def load(job: LoadJob) -> BrowserEngine:
    """For the registry: whichever of the page's engines the variant needs, web/engine/engines.js says."""
    options = {
        "threads": job.threads if job.pinned else None,
        "kernels": None if job.kernels is None else list(job.kernels),
        "memory": {"initial": job.settings.wasm.memory_initial, "maximum": job.settings.wasm.memory_maximum},
        "powerPreference": job.settings.webgpu.power_preference,
        "sliceMs": job.settings.webgpu.burst_ms,
        "exam": False if job.examined else None,
    }
    return await BrowserEngine.load(
        job.base, job.text, variant=job.variant.name, flags=job.flags, options=options, on_progress=job.on_progress
    )


class BrowserEngine:
    """Made by `load`. ``client`` is an EngineClient that has a model loaded, ``loaded`` what its load told."""

    def __init__(self, client: Any, loaded: dict[str, Any], flags: Flags) -> None:
        from pyodide.ffi import create_proxy

        self._client = client
        facts = {name: loaded[name] for name in EngineInfo.__dataclass_fields__ if name in loaded}
        if not isinstance(facts.get("threads_measured"), dict):  # JavaScript's null
            facts["threads_measured"] = None
        facts["alternatives"] = tuple(tuple(names) for names in loaded.get("alternatives", ()))
        facts["groups"] = tuple(
            KvGroup(tuple(g["layers"]), g["page_tokens"], g["window"] if isinstance(g["window"], int) else None)
            for g in loaded.get("groups", ())
        )
        if facts.get("width"):  # an encoder, see `Flags`
            flags = replace(flags, paged=False, grammars=False, logprobs=False, embeds=True)
        self._info = EngineInfo(**facts, **asdict(flags))
        self._blocks = int(loaded["blocks_per_sequence"])
        # Whether the model's files lie in browser storage, so that loading them again downloads nothing.
        refused = [w for w in loaded.get("warnings") or () if w["code"] != _DAMAGED]
        self.stored = loaded.get("storage") is not None and not refused
        self._pages = 0
        self._slots: dict[str, int] = {}  # without pages: by a sequence's name, the number by which the worker knows it
        self._hear: Callable[[Any], None] = _unheard  # parts of the burst under way
        self._on_slice = create_proxy(lambda part: self._hear(part))

    @classmethod
    async def load(
        cls, base: str, manifest: str, *, variant: str, flags: Flags, options: Mapping[str, Any], on_progress: Progress
    ) -> BrowserEngine:
        """``base``: the artifact's URL; ``manifest``: the text of its manifest.json; ``options``: more of LoadOptions
        in web/engine/core/protocol.js."""
        from pyodide.ffi import create_proxy

        client = host().newEngine()
        progress = create_proxy(lambda event: on_progress(event.to_py()))
        given = {**options, "base": base, "manifest": manifest, "variant": variant, "onProgress": progress}
        try:
            loaded = await settle(client.load(_object(given)))
        except asyncio.CancelledError:
            await settle(client.unload())
            raise
        finally:
            progress.destroy()
        return cls(client, loaded.to_py(), flags)

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def reserve_pages(self, pages: int) -> None:
        await settle(self._client.reservePages(pages))
        self._pages = max(self._pages, pages)

    async def read_pages(self, pages: Sequence[int]) -> PageData:
        return await settle(self._client.readPages(_object({"pages": array("i", pages)})))

    async def write_pages(self, pages: Sequence[int], data: PageData) -> None:
        await settle(self._client.writePages(_object({"pages": array("i", pages), "data": data})))

    async def prepare(self, grammar: Grammar) -> None:
        await settle(self._client.prepare(_object({"kind": grammar.kind, "source": grammar.source})))

    async def step(self, feeds: Sequence[SequenceInput]) -> list[StepOutput]:
        batch = step_batch(feeds, self._limits(feeds))
        arrays = {
            "tokenIds": batch.token_ids,
            "positions": batch.positions,
            "rowSequence": batch.row_sequence,
            "blockTables": batch.block_tables,
            "logitRows": batch.logit_rows,
            "bias": batch.bias,
            "wantLogits": batch.want_logits,
        }
        if batch.targets is not None:
            arrays["targets"] = batch.targets
        if batch.sequences is not None:
            arrays["sample"] = batch.sequences
        chosen = [(i, feed) for i, feed in zip(batch.chosen, feeds, strict=True) if i is not None]
        result = await settle(self._client.step(_object(arrays | guidance(chosen))))
        sequences, logits, scores = (_bytes(result, name) for name in ("sequences", "logits", "scores"))
        outs = step_outputs(batch, sequences, logits, scores, self._info.width or self._info.vocab)
        report = _bytes(result, "report")
        for i, feed, out in zip(batch.chosen, feeds, outs, strict=True):
            if i is not None and out.token is not None:
                out.logprobs = logprobs_in(report, i, out.token, feed.top)
        return outs

    async def run(
        self, feeds: Sequence[SequenceInput], max_steps: int, on_tokens: OnTokens | None = None
    ) -> list[RunOutput]:
        batch = run_batch(feeds, max_steps, self._limits(feeds))
        n, heard = batch.n, 0

        def outputs(part: Any, first: int = 0) -> list[RunOutput]:
            """Of a part's steps, those from ``first`` on."""
            words = memoryview(part.out.to_bytes())[4 * first * n :]
            outs, report = run_outputs(n, part.steps - first, words, part.finished.to_bytes()), _bytes(part, "report")
            for i, (feed, out) in enumerate(zip(feeds, outs, strict=True)):
                rows = enumerate(out.tokens, first)  # a sequence that has finished does not go on: its steps come first
                out.logprobs = [one for k, token in rows for one in logprobs_in(report, k * n + i, token, feed.top)]
            return outs

        def hear(part: Any) -> None:
            nonlocal heard
            heard += part.steps
            if on_tokens is not None:
                on_tokens(outputs(part))

        arrays = {
            "sequences": batch.sequences,
            "n": n,
            "blockTables": batch.block_tables,
            "maxSteps": max_steps,
            "bias": batch.bias,
            "tellMs": 0.0 if on_tokens is None else 1e3 * tell_seconds(n),
        }
        self._hear = hear
        try:
            result = await settle(self._client.run(_object(arrays | guidance(enumerate(feeds))), self._on_slice))
        finally:
            self._hear = _unheard
        return outputs(result, heard)

    async def choose_kernels(self, names: Sequence[str]) -> None:
        await settle(self._client.chooseKernels(_object(list(names))))

    async def time_kernels(self, kernels: Sequence[KernelTiming], budget_s: float) -> list[float | None]:
        wanted = [{"name": each.name, "most": each.most} for each in kernels]
        timed = await settle(self._client.timeKernels(_object({"kernels": wanted, "budgetMs": 1e3 * budget_s})))
        return [None if math.isnan(ms) else ms / 1e3 for ms in timed.to_py()]

    def drop(self, request: str) -> None:
        slot = self._slots.pop(request, None)
        if slot is not None:
            self._client.drop(slot)

    async def interrupt(self) -> None:
        self._client.interrupt()

    async def counts(self) -> dict[str, int]:
        counted = await settle(self._client.counters())
        names = engine_kind(self._info.backend).counts
        return {name: int(value) for name, value in zip(names, counted.to_py(), strict=True)}

    @property
    def busy_s(self) -> float:
        return float(self._client.busyMs) / 1e3

    async def unload(self) -> None:
        await settle(self._client.unload())
        self._on_slice.destroy()

    def _limits(self, feeds: Sequence[SequenceInput]) -> Limits:
        info = self._info
        sequential = not (info.paged or info.embeds)
        for feed in feeds if sequential else ():
            if feed.request not in self._slots:
                self._slots[feed.request] = next(i for i in count() if i not in self._slots.values())
        return Limits(
            vocab=info.vocab,
            context=info.context,
            page_tokens=info.page_tokens,
            blocks_per_sequence=self._blocks,
            rows=info.max_rows,
            sequences=info.max_sequences,
            logit_rows=info.max_logit_rows,
            pages=self._pages,
            groups=info.groups,
            encoder=info.embeds,
            slots=self._slots if sequential else None,
        )


def _unheard(_: Any) -> None:
    """A part of a burst that nobody waits for."""


def _object(values: dict[str, Any] | list[Any]) -> Any:
    """A JavaScript object or array; arrays of int32 become Int32Arrays, copied: they can be handed to a worker."""
    import js
    from pyodide.ffi import to_js

    return to_js(values, dict_converter=js.Object.fromEntries)


def _bytes(result: Any, name: str) -> bytes | None:
    words = getattr(result, name, None)
    return None if words is None else bytes(words.to_bytes())
