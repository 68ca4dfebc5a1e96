"""What processes use, from /proc: CPU time by thread, memory now and at its peak. On a system without /proc there is
nothing to read, and the results say nothing rather than something wrong."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds so far: of all threads, and of each by (process id, thread id)."""

    total_s: float
    threads: dict[tuple[int, int], float]


def cpu_of(pids: Iterable[int]) -> Cpu:
    """Processes that have ended count as nothing."""
    total, threads = 0.0, {}
    for pid in pids:
        times = _stat_times(_PROC / str(pid) / "stat")
        total += times or 0.0
        with contextlib.suppress(OSError):
            for task in (_PROC / str(pid) / "task").iterdir():
                seconds = _stat_times(task / "stat")
                if seconds is not None:
                    threads[pid, int(task.name)] = seconds
    return Cpu(total, threads)


def busiest_s(before: Cpu, after: Cpu) -> float:
    """CPU seconds, between two looks, of the thread that computed most."""
    return max((seconds - before.threads.get(thread, 0.0) for thread, seconds in after.threads.items()), default=0.0)


def reset_peaks(pids: Iterable[int]) -> None:
    """Let the peak of resident memory start again from what is resident now."""
    for pid in pids:
        with contextlib.suppress(OSError):
            (_PROC / str(pid) / "clear_refs").write_text("5")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of the largest process: ``peak`` resident since the last `reset_peaks`, and its proportional share now
    (``pss``: pages that it shares with others count in part)."""

    peak: int | None
    pss: int | None


def memory_of(pids: Iterable[int]) -> Memory:
    found = [(peak, pid) for pid in pids if (peak := _field(_PROC / str(pid) / "status", "VmHWM")) is not None]
    if not found:
        return Memory(None, None)
    peak, pid = max(found)
    return Memory(peak, _field(_PROC / str(pid) / "smaps_rollup", "Pss"))


def renderers(profile: Path, *, gpu: bool = False) -> list[int]:
    """The processes of the browser with this profile that run its pages, and its GPU process where asked for."""
    roots = {pid for pid, line in _command_lines() if str(profile) in line and "--type=" not in line}
    wanted = ("--type=renderer", "--type=gpu-process") if gpu else ("--type=renderer",)
    family = _descendants(roots)
    return [
        pid
        for pid, line in _command_lines()
        if pid in family and any(kind in line for kind in wanted) and "--top-chrome-webui" not in line
    ]


class Watch:
    """How much of this machine's processor others used while the run went on: a thread looks once a second."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._ours: dict[tuple[int, int], float] = {}  # (pid, start time) → CPU seconds when last seen
        self._first = _machine()
        self._before = _self_tree(self._ours)
        self._thread = threading.Thread(target=self._look, name="inpage-bench-watch", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(1.0):
            _self_tree(self._ours)

    def end(self) -> None:
        self._stop.set()
        self._thread.join()

    def share(self) -> float | None:
        """The share of all cores that went to other processes until now, 0..1; None where it cannot be known."""
        now, seen = _machine(), dict(self._ours)  # the thread goes on with its own
        if self._first is None or now is None:
            return None
        ours = _self_tree(seen) - self._before
        busy, total = (now[i] - self._first[i] for i in (0, 1))
        return max(0.0, busy - ours) / total if total > 0 else None


def _machine() -> tuple[float, float] | None:
    """(busy, all) CPU seconds of all cores since the machine started."""
    try:
        words = (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    ticks = [int(word) for word in words]
    return (sum(ticks) - ticks[3] - ticks[4]) / _TICK, sum(ticks) / _TICK


def _self_tree(seen: dict[tuple[int, int], float]) -> float:
    """Note the CPU seconds of this process and all below it; their sum."""
    for pid in _descendants({os.getpid()}):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            seen[pid, int(fields[19])] = (int(fields[11]) + int(fields[12])) / _TICK
    return sum(seen.values())


def _descendants(roots: set[int]) -> set[int]:
    parents: dict[int, int] = {}
    with contextlib.suppress(OSError):
        for folder in _PROC.iterdir():
            if folder.name.isdecimal():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                    parents[int(folder.name)] = int(fields[1])
    family, grown = set(roots), True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        grown = bool(more)
        family |= more
    return family


def _command_lines() -> list[tuple[int, str]]:
    found = []
    with contextlib.suppress(OSError):
        for folder in _PROC.iterdir():
            if folder.name.isdecimal():
                with contextlib.suppress(OSError):
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found.append((int(folder.name), line))
    return found


def _stat_times(path: Path) -> float | None:
    """utime + stime of a stat file, in seconds."""
    try:
        fields = path.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK
    except (OSError, ValueError, IndexError):
        return None


def _field(path: Path, name: str) -> int | None:
    """A line like ``VmHWM:  160528 kB``, in bytes."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in path.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None
