"""The vocabulary in a GGUF file's metadata, and what tokenizers of every kind take from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inpage.errors import SourceInvalid

if TYPE_CHECKING:
    from ..gguf.metadata import Metadata

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_NONE = (-1, 0xFFFFFFFF)  # how files write that they name no token


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """``kinds``: each token's declared type. ``ids``: by text."""

    tokens: list[str]
    kinds: list[int]
    ids: dict[str, int]

    def of(self, *kinds: int) -> list[int]:
        """Ids of the tokens of these types."""
        return [i for i, kind in enumerate(self.kinds) if kind in kinds]

    def is_letter(self, token: int) -> bool:
        """Whether it is what text is made of: without it there would be texts that cannot be encoded."""
        return self.kinds[token] == BYTE or (self.kinds[token] == NORMAL and len(self.tokens[token]) == 1)


def read_vocabulary(meta: Metadata, size: int) -> Vocabulary:
    """``size``: rows of the embedding. Without types all tokens are normal ones."""
    tokens: list[str] = meta.items("tokenizer.ggml.tokens", str)
    if len(tokens) != size:
        raise SourceInvalid(f"{len(tokens)} tokens, but the embedding has {size} rows", field="tokenizer.ggml.tokens")
    tokens = [text or f"[EMPTY_{i}]" for i, text in enumerate(tokens)]  # llama.cpp's name for one without a text
    key = "tokenizer.ggml.token_type"
    kinds: list[int] = [NORMAL] * size if meta.get(key) is None else meta.items(key, int)
    if len(kinds) != size:
        raise SourceInvalid(f"{len(kinds)} token types for {size} tokens", field=key)
    ids = {t: i for i, t in enumerate(tokens)}
    if len(ids) != len(tokens):
        raise SourceInvalid("a token's text stands twice", field="tokenizer.ggml.tokens")
    return Vocabulary(tokens, kinds, ids)


def token_id(meta: Metadata, key: str, size: int, default: int | None = None) -> int | None:
    """A token that the file names; ``default`` where it has no such key."""
    if meta.get(key) is None:
        return default
    v = meta.integer(key)
    if v in _NONE:
        return None
    if not 0 <= v < size:
        raise SourceInvalid(f"{key}: {v} is not a token", field=key)
    return v


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
