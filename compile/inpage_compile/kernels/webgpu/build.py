"""A thin layer over TVM's IR builder: how kernels for WebGPU declare their arguments, their grid and their workgroup.

Buffers are flat and have no declared length: WGSL sees runtime-sized arrays, and a kernel may see a buffer as any type
of element (the weights as words or as vectors of four).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from inpage.errors import Unsupported

from ..shared.expressions import cast, f32, i32, let, loop, store, when

Expr = Any  # a TIR expression, variable or Python number
Buffer = Any
Extent = Any  # of a grid: a number, a scalar's name, or [operator, a, b] (`inpage.format.plan`)

WORKGROUP_BYTES = 16384  # WebGPU's default limit
_LENGTH = 1 << 28  # elements that a buffer is declared with; nobody looks at it


class Args:
    """The arguments of the kernel being built, in the order that Relax's ``call_tir`` passes them: input buffers,
    scalars, output buffers."""

    def __init__(self) -> None:
        self.access = ""
        self.grid: list[Extent] = [1, 1, 1]
        self.threads = 0
        self.shared = 0
        self.requires: list[str] = []

    def buffer(self, name: str, dtype: str, access: str = "r") -> Buffer:
        """``access``: r, w, or x for one that is written in place."""
        self.access += access
        return T.arg(name, T.buffer((_LENGTH,), dtype))

    def scalar(self, name: str) -> Any:
        """A 32-bit integer of the launch."""
        return T.arg(name, T.int32())

    @contextmanager
    def workgroups(self, x: int, y: Extent, threads: int) -> Iterator[tuple[Any, Any, Any]]:
        """The kernel's body: (workgroup x, workgroup y, thread) of a grid of ``x`` by ``y`` workgroups."""
        self.grid, self.threads = [x, y, 1], threads
        with T.launch_thread("blockIdx.x", x) as bx, T.launch_thread("blockIdx.y", 1) as by:
            with T.launch_thread("threadIdx.x", threads) as t:
                yield let(bx), let(by), let(t)

    def subgroup_lane(self) -> Expr:
        """uint32: this thread's number in its subgroup. Only adapters with subgroups can run the kernel then."""
        return self._of_subgroup("subgroup_invocation_id")

    def subgroup_size(self) -> Expr:
        """uint32: threads of a subgroup, a power of two from 4 to 128."""
        return self._of_subgroup("subgroup_size")

    def _of_subgroup(self, builtin: str) -> Expr:
        self.requires = ["subgroups"]
        return let(call("uint32", builtin))

    def workgroup(self, count: int, dtype: str) -> Buffer:
        """Memory that a workgroup shares."""
        self.shared += count * bytes_of(dtype)
        if self.shared > WORKGROUP_BYTES:
            raise ValueError(f"{self.shared} bytes of workgroup memory; WebGPU has {WORKGROUP_BYTES}")
        return T.alloc_buffer((count,), dtype, scope="shared")


def bytes_of(dtype: str) -> int:
    kind, _, lanes = dtype.partition("x")
    return int(lanes or 1) * (2 if kind.endswith("16") else 4)


def quads_of(width: int) -> int:
    """Vectors of four in a row of ``width``. Raises `Unsupported` where there would be a rest."""
    if width % 4:
        raise Unsupported(f"columns: {width} is not a multiple of 4, which the kernels need", field="columns")
    return width // 4


def kernel(name: str, build: Callable[[Args], None]) -> tirx.PrimFunc:
    """Build one PrimFunc. ``build`` declares arguments through `Args` and emits the body."""
    args = Args()
    with IRBuilder() as ib, T.prim_func(private=True):
        T.func_name(name)
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        build(args)
    func = ib.get().with_attr("inpage.name", name).with_attr("inpage.access", args.access)
    if args.requires:
        func = func.with_attr("inpage.requires", args.requires)
    return func.with_attr("inpage.grid", json.dumps(args.grid)).with_attr("inpage.workgroup", args.threads)


def barrier() -> None:
    """Wait for the whole workgroup. Only where all of it passes."""
    T.evaluate(T.tvm_storage_sync("shared"))


def storage_barrier() -> None:
    """Wait for the whole workgroup, and until it sees what it did to buffers."""
    T.evaluate(tirx.call_extern("void", "storageBarrier"))


def atomic(dtype: str, what: str, word: Expr, *args: Expr) -> Expr:
    """WGSL's atomicAdd, atomicLoad or atomicStore of a buffer's element: `targets.webgpu` makes all of the buffer's
    atomic."""
    return tirx.call_extern(dtype, f"atomic{what}", word, *args)


def local(count: int, dtype: str) -> Buffer:
    """A few values that should live in registers: index it with Python integers only."""
    return T.alloc_buffer((count,), dtype, scope="local")


def call(dtype: str, name: str, *args: Expr) -> Expr:
    """A function that WGSL has and TIR does not."""
    return T.call_pure_extern(dtype, name, *args)


def madd(a: Expr, b: Expr, c: Expr) -> Expr:
    """a · b + c, rounded once: TVM makes WGSL's fma() of it, so that no driver decides in one kernel to contract what
    it leaves apart in another."""
    return a * b + c


def bits(dtype: str, value: Expr) -> Expr:
    """The same bits as another type of the same size."""
    kind, _, lanes = dtype.partition("x")
    short = {"float32": "f32", "int32": "i32", "uint32": "u32"}[kind]
    return call(dtype, f"bitcast<vec{lanes}<{short}>>" if lanes else f"bitcast<{short}>", value)


def u32(value: int) -> Expr:
    return tirx.const(value, "uint32")


def splat(value: Expr | float, lanes: int = 4) -> Expr:
    return tirx.Broadcast(f32(value) if isinstance(value, int | float) else value, lanes)


def exact(value: float) -> Expr:
    """A float32 to the last bit: as a literal it would be printed with seven digits."""
    return bits("float32", u32(struct.unpack("<I", struct.pack("<f", value))[0]))


def lane(vector: Expr, i: int) -> Expr:
    return tirx.Shuffle([vector], [i32(i)])


def across(v: Expr) -> Expr:
    """The sum of four lanes."""
    return (lane(v, 0) + lane(v, 1)) + (lane(v, 2) + lane(v, 3))


def vector(*scalars: Expr) -> Expr:
    return tirx.Shuffle(list(scalars), [i32(i) for i in range(len(scalars))])


def halves(word: Expr) -> Expr:
    """The two f16 in a 32-bit word, as float32x2."""
    return call("float32x2", "unpack2x16float", word)


__all__ = [
    "WORKGROUP_BYTES", "Args", "Buffer", "Expr", "T", "across", "atomic", "barrier", "bits", "call", "cast", "exact",
    "f32", "halves", "i32", "kernel", "lane", "let", "local", "loop", "madd", "quads_of", "splat", "storage_barrier",
    "store", "u32", "vector", "when",
]  # fmt: skip
