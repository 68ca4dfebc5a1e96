"""`EncoderOperations` on CPUs."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.relax.frontend.nn import Tensor
from tvm.relax.frontend.nn.op import tensor_ir_inplace_op

from ..kernels.cpu import encoder, parts
from ..kernels.shared.encoder import Packing
from ..kernels.shared.packed import GROUP
from .cpu import Activations, CpuOps, _like, _name


@dataclass(frozen=True)
class EncoderCpuOps(CpuOps):
    def embed_norm(
        self, p: Packing, x: Tensor, where: list[Tensor], tables: list[Tensor], types: int, norm: list[Tensor],
        epsilon: float, form: str,
    ) -> tuple[Tensor, Activations]:  # fmt: skip
        func = encoder.embed_norm(self.isa, p, int(x.shape[1]), types, epsilon, form)
        return self._normed(func, [x, *where, *tables, *norm], form)

    def layer_norm(
        self, x: Tensor, before: Tensor, norm: list[Tensor], epsilon: float, form: str
    ) -> tuple[Tensor, Activations]:
        func = encoder.layer_norm(self.isa, int(x.shape[1]), epsilon, form)
        return self._normed(func, [x, before, *norm], form)

    def self_attention(
        self, p: Packing, qkv: Tensor, bias: Tensor, where: list[Tensor], scale: float, form: str
    ) -> Activations:
        split = self._call(encoder.split_heads(p), [qkv, bias], [self._float(p.width), self._float(p.width)])
        direct = form if p.dim % GROUP == 0 else "f32"
        func = encoder.attention(self.isa, p, scale, direct)
        made = self._call(func, [qkv, bias, *split, *where[1:]], self._formed(direct, self.rows, p.width))
        if direct != form:
            func = parts.requantize(self.isa, p.width, form, encoder.most_of(form))
            made = self._call(func, [made[0]], self._formed(form, self.rows, p.width))
        return Activations(form, made)

    def bias_act(self, x: Tensor, bias: Tensor, activation: str, form: str) -> Activations:
        return self._activated(x, bias, activation, form, self.rows)

    def pool(
        self, p: Packing, x: Tensor, where: list[Tensor], picked: Tensor, pooling: str, normalized: bool
    ) -> Tensor:
        columns = int(x.shape[1])
        func = encoder.pool(self.isa, p, columns, pooling, normalized)
        out = [Tensor.placeholder([self.logit_rows, columns], "float32")]
        return self._call(func, [x, *where[1:], picked], out, [self.rows, self.logit_rows])[0]

    def picked(self, x: Tensor, form: str) -> Activations:
        if form == "f32":
            return Activations(form, (x,))
        width = int(x.shape[1])
        func = parts.requantize(self.isa, width, form, encoder.most_of(form))
        return Activations(form, self._call(func, [x], self._formed(form, self.logit_rows, width), [self.logit_rows]))

    def picked_act(self, x: Tensor, bias: Tensor, activation: str, form: str) -> Activations:
        return self._activated(x, bias, activation, form, self.logit_rows)

    def picked_bias(self, x: Tensor, bias: Tensor) -> Tensor:
        return self._in_place(parts.add_bias(int(x.shape[1])), [x, bias], self.logit_rows)

    def _activated(self, x: Tensor, bias: Tensor, activation: str, form: str, rows: tirx.Var) -> Activations:
        width = int(x.shape[1])
        func = encoder.bias_act(self.isa, width, form, activation)
        return Activations(form, self._call(func, [x, bias], self._formed(form, rows, width), [rows]))

    def _normed(self, func: tirx.PrimFunc, args: list[Tensor], form: str) -> tuple[Tensor, Activations]:
        x = args[0]
        if form == "f32":
            made = self._in_place(func, args)
            return made, Activations(form, (made,))
        outs = self._formed(form, self.rows, int(x.shape[1]))
        made, *formed = tensor_ir_inplace_op(func, _name(func), [*args, self.rows], [0, -1, -1], [_like(x), *outs])
        return made, Activations(form, tuple(formed))


__all__ = ["EncoderCpuOps"]
