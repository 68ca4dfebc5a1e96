"""What the launches of a WebGPU plan move and compute in one step, by its shapes: workgroups, bytes, operations.

A dispatch reads each byte that it touches once, and writes it once: what its workgroups share is taken to come out of a
cache. ``loads`` says how often they ask for a weight, ``loaded`` for how many bytes of matrices and of what these are
multiplied with. Operations are two for each multiply-add of matrices and of
attention; what is done element by element is left out, since bytes bound it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..format.plan_types import Buffer, Function, Kernel, KvGroup, Launch, Plan, extent
from ..format.schema import Architecture, Manifest, Tensor


@dataclass(frozen=True, slots=True)
class Step:
    """``rows`` tokens of one sequence, after ``before`` tokens whose keys and values lie in the KV cache."""

    rows: int
    before: int

    @property
    def variables(self) -> dict[str, int]:
        return {"rows": self.rows, "sequences": 1, "logit_rows": 1}

    def seen(self, window: int | None) -> list[int]:
        """Tokens that each row sees, itself included."""
        seen = range(self.before + 1, self.before + self.rows + 1)
        return [n if window is None else min(n, window) for n in seen]


@dataclass(frozen=True, slots=True)
class Machine:
    """Bytes and operations a second, and seconds that a dispatch takes which does nothing."""

    bandwidth: float
    speed: float
    dispatch: float

    def seconds(self, cost: Cost) -> float:
        """What bounds the kernel: its bytes or its operations, and its dispatches."""
        return max((cost.read + cost.written) / self.bandwidth, cost.operations / self.speed) + (
            cost.dispatches * self.dispatch
        )


@dataclass(slots=True)
class Cost:
    """Of all launches of a kernel in a step; ``workgroups``: of the smallest of them."""

    kernel: str
    dispatches: int = 0
    workgroups: int = 0
    read: int = 0
    written: int = 0
    operations: int = 0
    loads: int = 0  # times that the workgroups of a dispatch ask for each weight
    loaded: int = 0  # bytes of weights and activations that they ask for

    def add(self, other: Cost) -> None:
        self.workgroups = min(self.workgroups, other.workgroups) if self.dispatches else other.workgroups
        self.loads = max(self.loads, other.loads)
        for name in ("dispatches", "read", "written", "operations", "loaded"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def costs(plan: Plan, manifest: Manifest, step: Step) -> list[Cost]:
    """Of each kernel of the step, in the order of their first launch. ``plan``: a WebGPU variant's, with a KV cache."""
    total: dict[str, Cost] = {}
    for cost in _Walk(plan, manifest, step).launches():
        if cost.dispatches:
            total.setdefault(cost.kernel, Cost(cost.kernel)).add(cost)
    return list(total.values())


def dispatches_of_a_layer(plan: Plan, layers: int, step: Step) -> float:
    """Dispatches between the first and the last launch that reads a layer's weights, for each of the layers."""
    function = _function(plan, step.rows)
    inside = [
        i
        for i, launch in enumerate(function.launches)
        if any((plan.buffers[b].tensor or "").startswith("blk.") for b in launch.buffers)
    ]
    within = function.launches[inside[0] : inside[-1] + 1] if inside else ()
    return sum(_workgroups(launch, step) > 0 for launch in within) / layers


def _function(plan: Plan, rows: int) -> Function:
    return next(f for f in plan.functions if rows <= f.max_rows)


def _workgroups(launch: Launch, step: Step) -> int:
    return math.prod(extent(value, step.variables) for value in launch.grid)


@dataclass(slots=True)
class _Walk:
    plan: Plan
    manifest: Manifest
    step: Step
    # Of an arena's buffer, as it was last written: the variable that counts its rows, and its bytes for each.
    rows_of: dict[int, tuple[str, float]] = field(default_factory=dict)

    def launches(self) -> Iterator[Cost]:
        function = _function(self.plan, self.step.rows)
        tensors = {t.name: t for t in self.manifest.tensors}
        for launch in function.launches:
            yield self._cost(launch, self.plan.kernels[launch.kernel], function.max_rows, tensors)

    def _cost(self, launch: Launch, kernel: Kernel, max_rows: int, tensors: Mapping[str, Tensor]) -> Cost:
        cost = Cost(kernel.name, 0, _workgroups(launch, self.step))
        if not cost.workgroups:
            return cost
        cost.dispatches = 1
        buffers = [(b, self.plan.buffers[b], access) for b, access in zip(launch.buffers, kernel.access, strict=True)]
        variable = next((s for s in launch.scalars if isinstance(s, str)), "rows")
        count, lookup = self.step.variables[variable], self.plan.io["token_ids"] in launch.buffers
        group = self._group(launch) if any(buffer.kind == "kv" for _, buffer, _ in buffers) else None
        state = _state_of(kernel)
        for i, (b, buffer, access) in enumerate(buffers):
            if access == "w":
                most = max_rows if variable == "rows" else getattr(self.plan.maxima, variable)
                self.rows_of[b] = (variable, buffer.bytes / most)
            if i == state:
                self._add_state(cost, kernel, buffer.bytes // max_rows // 4, group)
                continue
            if access == "x" and (i < state or kernel.name.startswith("quantize_rows")):
                access = "r"  # only read, beside what is written in the same arena
            if buffer.kind == "weight":
                tensor = tensors[buffer.tensor or ""]
                share = buffer.bytes / tensor.bytes
                if lookup:
                    cost.read += round(count * share * tensor.bytes / tensor.shape[0])
                    continue
                cost.read += buffer.bytes
                if len(tensor.shape) == 2:
                    wide, cost.loads = (extent(n, self.step.variables) for n in launch.grid[:2])
                    activations = self._bytes(launch.buffers[0], buffers[0][1], count, group)
                    cost.loaded += buffer.bytes * cost.loads + activations * wide
                    cost.operations += round(2 * share * math.prod(tensor.shape) * count)
            elif buffer.kind == "kv":
                self._add_kv(cost, kernel, buffer, access, group)
            else:
                size = self._bytes(b, buffer, count, group)
                cost.read += size if access != "w" else 0
                cost.written += size if access != "r" else 0
        return cost

    def _add_state(self, cost: Cost, kernel: Kernel, row_words: int, group: KvGroup | None) -> None:
        """What spans of the context leave for the last of them to add up: of every query head values, maximum and sum,
        behind counters. Where there are several, each is written, read, and left as zeros."""
        a, context = self.manifest.architecture, self.plan.maxima.context
        one = a.heads * (a.head_dim + 2)
        spans, counters = divmod(row_words, one)
        size = -(-context // spans)
        ends = range(self.step.before + 1, self.step.before + self.step.rows + 1)
        if kernel.name.startswith("clear_state"):
            cost.written += 4 * sum(counters + -(-end // size) * one for end in ends)
            return
        seen = self.step.seen(group.window if group else None)
        for end, n in zip(ends, seen, strict=True):
            used = -(-end // size) - (end - n) // size
            if used > 1:
                cost.read += 4 * one * used
                cost.written += 8 * one * used

    def _bytes(self, b: int, buffer: Buffer, count: int, group: KvGroup | None) -> int:
        if b == self.plan.io["block_tables"]:
            size = group.page_tokens if group else self.plan.page_tokens
            return 4 * -(-(self.step.before + self.step.rows) // size)
        if buffer.kind == "input":
            shape = [self.step.variables[d] if isinstance(d, str) else d for d in buffer.shape]
            return 4 * math.prod(shape)
        if buffer.kind == "output":
            return round(buffer.bytes / self.plan.maxima.logit_rows * count)
        _, each = self.rows_of[b]
        return round(each * count)

    def _add_kv(self, cost: Cost, kernel: Kernel, buffer: Buffer, access: str, group: KvGroup | None) -> None:
        assert group is not None
        a, each = self.manifest.architecture, buffer.page_bytes // group.page_tokens
        if kernel.name.startswith("short_conv"):
            cost.read += each * (self.step.rows + a.conv_taps - 1)
        elif access == "r" or kernel.name.startswith("attention"):
            seen = self.step.seen(group.window)
            end = self.step.before + self.step.rows
            first = min(self.step.before + i + 1 - n for i, n in enumerate(seen))
            cost.read += each * (end - first)
            cost.operations += _attention(a, seen)
        if access != "r":
            cost.written += each * self.step.rows

    def _group(self, launch: Launch) -> KvGroup:
        """Of a launch that reads or writes keys and values: behind its rows stands the first column of its group in
        the block table, where there are groups."""
        column = next((s for s in launch.scalars if not isinstance(s, str)), 0)
        first = 0
        for group in self.plan.kv_groups:
            if column == first:
                return group
            first += -(-self.plan.maxima.context // group.page_tokens)
        return KvGroup((), self.plan.page_tokens)


def _state_of(kernel: Kernel) -> int:
    """Which of the kernel's buffers is what attention by spans passes on; -1 where there is none."""
    if kernel.name.startswith("clear_state"):
        return kernel.access.index("w")
    return kernel.access.rindex("x") if kernel.name.startswith("attention_spans") else -1


def _attention(a: Architecture, seen: list[int]) -> int:
    """Scores and weighted values."""
    return 4 * a.heads * a.head_dim * sum(seen)
