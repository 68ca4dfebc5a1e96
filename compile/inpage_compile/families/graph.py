"""The decoder that the families share: RMS norm, rotary positions, grouped-query attention over KV pages, gated SiLU
feed-forward; biases, further norms, windows, soft caps where a family has them.

One function, ``step``, serves prefill and decode: ``rows`` tokens of several sequences, each with its position and its
sequence's row of the block table; ``logit_rows`` of them get logits. KV pages are an explicit tensor, written in
place. Tensor names are the artifact's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import tvm
from tvm import tirx
from tvm.relax.frontend import nn

from inpage.errors import Unsupported
from inpage.format.plan_types import sequence_pages
from inpage.format.schema import Architecture
from inpage.format.schema import Tensor as Entry

from ..kernels.cpu.isa import Isa
from ..kernels.shared.heads import PAGE, Heads, Place
from ..kernels.shared.packed import groups_of
from ..kernels.shared.short_conv import ShortConv
from ..kernels.webgpu.attention import page_words
from ..kernels.webgpu.matrix_units import MatrixUnits
from ..ops.cpu import Activations, CpuOps
from ..ops.maxima import Maxima
from ..ops.operations import K, Operations, W, X
from ..ops.webgpu import GpuOps, NormedActivations, Tier
from ..ops.webgpu_int8 import INT8, Int8GpuOps
from ..ops.webgpu_matrix import MatrixGpuOps
from .blocks import SLICED, WHOLE, Blocks, Handles, Matrices, qkv_names
from .layers import conv_tokens, layout_of

MakeOps = Callable[[tirx.Var, tirx.Var], Operations[W, X, K]]


class Decoder(Blocks[W, X, K]):
    """The whole model. ``tensors``: the artifact's entries by name; ``ops``: made for (rows, logit rows) of a step."""

    def __init__(
        self, a: Architecture, tensors: Mapping[str, Entry], heads: Heads, ops: MakeOps[W, X, K], handles: Handles[W]
    ) -> None:
        super().__init__(a, tensors, heads, handles)
        self.ops = ops
        self.places = layout_of(a).places(a.context)
        self.conv = ShortConv(heads, a.hidden, a.conv_taps, conv_tokens(a)) if a.conv_layers else None

    def step(
        self,
        token_ids: nn.Tensor,
        positions: nn.Tensor,
        row_sequence: nn.Tensor,
        block_tables: nn.Tensor,
        logit_rows: nn.Tensor,
        kv: K,
    ) -> tuple[nn.Tensor, K]:
        """Logits float32 [logit_rows, vocab], and the KV pages after the step."""
        ops = self.ops(token_ids.shape[0], logit_rows.shape[0])
        where = (positions, row_sequence, block_tables)
        x = ops.embed(*self.top.matrix("token_embd"), token_ids, self.a.embedding_scale)
        tables = self._turned(ops, positions)
        for layer, block in enumerate(self.blk):
            if self.conv is not None and layer in self.a.conv_layers:
                x, kv = self._convolve(ops, block, self.conv, self.places[layer], x, where, kv)
            else:
                x, kv = self._attend(ops, block, self.places[layer], x, tables[self.tables[layer]], where, kv)
            x = self._feed_forward(ops, block, x)
        head = self.top.matrix("token_embd" if self.a.tied else "output")
        picked = ops.norm(x, self.top.output_norm, self.a.norm_eps, ops.form(head[0]), pick=logit_rows)
        logits = ops.linear(*head, picked)
        return ops.cap(logits, self.a.logit_cap) if self.a.logit_cap else logits, kv

    def _attend(
        self, ops: Operations[W, X, K], block: Matrices[W], place: Place, x: nn.Tensor, table: nn.Tensor,
        where: Sequence[nn.Tensor], kv: K,
    ) -> tuple[nn.Tensor, K]:  # fmt: skip
        q, kv = self._projected(ops, block, place, x, table, where, kv)
        weights, w = block.matrix("attn_out")
        attended = ops.attention(self.heads, place, q, where, kv, ops.form(weights))
        return self._add(ops, x, weights, w, attended, block, "attn_post_norm"), kv

    def _projected(
        self, ops: Operations[W, X, K], block: Matrices[W], place: Place, x: nn.Tensor, table: nn.Tensor,
        where: Sequence[nn.Tensor], kv: K,
    ) -> tuple[nn.Tensor, K]:  # fmt: skip
        """Rotated queries, and the pages with this layer's keys and values."""
        if not self.a.qk_norm:  # a norm of whole heads has to wait for them
            matrices = [block.matrix(name) for name in qkv_names(block)]
            norm = (block.attn_norm, self.a.norm_eps)
            bias = block.attn_qkv_bias if self.a.qkv_bias else None
            made = ops.project(self.heads, place, matrices, x, norm, bias, table, where, kv)
            if made is not None:
                return made
        return ops.rope_append(self.heads, place, self._qkv(ops, block, x), table, where, kv)

    def _convolve(
        self, ops: Operations[W, X, K], block: Matrices[W], conv: ShortConv, place: Place, x: nn.Tensor,
        where: Sequence[nn.Tensor], kv: K,
    ) -> tuple[nn.Tensor, K]:  # fmt: skip
        (bcx,) = self._project(ops, block, x, block.attn_norm, ["conv_in"])
        weights, w = block.matrix("conv_out")
        made, kv = ops.short_conv(conv, place, bcx, block.conv_taps, where, kv, ops.form(weights))
        return self._add(ops, x, weights, w, made, block, "attn_post_norm"), kv


def build_graph(
    a: Architecture, tensors: Mapping[str, Entry], isa: Isa, activations: str, maxima: Maxima, split: bool,
    single: bool = False,
) -> tuple[tvm.IRModule, list[str]]:  # fmt: skip
    """The Relax module with one function ``step``, and the tensor names of its parameters in order. ``split``,
    ``single``: made for few rows, or for one (see `CpuOps`).

    Raises `Unsupported`, naming the field, for shapes that the kernels do not take."""
    heads = heads_of(a, maxima)
    model: Decoder[nn.Tensor, Activations, nn.Tensor] = Decoder(
        a, tensors, heads, partial(CpuOps, isa, activations, split, single), WHOLE
    )
    return _export(model, maxima, nn.spec.Tensor([heads.pages, heads.page_halves], "int16"))


def build_gpu_graphs(
    a: Architecture, tensors: Mapping[str, Entry], dtype: str, maxima: Maxima, tiers: Sequence[Tier],
    units: MatrixUnits | None = None,
) -> tuple[list[tvm.IRModule], list[str]]:  # fmt: skip
    """The module of each tier, every one with a function ``step``, and the names of its parameters: ``tensor@i``, slice
    i of a packed matrix. ``dtype``: of activations; int8: only where they are multiplied. ``units``: that multiply.

    Raises `Unsupported`, naming the field, for shapes that the kernels do not take."""
    if dtype == "float16" and a.post_norms:
        raise Unsupported(f"activation: what {a.family} models compute leaves half precision", field="activation")
    heads, mods = heads_of(a, maxima), []
    names: list[str] = []
    pages = [nn.spec.Tensor([heads.pages, page_words(heads)], "uint32")] * heads.layers
    for tier in tiers:
        ops = _gpu_ops(dtype, tier, units)
        model: Decoder[Sequence[nn.Tensor], NormedActivations, list[nn.Tensor]] = Decoder(
            a, tensors, heads, ops, SLICED
        )
        mod, names = _export(model, replace(maxima, rows=tier.rows), pages)
        mods.append(mod)
    return mods, names


def _gpu_ops(
    dtype: str, tier: Tier, units: MatrixUnits | None
) -> MakeOps[Sequence[nn.Tensor], NormedActivations, list[nn.Tensor]]:
    if dtype == INT8:
        return partial(Int8GpuOps, "float32", tier)
    if units is not None:
        return partial(MatrixGpuOps, dtype, tier, units=units)
    return partial(GpuOps, dtype, tier)


def heads_of(a: Architecture, maxima: Maxima) -> Heads:
    """The heads of a model. Raises `Unsupported`, naming the field, for an architecture that no kernel takes: the
    kernels' own checks, before a weight is read."""
    groups_of(a.hidden, "hidden")
    groups_of(a.ffn, "ffn")
    layout = layout_of(a)
    columns = sequence_pages(maxima.context, PAGE, layout.groups)
    places = layout.places(a.context)
    firsts = tuple(sorted({place.first for i, place in enumerate(places) if i not in a.conv_layers}))
    return Heads(
        a.heads, a.kv_heads, a.head_dim, layout.slots, maxima.sequences * columns, maxima.sequences, maxima.blocks,
        bool(layout.groups), columns, a.attention_scale, a.attention_cap, firsts,
    )  # fmt: skip


def _export(model: Decoder[W, X, K], maxima: Maxima, kv: Any) -> tuple[tvm.IRModule, list[str]]:
    spec = {
        "step": {
            "token_ids": nn.spec.Tensor(["rows"], "int32"),
            "positions": nn.spec.Tensor(["rows"], "int32"),
            "row_sequence": nn.spec.Tensor(["rows"], "int32"),
            "block_tables": nn.spec.Tensor([maxima.sequences, model.heads.columns_of_table], "int32"),
            "logit_rows": nn.spec.Tensor(["logit_rows"], "int32"),
            "kv": kv,
            "$": {"param_mode": "plain", "effect_mode": "none"},
        }
    }
    mod, params = model.export_tvm(spec)
    names = [name.removeprefix("top.") for name, _ in params]
    bounds = {"rows": maxima.rows, "logit_rows": maxima.logit_rows}
    mod["step"] = mod["step"].with_attr("tir_var_upper_bound", {k: tirx.const(v, "int64") for k, v in bounds.items()})
    return mod, names
