"""Tiny encoders with random weights, as folders of transformers and as GGUF files: see `tiny`.

Weights are a function of the seed alone, so that what transformers makes of them (tests/reference/make_encoders.py)
stays valid."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from .folder import safetensors

Array = npt.NDArray[np.float32]
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    "the a cat dog sat on mat what is gravity how do i boil an egg returns are taken for thirty days katze hund und "
    "der die das où le chat 猫 狗 坐 в кот"
)
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-äöüéèàß"


def vocabulary() -> list[str]:
    """Words, letters that begin a word, and letters that go on with one."""
    words = [word for word in WORDS.split() if len(word) > 1 or not word.isascii()]
    tokens = [*SPECIAL, *dict.fromkeys([*words, *LETTERS]), *(f"##{letter}" for letter in LETTERS)]
    return list(dict.fromkeys(tokens))


@dataclass(frozen=True)
class TinyBert:
    """``pooling`` None: a cross-encoder. ``matrices``: GGUF's type of them."""

    seed: int
    pooling: str | None = "mean"
    normalized: bool = False
    hidden: int = 64
    heads: int = 4
    layers: int = 2
    ffn: int = 96
    context: int = 64
    types: int = 2
    activation: str = "gelu"
    scores: str | None = None
    epsilon: float = 1e-12
    sep = 3  # what stands behind a text
    prefix = "bert."
    arch = "bert"
    own_tokenizer = False  # `about` writes it into GGUF files

    @property
    def vocab(self) -> int:
        return len(vocabulary())

    def weights(self) -> dict[str, Array]:
        """By transformers' names, without the prefix."""
        h, rng = self.hidden, np.random.default_rng(self.seed)
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (self.vocab, h),
            "embeddings.position_embeddings.weight": (self.context, h),
            "embeddings.token_type_embeddings.weight": (self.types, h),
        }
        norms = ["embeddings.LayerNorm"]
        for i in range(self.layers):
            at = f"encoder.layer.{i}"
            dense = {f"attention.self.{x}": (h, h) for x in ("query", "key", "value")}
            dense |= {"attention.output.dense": (h, h), "intermediate.dense": (self.ffn, h)}
            dense |= {"output.dense": (h, self.ffn)}
            for name, shape in dense.items():
                shapes |= {f"{at}.{name}.weight": shape, f"{at}.{name}.bias": shape[:1]}
            norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
        if self.pooling is None:
            shapes |= {"pooler.dense.weight": (h, h), "pooler.dense.bias": (h,)}
            shapes |= {"classifier.weight": (1, h), "classifier.bias": (1,)}
        out: dict[str, Array] = {}
        for name, shape in shapes.items():
            width = 0.3 if len(shape) == 1 else 1.5 / np.sqrt(shape[1])
            width = 1.0 if "embeddings" in name else width
            out[name] = rng.standard_normal(shape, np.float32) * np.float32(width)
        for name in norms:
            out[f"{name}.weight"] = 1 + rng.standard_normal(h, np.float32) * np.float32(0.2)
            out[f"{name}.bias"] = rng.standard_normal(h, np.float32) * np.float32(0.2)
        return out

    def digest(self) -> str:
        h = hashlib.sha256()
        for name, values in self.weights().items():
            h.update(name.encode() + np.ascontiguousarray(values, "<f4").tobytes())
        return h.hexdigest()

    def config(self) -> dict[str, Any]:
        found = {
            "architectures": ["BertForSequenceClassification" if self.pooling is None else "BertModel"],
            "model_type": "bert",
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.ffn,
            "hidden_act": self.activation,
            "max_position_embeddings": self.context,
            "type_vocab_size": self.types,
            "layer_norm_eps": self.epsilon,
            "position_embedding_type": "absolute",
            "pad_token_id": 0,
        }
        if self.pooling is None:
            found |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
        return found | ({"sentence_transformers": {"activation_fn": self.scores}} if self.scores else {})

    def write(self, folder: Path) -> Path:
        """A folder as sentence-transformers writes it."""
        folder.mkdir(parents=True, exist_ok=True)
        prefix = self.prefix if self.pooling is None else ""
        named = {name if name.startswith("classifier") else prefix + name: w for name, w in self.weights().items()}
        (folder / "model.safetensors").write_bytes(safetensors(named))
        texts = {**self.files(), "config.json": self.config()}
        if self.pooling is not None:
            write_modules(folder, self.pooling, self.normalized)
            texts["config_sentence_transformers.json"] = {"prompts": {"query": "what is ", "document": ""}}
        for name, content in texts.items():
            (folder / name).write_text(json.dumps(content, ensure_ascii=False))
        (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
        return folder

    def files(self) -> dict[str, Any]:
        """Of the tokenizer."""
        names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
        config = {"tokenizer_class": "BertTokenizer"}
        return {"tokenizer.json": tokenizer(), "special_tokens_map.json": names, "tokenizer_config.json": config}

    def gguf_names(self) -> dict[str, str]:
        """Of `gguf_weights`."""
        return {name: _gguf_name(name) for name in self.gguf_weights()}

    def gguf_weights(self) -> dict[str, Array]:
        return self.weights()

    def about(self, w: gguf.GGUFWriter) -> None:
        """What only some files say."""

    def write_gguf(self, path: Path, kind: str = "F32") -> Path:
        """As llama.cpp's converter writes it."""
        w = gguf.GGUFWriter(path, self.arch)
        w.add_license("apache-2.0")
        w.add_block_count(self.layers)
        w.add_context_length(self.context)
        w.add_embedding_length(self.hidden)
        w.add_feed_forward_length(self.ffn)
        w.add_head_count(self.heads)
        w.add_layer_norm_eps(self.epsilon)
        w.add_causal_attention(False)
        pooling = {"mean": 1, "cls": 2, "last": 3, None: 4}[self.pooling]
        w.add_uint32(f"{self.arch}.pooling_type", pooling)
        self.about(w)
        if not self.own_tokenizer:
            self._write_tokenizer(w)
        names = self.gguf_names()
        for name, values in self.gguf_weights().items():
            ours = names[name]
            packed = values.ndim == 2 and ours.startswith("blk.")
            type_ = gguf.GGMLQuantizationType[kind if packed else "F32"]
            w.add_tensor(ours, gguf.quants.quantize(values, type_), raw_dtype=type_)
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()
        return path

    def _write_tokenizer(self, w: gguf.GGUFWriter) -> None:
        w.add_tokenizer_model("bert")
        known = [text if text in SPECIAL else text[2:] if text.startswith("##") else f"\u2581{text}"
                 for text in vocabulary()]  # fmt: skip
        w.add_token_list(known)
        w.add_token_types([3 if text in SPECIAL else 1 for text in known])
        w.add_pad_token_id(0)
        w.add_unk_token_id(1)
        w.add_bos_token_id(2)
        w.add_sep_token_id(3)


def write_modules(folder: Path, pooling: str, normalized: bool) -> None:
    """sentence-transformers' list of modules, and how they pool."""
    kinds = ["Transformer", "Pooling", *["Normalize"] * normalized]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [{"idx": i, "path": paths[i], "type": f"sentence_transformers.models.{kind}"}
               for i, kind in enumerate(kinds)]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))
    modes = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
    (folder / "1_Pooling").mkdir(exist_ok=True)
    kept = {f"pooling_mode_{name}": mode == pooling for mode, name in modes.items()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(kept))


def _gguf_name(name: str) -> str:
    """By the converter's own table."""
    heads = {"pooler.dense": "cls", "classifier": "cls.output"}
    heads |= {"classifier.dense": "cls", "classifier.out_proj": "cls.output"}
    part, _, end = name.rpartition(".")
    if part in heads:
        return f"{heads[part]}.{end}"
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, 2)
    found = table.get_name(part)
    assert found is not None, name
    return f"{found}.{end}"


def tokenizer() -> dict[str, Any]:
    added = [{"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, text in enumerate(SPECIAL)]  # fmt: skip
    pair = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]  # fmt: skip
    second = [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}]
    named = {text: {"id": text, "ids": [i], "tokens": [text]} for i, text in enumerate(SPECIAL)}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": pair, "pair": [*pair, *second],
                           "special_tokens": named},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {text: i for i, text in enumerate(vocabulary())}},
    }  # fmt: skip


# One for each thing that can go wrong: heads that are whole groups of 32 and that are not, each pooling and activation.
BERTS: dict[str, TinyBert] = {
    "mean": TinyBert(0, "mean", normalized=True),
    "cls": TinyBert(1, "cls", hidden=96, heads=3, activation="gelu_new", types=1),
    "last": TinyBert(2, "last", hidden=128, heads=2, ffn=64, context=96, activation="silu"),
    "ranks": TinyBert(3, None, heads=8),
    "ranks-raw": TinyBert(4, None, scores="torch.nn.modules.linear.Identity"),
}
TEXTS = (
    "the cat sat on the mat",
    "a",
    "What is GRAVITY? How do I boil an egg!",
    "Die Katze und der Hund: où est le chät?",
    "猫坐 в кот — \U00020000\U00020001 \ue000ok",
    "",
    "returns are taken for thirty days, and eggs too, but not on the first 23 days of may; what a mat. " * 2,
)
QUERY = "what is the cat on"
