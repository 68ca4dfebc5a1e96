"""What an engine's profile says of each kernel: its time, the bytes it streams and the operations it does, by plan."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SHAPE = re.compile(r"(\d+)x(\d+)")
# Kinds by how a kernel's name begins; the head is the linear layer on the rows that get logits.
_KINDS = {"linear": "linear", "gated": "linear", "attention": "attention", "rope": "position", "embed": "embedding"}


@dataclass(frozen=True, slots=True)
class KernelTime:
    """One kernel in one profile: ``launches`` of it in a step, and all of them together: microseconds, bytes of
    weights and KV that they stream, integer or float operations (a multiply and an add are two). ``workgroups``: of the
    largest launch, on a GPU."""

    name: str
    kind: str
    launches: int
    us: float
    bytes: float
    operations: float
    workgroups: int = 0

    @property
    def gbps(self) -> float | None:
        """GB of weights and KV a second; None where nothing is streamed."""
        return self.bytes / self.us / 1e3 if self.bytes and self.us > 0 else None

    @property
    def gops(self) -> float | None:
        return self.operations / self.us / 1e3 if self.operations and self.us > 0 else None


@dataclass(frozen=True, slots=True)
class StepTime:
    """A step of ``rows`` rows on ``threads`` threads, ``depth`` tokens being there already: ``us`` as it runs, and its
    kernels, timed one by one. On a GPU ``clock`` says whether by its own clock ("gpu") or by the ``wall``'s; then
    ``busy`` is the share of the time in which it computes while steps follow one another, and ``call_us`` what a pass
    of its own costs each launch, which is taken off."""

    rows: int
    sequences: int
    depth: int
    threads: int
    us: float
    kernels: tuple[KernelTime, ...]
    clock: str = ""
    busy: float | None = None
    call_us: float = 0.0

    @property
    def by_kind(self) -> tuple[KernelTime, ...]:
        """The same summed up by kind, the slowest first."""
        kinds: dict[str, KernelTime] = {}
        for k in self.kernels:
            old = kinds.get(k.kind) or KernelTime(k.kind, k.kind, 0, 0.0, 0.0, 0.0)
            kinds[k.kind] = KernelTime(
                k.kind, k.kind, old.launches + k.launches, old.us + k.us, old.bytes + k.bytes,
                old.operations + k.operations,
            )  # fmt: skip
        return tuple(sorted(kinds.values(), key=lambda k: -k.us))


@dataclass(frozen=True, slots=True)
class Peaks:
    """What this machine reaches at most, by number of threads."""

    read_gbps: Mapping[int, float]
    dot_gops: Mapping[int, float]

    @classmethod
    def from_results(cls, results: Mapping[str, Any]) -> Peaks | None:
        """From a results.json of `inpage bench`, where it measured them."""
        peaks = results.get("environment", {}).get("peaks")
        if not peaks:
            return None
        read, dot = peaks["read_gbps"], peaks["dot_gops"]
        return cls({int(n): float(x) for n, x in read.items()}, {int(n): float(x) for n, x in dot.items()})


@dataclass(frozen=True, slots=True)
class AlternativeTime:
    """One of the kernels that do the same: the best microseconds a launch by number of threads, with what a launch
    streams and computes as in `KernelTime`. ``default``: it runs until another is chosen."""

    name: str
    default: bool
    us: Mapping[int, float]
    bytes: float
    operations: float

    def rates(self, threads: int) -> tuple[float, float]:
        """GB/s and GOP/s."""
        return self.bytes / self.us[threads] / 1e3, self.operations / self.us[threads] / 1e3


def alternatives(us: Mapping[int, Mapping[str, float]], plan: Mapping[str, Any], many: int) -> list[AlternativeTime]:
    """``us``: by threads and kernel; ``many``: rows with which kernels for many rows were timed."""
    found = []
    names = [str(kernel["name"]) for kernel in plan["kernels"]]
    for group in plan.get("alternatives", []):
        function = next(f for f in plan["functions"] if any(x["kernel"] == group[0] for x in f["launches"]))
        launches = [x for x in function["launches"] if x["kernel"] == group[0]]
        bound = [plan["buffers"][i] for launch in launches for i in launch["buffers"]]
        weights = sum(b["bytes"] for b in bound if b["kind"] == "weight") / len(launches)
        shape = _SHAPE.search(names[group[0]])
        rows = min(function["max_rows"], many)
        work = 2.0 * int(shape[1]) * int(shape[2]) * rows if shape else 0.0
        for k in group:
            times = {threads: by_name[names[k]] for threads, by_name in us.items()}
            found.append(AlternativeTime(names[k], k == group[0], times, weights, work))
    return found


def step_time(profile: Mapping[str, Any], plan: Mapping[str, Any], architecture: Mapping[str, Any]) -> StepTime:
    """``profile``: what the engine's ``profile`` answers; ``plan``: its plan.json; ``architecture``: the manifest's."""
    rows, sequences, depth = int(profile["rows"]), int(profile["sequences"]), int(profile["depth"])
    launches = next(f for f in plan["functions"] if f["max_rows"] >= rows)["launches"]
    count = {"rows": rows, "logit_rows": sequences if sequences == rows else 1, "sequences": sequences}
    found: dict[str, KernelTime] = {}
    groups = profile.get("launch_workgroups") or [0] * len(launches)
    for launch, us, workgroups in zip(launches, profile["launch_us"], groups, strict=True):
        name = str(plan["kernels"][launch["kernel"]]["name"])
        buffers = [plan["buffers"][i] for i in launch["buffers"]]
        weights = sum(b["bytes"] for b in buffers if b["kind"] == "weight")
        variables = [s for s in launch["scalars"] if isinstance(s, str)]
        own = count[variables[-1]] if variables else 1
        kind = _kind(name, variables)
        if kind == "attention":
            weights, work = _attention(plan, architecture, rows, sequences, depth)
        elif kind == "embedding":
            weights, work = own * weights / plan["vocab"], 0.0
        else:
            shape = _SHAPE.search(name)
            work = 2.0 * int(shape[1]) * int(shape[2]) * own if shape else 0.0
        old = found.get(name) or KernelTime(name, kind, 0, 0.0, 0.0, 0.0)
        spent = max(0.0, float(us) - float(profile["call_us"]))
        found[name] = KernelTime(
            name, kind, old.launches + 1, old.us + spent, old.bytes + weights, old.operations + work,
            max(old.workgroups, int(workgroups)),
        )  # fmt: skip
    ranked = tuple(sorted(found.values(), key=lambda k: -k.us))
    return StepTime(
        rows, sequences, depth, int(profile["threads"]), float(profile["step_us"]), ranked, profile.get("clock", ""),
        profile.get("busy"), float(profile["call_us"]),
    )  # fmt: skip


def _kind(name: str, variables: Sequence[str]) -> str:
    kind = next((kind for start, kind in _KINDS.items() if name.startswith(start)), "other")
    return "head" if kind == "linear" and variables[-1:] == ["logit_rows"] else kind


def _attention(
    plan: Mapping[str, Any], architecture: Mapping[str, Any], rows: int, sequences: int, depth: int
) -> tuple[float, float]:
    """KV bytes that one layer reads at least once, and operations of scores and sums."""
    kv = [b["page_bytes"] for b in plan["buffers"] if "page_bytes" in b]
    page = sum(kv) if kv else plan["kv"]["page_bytes"]
    per_token = page / plan["page_tokens"] / architecture["layers"]
    new = rows / sequences
    seen = depth + (new + 1) / 2  # tokens that a row looks at, on average
    heads, dim = architecture["heads"], architecture["head_dim"]
    return per_token * (depth + new) * sequences, 4.0 * heads * dim * seen * rows


def shares(step: StepTime, k: KernelTime, peaks: Peaks | None) -> list[str]:
    """A kernel's rates in % of what the machine reads and computes at most; nothing without peaks."""
    if peaks is None:
        return []
    pairs = ((k.gbps, peaks.read_gbps.get(step.threads)), (k.gops, peaks.dot_gops.get(step.threads)))
    return ["–" if rate is None or not peak else f"{100 * rate / peak:.0f}" for rate, peak in pairs]
