"""What a family of models has: what its metadata says, which tensors its checkpoints hold, and how they become the
artifact's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace

import numpy as np
import numpy.typing as npt

from inpage.errors import SourceInvalid
from inpage.format.schema import Architecture

from ..gguf.metadata import Metadata
from ..quantize.tensor import SourceTensor, dequantize
from .checkpoint import Checkpoint
from .keys import POOLING, Keys
from .rope import Rope, read_rope


@dataclass(frozen=True, slots=True)
class Family:
    """``name``: GGUF's ``general.architecture``. ``gguf``: the keys of a GGUF file that are read, by our names for
    them; a key that is not in the table is not read. ``qkv_bias``, ``qk_norm``, ``post_norms``, ``activation``: as
    `Architecture`'s. The other flags are over once a model is read:

    ``half_rotation``: rotary positions turn element i of a head together with element i + head_dim / 2 (as GPT-NeoX
    does). Kernels turn neighbours, so rows of queries and keys, and whatever goes with them, change places when they
    are packed. ``scaled_embedding``: embeddings are multiplied by √hidden. ``whole_every``: of so many layers the last
    one sees everything where the others have a window; 0: none does. ``window``: where the file names none.
    ``local_theta``: rotary base of layers with a window, whose frequencies nothing divides; 0: they are as the others.
    ``plain_every``: of so many layers the last one has no rotary positions. ``mean_scale``: models of so many layers
    scale attention by 1/√(hidden / heads). ``bidirectional``: tokens of an embedder see those behind them, where the
    file does not say it. ``fused``: the file holds queries, keys and values as one matrix, and gate and up.
    ``renamed``: what GGUF files call tensors, to our names, where they differ. ``checkpoint``: how a folder with a
    config.json holds the family, where heads always turn by halves; None: such folders are not read."""

    name: str
    _: KW_ONLY
    qkv_bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    activation: str = "silu"
    half_rotation: bool = False
    scaled_embedding: bool = False
    whole_every: int = 0
    window: int = 0
    local_theta: float = 0.0
    plain_every: int = 0
    mean_scale: int = 0
    fused: bool = False
    bidirectional: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict, repr=False)
    gguf: Mapping[str, str] = field(repr=False)
    checkpoint: Checkpoint | None = field(default=None, repr=False)

    def head_order(self, head_dim: int, turning: int = 0) -> npt.NDArray[np.intp] | None:
        """Which element of a source's head each element of the artifact's is, the first ``turning`` of which have
        rotary positions (0: all); None: the same."""
        if not self.half_rotation:
            return None
        turning = turning or head_dim
        return np.concatenate([np.arange(turning).reshape(2, -1).T.reshape(-1), np.arange(turning, head_dim)])

    def keys(self, meta: Metadata) -> Keys:
        return Keys(meta, self.name, self.gguf)

    def read(
        self, keys: Keys, tensors: Mapping[str, SourceTensor], factors: Mapping[str, SourceTensor] | None = None
    ) -> tuple[Architecture, Rope]:
        """What a model is. ``factors``: the file's tensors of rotary positions. Raises `SourceInvalid` naming the key
        for what is missing, out of range or not supported."""
        keys.refuse_others()
        if "token_embd" not in tensors:
            raise SourceInvalid("tensor token_embd.weight is missing", field="token_embd")
        hidden, heads, layers = keys.size("hidden"), keys.size("heads"), keys.size("layers")
        kv_heads = keys.size("kv_heads", heads)
        if heads % kv_heads:
            raise keys.wrong("kv_heads", f"{heads} heads do not divide among {kv_heads} key/value heads")
        head_dim = keys.size("head_dim", max(hidden // heads, 1))
        if head_dim % 2:
            raise keys.wrong("head_dim", f"a head of {head_dim} elements; their number must be even")
        if (found := keys.integer("value_dim", head_dim)) != head_dim:
            raise keys.wrong("value_dim", f"value heads of another width are not supported: {found}, not {head_dim}")
        context, theta = _context(keys), keys.number("rope_theta", 10000.0)
        causal, pooling = self._sight(keys)
        window, whole = self._window(keys, layers, context, causal)
        rope = read_rope(keys, head_dim, theta, context, factors or {})
        if window and self.local_theta:
            rope = replace(rope, local_theta=keys.number("local_theta", self.local_theta))
        residual = keys.scale("residual_scale")
        if not 1e-3 <= residual <= 1e3:
            raise keys.wrong("residual_scale", f"{residual} is outside 0.001..1000")
        conv_layers = keys.conv_layers(layers)
        plain = _last_of(self.plain_every, layers)
        if "rope_used" in keys.table and not keys.flag("rope_used", True):
            plain = tuple(range(layers))
        architecture = Architecture(
            family=self.name,
            layers=layers,
            hidden=hidden,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            ffn=keys.size("ffn"),
            vocab=tensors["token_embd"].shape[0],
            rope_theta=theta,
            # The sum of the layers is kept divided by the factor of what each adds to it: norms see no difference.
            norm_eps=keys.number("norm_eps") / residual**2,
            tied="output" not in tensors,
            context=context,
            qkv_bias=self.qkv_bias,
            qk_norm=self.qk_norm,
            rope_scale=rope.scale,
            turning=rope.turning % head_dim,
            window=window,
            whole_layers=whole,
            local_rope=rope.local_theta is not None,
            plain_layers=plain,
            post_norms=self.post_norms,
            conv_taps=keys.size("conv_taps") if conv_layers else 0,
            conv_layers=conv_layers,
            activation=self.activation,
            embedding_scale=(math.sqrt(hidden) if self.scaled_embedding else keys.scale("embedding_scale")) / residual,
            attention_scale=self._attention_scale(keys, hidden, heads, layers),
            attention_cap=keys.scale("attention_cap", 0.0),
            logit_cap=keys.scale("logit_cap", 0.0),
        )
        if pooling:  # which llama.cpp brings to length 1
            architecture = embedder(architecture, causal, pooling, True)
        return replace(architecture, projected=bool(pooling) and DENSE in tensors), rope

    def _sight(self, keys: Keys) -> tuple[bool, str]:
        """Whether tokens see only those before them, and how states are pooled where the file says that it makes
        vectors of texts."""
        number = keys.integer("pooling", 0) if "pooling" in keys.table else 0
        causal = keys.flag("causal", not self.bidirectional) if "causal" in keys.table else True
        if number not in (0, *POOLING):
            raise keys.wrong("pooling", f"pooling {number} of a decoder is not supported; mean, CLS and last token are")
        if number == 0 and not causal:
            raise keys.wrong("causal", "false is not supported; only true is, or a kind of pooling beside it")
        return causal, POOLING.get(number, "")

    def _window(self, keys: Keys, layers: int, context: int, causal: bool) -> tuple[int, tuple[int, ...]]:
        """How many tokens layers see, and which of them all; 0 where all of them do. Half of it lies behind a token
        that sees those as well."""
        window = keys.integer("window", self.window) if "window" in keys.table else self.window
        if window < 0:
            raise keys.wrong("window", f"a window of {window} tokens")
        whole = _last_of(self.whole_every, layers)
        if "window_pattern" in keys.table and keys.has("window_pattern"):
            whole = keys.whole_layers("window_pattern", layers)
        window = window if causal or not window else window // 2 + 1
        return (min(window, context), whole) if window and len(whole) < layers else (0, ())

    def _attention_scale(self, keys: Keys, hidden: int, heads: int, layers: int) -> float:
        if self.mean_scale == layers:
            return float((hidden // heads) ** -0.5)
        return keys.scale("attention_scale", 0.0)

    def adapt(self, keys: Keys, tensors: Mapping[str, SourceTensor]) -> dict[str, SourceTensor]:
        """A file's tensors as `expected_tensors` has them. Raises `SourceInvalid` for shapes that leave none."""
        out = dict(tensors)
        for theirs, ours in self.renamed.items():
            if theirs in out and ours not in out:
                out[ours] = replace(out.pop(theirs), name=ours)
        for name in (n for n in tensors if n.endswith(_TAPS) and "conv_taps" in keys.table):
            out[name] = _flat(keys, out[name])
        if self.fused:
            for name, parts in ((n, p) for n in tensors for end, p in _FUSED.items() if n.endswith(end)):
                out |= _parted(keys, out.pop(name), name, parts)
        if factors := [out.pop(name) for name in _DENSE if name in out]:
            out[DENSE] = folded(factors)
        scale = keys.scale("logit_scale")
        if scale != 1 and "output_norm" in out:
            t = out["output_norm"]
            out["output_norm"] = replace(t, format="f32", data=dequantize(t) / np.float32(scale))
        return out


# Matrices that hold several: what they are called in files, and what the parts are. The rows of the heads come from the
# keys; gate and up are halves.
_FUSED = {"attn_qkv": ("attn_q", "attn_k", "attn_v"), "ffn_up": ("ffn_gate", "ffn_up")}


_TAPS = ".shortconv.conv"
# What turns an embedder's vectors, and the matrices of GGUF files that it is the product of, the first one first.
DENSE = "dense"
_DENSE = ("dense_2", "dense_3")


def folded(factors: Sequence[SourceTensor]) -> SourceTensor:
    """One matrix that does what these do one after the other. Raises `SourceInvalid` where they do not fit."""
    made = dequantize(factors[0])
    for t in factors[1:]:
        if len(t.shape) != 2 or t.shape[1] != made.shape[0]:
            raise SourceInvalid(f"{t.name}: shape {list(t.shape)} behind {list(made.shape)}", field=t.name)
        made = (dequantize(t).astype(np.float64) @ made).astype(np.float32)
    return SourceTensor(DENSE, made.shape, "f32", np.ascontiguousarray(made).view(np.uint8))


def _flat(keys: Keys, t: SourceTensor) -> SourceTensor:
    """The taps of each channel, [hidden, taps], as a vector: they are no matrix, whose numbers levels round."""
    wanted = (keys.size("hidden"), keys.size("conv_taps"))
    if t.shape != wanted:
        raise SourceInvalid(f"{t.name}: shape {list(t.shape)}, expected {list(wanted)}", field=t.name)
    return replace(t, shape=(wanted[0] * wanted[1],))


def _parted(keys: Keys, t: SourceTensor, name: str, parts: tuple[str, ...]) -> dict[str, SourceTensor]:
    head_dim = keys.size("head_dim", max(keys.size("hidden") // keys.size("heads"), 1))
    kv = keys.size("kv_heads", keys.size("heads")) * head_dim
    sizes = [keys.size("heads") * head_dim, kv, kv] if len(parts) == 3 else [keys.size("ffn")] * 2
    if len(t.shape) != 2 or t.shape[0] != sum(sizes):
        raise SourceInvalid(f"{name}: shape {list(t.shape)}, expected {sum(sizes)} rows", field=name)
    rows, ends = t.data.reshape(t.shape[0], -1), np.cumsum(sizes)
    block = name.rpartition(".")[0]
    return {
        f"{block}.{part}": replace(t, name=f"{block}.{part}", shape=(size, t.shape[1]), data=rows[end - size : end])
        for part, size, end in zip(parts, sizes, ends, strict=True)
    }


def _context(keys: Keys) -> int:
    """As long as queries are not scaled by their position."""
    context = keys.size("context")
    if keys.scale("temperature_scale", 0.0):
        original = keys.integer("rope_original_context", context)
        if not 0 < original <= context:
            raise keys.wrong("rope_original_context", f"{original} is outside 1..{context}")
        if original < context:
            keys.notes.append(f"{keys.key('temperature_scale')}: not supported, so that the context ends at {original}")
        return original
    return context


def embedder(a: Architecture, causal: bool, pooling: str, normalized: bool) -> Architecture:
    """A decoder that answers with vectors: no head, no logits."""
    return replace(a, encoder=True, causal=causal, pooling=pooling, normalized=normalized, tied=True, logit_cap=0.0)


def _last_of(every: int, layers: int) -> tuple[int, ...]:
    return tuple(range(every - 1, layers, every)) if every else ()


def expected_tensors(a: Architecture) -> dict[str, tuple[int, ...]]:
    """Name (GGUF's, without ``.weight``) → shape of every tensor of the checkpoint."""
    q, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
    out: dict[str, tuple[int, ...]] = {"token_embd": (a.vocab, a.hidden)}
    for i in range(a.layers):
        attends = i not in a.conv_layers
        blk: dict[str, tuple[int, ...]] = {"attn_norm": (a.hidden,)}
        if attends:
            blk |= {
                "attn_q": (q, a.hidden),
                "attn_k": (kv, a.hidden),
                "attn_v": (kv, a.hidden),
                "attn_output": (a.hidden, q),
            }
        else:
            blk |= {
                "shortconv.in_proj": (3 * a.hidden, a.hidden),
                "shortconv.conv": (a.hidden * a.conv_taps,),
                "shortconv.out_proj": (a.hidden, a.hidden),
            }
        blk |= {
            "ffn_norm": (a.hidden,),
            "ffn_gate": (a.ffn, a.hidden),
            "ffn_up": (a.ffn, a.hidden),
            "ffn_down": (a.hidden, a.ffn),
        }
        if a.qkv_bias and attends:
            blk |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
        if a.post_norms:
            blk |= {"post_attention_norm": (a.hidden,), "post_ffw_norm": (a.hidden,)}
        if a.qk_norm and attends:
            blk |= {"attn_q_norm": (a.head_dim,), "attn_k_norm": (a.head_dim,)}
        out |= {f"blk.{i}.{name}": shape for name, shape in blk.items()}
    out["output_norm"] = (a.hidden,)
    if a.projected:
        out[DENSE] = (a.hidden, a.hidden)
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
            what = {"bias": "bias", "conv": "convolution"}.get(name.rpartition(".")[2], "norm")
            raise SourceInvalid(f"{name}: a {what} in {tensors[name].format}, expected f32, f16 or bf16", field=name)
    for name in tensors:
        if name not in expected:
            raise SourceInvalid(f"tensor {name} has no place in a {a.family} model", field=name)
