"""The vocabulary in a GGUF file's metadata, and what tokenizers of every kind take from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inpage.errors import SourceInvalid

if TYPE_CHECKING:
    from ..gguf.metadata import Metadata

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
# Tokens that end an answer whatever the file calls them (llama.cpp's end-of-generation set).
END_TEXTS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>", "<EOT>")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """``kinds``: each token's declared type. ``ids``: by text."""

    tokens: list[str]
    kinds: list[int]
    ids: dict[str, int]

    def of(self, *kinds: int) -> list[int]:
        """Ids of the tokens of these types."""
        return [i for i, kind in enumerate(self.kinds) if kind in kinds]


def read_vocabulary(meta: Metadata, size: int) -> Vocabulary:
    """``size``: rows of the embedding."""
    tokens: list[str] = meta.items("tokenizer.ggml.tokens", str)
    if len(tokens) != size:
        raise SourceInvalid(f"{len(tokens)} tokens, but the embedding has {size} rows", field="tokenizer.ggml.tokens")
    kinds: list[int] = meta.items("tokenizer.ggml.token_type", int)
    if len(kinds) != size:
        raise SourceInvalid(f"{len(kinds)} token types for {size} tokens", field="tokenizer.ggml.token_type")
    ids = {t: i for i, t in enumerate(tokens)}
    if len(ids) != len(tokens):
        raise SourceInvalid("a token's text stands twice", field="tokenizer.ggml.tokens")
    return Vocabulary(tokens, kinds, ids)


def token_id(meta: Metadata, key: str, size: int, default: int | None = None) -> int | None:
    """A token that the file names; ``default`` where it names none."""
    if meta.get(key) is None:
        return default
    v = meta.integer(key)
    if not 0 <= v < size:
        raise SourceInvalid(f"{key}: {v} is not a token", field=key)
    return v


def ends(meta: Metadata, size: int, texts: Iterable[int | None], eos: int | None = None) -> tuple[int, ...]:
    """Ids that end an answer: those that the file names (``eos`` where it names none), then ``texts``."""
    found = [
        token_id(meta, "tokenizer.ggml.eos_token_id", size, eos),
        token_id(meta, "tokenizer.ggml.eot_token_id", size),
        *texts,
    ]
    return tuple(dict.fromkeys(i for i in found if i is not None))


def document(added: list[dict[str, Any]], **parts: Any) -> dict[str, Any]:
    """A tokenizer.json whose model is BPE. ``parts``: normalizer, pre_tokenizer, decoder, and of the model what differs
    from a plain BPE without unknown token."""
    around = {key: parts.pop(key) for key in ("normalizer", "pre_tokenizer")}
    decoder = parts.pop("decoder")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        **around,
        "post_processor": None,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            **parts,
        },
    }


def added_token(token: int, content: str, special: bool, rstrip: bool = False) -> dict[str, Any]:
    """``rstrip``: it swallows the white space behind it."""
    return {
        "id": token,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": rstrip,
        "normalized": False,
        "special": special,
    }
