"""The encoder that BERT's families share: learned or rotary positions, bidirectional attention over the sequences that
a step holds side by side, layer norms behind what is added, a feed-forward with a gate or without, and a vector for
each sequence, or a classifier's scores. What a model has beside its matrices is known by its tensors. Here is also what
builds decoders that answer with vectors (`embedder_graph`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Generic, TypeVar

import tvm
from tvm import tirx
from tvm.relax.frontend import nn

from inpage.errors import Unsupported
from inpage.format.plan import ENCODER_COLUMNS
from inpage.format.schema import Architecture
from inpage.format.schema import Tensor as Entry

from ..kernels.cpu.isa import Isa
from ..kernels.shared.encoder import BLOCK, Packing
from ..kernels.shared.packed import groups_of
from ..ops.cpu_encoder import EncoderCpuOps
from ..ops.encoder import EncoderOperations
from ..ops.maxima import Maxima
from ..ops.webgpu import Tier
from ..ops.webgpu_encoder import EncoderGpuOps
from .blocks import SLICED, WHOLE, Handles, Matrices
from .embedder_graph import Embedder
from .graph import heads_of
from .rope import TABLE

W = TypeVar("W")
X = TypeVar("X")
Make = Callable[[tirx.Var, tirx.Var], EncoderOperations[W, X]]

# A step's rows at least: enough that a weight that was read meets many of them.
ROWS, SEQUENCES = 512, 64


def encoder_maxima(a: Architecture) -> Maxima:
    """A step takes whole sequences, so one of the longest at least."""
    rows = -(-max(ROWS, a.context) // BLOCK) * BLOCK
    return Maxima(rows, SEQUENCES, SEQUENCES, a.context)


def outputs_of(a: Architecture) -> int:
    """Numbers that a sequence gets."""
    return a.labels or a.hidden


class Encoder(nn.Module, Generic[W, X]):
    """The whole model. ``tensors``: the artifact's entries by name; ``ops``: made for (rows, logit rows) of a step."""

    def __init__(
        self, a: Architecture, tensors: Mapping[str, Entry], packing: Packing, ops: Make[W, X], handles: Handles[W]
    ) -> None:
        super().__init__()
        self.a, self.packing, self.ops = a, packing, ops
        self.top = Matrices("", tensors, handles)
        self.blk = nn.ModuleList([Matrices(f"blk.{i}.", tensors, handles) for i in range(a.layers)])

    def step(
        self,
        token_ids: nn.Tensor,
        positions: nn.Tensor,
        row_sequence: nn.Tensor,
        block_tables: nn.Tensor,
        logit_rows: nn.Tensor,
    ) -> nn.Tensor:
        """Float32 [logit_rows, `outputs_of`], of the sequences that the rows belong to."""
        a, top = self.a, self.top
        ops = self.ops(token_ids.shape[0], logit_rows.shape[0])
        where = [positions, row_sequence, block_tables]
        placed, segments = (getattr(top, name, None) for name in ("position_embd", "token_types"))
        turning = getattr(top, TABLE, None)
        table = None if turning is None else ops.rope_table(a.head_dim, a.rope_scale, a.turning, positions, turning)
        forms = [self._form(ops, block, "attn_qkv") for block in self.blk]
        x = ops.embed(*top.matrix("token_embd"), token_ids)
        norm = [top.embd_norm, top.embd_norm_bias]
        x, h = ops.embed_norm(self.packing, x, where, placed, segments, a.token_types, norm, a.norm_eps, forms[0])
        for i, block in enumerate(self.blk):
            x, h = self._layer(ops, block, x, h, where, table, forms[i + 1] if i + 1 < a.layers else "f32")
        pooled = ops.pool(self.packing, x, where, logit_rows, a.pooling or "cls", a.normalized and not a.labels)
        if not a.labels:
            return pooled
        first, last = top.matrix("head_dense"), top.matrix("head_out")
        made = ops.linear(*first, ops.picked(pooled, ops.form(first[0])))
        made = ops.linear(*last, ops.picked_act(made, top.head_dense_bias, "tanh", ops.form(last[0])))
        return ops.picked_bias(made, top.head_out_bias)

    def _form(self, ops: EncoderOperations[W, X], block: Matrices[W], name: str) -> str:
        return ops.form(block.shapes[name])

    def _layer(
        self, ops: EncoderOperations[W, X], block: Matrices[W], x: nn.Tensor, h: X, where: list[nn.Tensor],
        table: nn.Tensor | None, form: str,
    ) -> tuple[nn.Tensor, X]:  # fmt: skip
        """``h``: x as the layer's first matrix reads it; ``form``: as the next layer's does."""
        a = self.a
        scale = a.attention_scale or a.head_dim**-0.5
        bias = {name: getattr(block, f"{name}_bias", None) for name in ("attn_qkv", "attn_out", "ffn_up", "ffn_down")}
        qkv = ops.linear(*block.matrix("attn_qkv"), h)
        if table is not None:
            qkv = ops.rotate(self.packing, qkv, table)
        out = self._form(ops, block, "attn_out")
        attended = ops.self_attention(self.packing, qkv, bias["attn_qkv"], where, scale, out)
        x = ops.linear(*block.matrix("attn_out"), attended, residual=x)
        norm, down = [block.attn_norm, block.attn_norm_bias], self._form(ops, block, "ffn_down")
        if "ffn_gate_up" in block.shapes:
            x, h = ops.layer_norm(x, bias["attn_out"], norm, a.norm_eps, self._form(ops, block, "ffn_gate_up"))
            wide = ops.gated(*block.matrix("ffn_gate_up"), h, down, a.activation)
        else:
            x, h = ops.layer_norm(x, bias["attn_out"], norm, a.norm_eps, self._form(ops, block, "ffn_up"))
            wide = ops.bias_act(ops.linear(*block.matrix("ffn_up"), h), bias["ffn_up"], a.activation, down)
        x = ops.linear(*block.matrix("ffn_down"), wide, residual=x)
        return ops.layer_norm(x, bias["ffn_down"], [block.ffn_norm, block.ffn_norm_bias], a.norm_eps, form)


def build_encoder(
    a: Architecture, tensors: Mapping[str, Entry], isa: Isa, activations: str, maxima: Maxima
) -> tuple[tvm.IRModule, list[str]]:
    """As `build_graph`."""
    return _export(_model(a, tensors, maxima, partial(EncoderCpuOps, isa, activations, False, False), WHOLE), maxima)


def build_gpu_encoders(
    a: Architecture, tensors: Mapping[str, Entry], dtype: str, maxima: Maxima, tiers: Sequence[Tier]
) -> tuple[list[tvm.IRModule], list[str]]:
    """As `build_gpu_graphs`."""
    if dtype != "float32":
        raise Unsupported(f"activation: encoders compute in float32, not in {dtype}", field="activation")
    mods: list[tvm.IRModule] = []
    names: list[str] = []
    for tier in tiers:
        model = _model(a, tensors, maxima, partial(EncoderGpuOps, dtype, tier), SLICED)
        mod, names = _export(model, replace(maxima, rows=tier.rows))
        mods.append(mod)
    return mods, names


def _model(
    a: Architecture, tensors: Mapping[str, Entry], maxima: Maxima, ops: Callable[[tirx.Var, tirx.Var], Any],
    handles: Handles[W],
) -> nn.Module:  # fmt: skip
    """By its tensors: decoders have a norm behind their last layer."""
    packing = packing_of(a, maxima)
    if "output_norm" in tensors:
        return Embedder(a, tensors, replace(packing, biased=False), heads_of(a, maxima), ops, handles)
    return Encoder(a, tensors, replace(packing, biased="blk.0.attn_qkv_bias" in tensors), ops, handles)


def packing_of(a: Architecture, maxima: Maxima) -> Packing:
    """Raises `Unsupported`, naming the field, for an architecture that no kernel takes."""
    groups_of(a.hidden, "hidden")
    groups_of(a.ffn, "ffn")
    groups_of(a.heads * a.head_dim, "head_dim")
    if a.conv_layers or a.attention_cap:
        field = "conv_layers" if a.conv_layers else "attention_cap"
        raise Unsupported(f"{field}: {a.family} models with it write texts, and make no vectors", field=field)
    return Packing(a.heads, a.kv_heads, a.head_dim, a.context, maxima.sequences)


def _export(model: Any, maxima: Maxima) -> tuple[tvm.IRModule, list[str]]:
    spec = {
        "step": {
            "token_ids": nn.spec.Tensor(["rows"], "int32"),
            "positions": nn.spec.Tensor(["rows"], "int32"),
            "row_sequence": nn.spec.Tensor(["rows"], "int32"),
            "block_tables": nn.spec.Tensor([maxima.sequences, ENCODER_COLUMNS], "int32"),
            "logit_rows": nn.spec.Tensor(["logit_rows"], "int32"),
            "$": {"param_mode": "plain", "effect_mode": "none"},
        }
    }
    mod, params = model.export_tvm(spec)
    bounds = {"rows": maxima.rows, "logit_rows": maxima.logit_rows}
    mod["step"] = mod["step"].with_attr("tir_var_upper_bound", {k: tirx.const(v, "int64") for k, v in bounds.items()})
    return mod, [name.removeprefix("top.") for name, _ in params]
