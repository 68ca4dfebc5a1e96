"""Which of an artifact's variants can run here, which one does, and why: in one sentence for each.

What cannot run is ruled out. The rest is ranked by what was measured on this device (`measure`, remembered by
`device_profile`), and before anything was measured by what is usually faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..engines.registry import EngineKind, engine_kind, expected_order
from ..errors import InvalidRequest, Unsupported, quoted
from ..format.schema import Variant
from ..host.capability import Device
from .measurement import Measurement

_NAMES = {
    "simd128": "WebAssembly SIMD",
    "relaxed-simd": "WebAssembly relaxed SIMD",
    "atomics": "WebAssembly threads",
    "shader-f16": "WebGPU's shader-f16",
    "subgroups": "WebGPU's subgroups",
    "packed_4x8_integer_dot_product": "WGSL's dot products of packed 8-bit numbers",
    "chromium-experimental-subgroup-matrix": "Chromium's experimental subgroup matrices",
    "webgpu": "WebGPU",
}


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A variant and whether it can run here. ``reason`` is a sentence for people."""

    variant: Variant
    can_run: bool
    reason: str

    @property
    def name(self) -> str:
        return self.variant.name

    @property
    def kind(self) -> EngineKind:
        return engine_kind(self.variant.backend)

    def __str__(self) -> str:
        return f"{self.variant.name}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Choice:
    """``ranked``: those that may run, the best first; ``candidates``: all there are."""

    ranked: tuple[Candidate, ...]
    candidates: tuple[Candidate, ...]
    threads: int
    about_threads: str
    pin: str | None

    @property
    def variant(self) -> Variant:
        return self.ranked[0].variant

    @property
    def why(self) -> str:
        return self.reason(self.ranked[0])

    def reason(self, candidate: Candidate, measurement: Measurement | None = None, took_over: str = "") -> str:
        """Why this one runs, in a sentence."""
        why = candidate.reason
        if took_over:
            why = f"took over because {took_over}"
        elif self.pin == candidate.name:
            why = f"pinned by the caller ({self.pin})"
        elif measurement is not None and len(self.ranked) > 1:
            why = f"measured {rate(measurement.decode_tps)} tokens a second here"
        if candidate.kind.gpu:
            return f"{candidate.name}: {why}"
        return f"{candidate.name}: {why}; {self.about_threads}"


def candidates(
    variants: Sequence[Variant], device: Device, refused: Mapping[str, str] | None = None
) -> tuple[Candidate, ...]:
    """Every variant, the one expected to be the fastest first."""
    software = device.adapter is not None and device.adapter.software

    def order(variant: Variant) -> tuple[bool, tuple[int, int]]:
        return software and engine_kind(variant.backend).gpu, expected_order(variant)

    ranked = sorted(variants, key=order)
    no = refused or {}
    return tuple(Candidate(v, *((False, no[v.name]) if v.name in no else _verdict(v, device))) for v in ranked)


def choose(
    variants: Sequence[Variant],
    device: Device,
    *,
    backend: str | None = None,
    threads: int | None = None,
    measurements: Mapping[str, Measurement] | None = None,
    refused: Mapping[str, str] | None = None,
) -> Choice:
    """Rank the variants that can run: all, or those that ``backend`` pins (a backend's or a variant's name).
    ``measurements``: what was measured, by variant. ``refused``: why the caller rules a variant out, by variant.

    Raises `InvalidRequest` for a name that the artifact does not have or a bad ``threads``, `Unsupported`, with the
    reason of each candidate, where none can run."""
    found = candidates(variants, device, refused)
    pool = [c for c in found if backend in (None, c.variant.name, c.variant.backend)]
    if not pool:
        names = dict.fromkeys(name for c in found for name in (c.variant.backend, c.variant.name))
        raise InvalidRequest(
            f"this artifact has no backend {quoted(backend)}; it has {', '.join(names) or 'none'}", field="backend"
        )
    able = [c for c in pool if c.can_run]
    if not able:
        asked = f" as {backend}" if backend else ""
        raise Unsupported(f"this model cannot run here{asked}: {'; '.join(map(str, pool))}", field="backend")
    count, about = _threads(device, threads)
    return Choice(tuple(rank(able, measurements or {})), found, count, about, backend)


def rank(able: Sequence[Candidate], measurements: Mapping[str, Measurement]) -> list[Candidate]:
    """The fastest measured first; what nobody measured yet follows in the order that is expected."""
    measured = sorted((c for c in able if c.name in measurements), key=lambda c: measurements[c.name].typical_s)
    return [*measured, *(c for c in able if c.name not in measurements)]


def sentence(ranked: Sequence[Candidate], found: Sequence[Candidate], measurements: Mapping[str, Measurement],
             device: Device) -> str:  # fmt: skip
    """All backends in one sentence for people: "WASM, 2 threads: 118 tokens a second; WebGPU is a software adapter:
    2"."""
    parts: list[str] = []
    for candidate in dict.fromkeys([*rank(ranked, measurements), *found]):
        kind = candidate.kind
        name = kind.title
        if (kind.place == "host" and device.place == "page") or any(part.startswith(name) for part in parts):
            continue
        measurement = measurements.get(candidate.name)
        if kind.gpu and device.adapter is not None and device.adapter.software:
            name += " is a software adapter"
        elif measurement is not None and not kind.gpu:
            name += f", {measurement.threads} thread{'s' * (measurement.threads > 1)}"
        unit = "" if any("tokens" in part for part in parts) else " tokens a second"
        said = (
            f"{rate(measurement.decode_tps)}{unit}"
            if measurement
            else "not measured"
            if candidate.can_run
            else candidate.reason
        )
        parts.append(f"{name}: {said}")
    return "; ".join(parts)


def rate(tps: float) -> str:
    return f"{tps:.0f}" if tps >= 10 else f"{tps:.1f}"


def about_threads(threads: int, measured: Mapping[str, float], prompt_threads: int | None = None) -> str:
    """What the engine found when it tried several numbers of threads, as a sentence without its full stop."""
    found = ", ".join(f"{count}: {rate:.0f}" for count, rate in sorted(measured.items(), key=lambda m: int(m[0])))
    prompts = f", prompts on {prompt_threads}" if prompt_threads and prompt_threads != threads else ""
    return f"Threads: {threads}{prompts}, chosen by trying (tokens a second of {found})"


def _verdict(variant: Variant, device: Device) -> tuple[bool, str]:
    kind = engine_kind(variant.backend)
    if not kind.place:
        return False, f"needs an engine that this version does not have ({variant.backend})"
    if kind.place != device.place:
        page = "runs in a browser's page, and this is not one"
        return False, page if kind.place == "page" else "runs outside the browser only"
    if kind.gpu and device.adapter is None:
        return False, device.no_adapter or "this browser has no WebGPU"
    missing = [name for name in variant.requires if not device.has(name)]
    if missing:
        words = " and ".join(map(_named, missing))
        made_for = "was compiled for" if missing[0].startswith("host:") else "needs"
        return False, f"{made_for} {words}, which this device does not have"
    having = " and ".join(map(_named, variant.requires))
    if kind.gpu and device.adapter is not None:
        return True, f"WebGPU on {device.adapter.name}" + (", a software adapter" if device.adapter.software else "")
    return True, f"this device has {having}" if having else "it needs nothing special"


def _named(word: str) -> str:
    """What a variant requires, for people."""
    name, _, least = word.partition(":")
    if least.isdecimal():
        return f"WebGPU's {name} of {least}"
    feature, _, size = word.partition("/")
    return f"matrix units of {size}" if size else _NAMES.get(feature, word.removeprefix("host:"))


def _threads(device: Device, asked: int | None) -> tuple[int, str]:
    if asked is None:
        return device.threads, device.limits or f"{device.threads} of {device.cores} cores compute"
    if isinstance(asked, bool) or not isinstance(asked, int) or not 1 <= asked <= 16:
        raise InvalidRequest(f"threads is {quoted(asked)}; it must be a whole number of 1..16", field="threads")
    if device.place == "page" and asked > 1 and not device.isolated:
        return 1, device.limits or "one thread, the only core"
    return asked, f"{asked} threads, as asked"
