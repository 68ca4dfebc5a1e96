"""Where a run is made: the machine, the checkout, and the machine's pace while the run goes on."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from inpage.cli import paths
from inpage.host.capability import host_device

from .browser import Seen
from .results import Adapter, Environment, Peaks, Tool
from .stats import quantile

_BUSY_SHARE = 0.08  # of the processor, used by others: beyond, a run says that the machine was busy
_PACE_BYTES, _PACE_ROUNDS = 1 << 21, 4


class Pace:
    """A fixed piece of work on all cores (SHA-256 of 2 MiB on each, some milliseconds), done between measurements. It
    depends on nothing that is under test, so what makes it slower is the machine."""

    def __init__(self) -> None:
        self._cores = host_device().cores
        self._pool = ThreadPoolExecutor(self._cores, thread_name_prefix="inpage-bench-pace")
        self._data = bytes(_PACE_BYTES)
        self.samples: list[float] = []

    def sample(self) -> float:
        """Million bytes a second, of all cores together: the best of a few, since a thread may start on the wrong
        core."""
        times = []
        for _ in range(_PACE_ROUNDS):
            started = time.perf_counter()
            for _ in self._pool.map(lambda _: hashlib.sha256(self._data).digest(), range(self._cores)):
                pass
            times.append(time.perf_counter() - started)
        mbps = self._cores * _PACE_BYTES / min(times) / 1e6
        self.samples.append(mbps)
        return mbps

    def close(self) -> None:
        self._pool.shutdown()


def load_average() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def environment(
    seen: Seen,
    *,
    remote: bool,
    load_before: float | None,
    foreign: float | None,
    pace: Pace | None,
    peaks: Peaks | None = None,
) -> Environment:
    """Put the pieces together, at the end of a run."""
    samples = pace.samples if pace else []
    middle = quantile(samples, 0.5) if samples else None
    return Environment(
        cpu=cpu_name(),
        cores=host_device().cores,
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        os=os_name(),
        browser=seen.version,
        flags=seen.flags,
        adapter=Adapter(**seen.adapter) if seen.adapter else None,
        isolated=seen.isolated,
        load_before=load_before,
        load_after=load_average(),
        busy=foreign is not None and foreign > _BUSY_SHARE,
        foreign_cpu_share=None if foreign is None else round(foreign, 4),
        pace_mbps=None if middle is None else round(middle, 1),
        pace_spread=None if middle is None else round((quantile(samples, 0.95) - quantile(samples, 0.05)) / middle, 3),
        peaks=peaks,
        remote=remote,
    )


def tool() -> Tool:
    root = paths.checkout()
    revision = _git(root, "rev-parse", "HEAD") if root else None
    dirty = bool(_git(root, "status", "--porcelain", "--untracked-files=no")) if root and revision else False
    return Tool(version("inpage"), revision, dirty)


def cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform()


def _git(root: Path, *arguments: str) -> str | None:
    try:
        ran = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip() or None
