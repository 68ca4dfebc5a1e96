"""What is remembered from one visit to the next, by device, browser and artifact: measurements and faults.

In the page it lies in IndexedDB (web/router/notes.js), in CPython in the user's cache folder. It is only ever a
shortcut: what cannot be read, or was noted for another browser, adapter or artifact, is measured again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict
from typing import Any

from ..errors import ArtifactInvalid, InpageError
from ..format import bounded
from ..format.bounded_file import read_bounded
from ..format.limits import FILE_BYTES
from ..format.schema import Manifest
from ..host.browser import IN_PAGE, host, settle
from ..host.capability import Device
from ..host.folders import cache_folder
from .faults import FaultLog
from .kernel_choice import KernelChoice
from .measurement import Measurement

_VERSION = 1
_REASON = 500  # characters of why an exam was failed
_KEPT = 8  # devices noted of an artifact: adapters come and go, thread counts are tried


class DeviceProfile:
    """Made by `open`. ``measurements``, ``choices`` and ``exams`` by variant; of an exam why it was failed, "" where it
    was passed. `save` after changing them or the log."""

    def __init__(self, artifact: str, device: str) -> None:
        self._key = "".join(c if c.isalnum() or c in "-._" else "_" for c in artifact)
        self._device = device
        self._others: dict[str, Any] = {}
        self.measurements: dict[str, Measurement] = {}
        self.choices: dict[str, KernelChoice] = {}
        self.exams: dict[str, str] = {}
        self.log = FaultLog()

    @classmethod
    async def open(cls, manifest: Manifest, device: Device, threads: int | None) -> DeviceProfile:
        """Whatever is kept for this artifact on this device; damaged notes count as none."""
        words = f"{device.fingerprint} | {threads} | {manifest.revision}"
        profile = cls(manifest.id, hashlib.sha256(words.encode()).hexdigest()[:16])
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, ArithmeticError, InpageError):
            kept = bounded.read(await _read(profile._key) or "{}", FILE_BYTES["note"])
            if kept.get("version") == _VERSION:
                others = dict(kept["devices"])
                mine = others.pop(profile._device, None) or {"figures": {}, "faults": {}}
                measurements = {name: _measurement(**measurement) for name, measurement in mine["figures"].items()}
                choices = {name: _choice(**choice) for name, choice in mine.get("choices", {}).items()}
                exams = {str(name): str(why)[:_REASON] for name, why in dict(mine.get("exams", {})).items()}
                profile.log.load(mine["faults"])
                # All of it or nothing.
                profile._others, profile.measurements = others, measurements
                profile.choices, profile.exams = choices, exams
        return profile

    @property
    def struck_off(self) -> dict[str, str]:
        """Variants that failed their exam here, and why."""
        return {name: why for name, why in self.exams.items() if why}

    async def save(self) -> None:
        mine = {
            "figures": {name: asdict(measurement) for name, measurement in self.measurements.items()},
            "choices": {name: asdict(choice) for name, choice in self.choices.items()},
            "exams": self.exams,
            "faults": self.log.dump(),
        }
        kept = dict(list(self._others.items())[-_KEPT + 1 :]) | {self._device: mine}
        await _write(self._key, json.dumps({"version": _VERSION, "devices": kept}))


def _measurement(decode_tps: float, prefill_tps: float, threads: int, at: float) -> Measurement:
    if not 0 < decode_tps < 1e9 or not 0 < prefill_tps < 1e9:
        raise ValueError("no such speed")
    return Measurement(float(decode_tps), float(prefill_tps), int(threads), float(at))


def _choice(kernels: list[str], settled: bool, threads: int, threads_measured: dict[str, float] | None) -> KernelChoice:
    if not all(isinstance(name, str) for name in kernels) or not 1 <= threads <= 64:
        raise ValueError("no such choice")
    measured = {str(n): float(rate) for n, rate in threads_measured.items()} if threads_measured else None
    return KernelChoice(tuple(kernels), bool(settled), int(threads), measured)


async def _read(key: str) -> str:
    if IN_PAGE:
        text = str(await settle(host().readNote(key)))
        return text if len(text) <= FILE_BYTES["note"] else ""
    with contextlib.suppress(OSError, ValueError, ArtifactInvalid):
        return read_bounded(cache_folder() / "notes" / f"{key}.json", "note", ArtifactInvalid, key).decode("utf-8")
    return ""


async def _write(key: str, text: str) -> None:
    if IN_PAGE:
        await settle(host().writeNote(key, text))
        return
    with contextlib.suppress(OSError):
        folder = cache_folder() / "notes"
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f"{key}.{os.getpid()}"
        scratch.write_text(text, "utf-8")
        scratch.replace(folder / f"{key}.json")
