"""What this device has: the instruction sets, the adapter, the isolation and the cores that decide which variants can
run."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass, field
from typing import Any

from .browser import IN_PAGE, host, settle

_MOST_THREADS = 8  # a small model's step is too short to share further
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Adapter:
    """A WebGPU adapter. ``software``: it computes on the CPU. ``limits`` are what it can do at most, by WebGPU's
    names; ``language``: what its browser's WGSL has beyond the first version."""

    name: str
    software: bool
    features: tuple[str, ...] = ()
    limits: dict[str, int] = field(default_factory=dict)
    language: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Device:
    """``features`` are the words that a manifest's variants `require`; ``threads`` is how many may compute."""

    place: str  # "page" or "host"
    features: frozenset[str]
    cores: int
    threads: int
    isolated: bool = False  # page: SharedArrayBuffer, hence several threads, is there
    adapter: Adapter | None = None
    no_adapter: str = ""  # why there is none
    program: str = ""  # browser, or Python and system, with versions
    memory: int | None = None  # bytes of the device, as far as it tells
    storage: dict[str, Any] = field(default_factory=dict)

    @property
    def limits(self) -> str:
        """Why there are no more threads than there are; empty where all cores can be used."""
        if self.place == "page" and not self.isolated and self.cores > 1:
            return "one thread, because the page is not cross-origin isolated (COOP/COEP headers)"
        return ""

    def has(self, word: str) -> bool:
        """Whether it has what a manifest's variant requires: a feature, also of WGSL, or a limit of WebGPU of at least
        so much (``maxStorageBuffersPerShaderStage:10``)."""
        name, _, least = word.partition(":")
        if least.isdecimal():
            return self.adapter is not None and self.adapter.limits.get(name, 0) >= int(least)
        return word in self.features or (self.adapter is not None and word in self.adapter.language)

    @property
    def fingerprint(self) -> str:
        """Measurements hold as long as this stays the same. WGSL's features go with the program."""
        adapter = self.adapter.name if self.adapter else "no adapter"
        words = " ".join(sorted(self.features))
        return f"{self.program} | {adapter} | {self.cores} cores | {'' if self.isolated else 'not '}isolated | {words}"


def host_device() -> Device:
    """This computer, as seen from CPython."""
    machine = platform.machine().lower()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Device(
        place="host",
        features=frozenset({f"host:{_MACHINES.get(machine, machine)}-{sys.platform}"}),
        cores=cores,
        threads=min(cores, _MOST_THREADS),
        no_adapter="WebGPU runs in a browser's page, and this is not one",
        program=f"Python {platform.python_version()} on {platform.platform()} {platform.processor()}".strip(),
    )


_told: dict[str, float] = {}  # what only the page's own thread knows: "memory" in GiB


def tell_memory(gib: object) -> None:
    """What the page says of the device's memory, where it says anything."""
    if isinstance(gib, int | float) and not isinstance(gib, bool) and 0 < gib < 1e6:
        _told["memory"] = gib


async def page_device(power: str = "high-performance") -> Device:
    """This browser, as web/engine/core/features.js and web/router/adapter.js probe it. ``power``: which adapter is
    asked for, see `WebGpuSettings`."""
    found = (await settle(host().probeDevice(power))).to_py()
    cores = int(found["cores"])
    adapter = _adapter(found["adapter"]) if found["adapter"] else None
    return Device(
        place="page",
        features=frozenset(found["wasm"]) | ({"webgpu", *adapter.features} if adapter else set()),
        cores=cores,
        threads=min(cores, _MOST_THREADS) if found["threads"] else 1,
        isolated=bool(found["isolated"]),
        adapter=adapter,
        no_adapter=found["reason"],
        program=found["userAgent"],
        memory=int(memory * (1 << 30)) if (memory := _told.get("memory") or found["deviceMemory"]) else None,
        storage=found["storage"] | found["space"],
    )


async def this_device(power: str = "high-performance") -> Device:
    return await page_device(power) if IN_PAGE else host_device()


def _adapter(found: dict[str, Any]) -> Adapter:
    words = [found["vendor"], found["architecture"], found["device"]]
    name = " ".join(dict.fromkeys(word for word in words if word))
    if found["description"]:
        name = f"{name} ({found['description']})" if name else found["description"]
    limits = {key: int(value) for key, value in found["limits"].items()}
    return Adapter(
        name or "an unnamed adapter",
        bool(found["software"]),
        tuple(found["features"]),
        limits,
        tuple(found["language"]),
    )
