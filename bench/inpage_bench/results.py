"""results.json: what a run of `inpage bench` writes, as dataclasses. The fields here are its documentation.

Names end in their unit: ``_ms``, ``_s``, ``_bytes``, ``_tps`` (tokens a second); shares are 0..1. Indices refer to the
lists of `Results`. A reader may meet fields that it does not know (they are left out), never other meanings of known
ones without a new ``schema``.
"""

from __future__ import annotations

import json
import re
import types
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from inpage.errors import InvalidRequest

from .stats import Summary, summary

SCHEMA = 1


@dataclass(slots=True)
class Tool:
    """What measured: the version of inpage, the git ``revision`` of its checkout (None outside of one), and whether the
    checkout had changes (``dirty``)."""

    version: str
    revision: str | None = None
    dirty: bool = False


@dataclass(slots=True)
class Adapter:
    """The WebGPU adapter that the browser offers. ``software``: it is a CPU in disguise (SwiftShader, lavapipe)."""

    vendor: str
    architecture: str
    description: str
    software: bool


@dataclass(slots=True)
class Peaks:
    """What this machine can do at most, by number of threads ("1", "2"): bytes read from beyond all caches (GB/s), int8
    dot products (1e9 operations a second; a product and its addition are two). ``how`` says how it was measured.

    ``read_by_bytes``: threads → size of what is read again and again → GB/s. ``dot16_gops`` and ``dot32_gops``: dots
    added up in 16 bits and in 32, of which ``dot_gops`` is the better; ``fma_gops``: float32."""

    read_gbps: dict[str, float]
    dot_gops: dict[str, float]
    how: str
    read_by_bytes: dict[str, dict[str, float]] = field(default_factory=dict)
    dot16_gops: dict[str, float] = field(default_factory=dict)
    dot32_gops: dict[str, float] = field(default_factory=dict)
    fma_gops: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Environment:
    """Where a run was made. Load is the one-minute average; ``busy`` says that other work took a noticeable part of the
    processor, so that the numbers are worth less. ``pace``: a fixed piece of work on all cores, repeated all through
    the run, in millions of bytes hashed a second; its drift between two runs is the machine's, not the engines'."""

    cpu: str
    cores: int
    memory_bytes: int
    os: str
    browser: str
    flags: list[str] = field(default_factory=list)
    adapter: Adapter | None = None
    isolated: bool = True  # pages have SharedArrayBuffer, hence threads
    load_before: float | None = None
    load_after: float | None = None
    busy: bool = False
    foreign_cpu_share: float | None = None  # of all cores: what processes other than this run used, on average
    pace_mbps: float | None = None
    pace_spread: float | None = None  # (p95 - p5) / median of the pace
    peaks: Peaks | None = None
    remote: bool = False  # the browser runs elsewhere (--connect): cpu and memory here are not what computed


@dataclass(slots=True)
class Model:
    """A model under test. ``f16_bytes`` is what its parameters would take as float16; ``sha256`` is of its manifest.
    ``random``: it is measured by shape, with random weights: speeds are those of such a model, answers mean nothing.
    ``kv_token_bytes``: of keys and values that our engines keep for a token of context. ``embeds``: it makes vectors.
    """

    id: str
    name: str
    parameters: int
    weight_bytes: int
    f16_bytes: int
    weights: str  # "Q4_1, embedding Q8_0"
    sha256: str
    context: int = 0
    random: bool = False
    kv_token_bytes: int = 0
    embeds: bool = False

    @property
    def weights_label(self) -> str:
        """Of engines that run these very weights."""
        return f"{'random' if self.random else 'as published'}: {self.weights}"


@dataclass(slots=True)
class Engine:
    """One row of the comparison. ``family`` groups the forms of one peer: "wllama Q4_0" and "wllama Q8_0" are of family
    "wllama", and only the fastest form of a family goes through all scenarios, beside one that is a ``baseline``.
    ``error``: why it could not run."""

    name: str
    kind: str  # "inpage" or "peer"
    backend: str  # "wasm", "webgpu", "native"
    variant: str
    threads: int
    version: str
    weights: str  # the form of the weights that it ran, in words
    family: str = ""
    in_page: bool = True
    baseline: bool = False
    error: str | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Metric:
    """Samples of one quantity, in the order taken, and what they come to. ``per`` says what a sample is: an "iteration"
    (independent, what `compare` works on), a "request", a "token", a "visit" (one loaded page) or the whole "cell".
    ``visits`` gives for each sample the visit that it was taken in, where samples are not capped (else empty); long
    lists of samples are thinned out evenly (``n`` counts all, quantiles are of all)."""

    unit: str
    better: str  # "lower", "higher" or "neither"
    per: str
    samples: list[float]
    n: int
    median: float
    p50: float
    p95: float
    p99: float
    mean: float
    stdev: float
    min: float
    max: float
    visits: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Cell:
    """One engine at one scenario. ``counts`` are not timings: "launches_per_token", "steps", "refused",
    "requests", "cache_hits": {tier: n} …  ``series`` are raw values for plots, capped. ``output_ids``: what it
    answered to the scenario's first prompt, greedily. ``error``: why there are no numbers. ``shard`` indexes
    `Results.shards`."""

    engine: int
    model: str
    scenario: str
    title: str
    params: dict[str, Any] = field(default_factory=dict)
    iterations: int = 0
    warmup: int = 0
    metrics: dict[str, Metric] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    series: dict[str, list[float]] = field(default_factory=dict)
    output_ids: list[int] | None = None
    error: str | None = None
    notes: list[str] = field(default_factory=list)
    shard: int = 0


@dataclass(slots=True)
class Pair:
    """Ours against a peer's, medians of one metric in one scenario. ``ratio`` is how many times better ours is (above
    1: ours is ahead), whichever direction is better."""

    scenario: str
    model: str
    metric: str
    ours: int
    theirs: int
    ours_value: float
    theirs_value: float
    ratio: float


@dataclass(slots=True)
class Difference:
    """Two engines answered one prompt greedily. ``first_difference`` is the index of the first token that differs;
    None: all ``compared`` tokens are the same."""

    scenario: str
    model: str
    a: int
    b: int
    first_difference: int | None
    compared: int


@dataclass(slots=True)
class Target:
    """A goal and what was measured. ``verdict``: "pass", "fail", "not measured", "does not apply" or "reported" (told
    without a goal); ``why`` says in one sentence what was compared, or why it could not be. ``group``: "" for inpage's
    own goals, else what they are about."""

    name: str
    target: str  # "< 100 ms"
    value: str | None  # "97 ms"
    verdict: str
    why: str
    engine: int | None = None
    scenario: str | None = None
    group: str = ""


@dataclass(slots=True)
class Shard:
    """One run among those that `inpage bench merge` joined: ``part`` is "2/3", or "" for a run of the whole."""

    part: str
    created: str
    command: str
    duration_s: float
    tool: Tool
    environment: Environment


@dataclass(slots=True)
class Results:
    """The whole file. ``environment`` is the first shard's; ``created`` is ISO 8601 in UTC. ``complete``: the run came
    to its end; else this is what was measured when it was written."""

    created: str
    command: str
    duration_s: float
    tool: Tool
    environment: Environment
    models: list[Model] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    shards: list[Shard] = field(default_factory=list)
    complete: bool = True
    schema: int = SCHEMA

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_compact({"schema": self.schema} | asdict(self)), ensure_ascii=False, indent=1)
        # A list of numbers on one line: samples are many.
        text = re.sub(r"\[[\s\d.,eE+-]+\]", lambda found: " ".join(found[0].split()), text)
        fresh = path.with_suffix(".part")
        fresh.write_text(text + "\n", "utf-8")
        fresh.replace(path)  # a run that is killed while it writes leaves what was there before

    @classmethod
    def load(cls, path: Path) -> Results:
        """Raises `InvalidRequest` for what is no results.json of this schema."""
        try:
            found = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise InvalidRequest(f"{path} is not JSON: {error}", field=str(path)) from error
        if not isinstance(found, dict) or found.get("schema") != SCHEMA:
            schema = found.get("schema") if isinstance(found, dict) else None
            raise InvalidRequest(f"{path} has schema {schema!r}; this version reads {SCHEMA}", field="schema")
        results: Results = _decode(cls, found, str(path))
        for i, cell in enumerate(results.cells):
            if not 0 <= cell.engine < len(results.engines):
                raise InvalidRequest(
                    f"{path}: cells[{i}].engine is {cell.engine}; there is no such engine", field="cells"
                )
        return results

    def cell(self, engine: int, model: str, scenario: str) -> Cell | None:
        wanted = (engine, model, scenario)
        return next((cell for cell in self.cells if (cell.engine, cell.model, cell.scenario) == wanted), None)


MOST_SAMPLES = 2000


def metric(
    samples: list[float], unit: str, better: str, *, per: str = "iteration", visits: list[int] | None = None
) -> Metric:
    """Sum samples up; at least one. Beyond `MOST_SAMPLES` only every n-th is kept."""
    s: Summary = summary(samples)
    step = -(-len(samples) // MOST_SAMPLES)
    kept, places = samples[::step], (visits or []) if step == 1 else []
    figures: dict[str, Any] = {name: _short(value) for name, value in s.items()}
    return Metric(unit, better, per, [_short(x) for x in kept], visits=places, **figures)


def _short(value: Any) -> Any:
    """Six significant digits: more would only be noise in the file."""
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _compact(value: Any) -> Any:
    """Numbers that json can hold, whole ones without a point."""
    if isinstance(value, dict):
        return {key: _compact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_compact(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    return value


def _decode(kind: Any, value: Any, where: str) -> Any:
    """A value of JSON as the type that a field declares."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise InvalidRequest(f"{where} must be an object", field=where)
        hints = typing.get_type_hints(kind)
        known = {f.name for f in fields(kind)}
        given = {name: _decode(hints[name], item, f"{where}.{name}") for name, item in value.items() if name in known}
        try:
            return typing.cast("Any", kind)(**given)
        except TypeError as error:
            raise InvalidRequest(f"{where}: {error}", field=where) from error
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _decode(next(a for a in arguments if a is not type(None)), value, where)
    if origin is list:
        if not isinstance(value, list):
            raise InvalidRequest(f"{where} must be a list", field=where)
        return [_decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise InvalidRequest(f"{where} must be an object", field=where)
        return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (int, float, str, bool) and type(value) is not kind:
        raise InvalidRequest(f"{where} is {value!r}; it must be of type {kind.__name__}", field=where)
    return value
