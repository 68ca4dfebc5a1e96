"""The Llama family: RMS norm, rotary positions, grouped-query attention over KV pages, gated SiLU feed-forward.

One function, ``step``, serves prefill and decode: ``rows`` tokens of several sequences, each with its position and its
sequence's row of the block table; ``logit_rows`` of them get logits. KV pages are an explicit tensor, written in
place. Tensor names are the artifact's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.relax.frontend import nn

from inpage.errors import Unsupported
from inpage.schema import Architecture
from inpage.schema import Tensor as Entry

from ..kernels.cpu.attention import PAGE, Heads
from ..kernels.cpu.isa import Isa
from ..kernels.cpu.linear import Weights
from ..kernels.cpu.quantize import GROUP
from .cpu_ops import Activations, CpuOps


@dataclass(frozen=True)
class Maxima:
    """What one step can take."""

    rows: int
    sequences: int
    logit_rows: int
    context: int

    @property
    def blocks(self) -> int:
        """KV pages of one sequence at most."""
        return -(-self.context // PAGE)


class _Matrices(nn.Module):
    """Packed matrices by the last part of their tensor's name."""

    def __init__(self, prefix: str, tensors: Mapping[str, Entry]) -> None:
        super().__init__()
        self.shapes: dict[str, Weights] = {}
        for name, entry in tensors.items():
            own = name.removeprefix(prefix)
            if not name.startswith(prefix) or "." in own:
                continue
            if entry.layout == "raw":
                setattr(self, own, nn.Parameter([entry.shape[0]], "float32"))
            else:
                weights = Weights(entry.format, entry.shape[0], entry.shape[1])
                self.shapes[own] = weights
                setattr(self, own, nn.Parameter([weights.words], "int32"))

    def matrix(self, name: str) -> tuple[Weights, nn.Parameter]:
        return self.shapes[name], getattr(self, name)


class Llama(nn.Module):
    """The whole model. ``tensors``: the artifact's entries by name."""

    def __init__(
        self, a: Architecture, tensors: Mapping[str, Entry], isa: Isa, activations: str, maxima: Maxima
    ) -> None:
        super().__init__()
        _check(a, isa)
        self.a, self.isa, self.activations = a, isa, activations
        pages = maxima.sequences * maxima.blocks
        self.heads = Heads(a.heads, a.kv_heads, a.head_dim, a.layers, pages, maxima.sequences, maxima.blocks)
        self.top = _Matrices("", tensors)
        self.blk = nn.ModuleList([_Matrices(f"blk.{i}.", tensors) for i in range(a.layers)])

    def step(
        self,
        token_ids: nn.Tensor,
        positions: nn.Tensor,
        row_sequence: nn.Tensor,
        block_tables: nn.Tensor,
        logit_rows: nn.Tensor,
        kv: nn.Tensor,
    ) -> tuple[nn.Tensor, nn.Tensor]:
        """Logits float32 [logit_rows, vocab], and the KV pages after the step."""
        ops = CpuOps(self.isa, self.activations, token_ids.shape[0], logit_rows.shape[0])
        where = (positions, row_sequence, block_tables)
        x = ops.embed(*self.top.matrix("token_embd"), token_ids)
        table = ops.rope_table(self.a.head_dim, positions, self.top.rope_freqs)
        for layer, block in enumerate(self.blk):
            x, kv = self._attend(ops, block, layer, x, table, where, kv)
            x = self._feed_forward(ops, block, x)
        head = self.top.matrix("token_embd" if self.a.tied else "output")
        picked = ops.norm(x, self.top.output_norm, self.a.norm_eps, ops.form(head[0]), pick=logit_rows)
        return ops.linear(*head, picked), kv

    def _attend(
        self, ops: CpuOps, block: _Matrices, layer: int, x: nn.Tensor, table: nn.Tensor, where: Sequence[nn.Tensor],
        kv: nn.Tensor,
    ) -> tuple[nn.Tensor, nn.Tensor]:  # fmt: skip
        names = ["attn_qkv"] if "attn_qkv" in block.shapes else ["attn_q", "attn_k", "attn_v"]
        qkv = self._project(ops, block, x, block.attn_norm, names)
        q, kv = ops.rope_append(self.heads, layer, ops.join(qkv) if len(qkv) > 1 else qkv[0], table, where, kv)
        weights, w = block.matrix("attn_out")
        attended = ops.attention(self.heads, layer, q, where, kv, ops.form(weights))
        return ops.linear(weights, w, attended, residual=x), kv

    def _feed_forward(self, ops: CpuOps, block: _Matrices, x: nn.Tensor) -> nn.Tensor:
        down, down_w = block.matrix("ffn_down")
        if "ffn_gate_up" in block.shapes and self.a.ffn % GROUP == 0:
            weights, w = block.matrix("ffn_gate_up")
            normed = ops.norm(x, block.ffn_norm, self.a.norm_eps, ops.form(weights))
            h = ops.gated(weights, w, normed, ops.form(down))
        else:
            gates, ups = self._project(ops, block, x, block.ffn_norm, ["ffn_gate", "ffn_up"])
            h = ops.gate(gates, ups, ops.form(down))
        return ops.linear(down, down_w, h, residual=x)

    def _project(
        self, ops: CpuOps, block: _Matrices, x: nn.Tensor, norm_weight: nn.Parameter, names: Sequence[str]
    ) -> list[nn.Tensor]:
        """Norm, then each named matrix; the norm's result is made once for each form that they want."""
        normed: dict[str, Activations] = {}
        out: list[nn.Tensor] = []
        for name in names:
            weights, w = block.matrix(name)
            form = ops.form(weights)
            if form not in normed:
                normed[form] = ops.norm(x, norm_weight, self.a.norm_eps, form)
            out.append(ops.linear(weights, w, normed[form]))
        return out


def build_graph(
    a: Architecture, tensors: Mapping[str, Entry], isa: Isa, activations: str, maxima: Maxima
) -> tuple[tvm.IRModule, list[str]]:
    """The Relax module with one function ``step``, and the tensor names of its parameters in order.

    Raises `Unsupported`, naming the field, for shapes that the kernels do not take."""
    model = Llama(a, tensors, isa, activations, maxima)
    kv = [model.heads.pages, model.heads.page_halves]
    spec = {
        "step": {
            "token_ids": nn.spec.Tensor(["rows"], "int32"),
            "positions": nn.spec.Tensor(["rows"], "int32"),
            "row_sequence": nn.spec.Tensor(["rows"], "int32"),
            "block_tables": nn.spec.Tensor([maxima.sequences, maxima.blocks], "int32"),
            "logit_rows": nn.spec.Tensor(["logit_rows"], "int32"),
            "kv": nn.spec.Tensor(kv, "int16"),
            "$": {"param_mode": "plain", "effect_mode": "none"},
        }
    }
    mod, params = model.export_tvm(spec)
    names = [name.removeprefix("top.") for name, _ in params]
    bounds = {"rows": maxima.rows, "logit_rows": maxima.logit_rows}
    mod["step"] = mod["step"].with_attr("tir_var_upper_bound", {k: tirx.const(v, "int64") for k, v in bounds.items()})
    return mod, names


def _check(a: Architecture, isa: Isa) -> None:
    for field, value, by in (
        ("hidden", a.hidden, GROUP),
        ("ffn", a.ffn, GROUP),
        ("head_dim", a.head_dim, 8),
        ("heads", a.heads * a.head_dim, GROUP),
    ):
        if value % by:
            raise Unsupported(
                f"{field}: {value} is not a multiple of {by}, which the {isa.name} kernels need", field=field
            )
    if a.heads % a.kv_heads:
        raise Unsupported(f"heads: {a.heads} do not divide among {a.kv_heads} key heads", field="kv_heads")
