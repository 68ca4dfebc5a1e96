"""What an engine under test does for the bench: the same few calls for ours and for each peer.

A driver lives through the whole run and is loaded and closed once a *visit*, when its turn comes. The bench owns the
browser, the clock of the run, repetitions and statistics; a driver loads, answers and says what it holds.

    drivers = await PEERS["wllama"](setup)   # sets up what it needs, one driver a form of the weights
    await driver.load(pages)                 # a fresh browser: cold
    await driver.close()
    await driver.load(pages)                 # the same browser again: from its caches
    await driver.generate(ids, 128)
    await driver.close()

Whatever a driver cannot do it says with `Unsupported`; any exception becomes the cell's, or the engine's, ``error`` in
the results. Drivers set no time limits: the bench cancels a call that takes too long, and then calls `close`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from inpage.format.schema import Manifest

from .results import Engine, Model

Files = Mapping[str, "Path | bytes"]


@dataclass(frozen=True, slots=True)
class Subject:
    """The model under test. ``artifact`` is its compiled folder; ``manifest.source`` says where its weights come from,
    so that a peer can run the same."""

    record: Model
    artifact: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Setup:
    """What a peer's factory gets. ``cache``: a folder that outlives the run, for what it fetches or converts. ``say``
    shows one line of progress. ``quick``: one form of the weights will do, the fastest known; set-up must be short."""

    subject: Subject
    threads: int
    cache: Path
    say: Callable[[str], None]
    quick: bool = False


@dataclass(slots=True)
class LoadFacts:
    """``ready_ms``: from the call until a prompt can be sent. ``phases``: what it was spent on, by name ("python",
    "weights", "kernels"…), in ms; they may overlap or leave gaps. ``bytes_fetched`` over the network (`Tab.fetched`
    counts them; None where nothing is fetched)."""

    ready_ms: float
    phases: dict[str, float] = field(default_factory=dict)
    bytes_fetched: int | None = None


@dataclass(slots=True)
class Timeline:
    """One answer as its caller saw it. Times are ms on one clock (0: when `generate` or `serve` was called).

    ``at_ms`` has one entry a token of ``ids``: when that token was received; tokens that arrive together share one.
    ``begun_ms``: when this request was made; ``done_ms``: when its end was known. ``refused``: how often a full queue
    sent it back before it was taken. ``error``: why it ended without an answer."""

    ids: list[int]
    at_ms: list[float]
    done_ms: float
    begun_ms: float = 0.0
    refused: int = 0
    error: str | None = None


@dataclass(slots=True)
class Embedded:
    """Texts made into vectors, as their caller saw it. ``at_ms``: since the first call, when the vectors of each came,
    one entry a call. ``vector``: of the first text."""

    at_ms: list[float]
    vector: list[float]


@dataclass(slots=True)
class Usage:
    """What the engine holds now, in bytes; None: cannot be known. ``heap``: JavaScript's heaps, workers included;
    ``wasm``: WebAssembly memories; ``gpu``: buffers on the GPU."""

    heap_bytes: int | None = None
    wasm_bytes: int | None = None
    gpu_bytes: int | None = None


class Tab(Protocol):
    """A page of the visit's browser, on a server of its own. ``page`` is Playwright's (async API)."""

    page: Any
    url: str

    async def call(self, script: str, argument: Any = None) -> Any:
        """Evaluate a function in the page and return its value. What it throws becomes an `InpageError` with the
        error's ``code`` where it has one; a crashed page is `DeviceLost`."""

    def fetched(self) -> int:
        """Bytes that the server has sent to this tab."""
        ...

    async def close(self) -> None: ...


class Pages(Protocol):
    """The browser of one visit: its profile is fresh when the visit begins, and kept until it ends."""

    async def open(self, files: Files, path: str) -> Tab:
        """Serve ``files`` (URL path → file or content) with the isolation headers and open ``path``. The origin is the
        same for the same driver in one visit, so that storage and HTTP cache are found again."""
        ...


class Driver(Protocol):
    """One engine in one form. ``engine`` is its row of the results; `load` may complete it (variant, threads, notes).

    Decoding is greedy everywhere, without penalties; prompts are token ids as they are, without a template. An answer
    may stop early at an end-of-text token."""

    engine: Engine

    async def load(self, pages: Pages) -> LoadFacts:
        """Load the model (in a page of ``pages``, or natively) until it can answer."""
        ...

    async def settle(self) -> None:
        """Ask nothing, until the engine has chosen for good what it runs, where it does that in a pause: most answers
        are computed with that. Returns where that takes too long."""

    async def generate(self, prompt: Sequence[int], max_new_tokens: int) -> Timeline:
        """One answer, alone. Nothing of earlier prompts may be reused unless the engine does so for its users."""
        ...

    async def serve(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, clients: int) -> list[Timeline]:
        """Answer all prompts, the first ``clients`` sent at once and each further one when an answer ends; timelines in
        the prompts' order. Raises `Unsupported` where the engine takes one request at a time: the bench then makes
        them queue."""
        ...

    async def embed(self, texts: Sequence[str], *, together: bool) -> Embedded:
        """Vectors of length 1, from text, ``together`` in one call or one after another. Nothing kept may be used."""
        ...

    async def usage(self) -> Usage: ...

    async def counters(self) -> dict[str, int]:
        """What the engine counts since it was loaded ("steps", "launches", "submits", "readback_bytes",
        "cache_hits.<tier>"…); empty where it counts nothing."""
        ...

    def processes(self) -> list[int]:
        """Process ids in which it computes, where that is not the browser of ``pages``."""
        ...

    async def close(self) -> None:
        """Free everything; harmless when nothing is loaded. Never raises."""


PeerFactory = Callable[[Setup], Awaitable[Sequence[Driver]]]
