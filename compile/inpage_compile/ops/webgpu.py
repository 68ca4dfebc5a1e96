"""The operations that graphs for WebGPU are written in: `Operations`, as in `cpu`, with other kernels behind.

A layer's norms are not kernels: the linear layer after them folds them in. What a step adds to is written in place.
Each layer of a page has a buffer of its own, so ``kv`` is a list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from tvm import tirx
from tvm.relax.frontend.nn import Tensor
from tvm.relax.frontend.nn.op import tensor_ir_inplace_op, tensor_ir_op
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from inpage.format.limits import ALIGN, BINDING_BYTES

from ..kernels.shared.alternatives import alternatives
from ..kernels.shared.heads import Heads, Place
from ..kernels.shared.packed import PackedMatrix
from ..kernels.shared.short_conv import ShortConv
from ..kernels.webgpu import attention as attn
from ..kernels.webgpu import linear, rows
from ..kernels.webgpu.attention_tiles import attention
from ..kernels.webgpu.embedding import embed
from ..kernels.webgpu.linear import Input, Shape
from ..kernels.webgpu.linear_subgroups import SharedReads
from ..kernels.webgpu.linear_tiles import tiles_for
from ..kernels.webgpu.pages import Into, slots
from ..kernels.webgpu.short_conv import conv_append, short_conv

_MOST = 16  # rows whose sums a thread has room for
_SOME = 12  # a kernel is in one list of alternatives only, so a prompt's has another number
_LARGE = 1024


@dataclass(frozen=True)
class Tier:
    """One of the plan's functions: steps of up to ``rows`` rows, ``few`` of which share the reading of a weight; None:
    as many as a `Tile` has. ``spans``: attention gives each span of the context a workgroup, for want of rows, where
    what they leave can be bound."""

    name: str
    rows: int
    few: int | None
    spans: bool

    def shapes(self, weights: PackedMatrix, head: bool) -> tuple[Shape, ...]:
        """Of the kernels that the device may choose from; the first is the one for a large GPU. Of a prompt's rows only
        some get logits, as a rule the last."""
        few = _MOST if self.few is None and head else self.few
        if few is None:
            return (*tiles_for(weights, self.rows), _SOME)
        return (few, few // 2) if few == _MOST else (few, SharedReads(few))


def tiers_for(rows: int, sequences: int, hidden: int) -> list[Tier]:
    """For one row, for some, for as many as there are sequences to decode, for a piece of a prompt. Some rows have a
    function of their own where matrices are large: with room for more rows, fewer threads fit on a GPU at once, and
    their loads are what keeps its memory busy."""
    some = [Tier("few", 4, 4, True)] if hidden >= _LARGE and sequences > 4 else []
    tiers = [Tier("decode", 1, 1, True), *some, Tier("batch", sequences, _MOST, True)]
    return [*(t for t in tiers if t.rows < rows), Tier("prefill", rows, None, False)]


@dataclass(frozen=True)
class NormedActivations:
    """A linear layer's input, and the norm that it has to go through. ``head``: the rows that get logits."""

    tensor: Tensor
    norm: Tensor | None = None
    epsilon: float | None = None
    head: bool = False


def slices(weights: PackedMatrix) -> tuple[PackedMatrix, ...]:
    """A packed matrix as bindings hold it: blocks of its rows, one after another.

    A slice begins at a multiple of 256 bytes, and has whole pairs of blocks, as gate and up are interleaved."""
    block = weights.words * 4 // weights.blocks
    step = math.lcm(2 * block, ALIGN) // block
    most = BINDING_BYTES // block // step * step
    if weights.words * 4 <= BINDING_BYTES:
        return (weights,)
    starts = range(0, weights.blocks, most)
    return tuple(replace(weights, rows=min(most * 16, weights.rows - s * 16)) for s in starts)


@dataclass(frozen=True)
class GpuOps:
    """``dtype``: of what passes between kernels; the sum of the layers stays in float32. ``step``: what its layers
    share. ``last``: what was made last of a linear layer's input, and of which: one input has several matrices."""

    dtype: str
    tier: Tier
    rows: tirx.Var
    logit_rows: tirx.Var
    step: dict[str, Tensor] = field(default_factory=dict)
    last: list[tuple[NormedActivations, Tensor]] = field(default_factory=list)

    def form(self, weights: PackedMatrix) -> str:
        return self.dtype

    def embed(self, weights: PackedMatrix, w: Sequence[Tensor], ids: Tensor, scale: float = 1.0) -> Tensor:
        y, first = Tensor.placeholder([self.rows, weights.columns], "float32"), 0
        for part, data in zip(slices(weights), w, strict=True):
            func = embed(part, first, first > 0, scale)
            y = self._again(func, [ids, data, y], 2) if first else self._call(func, [ids, data], y)
            first += part.rows
        return y

    def norm(
        self, x: Tensor, weight: Tensor, epsilon: float, form: str, pick: Tensor | None = None
    ) -> NormedActivations:
        if pick is None:
            return NormedActivations(x, weight, epsilon)
        columns = int(x.shape[1])
        out = Tensor.placeholder([self.logit_rows, columns], "float32")
        func = rows.norm(columns, epsilon)
        return NormedActivations(self._call(func, [x, pick, weight], out, self.logit_rows), head=True)

    def linear(
        self, weights: PackedMatrix, w: Sequence[Tensor], x: NormedActivations, residual: Tensor | None = None
    ) -> Tensor:
        out = "float32" if x.head or residual is not None else self.dtype
        count = self.logit_rows if x.head else self.rows
        y = residual if residual is not None else Tensor.placeholder([count, weights.rows], out)
        first = 0
        for part, data in zip(slices(weights), w, strict=True):
            args, folded = self._input(x, data, part)
            again = residual is None and first > 0
            rest = (folded, out, residual is not None, weights.rows, first, again)
            func = _any_of(linear.linear, part, self._shapes(part, folded, x.head), *rest)
            if residual is not None or again:
                y = self._again(func, [*args, y], len(args), count)
            else:
                y = self._call(func, args, y, count)
            first += part.rows
        return y

    def gated(
        self, weights: PackedMatrix, w: Sequence[Tensor], x: NormedActivations, form: str, activation: str
    ) -> NormedActivations:
        width = weights.rows // 2
        h, first = self._wide(width), 0
        for part, data in zip(slices(weights), w, strict=True):
            args, folded = self._input(x, data, part)
            func = _any_of(linear.gated, part, self._shapes(part, folded), folded, self.dtype, width, first, activation)
            h = self._again(func, [*args, h], len(args)) if first else self._call(func, args, h)
            first += part.rows // 2
        return NormedActivations(h)

    def add_normed(self, x: Tensor, y: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """In place."""
        return self._again(rows.add_normed(int(x.shape[1]), epsilon), [x, y, weight], 0)

    def cap(self, logits: Tensor, size: float) -> Tensor:
        """In place."""
        return self._again(rows.cap(int(logits.shape[1]), size), [logits], 0, self.logit_rows)

    def gate(self, gates: Tensor, ups: Tensor, form: str, activation: str) -> NormedActivations:
        func = rows.gate(int(gates.shape[1]), self.dtype, activation)
        return NormedActivations(self._again(func, [gates, ups], 0))

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        widths = tuple(int(t.shape[1]) for t in tensors)
        return self._call(rows.join(widths, self.dtype), list(tensors), self._wide(sum(widths)))

    def add_bias(self, x: Tensor, bias: Tensor) -> Tensor:
        """In place."""
        return self._again(rows.add_bias(int(x.shape[1]), self.dtype), [x, bias], 0)

    def head_norm(self, h: Heads, qkv: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """RMS norm of each head of queries and keys, in place; ``weight``: one for queries, one for keys."""
        return self._again(rows.head_norm(h, epsilon, self.dtype), [qkv, weight], 0)

    def rope_table(self, head_dim: int, scale: float, turning: int, positions: Tensor, freqs: Tensor) -> Tensor:
        out = Tensor.placeholder([self.rows, head_dim // 2, 2], "float32")
        return self._call(rows.rope_table(head_dim, scale, turning), [positions, freqs], out)

    def project(
        self, h: Heads, place: Place, matrices: Sequence[tuple[PackedMatrix, Sequence[Tensor]]], x: Tensor,
        norm: tuple[Tensor, float], bias: Tensor | None, table: Tensor, where: Sequence[Tensor],
        kv: Sequence[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
        normed, pages, rest = NormedActivations(x, *norm), kv[place.slot], self._group(h, place)
        q, first, slots = self._queries(h), 0, self._slots(h, where)
        for weights, w in matrices:
            for part, data in zip(slices(weights), w, strict=True):
                args, folded = self._input(normed, data, part)
                args += [*([] if bias is None else [bias]), table, slots, pages]
                into, at = Into(h, first, bias is not None), len(args) - 1
                func = _any_of(linear.project, part, self._shapes(part, folded), folded, self.dtype, into)
                if not into.has_queries:
                    pages = self._in_place(func, args, [at], rest=rest)[0]
                elif first:
                    q, pages = self._in_place(func, [*args, q], [at + 1, at], rest=rest)
                else:
                    q, pages = self._in_place(func, args, [-1, at], rest=rest, out=q)
                first += part.rows
        return q, [*kv[: place.slot], pages, *kv[place.slot + 1 :]]

    def rope_append(
        self, h: Heads, place: Place, qkv: Tensor, table: Tensor, where: Sequence[Tensor], kv: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        func, slot = attn.rope_append(h, self.dtype), place.slot
        args, rest = [qkv, table, self._slots(h, where), kv[slot]], self._group(h, place)
        q, pages = self._in_place(func, args, [-1, 3], rest=rest, out=self._queries(h))
        return q, [*kv[:slot], pages, *kv[slot + 1 :]]

    def _queries(self, h: Heads) -> Tensor:
        return self._wide(h.heads * h.dim)

    def _slots(self, h: Heads, where: Sequence[Tensor]) -> Tensor:
        """Where each row's keys and values go: found once a step."""
        if "slots" not in self.step:
            out = Tensor.placeholder([self.rows, len(h.firsts)], "int32")
            self.step["slots"] = self._call(slots(h), list(where), out)
        return self.step["slots"]

    def _group(self, h: Heads, place: Place) -> list[int]:
        return [h.firsts.index(place.first)] if len(h.firsts) > 1 else []

    def attention(
        self, h: Heads, place: Place, q: Tensor, where: Sequence[Tensor], kv: Sequence[Tensor], form: str
    ) -> NormedActivations:
        args, out, rest = [q, *where, kv[place.slot]], self._wide(h.columns), h.scalars(place)
        if not self.tier.spans or not attn.spans_fit(h, self.tier.rows):
            return NormedActivations(self._call(attention(h, self.dtype), args, out, rest=rest))
        if "state" not in self.step:
            state = Tensor.placeholder([self.rows, attn.row_words(h)], "uint32")
            self.step["state"] = self._call(attn.clear_state(h), [where[0]], state)
        args = [*args, self.step["state"]]
        func = alternatives(*(attn.attention_spans(h, self.dtype, subgroups) for subgroups in (False, True)))
        y, self.step["state"] = self._in_place(func, args, [-1, len(args) - 1], rest=rest, out=out)
        return NormedActivations(y)

    def short_conv(
        self, c: ShortConv, place: Place, bcx: Tensor, weight: Tensor, where: Sequence[Tensor], kv: Sequence[Tensor],
        form: str,
    ) -> tuple[NormedActivations, list[Tensor]]:  # fmt: skip
        slot, rest = place.slot, [place.first]
        pages = self._in_place(conv_append(c, self.dtype), [bcx, *where, kv[slot]], [4], rest=rest)[0]
        args = [bcx, weight, *where, pages]
        made = self._call(short_conv(c, self.dtype), args, self._wide(c.width), rest=rest)
        return NormedActivations(made), [*kv[:slot], pages, *kv[slot + 1 :]]

    def _shapes(self, weights: PackedMatrix, x: Input, head: bool = False) -> tuple[Shape, ...]:
        found = self.tier.shapes(weights, head)
        return tuple(shape for shape in found if not (x.int8 and isinstance(shape, SharedReads)))

    def _input(self, x: NormedActivations, w: Tensor, weights: PackedMatrix) -> tuple[list[Tensor], Input]:
        args = [x.tensor, w, *([] if x.norm is None else [x.norm])]
        return args, Input(str(x.tensor.dtype), x.epsilon)

    def _once(self, x: NormedActivations, make: Callable[[], Tensor]) -> Tensor:
        for source, made in self.last:
            if source.tensor is x.tensor and source.norm is x.norm:
                return made
        made = make()
        self.last[:] = [(x, made)]
        return made

    def _wide(self, columns: int) -> Tensor:
        return Tensor.placeholder([self.rows, columns], self.dtype)

    def _call(
        self, func: tirx.PrimFunc, args: list[Tensor], out: Tensor, count: tirx.Var | None = None,
        rest: Sequence[int] = (),
    ) -> Tensor:  # fmt: skip
        """``rest``: scalars behind the number of rows."""
        scalars = self._scalars(count, rest)
        made: Tensor = tensor_ir_op(_declared(func, args, scalars, [out]), _name(func), [*args, *scalars], out)
        return made

    def _again(self, func: tirx.PrimFunc, args: list[Tensor], at: int, count: tirx.Var | None = None) -> Tensor:
        """A kernel that writes argument ``at`` in place."""
        made: Tensor = self._in_place(func, args, [at], count)[0]
        return made

    def _in_place(
        self, func: tirx.PrimFunc, args: list[Tensor], at: list[int], count: tirx.Var | None = None,
        rest: Sequence[int] = (), out: Tensor | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """``at``: arguments that a kernel writes in place; -1 for ``out``, which it makes."""
        scalars, new = self._scalars(count, rest), [] if out is None else [out]
        like = [*new, *(_like(args[i]) for i in at if i >= 0)]
        declared = _declared(func, args, scalars, new)
        made = tensor_ir_inplace_op(declared, _name(func), [*args, *scalars], at, like)
        return (made,) if isinstance(made, Tensor) else tuple(made)

    def _scalars(self, count: tirx.Var | None, rest: Sequence[int]) -> list[Any]:
        return [self.rows if count is None else count, *(tirx.const(i, "int32") for i in rest)]


@cache
def _any_of(
    make: Callable[..., tirx.PrimFunc], weights: PackedMatrix, shapes: tuple[Shape, ...], *rest: Any
) -> tirx.PrimFunc:
    """A kernel of each shape: the first, knowing the others."""
    first, *others = (make(weights, shape, *rest) for shape in shapes)
    return alternatives(first, *others)


def _declared(func: tirx.PrimFunc, args: list[Tensor], scalars: list[Any], out: list[Tensor]) -> tirx.PrimFunc:
    """What Relax checks a call against: a kernel's buffers with the shapes of this call, and no body. The kernel
    itself, which sees flat buffers of elements of its own choice, is an attribute."""
    counts = [v for v in scalars if isinstance(v, tirx.Var)]
    own = {v.name: tirx.Var(v.name, "int64") for v in (*counts, *(d for t in (*args, *out) for d in _symbols(t)))}

    def buffer(t: Tensor) -> Any:
        return T.buffer(tuple(own[d.name] if isinstance(d, tirx.Var) else d for d in t.shape), t.dtype)

    with IRBuilder() as ib, T.prim_func(private=True):
        T.func_name(_name(func))
        T.func_attr({"tirx.is_scheduled": True})
        for i, t in enumerate(args):
            T.arg(f"in{i}", buffer(t))
        for v in counts:
            T.arg(v.name, own[v.name])
        for i in range(len(counts), len(scalars)):
            T.arg(f"scalar{i}", T.int32())
        for i, t in enumerate(out):
            T.arg(f"out{i}", buffer(t))
        T.evaluate(0)
    return ib.get().with_attr("inpage.name", _name(func)).with_attr("inpage.kernel", func)


def _symbols(t: Tensor) -> list[tirx.Var]:
    return [d for d in t.shape if isinstance(d, tirx.Var)]


def _name(func: tirx.PrimFunc) -> str:
    return str(func.attrs["inpage.name"])


def _like(t: Tensor) -> Tensor:
    return Tensor.placeholder(t.shape, t.dtype)


__all__ = ["GpuOps", "NormedActivations", "Tier", "slices", "tiers_for"]
