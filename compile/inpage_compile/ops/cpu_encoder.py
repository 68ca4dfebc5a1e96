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
        self, p: Packing, x: Tensor, where: list[Tensor], positions: Tensor | None, segments: Tensor | None, types: int,
        norm: list[Tensor], epsilon: float, form: str,
    ) -> tuple[Tensor, Activations]:  # fmt: skip
        func = encoder.embed_norm(self.isa, p, int(x.shape[1]), positions is not None, types, epsilon, form)
        tables = [each for each in (positions, segments) if each is not None]
        return self._normed(func, [x, *where, *tables, *norm], form)

    def layer_norm(
        self, x: Tensor, before: Tensor | None, norm: list[Tensor], epsilon: float, form: str
    ) -> tuple[Tensor, Activations]:
        func = encoder.layer_norm(self.isa, int(x.shape[1]), before is not None, epsilon, form)
        return self._normed(func, [x, *([] if before is None else [before]), *norm], form)

    def rms_rows(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        return self.norm(x, weight, epsilon, "f32").tensors[0]

    def rotate(self, p: Packing, qkv: Tensor, table: Tensor) -> Tensor:
        return self._in_place(encoder.rotate(p), [qkv, table])

    def self_attention(
        self, p: Packing, qkv: Tensor, bias: Tensor | None, where: list[Tensor], scale: float, form: str
    ) -> Activations:
        joined = [qkv] if bias is None else [qkv, bias]
        split = self._call(encoder.split_heads(p), joined, [self._float(p.kv_width), self._float(p.kv_width)])
        direct = form if p.dim % GROUP == 0 else "f32"
        func = encoder.attention(self.isa, p, scale, direct)
        made = self._call(func, [*joined, *split, *where[1:]], self._formed(direct, self.rows, p.width))
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
