"""Which tensors a Llama checkpoint must have, and their shapes."""

from __future__ import annotations

from collections.abc import Mapping

from inpage.errors import SourceInvalid
from inpage.format.schema import Architecture

from ..quantize.tensor import SourceTensor


def expected_tensors(a: Architecture) -> dict[str, tuple[int, ...]]:
    """Name (GGUF's, without ``.weight``) → shape of every tensor of the checkpoint."""
    q, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
    out: dict[str, tuple[int, ...]] = {"token_embd": (a.vocab, a.hidden)}
    for i in range(a.layers):
        out |= {
            f"blk.{i}.attn_norm": (a.hidden,),
            f"blk.{i}.attn_q": (q, a.hidden),
            f"blk.{i}.attn_k": (kv, a.hidden),
            f"blk.{i}.attn_v": (kv, a.hidden),
            f"blk.{i}.attn_output": (a.hidden, q),
            f"blk.{i}.ffn_norm": (a.hidden,),
            f"blk.{i}.ffn_gate": (a.ffn, a.hidden),
            f"blk.{i}.ffn_up": (a.ffn, a.hidden),
            f"blk.{i}.ffn_down": (a.hidden, a.ffn),
        }
    out["output_norm"] = (a.hidden,)
    if not a.tied:
        out["output"] = (a.vocab, a.hidden)
    return out


def check_tensors(a: Architecture, tensors: Mapping[str, SourceTensor]) -> None:
    """Raise `SourceInvalid` for a missing, misshapen or unexpected tensor (one that we would silently ignore)."""
    expected = expected_tensors(a)
    for name, shape in expected.items():
        if name not in tensors:
            raise SourceInvalid(f"tensor {name}.weight is missing", field=name)
        if tensors[name].shape != shape:
            raise SourceInvalid(f"{name}: shape {list(tensors[name].shape)}, expected {list(shape)}", field=name)
        if len(shape) == 1 and tensors[name].format not in ("f32", "f16"):
            raise SourceInvalid(f"{name}: a norm in {tensors[name].format}, expected f32 or f16", field=name)
    for name in tensors:
        if name not in expected:
            raise SourceInvalid(f"tensor {name} has no place in a {a.family} model", field=name)
