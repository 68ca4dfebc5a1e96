"""Tiny models that answer with vectors or scores and are no BERT, as `tiny_bert` has those: a decoder, Nomic's BERT,
XLM-RoBERTa."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from .charsmap import charsmap, encoded
from .folder import checkpoint, reference, safetensors
from .tiny import CONTROL, Tiny
from .tiny_bert import LETTERS, WORDS, Array, TinyBert, write_modules

PROMPTS = {"query": "Instruct: find it\nQuery:", "document": ""}


@dataclass(frozen=True)
class TinyDecoder:
    """Qwen3-Embedding's kind: causal, the last token, which the tokenizer puts behind a text."""

    tiny: Tiny
    pooling: str = "last"
    normalized: bool = True

    @property
    def context(self) -> int:
        return self.tiny.context

    def digest(self) -> str:
        return self.tiny.digest()

    def write(self, folder: Path) -> Path:
        """As sentence-transformers writes it: the tensors of the model without a head have no prefix."""
        folder.mkdir(parents=True, exist_ok=True)
        t = self.tiny
        tensors = {name.removeprefix("model."): w for name, w in checkpoint(t).items()}
        (folder / "model.safetensors").write_bytes(safetensors(tensors))
        config = self.config()
        for file, text in reference()["tokenizer"].items():
            (folder / file).write_text(text)
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        whole = json.loads((folder / "tokenizer.json").read_text())
        whole["post_processor"] = self.post_processor()
        (folder / "tokenizer.json").write_text(json.dumps(whole))
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": PROMPTS}))
        (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
        self.write_modules(folder)
        return folder

    def write_modules(self, folder: Path) -> None:
        write_modules(folder, self.pooling, self.normalized)

    def config(self) -> dict[str, Any]:
        t = self.tiny
        return {
            "architectures": ["Qwen3Model"], "model_type": "qwen3", "vocab_size": t.vocab, "hidden_size": t.hidden,
            "intermediate_size": t.ffn, "num_hidden_layers": t.layers, "num_attention_heads": t.heads,
            "num_key_value_heads": t.kv_heads, "head_dim": t.head_dim, "max_position_embeddings": t.context,
            "rms_norm_eps": 1e-5, "rope_theta": t.rope_theta, "tie_word_embeddings": True, "hidden_act": "silu",
            "attention_bias": False, "bos_token_id": 1, "eos_token_id": 2,
        }  # fmt: skip

    def post_processor(self) -> dict[str, Any]:
        level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
        return {"type": "Sequence", "processors": [level, around(self.front, 0)]}

    front: int | None = None

    def write_gguf(self, path: Path) -> Path:
        said = {"qwen3.pooling_type": 3, "tokenizer.ggml.add_eos_token": True, "tokenizer.ggml.eos_token_id": 0}
        return self.tiny.write(path, {**said, "tokenizer.chat_template": None})


def around(front: int | None, end: int) -> dict[str, Any]:
    """A post-processor that puts control tokens around a text."""
    special = [None if i is None else {"SpecialToken": {"id": CONTROL[i], "type_id": 0}} for i in (front, end)]
    single = [each for each in (special[0], {"Sequence": {"id": "A", "type_id": 0}}, special[1]) if each]
    known = {CONTROL[i]: {"id": CONTROL[i], "ids": [i], "tokens": [CONTROL[i]]} for i in (front, end) if i is not None}
    pair = [*single, {"Sequence": {"id": "B", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": known}


@dataclass(frozen=True)
class TinyGemma(TinyDecoder):
    """EmbeddingGemma's kind: tokens see those behind them, some layers in a window, and two matrices turn vectors."""

    pooling: str = "mean"
    front: int | None = 1

    def dense(self) -> list[Array]:
        h, rng = self.tiny.hidden, np.random.default_rng(self.tiny.seed + 100)
        shapes = ((2 * h, h), (h, 2 * h))
        return [rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[1])) for shape in shapes]

    def config(self) -> dict[str, Any]:
        t = self.tiny
        kinds = ["sliding_attention" if t.windowed(i) else "full_attention" for i in range(t.layers)]
        own = {
            "architectures": ["Gemma3TextModel"], "model_type": "gemma3_text", "hidden_act": None,
            "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": t.head_dim, "layer_types": kinds,
            "sliding_window": int(t.number("window")), "use_bidirectional_attention": True,
            "rope_local_base_freq": 10000.0,
        }  # fmt: skip
        return {name: value for name, value in (super().config() | own).items() if value is not None}

    def write_modules(self, folder: Path) -> None:
        super().write_modules(folder)
        modules = json.loads((folder / "modules.json").read_text())
        for i, w in enumerate(self.dense()):
            path = f"{2 + i}_Dense"
            modules.insert(2 + i, {"idx": 2 + i, "path": path, "type": "sentence_transformers.models.Dense"})
            settings = {"in_features": w.shape[1], "out_features": w.shape[0], "bias": False,
                        "activation_function": "torch.nn.modules.linear.Identity"}  # fmt: skip
            (folder / path).mkdir(exist_ok=True)
            (folder / path / "config.json").write_text(json.dumps(settings))
            (folder / path / "model.safetensors").write_bytes(safetensors({"linear.weight": w}))
        (folder / "modules.json").write_text(json.dumps(modules))

    def write_gguf(self, path: Path) -> Path:
        arch, t = self.tiny.family, self.tiny
        said = {
            f"{arch}.pooling_type": 1, "tokenizer.ggml.add_eos_token": True, "tokenizer.ggml.add_bos_token": True,
            "tokenizer.ggml.eos_token_id": 0, "tokenizer.chat_template": None,
            f"{arch}.attention.sliding_window_pattern": [t.windowed(i) for i in range(t.layers)],
        }  # fmt: skip
        return t.write(path, said, {f"dense_{i}": w for i, w in enumerate(self.dense(), 2)})


@dataclass(frozen=True)
class TinyNomic(TinyBert):
    """``makers``: config.json in the words of the model's makers."""

    makers: bool = False

    def weights(self) -> dict[str, Array]:
        h, rng = self.hidden, np.random.default_rng(self.seed)
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (self.vocab, h),
            "embeddings.token_type_embeddings.weight": (self.types, h),
        }
        norms = ["emb_ln"]
        for i in range(self.layers):
            at = f"encoder.layers.{i}"
            shapes |= {f"{at}.attn.Wqkv.weight": (3 * h, h), f"{at}.attn.out_proj.weight": (h, h)}
            shapes |= {f"{at}.mlp.fc11.weight": (self.ffn, h), f"{at}.mlp.fc12.weight": (self.ffn, h)}
            shapes |= {f"{at}.mlp.fc2.weight": (h, self.ffn)}
            norms += [f"{at}.norm1", f"{at}.norm2"]
        out: dict[str, Array] = {}
        for name, shape in shapes.items():
            width = 1.0 if "embeddings" in name else 1.5 / np.sqrt(shape[1])
            out[name] = rng.standard_normal(shape, np.float32) * np.float32(width)
        for name in norms:
            out[f"{name}.weight"] = 1 + rng.standard_normal(h, np.float32) * np.float32(0.2)
            out[f"{name}.bias"] = rng.standard_normal(h, np.float32) * np.float32(0.2)
        return out

    def config(self) -> dict[str, Any]:
        if not self.makers:
            rope = {"rope_type": "default", "rope_theta": 1000.0}
            own = {"architectures": ["NomicBertModel"], "model_type": "nomic_bert", "hidden_act": "silu"}
            return super().config() | own | {"rope_parameters": rope, "position_embedding_type": None}
        return {
            "architectures": ["NomicBertModel"], "model_type": "nomic_bert", "vocab_size": self.vocab,
            "n_embd": self.hidden, "n_head": self.heads, "n_inner": self.ffn, "n_layer": self.layers,
            "n_positions": 4 * self.context, "max_trained_positions": self.context, "type_vocab_size": self.types,
            "layer_norm_epsilon": 1e-12, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0,
            "rotary_emb_interleaved": False, "rotary_emb_scale_base": None, "rotary_scaling_factor": None,
            "activation_function": "swiglu", "prenorm": False, "causal": False, "parallel_block": False,
            "use_rms_norm": False, "qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False,
        }  # fmt: skip

    def gguf_names(self) -> dict[str, str]:
        """By the converter's own table, but for its name of the gate's half."""
        table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.NOMIC_BERT, self.layers)
        found = {name: table.get_name(name.rpartition(".")[0]) for name in self.weights()}
        assert None not in found.values(), found
        return {name: f"{ours}.{name.rpartition('.')[2]}" for name, ours in found.items()}

    def about(self, w: gguf.GGUFWriter) -> None:
        w.add_rope_freq_base(1000.0)

    arch = "nomic-bert"


@dataclass(frozen=True)
class TinyXlmr(TinyBert):
    """XLM-RoBERTa's, whose positions begin behind two for padding."""

    types: int = 1
    epsilon: float = 1e-5
    sep = 2
    prefix = "roberta."

    @property
    def vocab(self) -> int:
        return len(pieces())

    def weights(self) -> dict[str, Array]:
        out = super().weights()
        rng = np.random.default_rng(self.seed + 100)
        padding = rng.standard_normal((2, self.hidden), np.float32)
        name = "embeddings.position_embeddings.weight"
        heads = {"pooler.dense": "classifier.dense", "classifier": "classifier.out_proj"}
        out[name] = np.concatenate([padding, out[name]])
        for theirs, own in heads.items() if self.pooling is None else ():
            out |= {f"{own}.{end}": out.pop(f"{theirs}.{end}") for end in ("weight", "bias")}
        return out

    def config(self) -> dict[str, Any]:
        name = "XLMRobertaForSequenceClassification" if self.pooling is None else "XLMRobertaModel"
        own = {"architectures": [name], "model_type": "xlm-roberta", "max_position_embeddings": self.context + 2}
        return super().config() | own | {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}

    def files(self) -> dict[str, Any]:
        names = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "unk": "<unk>", "pad": "<pad>",
                 "mask": "<mask>"}  # fmt: skip
        said = {f"{name}_token": text for name, text in names.items()}
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **said}
        return {"tokenizer.json": tokenizer(), "tokenizer_config.json": config}

    def about(self, w: gguf.GGUFWriter) -> None:
        vocab = pieces()
        w.add_tokenizer_model("t5")
        w.add_token_list([text for text, _ in vocab])
        w.add_token_scores([score for _, score in vocab])
        w.add_token_types([2 if text == "<unk>" else 3 if text in SPECIAL else 1 for text, _ in vocab])
        w.add_precompiled_charsmap(charsmap())
        for add, token in ((w.add_bos_token_id, 0), (w.add_pad_token_id, 1), (w.add_eos_token_id, 2),
                           (w.add_unk_token_id, 3)):  # fmt: skip
            add(token)

    def gguf_weights(self) -> dict[str, Array]:
        """The converter leaves the positions for padding out."""
        out = self.weights()
        name = "embeddings.position_embeddings.weight"
        return out | {name: out[name][2:]}

    own_tokenizer = True


SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_BLANK = "\u2581"


def pieces() -> list[tuple[str, float]]:
    """Special tokens as XLM-RoBERTa has them, then words and letters with scores of sixteenths."""
    words = [_BLANK + word for word in WORDS.split()]
    parts = ["th", "the", "at", "is", "ing", "er", "ein", "gr", "av", "ity", "egg", "co", "fi", "株式", "猫坐"]
    texts = list(dict.fromkeys([_BLANK, *words, *parts, *LETTERS, "A", "W", "1", "\u2044"]))
    scored = [(text, -2.0 - (i * 37 % 101) / 16) for i, text in enumerate(texts)]
    return [*((text, 0.0) for text in SPECIAL[:4]), *scored, (SPECIAL[4], 0.0)]


def tokenizer(squeezes: bool = False) -> dict[str, Any]:
    """With E5's steps; ``squeezes``: with bge-m3's."""
    vocab = pieces()
    ids = {text: i for i, (text, _) in enumerate(vocab)}
    added = [{"id": ids[text], "content": text, "single_word": False, "lstrip": text == "<mask>", "rstrip": False,
              "normalized": False, "special": True} for text in SPECIAL]  # fmt: skip
    front, end = ({"SpecialToken": {"id": text, "type_id": 0}} for text in ("<s>", "</s>"))
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    runs = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    words = {"type": "Metaspace", "replacement": _BLANK, "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap": encoded()}, *[runs] * squeezes]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            *[{"type": "WhitespaceSplit"}] * (not squeezes), words]},
        "post_processor": {"type": "TemplateProcessing", "single": [front, first, end],
                           "pair": [front, first, end, end, second, end],
                           "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in ("<s>", "</s>")}},
        "decoder": words,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": [list(piece) for piece in vocab], "byte_fallback": False},
    }  # fmt: skip


_QWEN3 = Tiny(seed=40, family="qwen3", context=64, heads=4, kv_heads=2, head_dim=32, rope_theta=1e6, scale=1.0)
EMBEDDERS: dict[str, Any] = {
    "qwen3": TinyDecoder(_QWEN3),
    "gemma": TinyGemma(
        Tiny(
            seed=41,
            family="gemma-embedding",
            context=64,
            heads=2,
            kv_heads=1,
            head_dim=32,
            rope_theta=1e6,
            scale=1.0,
            numbers=(("window", 10),),
        )
    ),
    "nomic": TinyNomic(5, "mean", normalized=True),
    "xlmr-ranks": TinyXlmr(6, None),
}


def of_makers(tiny: TinyNomic) -> TinyNomic:
    return replace(tiny, makers=True)
