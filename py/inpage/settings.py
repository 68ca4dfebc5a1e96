"""Everything that can be set, in one frozen tree: from code, or from a TOML or JSON file; unknown keys are refused.

[scheduler]
queue_size = 200
[answers]
enabled = true
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .errors import InvalidRequest, brief, quoted, said
from .format import bounded
from .format.bounded_file import read_bounded

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """Who runs, and who waits for how long."""

    max_concurrent: int = 100
    """Requests that may run at once; the engine's own limit holds as well."""
    batch_size: int = 32
    """Sequences in one step of the engine; the engine's own limit holds as well."""
    batch_timeout: float = 0.05
    """Seconds that requests of a priority below 0 (and no timeout of their own) wait for others where nobody runs, so
    that their prompts are read together; all others never wait."""
    queue_size: int = 1000
    """Requests that may wait; one more is refused (`QueueFull`, HTTP 429)."""
    timeout: float | None = 30.0
    """Seconds that a request waits for its turn before it ends with `Timeout`; null: for ever."""

    def _check(self) -> None:
        _at_least(self, 1, "max_concurrent", "batch_size")
        _at_least(self, 0, "batch_timeout", "queue_size", "timeout")


@dataclass(frozen=True, slots=True)
class KvSettings:
    """Keys and values of the tokens that were read."""

    prefix_bytes: int = 128 << 20
    """Memory for pages that no request uses any more, kept for prompts that begin alike; 0: none."""

    memory_bytes: int | None = None
    """Memory for pages in all; null: what the device has."""
    swap_bytes: int = 128 << 20
    """Memory outside of the engine for pages of requests that had to make room, while copying them there and back
    measures cheaper than reading their tokens again; 0: none."""
    swap_file_bytes: int = 512 << 20
    """What goes on from there to a file, by the same rule: in the page in the browser's storage (OPFS), natively in
    ``swap_path``. It is gone when the model is unloaded, and never read by another process or page; 0: none."""
    swap_path: str | None = None
    """CPython: the folder for that file; null: none is written."""
    storage_bytes: int = 128 << 20
    """Exported prefixes in the browser's storage, or in ``storage_path``; the least recently used go first; 0: none."""
    storage_path: str | None = None
    """CPython: the folder for exported prefixes; null: none can be exported."""
    hidden_seconds: float | None = 60.0
    """In the page: so long after it was hidden, what is kept for prompts to come is given back, and on a device with
    little memory models that are idle are unloaded; answers under way go on. null: never."""
    system_prompts: tuple[str, ...] = ()
    """Texts of system messages that are ready before anybody asks: taken from storage, else read while nobody waits
    and then stored."""

    def _check(self) -> None:
        _at_least(self, 0, "prefix_bytes", "memory_bytes", "swap_bytes", "swap_file_bytes", "storage_bytes")
        _at_least(self, 0, "hidden_seconds")


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """Answers kept for determined requests: greedy ones, and those with a seed."""

    enabled: bool = False
    memory_entries: int = 100
    """Answers in memory; the least recently used goes first."""
    storage_bytes: int = 16 << 20
    """Compressed answers in the browser's storage, or in ``storage_path``; 0: none."""
    storage_path: str | None = None
    """CPython: the SQLite file; null: nothing is stored."""
    bundle: str | None = None
    """A file of answers made ahead of time: a path, or in the page its text's URL."""
    shortest_seconds: float = 600.0
    """How long an answer is kept where none is asked for again."""
    longest_seconds: float = 7200.0
    """And where all are; in between the longer, the more of them are."""

    def _check(self) -> None:
        _at_least(self, 0, "memory_entries", "storage_bytes", "shortest_seconds")
        _at_least(self, self.shortest_seconds, "longest_seconds")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Where the model runs."""

    backend: str | None = None
    """A backend ("wasm", "webgpu", "native") or a variant to pin; null: the fastest."""
    threads: int | None = None
    """Compute threads; null: chosen by the device."""
    replicas: int = 1
    """Engines of one model, as far as memory allows; they share the threads."""
    mlock: bool = False
    """The native engine: weights stay in memory whatever else needs room. Where the system locks only a part of them
    (``ulimit -l``), a warning says how much."""

    def _check(self) -> None:
        _at_least(self, 1, "threads", "replicas")


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """What is written where memory grows without end: see `inpage.observe.leaks`."""

    report_path: str | None = None
    """CPython: the folder for reports; null: they are only logged."""
    trace: bool = False
    """CPython: record which lines of Python hold memory (``tracemalloc``, which makes Python several times slower)."""

    def _check(self) -> None:
        """Nothing to check."""


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How tokens are chosen where a request does not say; null: as the model's manifest has it (``sampling``), and
    where that has nothing either, by the model's own probabilities."""

    temperature: float | None = None
    """0: always the most likely token."""
    top_p: float | None = None
    top_k: int | None = None
    """0: all tokens."""
    min_p: float | None = None
    repetition_penalty: float | None = None
    """1: none."""

    def _check(self) -> None:
        _at_least(self, 0, "temperature", "top_p", "top_k", "min_p")
        _at_most(self, 2, "temperature")
        _at_most(self, 1, "top_p", "min_p")
        _at_most(self, 10, "repetition_penalty")
        if self.repetition_penalty is not None and self.repetition_penalty <= 0:
            raise ValueError("repetition_penalty", "above 0")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Several models in one process or page: see `inpage.models`."""

    max_loaded: int = 5
    """Models in memory at once; one more takes the place of the least recently used that is idle and not pinned."""
    idle_seconds: float | None = 300.0
    """A model without requests for so long is unloaded; null: never."""
    target_memory: int | None = None
    """Bytes that all models together may hold (weights, arenas, KV pages); null: no budget."""
    least_context: int = 512
    """Tokens that a conversation must have room for; with a budget, a model that cannot have them is not loaded."""

    def _check(self) -> None:
        _at_least(self, 1, "max_loaded", "target_memory", "least_context")
        _at_least(self, 0, "idle_seconds")


@dataclass(frozen=True, slots=True)
class WasmSettings:
    """The WebAssembly memory of an engine in the page."""

    memory_initial: int = 0
    """Bytes from the start; 0: what the weights need. It grows as conversations do."""
    memory_maximum: int = 4 << 30
    """Bytes that it may grow to; the KV pages get what the weights leave."""
    shared: bool = True
    """Compute threads on the one memory, where the page is isolated; false: one thread."""

    def _check(self) -> None:
        _at_least(self, 0, "memory_initial")
        _at_least(self, max(self.memory_initial, 1 << 20), "memory_maximum")


@dataclass(frozen=True, slots=True)
class WebGpuSettings:
    """How WebGPU is asked, and how long it computes at a time."""

    power_preference: str = "high-performance"
    """Which adapter, where a device has two: "high-performance" or "low-power"."""
    burst_ms: float = 20.0
    """Milliseconds that a burst of tokens goes on after a new request or a cancel."""

    def _check(self) -> None:
        _one_of(self, ("high-performance", "low-power"), "power_preference")
        _at_least(self, 1, "burst_ms")


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole tree. `read_settings` makes one from a file, `settings_from` from plain data."""

    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    kv: KvSettings = field(default_factory=KvSettings)
    answers: AnswerSettings = field(default_factory=AnswerSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    memory: MemorySettings = field(default_factory=MemorySettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    models: ModelSettings = field(default_factory=ModelSettings)
    wasm: WasmSettings = field(default_factory=WasmSettings)
    webgpu: WebGpuSettings = field(default_factory=WebGpuSettings)

    def _check(self) -> None:
        """Its parts check themselves."""


def read_settings(path: Path) -> Settings:
    """From a ``.toml`` or ``.json`` file. Raises `InvalidRequest` naming the key."""
    try:
        text = read_bounded(path, "settings", InvalidRequest, "settings").decode("utf-8")
        data = tomllib.loads(text) if path.suffix == ".toml" else bounded.read(text)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}", field="settings") from error
    except (ValueError, RecursionError) as error:  # tomllib's and bounded's
        raise InvalidRequest(
            f"{path} is no {path.suffix[1:].upper() or 'JSON'}: {said(error)}", field="settings"
        ) from error
    return settings_from(data)


def _hints(kind: type) -> dict[type, dict[str, Any]]:
    """The types of its fields by name, and those of all tables within."""
    found = {kind: typing.get_type_hints(kind)}
    for hint in list(found[kind].values()):
        if dataclasses.is_dataclass(hint):
            found |= _hints(typing.cast("type", hint))
    return found


# Found when this is imported, which a page's kept memory was: each is source that Python compiles.
_HINTS = _hints(Settings)


def settings_from(data: Any) -> Settings:
    """From nested mappings of plain values; what is left out has its default. Raises `InvalidRequest`."""
    bounded.check(data, "settings")
    return _build(Settings, data, "")


def _build(kind: type[T], data: Any, path: str) -> T:
    where = path or "settings"
    if not isinstance(data, Mapping):
        raise InvalidRequest(f"{where} must be a table of settings, not {quoted(data)}", field=where)
    hints = _HINTS[kind]
    prefix = f"{path}." if path else ""
    for key in data:
        if key not in hints:
            known = ", ".join(hints)
            raise InvalidRequest(
                f"unknown setting {prefix}{brief(key)}; there are {known}", field=f"{prefix}{brief(key)}"
            )
    values = {}
    for name, value in data.items():
        hint = hints[name]
        nested = dataclasses.is_dataclass(hint)
        values[name] = _build(hint, value, prefix + name) if nested else _value(hint, value, prefix + name)
    made: Any = kind(**values)
    try:
        made._check()
    except ValueError as error:
        name, rule = error.args
        raise InvalidRequest(f"{prefix}{name} must be {rule}", field=prefix + name) from None
    return typing.cast("T", made)


def _value(hint: Any, value: Any, path: str) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and types.NoneType in kinds:
        return None
    if typing.get_origin(hint) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_value(typing.get_args(hint)[0], item, f"{path}[{i}]") for i, item in enumerate(value))
        raise InvalidRequest(f"{path} must be a list, not {quoted(value)}", field=path)
    for kind in kinds:
        if kind is float and bounded.finite(value):
            return float(value)
        if kind is not float and type(value) is kind:
            return value
    names = " or ".join("null" if kind is types.NoneType else kind.__name__ for kind in kinds)
    raise InvalidRequest(f"{path} must be {names}, not {quoted(value)}", field=path)


def _at_least(settings: Any, least: float, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < least:
            raise ValueError(name, f"at least {quoted(least)}")


def _at_most(settings: Any, most: float, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None and value > most:
            raise ValueError(name, f"at most {quoted(most)}")


def _one_of(settings: Any, words: tuple[str, ...], name: str) -> None:
    if getattr(settings, name) not in words:
        raise ValueError(name, " or ".join(map(repr, words)))
