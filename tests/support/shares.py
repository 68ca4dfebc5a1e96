"""How evenly threads share the work of a step: computed from a plan and its kernels' own loops, without a clock.

How a kernel's units are shared is read from its outermost loop. What a unit costs is what kernels took on one thread
when they were measured (nanoseconds, SmolLM2 in Chromium on an AMD EPYC of the third generation): proportions, in which
it says little how fast a machine is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from tvm import tirx

from inpage.format.plan_types import Launch, Plan
from inpage.format.schema import Architecture
from inpage_compile.kernels.cpu.softmax import parts_of
from inpage_compile.kernels.cpu.visit import ROW_TILE
from inpage_compile.kernels.shared.heads import CHUNK, PAGE, Heads
from inpage_compile.lowering.plan import LoweredPlan

_SINGLE, _MANY = 0.050, 0.025  # a product of a linear layer: of one row, of many
_EIGHT_BITS = 1.6  # so much longer with 8-bit weights
_SQUARE, _QUANTIZE = 0.3, 1.45  # an element of a norm
_ROPE = 0.7  # an element that is rotated and stored
_ATTEND, _MERGE, _FINISH = 0.1, 0.4, 2.0  # a product of attention; an element of a chunk merged; one of the result
_EMBED, _TURN = 5.0, 60.0
_SHAPE = re.compile(r"_(\d+)x(\d+)")
_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Mul": lambda a, b: a * b, "Max": max, "Min": min,
    "FloorDiv": lambda a, b: a // b, "FloorMod": lambda a, b: a % b, "RShift": lambda a, b: a >> b,
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """``rows`` tokens of one sequence from ``first`` on; ``logits``: how many of them get logits."""

    rows: int
    first: int = 0
    logits: int = 1


@dataclass(frozen=True)
class Share:
    """Of a launch on so many threads: what the work is, and what the thread takes that has most of it."""

    name: str
    work: float
    longest: float


def prompt(rows: int, most: int) -> list[Step]:
    """The steps that read a prompt."""
    return [
        Step(min(most, rows - at), at, 1 if at + most >= rows else 0) for at in range(0, rows, most)
    ]  # fmt: skip


def evenness(made: LoweredPlan, plan: Plan, a: Architecture, steps: Sequence[Step], threads: int) -> float:
    """The mean thread's work ÷ that of the longest, a barrier after each launch. What is serial counts as every
    thread's: all are done with it at once, and what that costs beside a share each is what a barrier costs."""
    all_ = [share for step in steps for share in shares(made, plan, a, step, threads)]
    return sum(s.work for s in all_) / threads / sum(s.longest for s in all_)


def shares(made: LoweredPlan, plan: Plan, a: Architecture, step: Step, threads: int) -> list[Share]:
    """Of each launch of a step."""
    function = next(f for f in plan.functions if f.max_rows >= step.rows)
    heads = Heads(a.heads, a.kv_heads, a.head_dim, a.layers, 1, 1, plan.blocks_per_sequence)
    return [
        _serial(_share(made, plan, heads, launch, step, 1), threads)
        if launch.serial
        else _share(made, plan, heads, launch, step, threads)
        for launch in function.launches
    ]


def shares_of(made: LoweredPlan, name: str, rows: int, threads: int) -> int:
    """Into how many a launch is cut: the rule of the runtime's step.c."""
    each = made.shares[name] * -(-rows // 4) // threads
    return threads if threads == 1 or each < 4 else threads * min(each, 8)


def _longest(shares: Sequence[float], threads: int) -> float:
    """What the busiest of equal threads does, each of which takes the next share when it is done."""
    busy = [0.0] * threads
    for share in shares:
        first = busy.index(min(busy))
        busy[first] += share
    return max(busy)


def _serial(alone: Share, threads: int) -> Share:
    return Share(alone.name, alone.work * threads, alone.work)


def _share(made: LoweredPlan, plan: Plan, h: Heads, launch: Launch, step: Step, threads: int) -> Share:
    name = plan.kernels[launch.kernel].name
    func = made.kernels[name]
    given = {"rows": step.rows, "logit_rows": step.logits, "sequences": 1}
    values = [given[s] if isinstance(s, str) else s for s in launch.scalars]
    if name.startswith("attention") and "merge" not in name:
        return _attention(name, func, h, step, threads)
    parts = cuts(extent_of(func, values), shares_of(made, name, step.rows, threads))
    extent = parts[-1][1]
    most = _longest([high - low for low, high in parts], threads)
    if name.startswith("rms_norm"):
        return _norm(name, int(name.split("_")[3]), values[-1], parts)
    shape = _SHAPE.search(name)
    if shape:
        rows = values[0]
        wide = int(shape[1]) * int(shape[2]) * (_EIGHT_BITS if "q8_0" in name else 1)
        if not extent or rows == 1:
            work = wide * _SINGLE * rows
            return Share(name, work, work * most / extent if extent else 0.0)
        return _tiled(name, wide, rows, parts, threads)
    chunks = sum(-(-(at + 1) // CHUNK) for at in range(step.first, step.first + step.rows))
    elements = h.heads * h.dim
    cost = {
        "attention_merge": elements * (_MERGE * chunks + _FINISH * step.rows),
        "rope_append": _ROPE * h.width * step.rows,
        "rope_table": _TURN * h.dim / 2 * step.rows,
        "embed": _EMBED * step.rows * int(name.split("_")[-1]) if name.startswith("embed") else 0.0,
        "join": _ROPE * h.width * step.rows,
    }
    work = next(cost[kind] for kind in cost if name.startswith(kind))
    return Share(name, work, work * most / extent)


def _tiled(name: str, row: float, rows: int, parts: Sequence[tuple[int, int]], threads: int) -> Share:
    """Units are a part of the outputs for a tile of rows. ``row``: products of one."""
    tiles = -(-rows // ROW_TILE)
    size = -(-rows // tiles)
    units = parts[-1][1] // tiles
    full, end = (_MANY * row * of / units for of in (size, rows - (tiles - 1) * size))
    work = _MANY * row * rows

    def until(at: int) -> float:
        return at // tiles * ((tiles - 1) * full + end) + at % tiles * full

    return Share(name, work, _longest([until(high) - until(low) for low, high in parts], threads))


def _norm(name: str, columns: int, rows: int, parts: Sequence[tuple[int, int]]) -> Share:
    """Shared by groups, where threads add up the squares of a row that they share each for itself, or by rows."""
    groups, extent = columns // 32, parts[-1][1]
    each = groups if extent == rows else 1
    square, quantize = _SQUARE * columns, _QUANTIZE * 32 * each
    spans = [((high * each - 1) // groups - low * each // groups + 1, high - low) for low, high in parts if high > low]
    longest = max((touched * square + own * quantize for touched, own in spans), default=0.0)
    return Share(name, rows * (square + groups * _QUANTIZE * 32), longest)


def _attention(name: str, func: tirx.PrimFunc, h: Heads, step: Step, threads: int) -> Share:
    each = h.kv_heads * parts_of(h)
    product, finish = _ATTEND * 2 * h.dim * h.heads / each, _FINISH * h.dim * h.heads / each
    lengths = range(step.first + 1, step.first + step.rows + 1)
    if "chunks" in name:
        units = [product * tokens for n in lengths for tokens in runs_of(n) for _ in range(each)]
        owners = [sum(units[low:high]) for low, high in cuts(len(units), threads)]
        return Share(name, sum(units), max(owners))
    units = [product * n + finish for n in lengths for _ in range(each)]
    # A unit is whose its beginning is; they begin so far apart as they have pages, or all alike.
    weighed = _weighed(func)
    sizes = [-(-n // PAGE) if weighed else 1 for n in lengths for _ in range(each)]
    starts = list(accumulate(sizes, initial=0))
    owners = [
        sum(unit for unit, at in zip(units, starts, strict=False) if low <= at < high)
        for low, high in cuts(starts[-1], threads)
    ]
    return Share(name, sum(units), max(owners))


def runs_of(length: int) -> list[int]:
    """Tokens of the units that a context is split into: chunks, half a one or less at the end with the one before."""
    count = max((length + CHUNK // 2 - 1) // CHUNK, 1)
    return [CHUNK] * (count - 1) + [length - (count - 1) * CHUNK]


def cuts(extent: int, threads: int) -> list[tuple[int, int]]:
    return [(extent * t // threads, extent * (t + 1) // threads) for t in range(threads)]


def _loop(func: tirx.PrimFunc) -> tuple[list[Any], Any]:
    """What stands before the loop that threads share, and the loop."""
    before: list[Any] = []

    def find(stmt: Any) -> Any:
        if isinstance(stmt, tirx.SeqStmt):
            return next((found for s in stmt.seq if (found := find(s)) is not None), None)
        if isinstance(stmt, tirx.For) and stmt.kind == tirx.ForKind.PARALLEL:
            return stmt
        before.append(stmt)
        return None

    return before, find(func.body)


def _weighed(func: tirx.PrimFunc) -> bool:
    """Whether the loop's extent is counted by the kernel from what it finds in memory."""
    return type(_loop(func)[1].extent).__name__ == "TensorLoad"


def extent_of(func: tirx.PrimFunc, scalars: Sequence[int]) -> int:
    """Iterations of the outermost loop for these scalars."""
    names = [p for p in func.params if not isinstance(p.ty, tirx.BufferType)]
    known = {p.name: value for p, value in zip(names, scalars, strict=True)}
    before, loop = _loop(func)

    def value(e: Any) -> int:
        kind = type(e).__name__
        if kind == "IntImm":
            return int(e.value)
        if kind == "Var":
            return known[e.name]
        if kind == "Cast":
            return value(e.value)
        return _OPERATORS[kind](value(e.a), value(e.b))

    for stmt in before:
        if isinstance(stmt, tirx.Bind):
            known[stmt.var.name] = value(stmt.value)
    return value(loop.extent)
