"""A tiny model with random weights, written as a GGUF file: for every test that needs a model but not a good one.

Weights are a function of the seed alone (numpy's default_rng, quantized by the `gguf` package), so a witness stored
in tests/reference stays valid. The tokenizer is a byte-level BPE of 320 tokens: 3 control tokens, 256 bytes, 61
merges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type

from inpage_compile.quantize.noise import noise

from . import rope
from .traits import COUNTS, NUMBERS, TRAITS, Traits

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCAB = 320
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Merged in this order until the vocabulary is full.
_WORDS = (
    "the and ing er in on at re he is th an en or es of to it st ar nd as le ou te ed al ro me se be ve wi ha "
    "what hello world you are we model page token light"
)


# What the `gguf` package takes apart, but does not make.
ONLY_READ = (Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.IQ4_NL, Type.IQ4_XS)


@dataclass(frozen=True)
class Tiny:
    """``types``: the GGML type of each matrix by its GGUF name's last part ("attn_q"), ``default`` for the others.
    ``scale``: standard deviation of the weights times sqrt(inputs); larger makes logits further apart. ``rope``:
    Hugging Face's ``rope_parameters``, without ``rope_theta``. ``turning``: elements of a head that turn, 0 for all.
    ``numbers``: by the names of `traits.NUMBERS`."""

    seed: int = 0
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    ffn: int = 96
    context: int = 256
    rope_theta: float = 10000.0
    tied: bool = True
    default: str = "F32"
    types: tuple[tuple[str, str], ...] = ()
    scale: float = 2.0
    vocab: int = VOCAB
    family: str = "llama"
    rope: tuple[tuple[str, Any], ...] = ()
    turning: int = 0
    numbers: tuple[tuple[str, float], ...] = ()

    @property
    def traits(self) -> Traits:
        return TRAITS[self.family]

    @property
    def rope_dim(self) -> int:
        return self.turning or self.head_dim

    def number(self, name: str, default: float = 0.0) -> float:
        return dict(self.numbers).get(name, default)

    def windowed(self, layer: int) -> bool:
        every = self.traits.whole_every
        return self.number("window") > 0 and not (every and layer % every == every - 1)

    def convolves(self, layer: int) -> bool:
        every = self.traits.attend_every
        return every > 0 and layer % every != every - 1

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """GGUF tensor name → shape, [outputs, inputs] or [n], in the order in which random numbers are drawn."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        out: dict[str, tuple[int, ...]] = {"token_embd": (self.vocab, self.hidden)}
        for i in range(self.layers):
            out[f"blk.{i}.attn_norm"] = (self.hidden,)
            if self.convolves(i):
                out |= {
                    f"blk.{i}.shortconv.in_proj": (3 * self.hidden, self.hidden),
                    f"blk.{i}.shortconv.conv": (self.hidden, int(self.number("conv_taps"))),
                    f"blk.{i}.shortconv.out_proj": (self.hidden, self.hidden),
                }
            else:
                out |= {
                    f"blk.{i}.attn_q": (q, self.hidden),
                    f"blk.{i}.attn_k": (kv, self.hidden),
                    f"blk.{i}.attn_v": (kv, self.hidden),
                    f"blk.{i}.attn_output": (self.hidden, q),
                }
            out |= {
                f"blk.{i}.ffn_norm": (self.hidden,),
                f"blk.{i}.ffn_gate": (self.ffn, self.hidden),
                f"blk.{i}.ffn_up": (self.ffn, self.hidden),
                f"blk.{i}.ffn_down": (self.hidden, self.ffn),
            }
            if self.traits.bias:
                out |= {f"blk.{i}.attn_{x}.bias": (q if x == "q" else kv,) for x in "qkv"}
            if self.traits.head_norms and not self.convolves(i):
                out |= {f"blk.{i}.attn_{x}_norm": (self.head_dim,) for x in "qk"}
            if self.traits.post_norms:
                out |= {f"blk.{i}.post_{x}_norm": (self.hidden,) for x in ("attention", "ffw")}
        out["output_norm"] = (self.hidden,)
        if not self.tied:
            out["output"] = (self.vocab, self.hidden)
        return out

    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """The random float32 weights, before quantization."""
        rng = np.random.default_rng(self.seed)
        out: dict[str, npt.NDArray[np.float32]] = {}
        for name, shape in self.shapes().items():
            noise = rng.standard_normal(shape, np.float32)
            width = np.float32(self.scale / np.sqrt(shape[-1]))
            if name.endswith(".bias"):
                out[name] = noise
            else:
                out[name] = noise * width if len(shape) == 2 else 1 + noise * np.float32(0.1)
        return out

    def type_of(self, name: str) -> Type:
        return Type[dict(self.types).get(name.rpartition(".")[2], self.default)]

    def quantized(self) -> dict[str, tuple[Type, npt.NDArray[np.generic]]]:
        """GGML type and data of every tensor, as the file holds them."""
        out: dict[str, tuple[Type, npt.NDArray[np.generic]]] = {}
        for name, values in self.weights().items():
            kind = self.type_of(name) if values.ndim == 2 and not name.endswith(".conv") else Type.F32
            if kind in ONLY_READ:
                rng = np.random.default_rng([self.seed, *name.encode()])
                out[name] = (kind, noise(rng, kind.name.lower(), *values.shape, self.scale / np.sqrt(values.shape[1])))
            else:
                out[name] = (kind, gguf.quants.quantize(values, kind))
        return out

    def stored(self) -> dict[str, tuple[Type, npt.NDArray[np.generic]]]:
        """As `quantized`, under the names of the family's files."""
        out = self.quantized()
        for i in range(self.layers if self.traits.fused else 0):
            for whole, parts in (("attn_qkv", ("attn_q", "attn_k", "attn_v")), ("ffn_up", ("ffn_gate", "ffn_up"))):
                kinds, data = zip(*(out.pop(f"blk.{i}.{part}") for part in parts), strict=True)
                out[f"blk.{i}.{whole}"] = (kinds[0], np.concatenate(data))
        return out | {theirs: out.pop(ours) for ours, theirs in self.traits.gguf_named}

    def dequantized(self) -> dict[str, npt.NDArray[np.float32]]:
        """What the model computes with: the `gguf` package's own dequantization."""
        return {name: gguf.quants.dequantize(data, kind) for name, (kind, data) in self.quantized().items()}

    def digest(self) -> str:
        """sha256 of all dequantized weights: a stored witness holds for these and no others."""
        h = hashlib.sha256()
        for name, values in self.dequantized().items():
            h.update(name.encode() + np.ascontiguousarray(values, "<f4").tobytes())
        return h.hexdigest()

    def factors(self) -> dict[str, npt.NDArray[np.float32]]:
        """The file's tensors of rope divisors, float32 [rope_dim / 2]. Hugging Face goes by the long ones for long
        texts, llama.cpp for models of long contexts, which the tiny ones are: transformers gets them twice."""
        kind = dict(self.rope).get("rope_type")
        if kind == "longrope":
            long = np.array(dict(self.rope)["long_factor"], np.float32)
            return {"rope_factors_long": long, "rope_factors_short": np.ones(self.rope_dim // 2, np.float32)}
        if kind != "llama3":
            return {}
        return {"rope_freqs": rope.llama3_factors(dict(self.rope), self.rope_dim, self.rope_theta)}

    def write(
        self, path: Path, override: Mapping[str, Any] | None = None,
        more: Mapping[str, npt.NDArray[np.float32]] | None = None,
    ) -> Path:  # fmt: skip
        """Write the GGUF file and return its path. ``override``: metadata to replace or add, or (None) leave out;
        ``more``: tensors."""
        w = gguf.GGUFWriter(path, self.family)
        w.add_name(f"Tiny {self.family.capitalize()}")
        w.add_license("apache-2.0")
        w.add_block_count(self.layers)
        w.add_context_length(self.context)
        w.add_embedding_length(self.hidden)
        w.add_feed_forward_length(self.ffn)
        w.add_head_count(self.heads)
        kv_heads = [0 if self.convolves(i) else self.kv_heads for i in range(self.layers)]
        w.add_head_count_kv(kv_heads if 0 in kv_heads else self.kv_heads)
        w.add_key_length(self.head_dim)
        w.add_value_length(self.head_dim)
        w.add_rope_dimension_count(self.rope_dim)
        w.add_rope_freq_base(self.rope_theta)
        rope.write(w, dict(self.rope))
        for key, value in self.numbers:
            add = w.add_uint32 if key in COUNTS else w.add_float32
            add(f"{self.family}.{NUMBERS[key][0]}", int(value) if key in COUNTS else value)
        w.add_layer_norm_rms_eps(1e-5)
        w.add_vocab_size(self.vocab)
        tokens, merges = vocabulary(self.vocab)
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("smollm")
        w.add_token_list(tokens)
        w.add_token_types(
            [gguf.TokenType.CONTROL] * len(CONTROL) + [gguf.TokenType.NORMAL] * (self.vocab - len(CONTROL))
        )
        w.add_token_merges(merges)
        w.add_bos_token_id(1)
        w.add_eos_token_id(2)
        w.add_add_bos_token(False)
        w.add_chat_template(TEMPLATE)
        for name, values in {**self.factors(), **(more or {})}.items():
            w.add_tensor(f"{name}.weight", values)
        for name, (kind, data) in self.stored().items():
            w.add_tensor(name if name.endswith(".bias") else f"{name}.weight", data, raw_dtype=kind)
        kinds = {str: gguf.GGUFValueType.STRING, int: gguf.GGUFValueType.UINT32, list: gguf.GGUFValueType.ARRAY,
                 float: gguf.GGUFValueType.FLOAT32, bool: gguf.GGUFValueType.BOOL}  # fmt: skip
        for key, value in (override or {}).items():
            w.kv_data[0].pop(key, None)
            if value is not None:
                w.add_key_value(key, value, kinds[type(value)])
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()
        return path


# Contexts made longer by rotary positions: prompts go beyond the 32 tokens of the original one.
_LONG = (("factor", 8.0), ("original_max_position_embeddings", 32))
_YARN = (("rope_type", "yarn"), *_LONG)
_LLAMA3 = (("rope_type", "llama3"), *_LONG, ("low_freq_factor", 1.0), ("high_freq_factor", 4.0))
# What tests and witnesses run: one model for each thing that can go wrong.
MODELS: dict[str, Tiny] = {
    "f32": Tiny(),
    "q8_0": Tiny(seed=1, default="Q8_0"),
    "mixed": Tiny(seed=2, default="Q4_1", types=(("token_embd", "Q8_0"),)),  # as SmolLM2's file
    "apart": Tiny(seed=3, default="Q4_0", types=(("attn_v", "Q8_0"), ("ffn_up", "Q4_1"))),  # nothing can be fused
    "untied": Tiny(seed=4, tied=False, default="Q4_1", types=(("output", "Q8_0"), ("token_embd", "F16"))),
    "nine": Tiny(seed=5, hidden=288, heads=9, kv_heads=3, head_dim=32, default="Q8_0"),  # 9 heads on 3
    "llama3": Tiny(
        seed=6,
        rope=_LLAMA3,
        rope_theta=500000.0,
        hidden=96,
        head_dim=64,
        heads=3,
        kv_heads=1,
        scale=1.0,
    ),
    # Heads at the edges of attention's kernels: what a key head's heads make is no whole group of 32, ...
    "eighty": Tiny(seed=7, heads=2, kv_heads=2, head_dim=80, default="Q8_0"),
    # ... all heads together make none; the vocabulary and the rows of queries, keys and values are no whole blocks, ...
    "alone": Tiny(seed=8, heads=1, kv_heads=1, head_dim=8, vocab=317),
    "three": Tiny(
        seed=9, hidden=96, heads=3, kv_heads=1, head_dim=40, default="Q8_0", types=(("attn_output", "F16"),), scale=1.5
    ),
    # ... more heads a key head than are made at once, evenly and not.
    "wide": Tiny(seed=10, hidden=96, heads=12, kv_heads=1, head_dim=256, default="Q8_0"),
    "uneven": Tiny(
        seed=11, hidden=928, heads=29, kv_heads=1, head_dim=16, default="Q4_1", types=(("attn_output", "F16"),)
    ),
}
# Other families, as Qwen2.5's files and with nothing fused, heads wider than the hidden size; other rotary positions.
MODELS |= {
    "qwen2": Tiny(seed=12, family="qwen2", default="Q4_1", types=(("token_embd", "Q8_0"),), rope_theta=1e6),
    "qwen2-apart": Tiny(seed=13, family="qwen2", hidden=96, heads=3, kv_heads=1, head_dim=32, default="Q8_0",
                        types=(("attn_k", "Q4_0"), ("ffn_up", "Q4_1")), tied=False, rope=_YARN, scale=1.0),
    "qwen3": Tiny(seed=14, family="qwen3", heads=4, kv_heads=2, head_dim=32, default="Q8_0", rope_theta=1e6),
    "linear": Tiny(seed=15, scale=1.0, rope=(("rope_type", "linear"), ("factor", 4.0))),
    "yarn": Tiny(seed=17, scale=0.8, heads=2, kv_heads=1, head_dim=32, rope=_YARN),
    "qwen3-yarn": Tiny(seed=19, scale=1.0, family="qwen3", head_dim=32,
                       rope=(*_YARN, ("beta_fast", 4.0), ("beta_slow", 0.5), ("attention_factor", 1.1))),
}  # fmt: skip
_DIVISORS = [1 + 0.5 * i for i in range(12)]
# Families beyond Llama's and Qwen's, and windows shorter than a prompt, than a page, than a chunk of attention.
FAMILY_MODELS: dict[str, Tiny] = {
    "mistral": Tiny(seed=22, family="mistral3", layers=3, scale=1.0, numbers=(("window", 12),)),
    "gemma3": Tiny(seed=23, family="gemma3", layers=7, heads=2, kv_heads=1, head_dim=32, default="Q8_0", rope_theta=1e6,
                   rope=(("rope_type", "linear"), ("factor", 8.0)), scale=1.0, numbers=(("window", 20),)),
    "gemma2": Tiny(seed=24, family="gemma2", layers=4, head_dim=32, scale=1.5,
                   numbers=(("window", 20), ("attention_cap", 4.0), ("logit_cap", 6.0))),
    "smollm3": Tiny(seed=25, family="smollm3", layers=4, scale=1.0, default="Q8_0", rope_theta=5e6),
    "granite": Tiny(seed=26, family="granite", layers=3,
                    numbers=(("embedding_scale", 12.0), ("attention_scale", 0.1), ("residual_scale", 0.22),
                             ("logit_scale", 8.0))),
    "phi3": Tiny(seed=27, family="phi3", heads=2, kv_heads=1, head_dim=32, turning=24, scale=0.8, default="Q8_0",
                 rope=(("rope_type", "longrope"), *_LONG, ("long_factor", _DIVISORS), ("short_factor", _DIVISORS))),
    # Rows of a convolution longer than keys and values: pages that hold fewer tokens.
    "lfm2": Tiny(seed=28, family="lfm2", layers=6, kv_heads=1, scale=1.0, rope_theta=1e6, rope=_YARN,
                 numbers=(("conv_taps", 3),)),
}  # fmt: skip
MODELS |= FAMILY_MODELS
# Number formats with super-blocks and planes: all of them in one file, as llama.cpp's Q4_K_M and Q5_K, and each alone.
# Beside `MODELS`: their witness is `llama_reference` on what the `gguf` package makes of the file.
_K = Tiny(hidden=256, ffn=256, heads=4, head_dim=64, scale=1.0)
K_MODELS: dict[str, Tiny] = {
    "k_quants": replace(_K, seed=20, rope=_LLAMA3, rope_theta=500000.0, tied=False, default="Q4_K",
                        types=(("attn_k", "Q5_K"), ("attn_v", "Q5_0"), ("attn_output", "Q5_1"), ("ffn_down", "Q6_K"),
                               ("token_embd", "BF16"), ("output", "Q6_K"))),
    "few_bits": replace(_K, seed=22, tied=False, default="Q3_K",
                        types=(("attn_k", "Q2_K"), ("attn_v", "IQ4_XS"), ("attn_output", "IQ4_NL"),
                               ("ffn_down", "MXFP4"), ("token_embd", "Q3_K"), ("output", "Q2_K"))),
    "q4_k_m": replace(_K, seed=15, ffn=512, default="Q4_K",
                      types=(("attn_v", "Q6_K"), ("ffn_down", "Q6_K"), ("token_embd", "Q6_K"))),
    "q5_k": replace(_K, seed=16, default="Q5_K", tied=False,
                    types=(("attn_v", "Q5_0"), ("attn_output", "Q5_1"), ("token_embd", "BF16"), ("ffn_down", "BF16"))),
    **{f"all-{kind.lower()}": replace(_K, seed=21, default=kind)
       for kind in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4", "Q5_0", "Q5_1", "BF16")},
}  # fmt: skip
FAMILIES = ("qwen2", "qwen2-apart", "qwen3", *FAMILY_MODELS)
ROPES = ("llama3", "linear", "yarn", "qwen3-yarn")
HEADS = ("eighty", "alone", "three", "wide", "uneven")


def vocabulary(size: int = VOCAB) -> tuple[list[str], list[str]]:
    """Tokens (id order) and merges of the tiny tokenizer."""
    letters = byte_letters()
    tokens = [*CONTROL, *letters]
    merges: list[str] = []
    for word in _WORDS.split():
        for text in (word, letters[ord(" ")] + word):
            parts = list(text)
            while len(parts) > 1 and len(tokens) < size:
                left, right = parts[0], parts[1]
                if left + right not in tokens:
                    tokens.append(left + right)
                    merges.append(f"{left} {right}")
                parts[:2] = [left + right]
    assert len(tokens) == size
    return tokens, merges


def byte_letters() -> list[str]:
    """GPT-2's printable stand-in for each byte 0..255."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]
