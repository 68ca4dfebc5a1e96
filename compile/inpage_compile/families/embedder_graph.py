"""Decoders that answer with vectors: their layers over the sequences that a step holds side by side, with no KV cache,
and a vector for each sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from tvm import tirx
from tvm.relax.frontend import nn

from inpage.format.schema import Architecture
from inpage.format.schema import Tensor as Entry

from ..kernels.shared.encoder import Packing
from ..kernels.shared.heads import EVERYTHING, Heads
from ..ops.encoder import EncoderOperations
from ..ops.operations import K, Operations, W, X
from .blocks import Blocks, Handles


class EmbedderOperations(Operations[W, X, K], EncoderOperations[W, X], Protocol[W, X, K]):
    """What decoders' layers are written in, and encoders' attention and pooling."""


Make = Callable[[tirx.Var, tirx.Var], EmbedderOperations[W, X, K]]


class Embedder(Blocks[W, X, K]):
    """The whole model. ``tensors``: the artifact's entries by name; ``ops``: made for (rows, logit rows) of a step."""

    def __init__(
        self, a: Architecture, tensors: Mapping[str, Entry], packing: Packing, heads: Heads, ops: Make[W, X, K],
        handles: Handles[W],
    ) -> None:  # fmt: skip
        super().__init__(a, tensors, heads, handles)
        self.ops = ops
        self.packings = [seeing(packing, a, layer) for layer in range(a.layers)]

    def step(
        self,
        token_ids: nn.Tensor,
        positions: nn.Tensor,
        row_sequence: nn.Tensor,
        block_tables: nn.Tensor,
        logit_rows: nn.Tensor,
    ) -> nn.Tensor:
        """Float32 [logit_rows, hidden], of the sequences that the rows belong to."""
        a, ops = self.a, self.ops(token_ids.shape[0], logit_rows.shape[0])
        where = [positions, row_sequence, block_tables]
        x = ops.embed(*self.top.matrix("token_embd"), token_ids, a.embedding_scale)
        tables = self._turned(ops, positions)
        for layer, block in enumerate(self.blk):
            packing = self.packings[layer]
            qkv = ops.rotate(packing, self._qkv(ops, block, x), tables[self.tables[layer]])
            weights, w = block.matrix("attn_out")
            attended = ops.self_attention(packing, qkv, None, where, self.heads.factor, ops.form(weights))
            x = self._add(ops, x, weights, w, attended, block, "attn_post_norm")
            x = self._feed_forward(ops, block, x)
        if a.projected:  # which commutes with every kind of pooling
            weights, w = self.top.matrix("dense")
            x = ops.linear(weights, w, ops.norm(x, self.top.output_norm, a.norm_eps, ops.form(weights)))
        else:
            x = ops.rms_rows(x, self.top.output_norm, a.norm_eps)
        return ops.pool(self.packings[0], x, where, logit_rows, a.pooling, a.normalized)


def seeing(packing: Packing, a: Architecture, layer: int) -> Packing:
    """With what rows of a layer see: everything before them or a window, and as much behind where nothing is causal."""
    windowed = 0 < a.window < a.context and layer not in a.whole_layers
    before = a.window - 1 if windowed else EVERYTHING
    return replace(packing, before=before, after=0 if a.causal else before)
