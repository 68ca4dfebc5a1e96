"""`EncoderOperations` for WebGPU. All is float32; what each kernel leaves lies in the arena that it does not read."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.relax.frontend.nn import Tensor

from ..kernels.shared.encoder import Packing
from ..kernels.webgpu import encoder, rows
from .webgpu import GpuOps, NormedActivations


@dataclass(frozen=True)
class EncoderGpuOps(GpuOps):
    def embed_norm(
        self, p: Packing, x: Tensor, where: list[Tensor], positions: Tensor | None, segments: Tensor | None, types: int,
        norm: list[Tensor], epsilon: float, form: str,
    ) -> tuple[Tensor, NormedActivations]:  # fmt: skip
        func = encoder.embed_norm(p, int(x.shape[1]), positions is not None, types, epsilon)
        tables = [each for each in (positions, segments) if each is not None]
        made = self._again(func, [x, *where, *tables, *norm], 0)
        return made, NormedActivations(made)

    def layer_norm(
        self, x: Tensor, before: Tensor | None, norm: list[Tensor], epsilon: float, form: str
    ) -> tuple[Tensor, NormedActivations]:
        func = encoder.layer_norm(int(x.shape[1]), before is not None, epsilon)
        made = self._again(func, [x, *([] if before is None else [before]), *norm], 0)
        return made, NormedActivations(made)

    def rms_rows(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        return self._again(rows.rms_rows(int(x.shape[1]), epsilon), [x, weight], 0)

    def rotate(self, p: Packing, qkv: Tensor, table: Tensor) -> Tensor:
        return self._again(encoder.rotate(p), [qkv, table], 0)

    def self_attention(
        self, p: Packing, qkv: Tensor, bias: Tensor | None, where: list[Tensor], scale: float, form: str
    ) -> NormedActivations:
        args = [qkv, *([] if bias is None else [bias]), *where[1:]]
        return NormedActivations(self._call(encoder.attention(p, scale), args, self._wide(p.width)))

    def bias_act(self, x: Tensor, bias: Tensor, activation: str, form: str) -> NormedActivations:
        return NormedActivations(self._again(encoder.bias_act(int(x.shape[1]), activation), [x, bias], 0))

    def pool(
        self, p: Packing, x: Tensor, where: list[Tensor], picked: Tensor, pooling: str, normalized: bool
    ) -> Tensor:
        columns = int(x.shape[1])
        out = Tensor.placeholder([self.logit_rows, columns], "float32")
        return self._call(encoder.pool(columns, pooling, normalized), [x, *where[1:], picked], out, self.logit_rows)

    def picked(self, x: Tensor, form: str) -> NormedActivations:
        return NormedActivations(x, head=True)

    def picked_act(self, x: Tensor, bias: Tensor, activation: str, form: str) -> NormedActivations:
        made = self._again(encoder.bias_act(int(x.shape[1]), activation), [x, bias], 0, self.logit_rows)
        return NormedActivations(made, head=True)

    def picked_bias(self, x: Tensor, bias: Tensor) -> Tensor:
        return self._again(rows.add_bias(int(x.shape[1]), "float32"), [x, bias], 0, self.logit_rows)


__all__ = ["EncoderGpuOps"]
