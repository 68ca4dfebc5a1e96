"""Families of encoders: what their metadata says, which tensors they have, and how those become the artifact's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from inpage.errors import SourceInvalid, quoted
from inpage.format.schema import Architecture, EmbeddingRef

from ..checkpoints.config import PREFIX
from ..quantize.tensor import SourceTensor, dequantize
from .checkpoint import Checkpoint
from .family import Family
from .keys import POOLING, Keys
from .rope import Rope, read_rope

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
_RANK = 4  # GGUF's pooling_type of a reranker: a classifier behind the states
# What transformers calls tensors that are not a layer's, and parts of a layer, to ours.
_TOP: Mapping[str, str] = {
    "embeddings.word_embeddings.weight": "token_embd",
    "embeddings.position_embeddings.weight": "position_embd",
    "embeddings.token_type_embeddings.weight": "token_types",
    "embeddings.LayerNorm.weight": "token_embd_norm",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
    "embeddings.LayerNorm.gamma": "token_embd_norm",
    "embeddings.LayerNorm.beta": "token_embd_norm.bias",
}
_BLOCK: Mapping[str, str] = {
    **{f"attention.self.{name}": f"attn_{name[0]}" for name in ("query", "key", "value")},
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
# What config.json may say of others: the values that stand for "not here". Any other one changes numbers.
_OFF: Mapping[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "embedding_size": (),
    "rotary_emb_base": (),
}
_QKV = ("attn_q", "attn_k", "attn_v")
_GATE_UP = ("ffn_gate", "ffn_up")


@dataclass(frozen=True, slots=True)
class Names:
    """Of a folder's tensors. ``layers``: what stands before a layer's number; ``top``, ``block``: see `_TOP` and
    `_BLOCK`, the latter without "weight" and "bias"."""

    layers: str = "encoder.layer"
    top: Mapping[str, str] = field(default_factory=lambda: _TOP)
    block: Mapping[str, str] = field(default_factory=lambda: _BLOCK)


@dataclass(frozen=True, slots=True)
class Pooled:
    """What becomes of the hidden states. ``labels``: see `Architecture`."""

    pooling: str
    normalized: bool
    labels: int = 0


@dataclass(frozen=True, slots=True)
class EncoderFamily(Family):
    """``position_offset``: the first position's row of the table; those before it are for padding. ``rotary``: there is
    no such table, queries and keys turn. ``gated``: the feed-forward has a gate; ``biased``: matrices have a bias.
    ``separators``: between the texts of a pair. ``prompts``: what stands before texts, where the source does not say.

    Of folders: ``types``: what config.json calls the family; ``prefix``: what its tensors' names may begin with;
    ``names``: of tensors; ``config``: keys; ``usual``: see `Checkpoint`; ``off``: what no graph follows."""

    position_offset: int = 0
    rotary: bool = False
    gated: bool = False
    biased: bool = True
    separators: int = 1
    prompts: Mapping[str, str] = field(default_factory=dict, repr=False)
    types: tuple[str, ...] = ()
    prefix: str = ""
    names: Names = field(default_factory=Names, repr=False)
    config: Mapping[str, str] = field(default_factory=lambda: CONFIG, repr=False)
    usual: Callable[[Mapping[str, Any]], Mapping[str, Any]] = field(default=lambda values: values, repr=False)
    off: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: _OFF, repr=False)

    def texts(self) -> EmbeddingRef:
        """What is to be said of texts where the source says nothing."""
        return EmbeddingRef(self.prompts, separators=self.separators)

    def config_keys(self, values: Mapping[str, Any]) -> Keys:
        """Of a config.json. Raises `SourceInvalid` naming the key for what no graph follows."""
        said = self.usual(values)
        for rest, off in self.off.items():
            if (value := said.get(rest)) is not None and value not in off:
                key = f"{PREFIX}.{rest}"
                raise SourceInvalid(
                    f"{key}: {quoted(value)} is not supported" + (f"; only {off[0]} is" if off else ""), field=key
                )
        return Checkpoint(self.types, config=self.config).keys(said)

    def read(
        self, keys: Keys, tensors: Mapping[str, SourceTensor], factors: Mapping[str, SourceTensor] | None = None
    ) -> tuple[Architecture, Rope]:
        """Of a GGUF file."""
        keys.refuse_others()
        if keys.flag("causal", False):
            raise keys.wrong("causal", "an encoder sees its whole text; true is not supported")
        number = keys.integer("pooling", 1)
        labels = _rows(tensors, "cls.output") if number == _RANK else 0
        if number not in (*POOLING, _RANK) or (number == _RANK and not labels):
            raise keys.wrong("pooling", f"pooling {number} is not supported; mean, CLS, last token and ranks are")
        pooled = Pooled(POOLING.get(number, "cls"), not labels, labels)
        return self.architecture(keys, tensors, pooled, "silu" if self.gated else "gelu_erf")

    def architecture(
        self, keys: Keys, tensors: Mapping[str, SourceTensor], pooled: Pooled, activation: str,
        longest: int | None = None,
    ) -> tuple[Architecture, Rope]:  # fmt: skip
        """``longest``: tokens of a text at most, where that is less than there are positions."""
        for name in ("token_embd",) if self.rotary else ("token_embd", "position_embd"):
            if name not in tensors:
                raise SourceInvalid(f"tensor {name}.weight is missing", field=name)
        hidden, heads = keys.size("hidden"), keys.size("heads")
        if hidden % heads or hidden // heads % 2:
            raise keys.wrong("heads", f"{hidden} columns do not make {heads} heads of an even width")
        head_dim, positions = hidden // heads, keys.size("context") - self.position_offset
        if positions < 1:
            raise keys.wrong("context", f"{keys.size('context')} positions, {self.position_offset} of them no token's")
        theta, rope = 10000.0, Rope(np.ones(head_dim // 2), turning=head_dim)
        if self.rotary:
            theta = keys.number("rope_theta", 10000.0)
            rope = read_rope(keys, head_dim, theta, positions, {})
        architecture = Architecture(
            family=self.name,
            layers=keys.size("layers"),
            hidden=hidden,
            heads=heads,
            kv_heads=heads,
            head_dim=head_dim,
            ffn=keys.size("ffn"),
            vocab=tensors["token_embd"].shape[0],
            rope_theta=theta,
            norm_eps=keys.number("norm_eps"),
            tied=True,
            context=min(positions, longest or positions),
            rope_scale=rope.scale,
            turning=rope.turning % head_dim,
            activation=activation,
            encoder=True,
            token_types=_rows(tensors, "token_types"),
            pooling="cls" if pooled.labels else pooled.pooling,
            normalized=pooled.normalized,
            labels=pooled.labels,
        )
        return architecture, rope

    def adapt(self, keys: Keys, tensors: Mapping[str, SourceTensor]) -> dict[str, SourceTensor]:
        """As `tensors` has them: each of a fused matrix's parts in one format, floats where they differ."""
        out = dict(tensors)
        if (only := out.get("token_types")) is not None and len(only.shape) == 1:
            out["token_types"] = replace(only, shape=(1, *only.shape))
        offset, table = self.position_offset, out.get("position_embd")
        if table is not None and len(table.shape) == 2 and offset < table.shape[0] and keys.prefix != self.name:
            rows = dequantize(table)[offset:]  # of config.json; GGUF files begin with the first position
            out["position_embd"] = replace(table, shape=rows.shape, format="f32", data=rows.view(np.uint8))
        for name in [name for name in tensors if name.endswith(".attn_qkv")]:
            out |= _parted(out.pop(name), name.rpartition(".")[0])
        for block in {name.rpartition(".")[0] for name in out if name.endswith(".attn_q")}:
            for group in (_QKV, _GATE_UP) if self.gated else (_QKV,):
                parts = [f"{block}.{name}" for name in group]
                if all(name in out for name in parts) and len({out[name].format for name in parts}) > 1:
                    out |= {name: _floats(out[name]) for name in parts}
        return out

    def matrices(self) -> dict[str, tuple[str, ...]]:
        """Of a layer, in the order of its graph: the artifact's names, and the checkpoint's tensors that they are made
        of, the rows of gate and up interleaved."""
        wide = {"ffn_gate_up": _GATE_UP} if self.gated else {"ffn_up": ("ffn_up",)}
        return {"attn_qkv": _QKV, "attn_out": ("attn_output",), **wide, "ffn_down": ("ffn_down",)}

    def vectors(self) -> dict[str, tuple[str, ...]]:
        """As `matrices`."""
        biases = {f"{name}_bias": tuple(f"{part}.bias" for part in parts) for name, parts in self.matrices().items()}
        norms = {"attn_norm": "attn_output_norm", "ffn_norm": "layer_output_norm"}
        out = {name: (part,) for name, part in norms.items()}
        out |= {f"{name}_bias": (f"{part}.bias",) for name, part in norms.items()}
        return (biases if self.biased else {}) | out

    def expected(self, a: Architecture) -> dict[str, tuple[int, ...]]:
        """Name (GGUF's, without ``.weight``) → shape of every tensor of a checkpoint; of positions there may be
        more."""
        h = a.hidden
        out: dict[str, tuple[int, ...]] = {"token_embd": (a.vocab, h)}
        if not self.rotary:
            out["position_embd"] = (a.context, h)
        if a.token_types:
            out["token_types"] = (a.token_types, h)
        out |= {"token_embd_norm": (h,), "token_embd_norm.bias": (h,)}
        shapes = {"ffn_gate": (a.ffn, h), "ffn_up": (a.ffn, h), "ffn_down": (h, a.ffn)}
        matrices = {part: shapes.get(part, (h, h)) for parts in self.matrices().values() for part in parts}
        vectors = [part for parts in self.vectors().values() for part in parts]
        rows = {part: matrices.get(part.removesuffix(".bias"), (h,))[:1] for part in vectors}
        for i in range(a.layers):
            out |= {f"blk.{i}.{name}": shape for name, shape in {**matrices, **rows}.items()}
        if a.labels:
            out |= {"cls": (h, h), "cls.bias": (h,), "cls.output": (a.labels, h), "cls.output.bias": (a.labels,)}
        return out

    def misplaced(self, a: Architecture, tensors: Mapping[str, SourceTensor]) -> Iterable[tuple[str, str]]:
        """(name, what is wrong) of tensors that are missing, misshapen or not known."""
        expected = self.expected(a)
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


def _parted(t: SourceTensor, block: str) -> dict[str, SourceTensor]:
    """Queries, keys and values of one matrix, a third of its rows each."""
    size, rest = divmod(t.shape[0], 3)
    if len(t.shape) != 2 or rest:
        raise SourceInvalid(f"{t.name}: shape {list(t.shape)} is no queries, keys and values", field=t.name)
    rows = t.data.reshape(t.shape[0], -1)
    return {
        f"{block}.{part}": replace(
            t, name=f"{block}.{part}", shape=(size, t.shape[1]), data=rows[i * size : (i + 1) * size]
        )
        for i, part in enumerate(_QKV)
    }


def _floats(t: SourceTensor) -> SourceTensor:
    return replace(t, format="f32", data=dequantize(t).view(np.uint8))


def _rows(tensors: Mapping[str, SourceTensor], name: str) -> int:
    return tensors[name].shape[0] if name in tensors and len(tensors[name].shape) == 2 else int(name in tensors)


def activation_of(keys: Keys) -> str:
    """By config.json."""
    found = keys.text("activation", "gelu")
    if found not in ACTIVATIONS:
        raise keys.wrong("activation", f"{quoted(found)} is not supported; supported: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[found]
