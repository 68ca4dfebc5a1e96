"""What a family of models has: what its metadata says, which tensors its checkpoints hold, and how they become the
artifact's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field

import numpy as np
import numpy.typing as npt

from inpage.errors import SourceInvalid
from inpage.format.schema import Architecture

from ..gguf.metadata import Metadata
from ..quantize.tensor import SourceTensor
from .checkpoint import Checkpoint
from .keys import Keys
from .rope import Rope, read_rope


@dataclass(frozen=True, slots=True)
class Family:
    """``name``: GGUF's ``general.architecture``. The flags are `Architecture`'s, but for one: ``half_rotation``, rotary
    positions turn element i of a head together with element i + head_dim / 2 (as GPT-NeoX does). Kernels turn
    neighbours, so rows of queries and keys, and whatever goes with them, change places when they are packed. ``gguf``:
    the keys of a GGUF file that are read, by our names for them. ``checkpoint``: the same of a folder with a
    config.json, where heads always turn by halves; None: such folders are not read."""

    name: str
    _: KW_ONLY
    qkv_bias: bool = False
    qk_norm: bool = False
    half_rotation: bool = False
    gguf: Mapping[str, str] = field(repr=False)
    checkpoint: Checkpoint | None = field(default=None, repr=False)

    def head_order(self, head_dim: int) -> npt.NDArray[np.intp] | None:
        """Which element of a source's head each element of the artifact's is; None: the same."""
        if not self.half_rotation:
            return None
        return np.arange(head_dim).reshape(2, -1).T.reshape(-1)

    def keys(self, meta: Metadata) -> Keys:
        return Keys(meta, self.name, self.gguf)

    def read(
        self, keys: Keys, tensors: Mapping[str, SourceTensor], rope_factors: SourceTensor | None = None
    ) -> tuple[Architecture, Rope]:
        """What a model is. Raises `SourceInvalid` naming the key for what is missing, out of range or not supported."""
        keys.refuse_others()
        if "token_embd" not in tensors:
            raise SourceInvalid("tensor token_embd.weight is missing", field="token_embd")
        hidden, heads = keys.size("hidden"), keys.size("heads")
        kv_heads = keys.size("kv_heads", heads)
        if heads % kv_heads:
            raise keys.wrong("kv_heads", f"{heads} heads do not divide among {kv_heads} key/value heads")
        head_dim = keys.size("head_dim", max(hidden // heads, 1))
        if head_dim % 2:
            raise keys.wrong("head_dim", f"a head of {head_dim} elements; their number must be even")
        for name, what in (("value_dim", "value heads of another width"), ("rope_dim", "partial rotary positions")):
            if (found := keys.integer(name, head_dim)) != head_dim:
                raise keys.wrong(name, f"{what} are not supported: {found}, expected {head_dim}")
        context, theta = keys.size("context"), keys.number("rope_theta", 10000.0)
        if 0 < (window := keys.integer("window", 0)) < context:
            raise keys.wrong("window", f"a window of {window} tokens in a context of {context} is not supported")
        rope = read_rope(keys, head_dim, theta, context, rope_factors)
        architecture = Architecture(
            family=self.name,
            layers=keys.size("layers"),
            hidden=hidden,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            ffn=keys.size("ffn"),
            vocab=tensors["token_embd"].shape[0],
            rope_theta=theta,
            norm_eps=keys.number("norm_eps"),
            tied="output" not in tensors,
            context=context,
            qkv_bias=self.qkv_bias,
            qk_norm=self.qk_norm,
            rope_scale=rope.scale,
        )
        return architecture, rope


def expected_tensors(a: Architecture) -> dict[str, tuple[int, ...]]:
    """Name (GGUF's, without ``.weight``) → shape of every tensor of the checkpoint."""
    q, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
    out: dict[str, tuple[int, ...]] = {"token_embd": (a.vocab, a.hidden)}
    for i in range(a.layers):
        blk = {
            "attn_norm": (a.hidden,),
            "attn_q": (q, a.hidden),
            "attn_k": (kv, a.hidden),
            "attn_v": (kv, a.hidden),
            "attn_output": (a.hidden, q),
            "ffn_norm": (a.hidden,),
            "ffn_gate": (a.ffn, a.hidden),
            "ffn_up": (a.ffn, a.hidden),
            "ffn_down": (a.hidden, a.ffn),
        }
        if a.qkv_bias:
            blk |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
        if a.qk_norm:
            blk |= {"attn_q_norm": (a.head_dim,), "attn_k_norm": (a.head_dim,)}
        out |= {f"blk.{i}.{name}": shape for name, shape in blk.items()}
    out["output_norm"] = (a.hidden,)
    if not a.tied:
        out["output"] = (a.vocab, a.hidden)
    return out


def check_tensors(a: Architecture, tensors: Mapping[str, SourceTensor]) -> None:
    """Raise `SourceInvalid` for a missing, misshapen or unexpected tensor (one that we would silently ignore)."""
    expected = expected_tensors(a)
    for name, shape in expected.items():
        if name not in tensors:
            written = name if name.endswith(".bias") else f"{name}.weight"
            raise SourceInvalid(f"tensor {written} is missing", field=name)
        if tensors[name].shape != shape:
            raise SourceInvalid(f"{name}: shape {list(tensors[name].shape)}, expected {list(shape)}", field=name)
        if len(shape) == 1 and tensors[name].format not in ("f32", "f16", "bf16"):
            what = "bias" if name.endswith(".bias") else "norm"
            raise SourceInvalid(f"{name}: a {what} in {tensors[name].format}, expected f32, f16 or bf16", field=name)
    for name in tensors:
        if name not in expected:
            raise SourceInvalid(f"tensor {name} has no place in a {a.family} model", field=name)
