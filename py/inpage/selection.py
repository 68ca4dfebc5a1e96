"""Which of an artifact's variants can run here, which one does, and why: in one sentence for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .capability import Device
from .errors import InvalidRequest, Unsupported
from .schema import Variant

_FASTEST_FIRST = ("wasm-relaxed", "wasm-simd", "native")
_NAMES = {
    "simd128": "WebAssembly SIMD",
    "relaxed-simd": "WebAssembly relaxed SIMD",
    "atomics": "WebAssembly threads",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A variant and whether it can run here. ``reason`` is a sentence for people."""

    variant: Variant
    can_run: bool
    reason: str

    def __str__(self) -> str:
        return f"{self.variant.name}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Choice:
    variant: Variant
    threads: int
    why: str
    candidates: tuple[Candidate, ...]


def candidates(variants: Sequence[Variant], device: Device) -> tuple[Candidate, ...]:
    """Every variant, the fastest first; those that nobody ranked come last."""
    ranked = sorted(variants, key=lambda v: _FASTEST_FIRST.index(v.name) if v.name in _FASTEST_FIRST else 99)
    return tuple(Candidate(variant, *_verdict(variant, device)) for variant in ranked)


def choose(
    variants: Sequence[Variant], device: Device, *, backend: str | None = None, threads: int | None = None
) -> Choice:
    """The fastest variant that can run, or the one that ``backend`` pins (a backend's or a variant's name).

    Raises `InvalidRequest` for a name that the artifact does not have or a bad ``threads``, `Unsupported`, with the
    reason of each candidate, where none can run."""
    found = candidates(variants, device)
    pool = [c for c in found if backend in (None, c.variant.name, c.variant.backend)]
    if not pool:
        names = dict.fromkeys(name for c in found for name in (c.variant.backend, c.variant.name))
        raise InvalidRequest(
            f"this artifact has no backend {backend!r}; it has {', '.join(names) or 'none'}", field="backend"
        )
    best = next((c for c in pool if c.can_run), None)
    if best is None:
        asked = f" as {backend}" if backend else ""
        raise Unsupported(f"this model cannot run here{asked}: {'; '.join(map(str, pool))}", field="backend")
    count, about = _threads(device, threads)
    reason = f"pinned by the caller ({backend})" if backend else best.reason
    return Choice(best.variant, count, f"{best.variant.name}: {reason}; {about}", found)


def _verdict(variant: Variant, device: Device) -> tuple[bool, str]:
    if variant.backend not in ("wasm", "native"):
        return False, "this version of inpage has no engine for it"
    if variant.backend == "wasm" and device.place != "page":
        return False, "runs in a browser's page, and this is not one"
    if variant.backend == "native" and device.place == "page":
        return False, "runs outside the browser only"
    missing = [name for name in variant.requires if name not in device.features]
    if missing:
        words = " and ".join(_NAMES.get(name, name.removeprefix("host:")) for name in missing)
        made_for = "was compiled for" if missing[0].startswith("host:") else "needs"
        return False, f"{made_for} {words}, which this device does not have"
    having = " and ".join(_NAMES.get(n, n.removeprefix("host:")) for n in variant.requires)
    return True, f"this device has {having}" if having else "it needs nothing special"


def _threads(device: Device, asked: int | None) -> tuple[int, str]:
    if asked is None:
        return device.threads, device.limits or f"{device.threads} of {device.cores} cores compute"
    if isinstance(asked, bool) or not isinstance(asked, int) or not 1 <= asked <= 16:
        raise InvalidRequest(f"threads is {asked!r}; it must be a whole number of 1..16", field="threads")
    if device.place == "page" and asked > 1 and not device.isolated:
        return 1, device.limits or "one thread, the only core"
    return asked, f"{asked} threads, as asked"
