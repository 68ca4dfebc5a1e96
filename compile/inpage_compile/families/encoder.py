"""Families of encoders: what their metadata says, which tensors they have, and how those become the artifact's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from inpage.errors import SourceInvalid, quoted
from inpage.format.schema import Architecture

from ..quantize.tensor import SourceTensor, dequantize
from .family import Family
from .keys import Keys
from .rope import Rope

# Our names to keys of a GGUF file, and to those of config.json.
GGUF: Mapping[str, str] = {
    "layers": "block_count",
    "hidden": "embedding_length",
    "heads": "attention.head_count",
    "ffn": "feed_forward_length",
    "norm_eps": "attention.layer_norm_epsilon",
    "context": "context_length",
    "causal": "attention.causal",
    "pooling": "pooling_type",
}
CONFIG: Mapping[str, str] = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "norm_eps": "layer_norm_eps",
    "context": "max_position_embeddings",
    "activation": "hidden_act",
}
# What config.json calls the activation → what it is.
ACTIVATIONS: Mapping[str, str] = {
    "gelu": "gelu_erf",
    "gelu_new": "gelu",
    "gelu_fast": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "silu": "silu",
    "swish": "silu",
}
# GGUF's numbers for how states are pooled.
_POOLING = {1: "mean", 2: "cls", 3: "last"}
_RANK = 4
# Of a layer: the artifact's names, and the tensors of the checkpoint that they are made of.
LAYER_MATRICES = {
    "attn_qkv": ("attn_q", "attn_k", "attn_v"),
    "attn_out": ("attn_output",),
    "ffn_up": ("ffn_up",),
    "ffn_down": ("ffn_down",),
}
LAYER_VECTORS = {
    "attn_qkv_bias": ("attn_q.bias", "attn_k.bias", "attn_v.bias"),
    "attn_out_bias": ("attn_output.bias",),
    "attn_norm": ("attn_output_norm",),
    "attn_norm_bias": ("attn_output_norm.bias",),
    "ffn_up_bias": ("ffn_up.bias",),
    "ffn_down_bias": ("ffn_down.bias",),
    "ffn_norm": ("layer_output_norm",),
    "ffn_norm_bias": ("layer_output_norm.bias",),
}


@dataclass(frozen=True, slots=True)
class Pooled:
    """What becomes of the hidden states. ``labels``: see `Architecture`."""

    pooling: str
    normalized: bool
    labels: int = 0


@dataclass(frozen=True, slots=True)
class EncoderFamily(Family):
    """``position_offset``: the first position's row of the table; those before it are for padding. ``types``: what
    config.json calls the family; ``prefix``: what its tensors' names may begin with."""

    position_offset: int = 0
    types: tuple[str, ...] = ()
    prefix: str = ""

    def read(
        self, keys: Keys, tensors: Mapping[str, SourceTensor], factors: Mapping[str, SourceTensor] | None = None
    ) -> tuple[Architecture, Rope]:
        """Of a GGUF file."""
        keys.refuse_others()
        if keys.flag("causal", False):
            raise keys.wrong("causal", "an encoder sees its whole text; true is not supported")
        number = keys.integer("pooling", 1)
        labels = _rows(tensors, "cls.output") if number == _RANK else 0
        if number not in (*_POOLING, _RANK) or (number == _RANK and not labels):
            raise keys.wrong("pooling", f"pooling {number} is not supported; mean, CLS, last token and ranks are")
        return self.architecture(keys, tensors, Pooled(_POOLING.get(number, "cls"), not labels, labels), "gelu_erf")

    def architecture(
        self, keys: Keys, tensors: Mapping[str, SourceTensor], pooled: Pooled, activation: str,
        longest: int | None = None,
    ) -> tuple[Architecture, Rope]:  # fmt: skip
        """``longest``: tokens of a text at most, where that is less than there are positions."""
        for name in ("token_embd", "position_embd"):
            if name not in tensors:
                raise SourceInvalid(f"tensor {name}.weight is missing", field=name)
        hidden, heads = keys.size("hidden"), keys.size("heads")
        if hidden % heads or hidden // heads % 2:
            raise keys.wrong("heads", f"{hidden} columns do not make {heads} heads of an even width")
        positions = keys.size("context") - self.position_offset
        if positions < 1:
            raise keys.wrong("context", f"{keys.size('context')} positions, {self.position_offset} of them no token's")
        architecture = Architecture(
            family=self.name,
            layers=keys.size("layers"),
            hidden=hidden,
            heads=heads,
            kv_heads=heads,
            head_dim=hidden // heads,
            ffn=keys.size("ffn"),
            vocab=tensors["token_embd"].shape[0],
            rope_theta=10000.0,
            norm_eps=keys.number("norm_eps"),
            tied=True,
            context=min(positions, longest or positions),
            activation=activation,
            encoder=True,
            token_types=_rows(tensors, "token_types"),
            pooling="cls" if pooled.labels else pooled.pooling,
            normalized=pooled.normalized,
            labels=pooled.labels,
        )
        return architecture, Rope(np.ones(hidden // heads // 2), turning=hidden // heads)

    def adapt(self, keys: Keys, tensors: Mapping[str, SourceTensor]) -> dict[str, SourceTensor]:
        """As `encoder_tensors` has them: each of a fused matrix's parts in one format, floats where they differ."""
        out = dict(tensors)
        if (only := out.get("token_types")) is not None and len(only.shape) == 1:
            out["token_types"] = replace(only, shape=(1, *only.shape))
        offset, table = self.position_offset, out.get("position_embd")
        if table is not None and len(table.shape) == 2 and offset < table.shape[0] and keys.prefix != self.name:
            rows = dequantize(table)[offset:]  # of config.json; GGUF files begin with the first position
            out["position_embd"] = replace(table, shape=rows.shape, format="f32", data=rows.view(np.uint8))
        for block in {name.rpartition(".")[0] for name in tensors if name.endswith(".attn_q")}:
            parts = [f"{block}.{name}" for name in LAYER_MATRICES["attn_qkv"]]
            if all(name in out for name in parts) and len({out[name].format for name in parts}) > 1:
                out |= {name: _floats(out[name]) for name in parts}
        return out


def _floats(t: SourceTensor) -> SourceTensor:
    return replace(t, format="f32", data=dequantize(t).view(np.uint8))


def _rows(tensors: Mapping[str, SourceTensor], name: str) -> int:
    return tensors[name].shape[0] if name in tensors and len(tensors[name].shape) == 2 else int(name in tensors)


def encoder_tensors(a: Architecture) -> dict[str, tuple[int, ...]]:
    """Name (GGUF's, without ``.weight``) → shape of every tensor of an encoder's checkpoint; of positions there may be
    more."""
    h = a.hidden
    out: dict[str, tuple[int, ...]] = {"token_embd": (a.vocab, h), "position_embd": (a.context, h)}
    if a.token_types:
        out["token_types"] = (a.token_types, h)
    out |= {"token_embd_norm": (h,), "token_embd_norm.bias": (h,)}
    for i in range(a.layers):
        blk = {
            **{f"attn_{x}": (h, h) for x in "qkv"},
            **{f"attn_{x}.bias": (h,) for x in "qkv"},
            "attn_output": (h, h),
            "attn_output.bias": (h,),
            "attn_output_norm": (h,),
            "attn_output_norm.bias": (h,),
            "ffn_up": (a.ffn, h),
            "ffn_up.bias": (a.ffn,),
            "ffn_down": (h, a.ffn),
            "ffn_down.bias": (h,),
            "layer_output_norm": (h,),
            "layer_output_norm.bias": (h,),
        }
        out |= {f"blk.{i}.{name}": shape for name, shape in blk.items()}
    if a.labels:
        out |= {"cls": (h, h), "cls.bias": (h,), "cls.output": (a.labels, h), "cls.output.bias": (a.labels,)}
    return out


def misplaced(a: Architecture, tensors: Mapping[str, SourceTensor]) -> Iterable[tuple[str, str]]:
    """(name, what is wrong) of tensors that are missing, misshapen or not known."""
    expected = encoder_tensors(a)
    for name, shape in expected.items():
        found = tensors.get(name)
        if found is None:
            yield name, "is missing"
        elif name == "position_embd" and len(found.shape) == 2 and found.shape[1:] == shape[1:]:
            if found.shape[0] < shape[0]:
                yield name, f"has {found.shape[0]} rows, but the context is {shape[0]}"
        elif found.shape != shape:
            yield name, f"has shape {list(found.shape)}, expected {list(shape)}"
    yield from ((name, f"has no place in a {a.family} model") for name in tensors if name not in expected)


def activation_of(keys: Keys) -> str:
    """By config.json."""
    found = keys.text("activation", "gelu")
    if found not in ACTIVATIONS:
        raise keys.wrong("activation", f"{quoted(found)} is not supported; supported: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[found]
