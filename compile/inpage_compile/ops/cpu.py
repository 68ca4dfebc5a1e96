"""The operations that graphs for CPUs are written in: each emits one kernel call and picks that kernel by format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.relax.frontend.nn import Tensor
from tvm.relax.frontend.nn.op import tensor_ir_inplace_op, tensor_ir_op

from ..kernels.cpu import attention as attn
from ..kernels.cpu import linear, norm, parts
from ..kernels.cpu.isa import Isa
from ..kernels.cpu.pages import rope_append
from ..kernels.cpu.quantize import FORM_DTYPE
from ..kernels.cpu.short_conv import conv_append, short_conv
from ..kernels.cpu.softmax import whole_groups
from ..kernels.shared.heads import Heads, Place
from ..kernels.shared.packed import PackedMatrix, groups_of
from ..kernels.shared.short_conv import ShortConv


@dataclass(frozen=True)
class Activations:
    """A linear layer's input in one form: float32 [rows, columns], or quants and scales."""

    form: str
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True)
class CpuOps:
    """``activations``: "int8", or "f32" where accuracy is measured rather than speed. ``split``: attention's
    work is split by chunk of the context as well as by head, so that few rows keep all threads busy. ``single``: linear
    layers are made for one row."""

    isa: Isa
    activations: str
    split: bool
    single: bool
    rows: tirx.Var
    logit_rows: tirx.Var

    def form(self, weights: PackedMatrix) -> str:
        """The activation form that a matrix wants."""
        return linear.form_for(self.isa, weights.format, self.activations)

    def embed(self, weights: PackedMatrix, w: Tensor, ids: Tensor, scale: float = 1.0) -> Tensor:
        return self._call(linear.embed(weights, scale), [ids, w], [self._float(weights.columns)])[0]

    def norm(self, x: Tensor, weight: Tensor, epsilon: float, form: str, pick: Tensor | None = None) -> Activations:
        """RMS norm; with ``pick`` only of the rows that get logits."""
        columns = x.shape[1]
        func = norm.rms_norm(self.isa, columns, epsilon, form, pick is not None)
        rows = self.rows if pick is None else self.logit_rows
        args = [x, weight] if pick is None else [x, pick, weight]
        scalars = [self.rows] if pick is None else [self.rows, self.logit_rows]
        return Activations(form, self._call(func, args, self._formed(form, rows, columns), scalars))

    def linear(self, weights: PackedMatrix, w: Tensor, x: Activations, residual: Tensor | None = None) -> Tensor:
        rows = x.tensors[0].shape[0]
        few = bool(rows.same_as(self.logit_rows))
        func = linear.linear(self.isa, weights, x.form, residual is not None, self.single, few)
        args = [*x.tensors, w] if residual is None else [*x.tensors, w, residual]
        out = Tensor.placeholder([rows, weights.rows], "float32")
        return self._call(func, args, [out], [rows])[0]

    def gated(self, weights: PackedMatrix, w: Tensor, x: Activations, form: str, activation: str) -> Activations:
        func = linear.gated(self.isa, weights, x.form, form, self.single, activation)
        return Activations(form, self._call(func, [*x.tensors, w], self._formed(form, self.rows, weights.rows // 2)))

    def add_normed(self, x: Tensor, y: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """In place."""
        return self._in_place(norm.add_normed(self.isa, int(x.shape[1]), epsilon), [x, y, weight])

    def cap(self, logits: Tensor, size: float) -> Tensor:
        """In place."""
        return self._in_place(parts.cap(self.isa, int(logits.shape[1]), size), [logits], self.logit_rows)

    def gate(self, gates: Tensor, ups: Tensor, form: str, activation: str) -> Activations:
        width = gates.shape[1]
        func = parts.gate(self.isa, width, form, activation)
        return Activations(form, self._call(func, [gates, ups], self._formed(form, self.rows, width)))

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        widths = [int(t.shape[1]) for t in tensors]
        return self._call(parts.join(tuple(widths)), list(tensors), [self._float(sum(widths))])[0]

    def add_bias(self, x: Tensor, bias: Tensor) -> Tensor:
        """In place."""
        return self._in_place(parts.add_bias(int(x.shape[1])), [x, bias])

    def head_norm(self, h: Heads, qkv: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """RMS norm of each head of queries and keys, in place; ``weight``: one for queries, one for keys."""
        return self._in_place(norm.head_norm(h, epsilon), [qkv, weight])

    def rope_table(self, head_dim: int, scale: float, turning: int, positions: Tensor, freqs: Tensor) -> Tensor:
        out = Tensor.placeholder([self.rows, head_dim // 2, 2], "float32")
        return self._call(norm.rope_table(head_dim, scale, turning), [positions, freqs], [out])[0]

    def project(
        self, h: Heads, place: Place, matrices: Sequence[tuple[PackedMatrix, Tensor]], x: Tensor,
        norm: tuple[Tensor, float], bias: Tensor | None, table: Tensor, where: Sequence[Tensor], kv: Tensor,
    ) -> None:  # fmt: skip
        """The matrices may want different forms of activations, and rows are rotated by other threads than make
        them."""

    def rope_append(
        self, h: Heads, place: Place, qkv: Tensor, table: Tensor, where: Sequence[Tensor], kv: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Rotated queries, and the KV pages with this layer's keys and values added."""
        func = rope_append(self.isa, h)
        q = self._float(h.heads * h.dim)
        args = [qkv, table, *where, kv, self.rows, *_place(h, place)]
        pages, queries = tensor_ir_inplace_op(func, _name(func), args, [5, -1], [_like(kv), q])
        return queries, pages

    def attention(
        self, h: Heads, place: Place, q: Tensor, where: Sequence[Tensor], kv: Tensor, form: str
    ) -> Activations:
        columns = h.columns
        direct = form if whole_groups(h) else "f32"
        slot, *window = _place(h, place)
        scalars = [self.rows, slot, *window]
        out = self._formed(direct, self.rows, columns)
        if self.split:
            shapes = [[self.rows, h.chunks, h.heads * h.dim], [self.rows, h.chunks, h.heads, 2]]
            outs = [Tensor.placeholder(shape, "float32") for shape in shapes]
            chunks = self._call(attn.attention_chunks(self.isa, h), [q, *where, kv], outs, scalars)
            made = self._call(attn.attention_merge(self.isa, h, direct), [*chunks, where[0]], out, [self.rows, *window])
        else:
            made = self._call(attn.attention(self.isa, h, direct), [q, *where, kv], out, scalars)
        if direct != form:
            func = parts.requantize(self.isa, columns, form)
            made = self._call(func, [made[0]], self._formed(form, self.rows, columns))
        return Activations(form, made)

    def short_conv(
        self, c: ShortConv, place: Place, bcx: Tensor, weight: Tensor, where: Sequence[Tensor], kv: Tensor, form: str
    ) -> tuple[Activations, Tensor]:
        scalars = [self.rows, *(tirx.const(i, "int32") for i in (place.slot, place.first))]
        append = conv_append(c)
        pages = tensor_ir_inplace_op(append, _name(append), [bcx, *where, kv, *scalars], 4, _like(kv))
        out = self._formed(form, self.rows, c.width)
        made = self._call(short_conv(self.isa, c, form), [bcx, weight, *where, pages], out, scalars)
        return Activations(form, made), pages

    def _in_place(self, func: tirx.PrimFunc, args: list[Tensor], rows: tirx.Var | None = None) -> Tensor:
        """A kernel that writes its first argument."""
        count = self.rows if rows is None else rows
        made: Tensor = tensor_ir_inplace_op(func, _name(func), [*args, count], 0, _like(args[0]))
        return made

    def _float(self, columns: int) -> Tensor:
        return Tensor.placeholder([self.rows, columns], "float32")

    def _formed(self, form: str, rows: tirx.Var, columns: int) -> list[Tensor]:
        values = Tensor.placeholder([rows, columns], FORM_DTYPE[form])
        return [values] if form == "f32" else [values, Tensor.placeholder([rows, groups_of(columns), 2], "float32")]

    def _call(
        self, func: tirx.PrimFunc, args: list[Tensor], out: list[Tensor], scalars: Sequence[tirx.Var] | None = None
    ) -> tuple[Tensor, ...]:
        made = tensor_ir_op(func, _name(func), [*args, *(scalars or [self.rows])], out)
        return (made,) if isinstance(made, Tensor) else tuple(made)


def _place(h: Heads, place: Place) -> list[tirx.IntImm]:
    return [tirx.const(i, "int32") for i in (place.slot, *h.scalars(place))]


def _name(func: tirx.PrimFunc) -> str:
    return str(func.attrs["inpage.name"])


def _like(t: Tensor) -> Tensor:
    return Tensor.placeholder(t.shape, t.dtype)


__all__ = ["Activations", "CpuOps"]
