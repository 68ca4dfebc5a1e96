"""What decoders' layers are made of, whatever their attention reads keys and values from; and matrices in graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

from tvm.relax.frontend import nn

from inpage.format.schema import Architecture
from inpage.format.schema import Tensor as Entry

from ..kernels.shared.heads import Heads
from ..kernels.shared.packed import PackedMatrix
from ..ops.operations import K, Operations, W, X
from ..ops.webgpu import slices
from ..quantize import FORMATS
from .rope import TABLE, table_of


@dataclass(frozen=True)
class Handles(Generic[W]):
    """How a packed matrix stands in the graph: ``split`` into slices, a parameter each, of which ``bind`` makes what
    operations take. Without, it is one parameter."""

    bind: Callable[[list[nn.Tensor]], W]
    split: Callable[[PackedMatrix], Sequence[PackedMatrix]] | None = None


WHOLE: Handles[nn.Tensor] = Handles(lambda parts: parts[0])
SLICED: Handles[Sequence[nn.Tensor]] = Handles(list, slices)


class Matrices(nn.Module, Generic[W]):
    """Packed matrices by the last part of their tensor's name, and what else a layer has as attributes."""

    def __init__(self, prefix: str, tensors: Mapping[str, Entry], handles: Handles[W]) -> None:
        super().__init__()
        self.shapes: dict[str, PackedMatrix] = {}
        self.handles = handles
        for name, entry in tensors.items():
            own = name.removeprefix(prefix)
            if not name.startswith(prefix) or "." in own:
                continue
            if entry.layout == "raw":
                setattr(self, own, nn.Parameter([entry.shape[0]], "float32"))
            else:
                weights = PackedMatrix(FORMATS[entry.format], entry.shape[0], entry.shape[1])
                self.shapes[own] = weights
                for name, part in self._slices(own):
                    setattr(self, name, nn.Parameter([part.words], "int32"))

    def _slices(self, own: str) -> list[tuple[str, PackedMatrix]]:
        if self.handles.split is None:
            return [(own, self.shapes[own])]
        return [(f"{own}@{i}", part) for i, part in enumerate(self.handles.split(self.shapes[own]))]

    def matrix(self, name: str) -> tuple[PackedMatrix, W]:
        return self.shapes[name], self.handles.bind([getattr(self, part) for part, _ in self._slices(name)])


class Blocks(Generic[W, X, K], nn.Module):
    """The layers. ``tensors``: the artifact's entries by name."""

    def __init__(self, a: Architecture, tensors: Mapping[str, Entry], heads: Heads, handles: Handles[W]) -> None:
        super().__init__()
        self.a, self.heads = a, heads
        self.tables = [table_of(a, layer) for layer in range(a.layers)]
        self.top = Matrices("", tensors, handles)
        self.blk = nn.ModuleList([Matrices(f"blk.{i}.", tensors, handles) for i in range(a.layers)])

    def _turned(self, ops: Operations[W, X, K], positions: nn.Tensor) -> dict[str, nn.Tensor]:
        """The step's tables of cos and sin, by the names of their frequencies."""
        return {name: self._turns(ops, name, positions) for name in sorted(set(self.tables))}

    def _turns(self, ops: Operations[W, X, K], name: str, positions: nn.Tensor) -> nn.Tensor:
        scale = self.a.rope_scale if name == TABLE else 1.0
        return ops.rope_table(self.a.head_dim, scale, self.a.turning, positions, getattr(self.top, name))

    def _qkv(self, ops: Operations[W, X, K], block: Matrices[W], x: nn.Tensor) -> nn.Tensor:
        """Queries, keys and values side by side, before they turn."""
        qkv = self._project(ops, block, x, block.attn_norm, qkv_names(block))
        joined = ops.join(qkv) if len(qkv) > 1 else qkv[0]
        if self.a.qkv_bias:
            joined = ops.add_bias(joined, block.attn_qkv_bias)
        if self.a.qk_norm:
            joined = ops.head_norm(self.heads, joined, block.attn_qk_norm, self.a.norm_eps)
        return joined

    def _feed_forward(self, ops: Operations[W, X, K], block: Matrices[W], x: nn.Tensor) -> nn.Tensor:
        down, down_w = block.matrix("ffn_down")
        if "ffn_gate_up" in block.shapes:
            weights, w = block.matrix("ffn_gate_up")
            normed = ops.norm(x, block.ffn_norm, self.a.norm_eps, ops.form(weights))
            h = ops.gated(weights, w, normed, ops.form(down), self.a.activation)
        else:
            gates, ups = self._project(ops, block, x, block.ffn_norm, ["ffn_gate", "ffn_up"])
            h = ops.gate(gates, ups, ops.form(down), self.a.activation)
        return self._add(ops, x, down, down_w, h, block, "ffn_post_norm")

    def _add(
        self, ops: Operations[W, X, K], x: nn.Tensor, weights: PackedMatrix, w: W, made: X, block: Matrices[W],
        norm: str,
    ) -> nn.Tensor:  # fmt: skip
        """x + weights · made, through a norm where the family has one there."""
        if not self.a.post_norms:
            return ops.linear(weights, w, made, residual=x)
        return ops.add_normed(x, ops.linear(weights, w, made), getattr(block, norm), self.a.norm_eps)

    def _project(
        self,
        ops: Operations[W, X, K],
        block: Matrices[W],
        x: nn.Tensor,
        norm_weight: nn.Parameter,
        names: Sequence[str],
    ) -> list[nn.Tensor]:
        """Norm, then each named matrix; the norm's result is made once for each form that they want."""
        normed: dict[str, X] = {}
        out: list[nn.Tensor] = []
        for name in names:
            weights, w = block.matrix(name)
            form = ops.form(weights)
            if form not in normed:
                normed[form] = ops.norm(x, norm_weight, self.a.norm_eps, form)
            out.append(ops.linear(weights, w, normed[form]))
        return out


def qkv_names(block: Matrices[W]) -> list[str]:
    """Of the matrices of queries, keys and values, in one where they have one format."""
    return ["attn_qkv"] if "attn_qkv" in block.shapes else ["attn_q", "attn_k", "attn_v"]
