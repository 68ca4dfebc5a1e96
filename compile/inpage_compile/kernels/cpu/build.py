"""A thin layer over TVM's IR builder: how kernels here declare their arguments and spell vector code.

Why the builder and not decorated TVMScript text: kernels are generated for a number format, an instruction set and a
shape, so their unrolled parts are Python loops with constant indices, which is also what lets LLVM keep accumulators
in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from ..shared.expressions import Buffer, Expr, cast, let

SHARE = "inpage.share"  # marks the loop, and stands for the share's end until passes/plain_c.py puts it there
_OPAQUE = "llvm.launder.invariant.group"
LANES = 4  # float32 lanes of a 128-bit vector


class Args:
    """The arguments of the kernel being built, in the order that Relax's ``call_tir`` passes them: input buffers,
    scalars, output buffers. ``access`` gets a letter a buffer: r, w, or x for one that is written in place."""

    def __init__(self) -> None:
        self.access = ""
        self._inputs = True

    def buffer(self, name: str, shape: Sequence[Expr], dtype: str, in_place: bool = False) -> Buffer:
        self.access += "x" if in_place else "r" if self._inputs else "w"
        return T.arg(name, T.buffer(tuple(shape), dtype))

    def scalar(self, name: str) -> Any:
        """A 32-bit constant of the launch."""
        self._inputs = False
        return T.arg(name, T.int32())

    def count(self, name: str, var: Expr) -> Any:
        """Make a variable that buffer shapes use an argument of its own; returns it as int32, for arithmetic.

        Relax's shapes are int64, and so is ``var``; wasm computes addresses in 32 bits."""
        self._inputs = False
        T.arg(name, var)
        return let(cast("int32", var))


def kernel(name: str, build: Callable[[Args], None], elements: int = 0, weights: int = 0) -> tirx.PrimFunc:
    """Build one PrimFunc. ``build`` declares arguments through `Args` and emits the body. ``elements``: of a row, where
    a few operations on each of them are all the work: with few of them a plan makes it a serial launch. ``weights``:
    bytes of the matrix that it reads; they say into how many shares it is worth cutting."""
    args = Args()
    with IRBuilder() as ib, T.prim_func(private=True):
        T.func_name(name)
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        build(args)
    func = ib.get().with_attr("inpage.name", name).with_attr("inpage.access", args.access)
    for attr, value in (("inpage.elements", elements), ("inpage.weights", weights)):
        func = func.with_attr(attr, value) if value else func
    return func


@contextmanager
def parallel(extent: Expr) -> Iterator[Any]:
    """The kernel's one outermost loop, whose iterations are independent: threads share it."""
    with T.parallel(0, extent) as i:
        yield i


@contextmanager
def share(extent: Expr) -> Iterator[tuple[Any, Any]]:
    """In the place of `parallel`, where a thread must know its whole share of the iterations: first, and one past
    the last."""
    with T.parallel(0, extent, annotations={SHARE: 1}) as first:
        yield first, let(tirx.call_extern("int32", SHARE))


def view(buffer: Buffer, dtype: str, words: Expr) -> Buffer:
    """The same memory seen as ``words`` elements of another type."""
    return T.decl_buffer((words,), dtype, data=buffer.data)


def placed(buffer: Buffer, dtype: str, count: Expr, *at: Expr) -> Buffer:
    """The memory from an element on, as ``count`` elements of ``dtype``: what is read there by numbers alone becomes a
    load with an offset. From an index, or from a pointer that LLVM may take apart, each would be an addition more in
    wasm, where offsets must not wrap."""
    pointer = let(tirx.call_llvm_pure_intrin("handle", _OPAQUE, tirx.address_of(buffer[at])))
    return T.decl_buffer((count,), dtype, data=pointer)


def local(count: int, dtype: str) -> Buffer:
    """A few values that should live in registers: index it with Python integers only."""
    return T.alloc_buffer((count,), dtype, scope="local")


def span(base: Expr, lanes: int = LANES) -> Expr:
    return tirx.Ramp(base, 1, lanes)


def splat(value: Expr | float, lanes: int = LANES, dtype: str = "float32") -> Expr:
    if isinstance(value, int | float):
        value = tirx.const(value, dtype)
    return tirx.Broadcast(value, lanes)


def vector(scalars: list[Expr]) -> Expr:
    return tirx.Shuffle(scalars, list(range(len(scalars))))


def bits(dtype: str, value: Expr) -> Expr:
    """The same bits as another type of the same size."""
    return tirx.reinterpret(dtype, value)


def divide_up(value: Expr, by: int) -> Expr:
    return (value + (by - 1)) // by
