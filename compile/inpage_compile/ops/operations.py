"""The operations that graphs are written in, as one type: `cpu` and `webgpu` have an implementation each, and mypy
holds both, and every graph, against it.

Three types are an implementation's own. ``W``: a packed matrix in the graph, one tensor or its slices. ``X``: what a
linear layer reads, floats, quants with scales, or a row that still has to go through a norm. ``K``: KV pages, one
tensor or one a layer of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from tvm.relax.frontend.nn import Tensor

from ..kernels.shared.heads import Heads, Place
from ..kernels.shared.packed import PackedMatrix
from ..kernels.shared.short_conv import ShortConv

W = TypeVar("W", contravariant=True)
X = TypeVar("X")
K = TypeVar("K")


class Operations(Protocol[W, X, K]):
    """Of one step, over its rows. What is said to be in place leaves its argument changed: go on with the result."""

    def form(self, weights: PackedMatrix) -> str:
        """The form of activations that a matrix reads; layers that read the same form share it."""
        ...

    def embed(self, weights: PackedMatrix, w: W, ids: Tensor, scale: float = 1.0) -> Tensor:
        """The tokens' rows of the embedding, times ``scale``, float32 [rows, columns]."""
        ...

    def norm(self, x: Tensor, weight: Tensor, epsilon: float, form: str, pick: Tensor | None = None) -> X:
        """RMS norm; with ``pick`` only of the rows that get logits."""
        ...

    def linear(self, weights: PackedMatrix, w: W, x: X, residual: Tensor | None = None) -> Tensor:
        """x · weights^T, added to ``residual`` where there is one, maybe in place."""
        ...

    def add_normed(self, x: Tensor, y: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """x + the RMS norm of y, in place of x."""
        ...

    def cap(self, logits: Tensor, size: float) -> Tensor:
        """size · tanh(logits / size), in place."""
        ...

    def gated(self, weights: PackedMatrix, w: W, x: X, form: str, activation: str) -> X:
        """activation(gate) · up of a matrix whose rows are both, interleaved by 16. ``activation``: silu or gelu."""
        ...

    def gate(self, gates: Tensor, ups: Tensor, form: str, activation: str) -> X:
        """activation(gates) · ups, maybe in place."""
        ...

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """Columns side by side."""
        ...

    def add_bias(self, x: Tensor, bias: Tensor) -> Tensor:
        """In place."""
        ...

    def head_norm(self, h: Heads, qkv: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """RMS norm of each head of queries and keys, in place; ``weight``: one for queries, one for keys."""
        ...

    def rope_table(self, head_dim: int, scale: float, turning: int, positions: Tensor, freqs: Tensor) -> Tensor:
        """cos and sin of position · frequency, times ``scale`` where a head turns, float32 [rows, head_dim / 2, 2]."""
        ...

    def project(
        self, h: Heads, place: Place, matrices: Sequence[tuple[PackedMatrix, W]], x: Tensor,
        norm: tuple[Tensor, float], bias: Tensor | None, table: Tensor, where: Sequence[Tensor], kv: K,
    ) -> tuple[Tensor, K] | None:  # fmt: skip
        """Norm, matrices side by side, bias and `rope_append` in one; None where that takes a kernel each.
        ``norm``: its weight and epsilon."""
        ...

    def rope_append(
        self, h: Heads, place: Place, qkv: Tensor, table: Tensor, where: Sequence[Tensor], kv: K
    ) -> tuple[Tensor, K]:
        """Rotated queries, and the KV pages with this layer's keys and values added, in place. ``where``: positions,
        the rows' sequences, block tables."""
        ...

    def attention(self, h: Heads, place: Place, q: Tensor, where: Sequence[Tensor], kv: K, form: str) -> X:
        """Of every row over its sequence's tokens up to its own, as many as the place's window shows."""
        ...

    def short_conv(
        self, c: ShortConv, place: Place, bcx: Tensor, weight: Tensor, where: Sequence[Tensor], kv: K, form: str
    ) -> tuple[X, K]:
        """C · convolution of B·x, of every row over its sequence's tokens, and the KV pages with the rows' B·x added,
        in place. ``bcx``: B, C and x side by side; ``weight``: [taps, width], the own token's last."""
        ...
