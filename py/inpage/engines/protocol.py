"""What the router asks of an engine. Engines own a loaded model and its KV cache.

There are two kinds. Of a `PagedEngine`, Python owns who uses which KV page; a `SequenceEngine` keeps the KV cache of
each sequence itself, by the sequence's name. What else an engine can do, its `Flags` say: nothing above this folder
asks for its name.

Shapes: a batch is a list of `SequenceInput`, one a sequence; adapters flatten it to the typed arrays of the plan
(token ids, positions, row→sequence, block tables, logit rows).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeGuard, runtime_checkable

from ..format.plan_types import KvGroup


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. ``temperature`` 0 is greedy. The generator is keyed by (``seed``, position), so the same
    request gives the same answer whatever runs beside it."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer is held to. ``kind``: "schema" (a JSON schema's EBNF), "regex", "ebnf" (with a rule ``root``) or
    "tag" (the format of an XGrammar structural tag, as JSON); see `inpage.requests.grammar`, which makes them."""

    kind: str
    source: str


@dataclass(frozen=True, slots=True)
class Logprob:
    """How likely a chosen token was for the model itself: natural logarithm, before temperature, bias and grammar.
    ``top``: the likeliest tokens and their logprobs, the likeliest first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(slots=True)
class SequenceInput:
    """Tokens of one sequence to run through the model: ``tokens[0]`` stands at position ``start``.

    ``pages`` are the KV pages of the sequence in order, ``page_tokens`` tokens each; they cover every position fed
    (`step`) or that a burst may reach (`run`). Without pages, ``request`` names the sequence. ``history`` is what
    penalties look at (most recent last). ``tables``: where the engine has `EngineInfo.groups`, the pages of each, the
    first one's being ``pages``; of a page that fell out of the group's window, whose number means nothing any more, the
    place is kept.
    """

    tokens: Sequence[int]
    start: int
    pages: Sequence[int]
    sampling: Sampling = field(default_factory=Sampling)
    history: Sequence[int] = ()
    sample: bool = False  # step: choose a token after the last one fed
    targets: Sequence[int] | None = None  # step: score every fed position against these (-1: none)
    want_logits: bool = False  # step: return the last position's logits (float32 [vocab]), or what an encoder gives
    max_new_tokens: int = 0  # run: how many tokens this sequence may still produce
    stop_ids: Sequence[int] = ()  # run: ids that end it
    grammar: Grammar | None = None  # what each choice is held to, after the ``answer`` so far
    answer: Sequence[int] = ()
    request: str = ""  # by which an engine knows what it keeps of it: its KV cache, its state of the grammar
    top: int | None = None  # report each choice, with so many of the likeliest tokens
    tables: Sequence[Sequence[int]] = ()
    segment: int | None = None  # encoders: so many tokens come before the second segment; None: there is none


@dataclass(slots=True)
class StepOutput:
    """One `SequenceInput`'s result. ``scores``: (argmax, nll, margin) for each scored position."""

    token: int | None = None
    margin: float | None = None
    logprob: float | None = None
    logits: Any = None
    scores: list[tuple[int, float, float]] | None = None
    logprobs: Sequence[Logprob] = ()  # of the token, where ``top`` asked


@dataclass(slots=True)
class RunOutput:
    """What a burst produced for one `SequenceInput`: ids in order (a stop id included), and why it ended:
    ``None`` (goes on), ``"stop"``, ``"length"`` or ``"pages"``."""

    tokens: list[int]
    finished: str | None
    logprobs: Sequence[Logprob] = ()  # by token, where ``top`` asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What an engine can do.

    ``paged``: its KV cache is in pages that Python hands out; else there is no prefix cache and no swap, and what is
    preempted is computed again. ``deterministic``: the same tokens give the same bits, whatever runs beside them and in
    whatever chunks; else answers are neither kept nor shared. ``grammars``: answers can be held to a `Grammar`.
    ``logprobs``: it reports `Logprob`. ``embeds``: it is an encoder: a step computes whole sequences, each a feed with
    ``want_logits``, for which it gives `EngineInfo.width` numbers; there are no bursts, and nothing is kept."""

    paged: bool = True
    deterministic: bool = True
    grammars: bool = False
    logprobs: bool = True
    embeds: bool = False

    def has(self, flag: str) -> bool:
        return bool(getattr(self, flag))


@dataclass(frozen=True, slots=True)
class EngineInfo(Flags):
    """Facts of a loaded engine. Bytes are what it really holds. Without pages ``page_tokens`` is 1, and ``page_bytes``
    and ``max_pages`` are 0: each of ``max_sequences`` may have a whole ``context``."""

    backend: str  # as the registry has it: "wasm", "native"
    variant: str  # "wasm-relaxed", "wasm-simd", "native"
    threads: int
    vocab: int
    context: int
    page_tokens: int
    page_bytes: int
    max_rows: int
    max_sequences: int
    max_logit_rows: int
    max_pages: int
    weight_bytes: int
    arena_bytes: int
    load_ms: float
    prompt_threads: int | None = None  # where prompts are read on more threads than are decoded on
    threads_measured: dict[str, float] | None = None  # steps a second by number of threads, where the engine chose it
    # Names of kernels that leave the same bits, of each list the one first that runs until another is chosen.
    alternatives: tuple[tuple[str, ...], ...] = ()
    rehearsed: bool = True  # all of them ran before, so that the first times are true
    groups: tuple[KvGroup, ...] = ()  # where they are several, or have a window; else all layers are one
    width: int = 0  # numbers that an encoder gives for a sequence
    warnings: tuple[str, ...] = ()  # what is less than was asked for, for people


# What engines count, in the order in which they tell it.
_COMMON = ("steps", "launches", "rows", "sampled")
RUNTIME_COUNTS = (*_COMMON, "sleeps", "asleep")  # of the C runtime's threads
WEBGPU_COUNTS = (
    *_COMMON,
    "dispatches",
    "passes",
    "submits",
    "readbacks",
    "readback_bytes",
    "buffers",
    "bind_groups",
    "buffer_bytes",
)
# Tensors that were made, and bytes of logits that were copied to the sampler.
ONNX_COUNTS = (*RUNTIME_COUNTS, "tensors", "logits_bytes")
# Calls of MLC's library, and bytes of logits that were copied to the sampler.
MLC_COUNTS = (*RUNTIME_COUNTS, "calls", "logits_bytes")
Progress = Callable[[dict[str, Any]], None]
PageData: TypeAlias = Any  # bytes of KV pages; in the page JavaScript's, so that they never pass through Python
OnTokens = Callable[[list[RunOutput]], None]


@dataclass(frozen=True, slots=True)
class KernelTiming:
    """Time kernel ``name`` by its first ``most`` launches."""

    name: str
    most: int


class Engine(Protocol):
    """One loaded model on one device. Steps and bursts are called one at a time."""

    @property
    def info(self) -> EngineInfo: ...

    async def prepare(self, grammar: Grammar) -> None:
        """Compile it beside everything else, so that no step has to. Raises `InvalidRequest` where it is none,
        `Unsupported` where the engine follows none."""

    async def step(self, feeds: Sequence[SequenceInput]) -> list[StepOutput]:
        """One forward pass. The feeds' tokens together are at most ``max_rows``."""
        ...

    async def run(
        self, feeds: Sequence[SequenceInput], max_steps: int, on_tokens: OnTokens | None = None
    ) -> list[RunOutput]:
        """Decode a burst: each feed holds exactly one token, the next to feed. With ``on_tokens``, what each feed got
        so far is told while the burst goes on; what is returned is what had not been told."""
        ...

    async def interrupt(self) -> None:
        """End a running burst after its current step."""

    async def counts(self) -> dict[str, int]:
        """What it did since it was loaded, by the names that its `EngineKind` has as ``counts``."""
        ...

    @property
    def busy_s(self) -> float:
        """Seconds that it spent in steps and bursts since it was loaded, by its own clock: nothing of the way there and
        back."""
        ...

    async def unload(self) -> None: ...


class PagedEngine(Engine, Protocol):
    """What concerns pages may be called beside steps and bursts, and waits."""

    async def reserve_pages(self, pages: int) -> None:
        """Make page indices 0..pages-1 usable; raises `OutOfMemory` where that many cannot be had."""

    async def read_pages(self, pages: Sequence[int]) -> PageData:
        """The bytes of KV pages, one behind the other: ``page_bytes`` each. Opaque, but the same engine that gets them
        back with `write_pages` goes on as if it had computed them."""
        ...

    async def write_pages(self, pages: Sequence[int], data: PageData) -> None:
        """The inverse."""


class SequenceEngine(Engine, Protocol):
    """A feed at ``start`` goes on behind the first ``start`` tokens of the sequence that its ``request`` names, which
    the engine has in its KV cache; what it has beyond is forgotten. So 0 begins a sequence, or begins it anew."""

    def drop(self, request: str) -> None:
        """Free the KV cache of this sequence, if there is one: after the step or burst that runs. Does not wait."""


def is_paged(engine: Engine) -> TypeGuard[PagedEngine]:
    return engine.info.paged


def is_sequential(engine: Engine) -> TypeGuard[SequenceEngine]:
    return not engine.info.paged


@runtime_checkable
class Tunable(Engine, Protocol):
    """An engine whose plan has kernels that do the same: ``info.alternatives``."""

    async def choose_kernels(self, names: Sequence[str]) -> None:
        """Run these from now on, each in the place of those that do the same."""

    async def time_kernels(self, kernels: Sequence[KernelTiming], budget_s: float) -> list[float | None]:
        """Choose and time kernels in turn, while no step runs: seconds a launch. None where nothing could be timed, and
        for those that were not begun after ``budget_s``. The last one of each list stays chosen."""
        ...
