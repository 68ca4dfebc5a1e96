"""What this device has: the instruction sets, the isolation and the cores that decide which variants can run."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass

from .browser import IN_PAGE, host

_MOST_THREADS = 8  # a small model's step is too short to share further
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Device:
    """``features`` are the words that a manifest's variants `require`; ``threads`` is how many may compute."""

    place: str  # "page" or "host"
    features: frozenset[str]
    cores: int
    threads: int
    isolated: bool = False  # page: SharedArrayBuffer, hence several threads, is there

    @property
    def limits(self) -> str:
        """Why there are no more threads than there are; empty where all cores can be used."""
        if self.place == "page" and not self.isolated and self.cores > 1:
            return "one thread, because the page is not cross-origin isolated (COOP/COEP headers)"
        return ""


def host_device() -> Device:
    """This computer, as seen from CPython."""
    machine = platform.machine().lower()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Device(
        place="host",
        features=frozenset({f"host:{_MACHINES.get(machine, machine)}-{sys.platform}"}),
        cores=cores,
        threads=min(cores, _MOST_THREADS),
    )


def page_device() -> Device:
    """This browser, as web/engine/features.js probes it."""
    found = host().probe().to_py()
    cores = int(found["cores"])
    return Device(
        place="page",
        features=frozenset(found["wasm"]),
        cores=cores,
        threads=min(cores, _MOST_THREADS) if found["threads"] else 1,
        isolated=bool(found["isolated"]),
    )


def this_device() -> Device:
    return page_device() if IN_PAGE else host_device()
