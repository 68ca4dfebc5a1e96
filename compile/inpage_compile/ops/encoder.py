"""What encoders' graphs are written in beside packed matrices, as `operations` has it for decoders."""

from __future__ import annotations

from typing import Protocol, TypeVar

from tvm.relax.frontend.nn import Tensor

from ..kernels.shared.encoder import Packing
from ..kernels.shared.packed import PackedMatrix

W = TypeVar("W", contravariant=True)
X = TypeVar("X")


class EncoderOperations(Protocol[W, X]):
    """Of one step, over its rows; ``form``: of activations, as the matrix reads them that comes next. ``where``:
    positions, the rows' sequences, and where those lie (see `inpage.format.plan`)."""

    def form(self, weights: PackedMatrix) -> str: ...

    def embed(self, weights: PackedMatrix, w: W, ids: Tensor, scale: float = 1.0) -> Tensor: ...

    def linear(self, weights: PackedMatrix, w: W, x: X, residual: Tensor | None = None) -> Tensor: ...

    def embed_norm(
        self, p: Packing, x: Tensor, where: list[Tensor], positions: Tensor | None, segments: Tensor | None, types: int,
        norm: list[Tensor], epsilon: float, form: str,
    ) -> tuple[Tensor, X]:  # fmt: skip
        """The layer norm of token + position + segment: itself, in place, and as the next matrix reads it.
        ``positions``, ``segments``: their tables, the latter of ``types`` rows; ``norm``: weight and bias."""
        ...

    def layer_norm(
        self, x: Tensor, before: Tensor | None, norm: list[Tensor], epsilon: float, form: str
    ) -> tuple[Tensor, X]:
        """The layer norm of x + ``before``, as above."""
        ...

    def rms_rows(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """The RMS norm of every row, maybe in place."""
        ...

    def rope_table(self, head_dim: int, scale: float, turning: int, positions: Tensor, freqs: Tensor) -> Tensor: ...

    def rotate(self, p: Packing, qkv: Tensor, table: Tensor) -> Tensor:
        """Queries and keys turned by `rope_table`, in place."""
        ...

    def self_attention(
        self, p: Packing, qkv: Tensor, bias: Tensor | None, where: list[Tensor], scale: float, form: str
    ) -> X:
        """Of every row over those of its sequence that ``p`` lets it see."""
        ...

    def gated(self, weights: PackedMatrix, w: W, x: X, form: str, activation: str) -> X: ...

    def gate(self, gates: Tensor, ups: Tensor, form: str, activation: str) -> X: ...

    def bias_act(self, x: Tensor, bias: Tensor, activation: str, form: str) -> X:
        """activation(x + bias). ``activation``: gelu_erf, gelu or silu."""
        ...

    def pool(
        self, p: Packing, x: Tensor, where: list[Tensor], picked: Tensor, pooling: str, normalized: bool
    ) -> Tensor:
        """A vector for the sequence of each row that is picked, float32 [logit_rows, columns]."""
        ...

    def picked(self, x: Tensor, form: str) -> X:
        """Such vectors as a matrix reads them."""
        ...

    def picked_act(self, x: Tensor, bias: Tensor, activation: str, form: str) -> X:
        """activation(x + bias) of such vectors; also tanh."""
        ...

    def picked_bias(self, x: Tensor, bias: Tensor) -> Tensor:
        """x + bias of such vectors, in place."""
        ...
