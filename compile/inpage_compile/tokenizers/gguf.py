"""A Hugging Face tokenizer.json rebuilt from GGUF metadata, encoding like llama.cpp.

Three things that a naive rebuild misses:

- The metadata names a pre-tokenizer (``tokenizer.ggml.pre``), which stands for regular expressions known to
  llama.cpp only. ``smollm`` first isolates every number character, then splits as GPT-2 does.
- ``\\s`` and ``\\d`` differ between Oniguruma (PyPI tokenizers), JavaScript and llama.cpp (U+0085, U+FEFF, digits
  outside ASCII). So white space is spelled out, digits are ``\\p{N}``, and no named pre-tokenizer is used.
- A byte without a token of its own is dropped by llama.cpp: hence no unknown token.

Source of the expressions: llama.cpp, src/llama-vocab.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inpage.errors import SourceInvalid

from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from ..gguf.metadata import Metadata

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

# Unicode's White_Space, as a character class's content.
_SPACE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


def _expand(pattern: str) -> str:
    """``\\s`` and ``\\S`` spelled out."""
    return pattern.replace(r"[^\s", f"[^{_SPACE}").replace(r"\s", f"[{_SPACE}]").replace(r"\S", f"[^{_SPACE}]")


_NUMBER = r"\p{N}"
_GPT2 = _expand(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
_TIKTOKEN = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBERS"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _expand(_TIKTOKEN.replace("NUMBERS", r"\p{N}{1,3}"))
_QWEN2 = _expand(_TIKTOKEN.replace("NUMBERS", r"\p{N}"))

# tokenizer.ggml.pre → successive splits. A match and the text between matches each become a piece.
PRE_TOKENIZERS: dict[str, tuple[str, ...]] = {
    "smollm": (_NUMBER, _GPT2),
    "starcoder": (_NUMBER, _GPT2),
    "refact": (_NUMBER, _GPT2),
    "command-r": (_NUMBER, _GPT2),
    "gpt-2": (_GPT2,),
    "llama-bpe": (_LLAMA3,),
    "qwen2": (_QWEN2,),
}
# A piece that is a token as a whole is not merged; and a BOS is put in front unless the file says otherwise.
_WHOLE_WORDS = ("llama-bpe",)
_BOS_BY_DEFAULT = ("llama-bpe",)
# Tokens that end an answer whatever the file calls them (llama.cpp's end-of-generation set).
_END_TEXTS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>", "<EOT>")


def build_tokenizer(meta: Metadata, vocab: int) -> Tokenizer:
    """The tokenizer of a GGUF file whose embedding has ``vocab`` rows. Raises `SourceInvalid`."""
    model = meta.text("tokenizer.ggml.model")
    if model != "gpt2":
        raise SourceInvalid(
            f"tokenizer model {model!r} is not supported; supported: gpt2 (byte-level BPE)",
            field="tokenizer.ggml.model",
        )
    pre = meta.text("tokenizer.ggml.pre")
    if pre not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        raise SourceInvalid(f"pre-tokenizer {pre!r} is not supported; supported: {known}", field="tokenizer.ggml.pre")
    tokens: list[str] = meta.items("tokenizer.ggml.tokens", str)
    if len(tokens) != vocab:
        raise SourceInvalid(f"{len(tokens)} tokens, but the embedding has {vocab} rows", field="tokenizer.ggml.tokens")
    kinds: list[int] = meta.items("tokenizer.ggml.token_type", int)
    if len(kinds) != vocab:
        raise SourceInvalid(f"{len(kinds)} token types for {vocab} tokens", field="tokenizer.ggml.token_type")
    ids = {t: i for i, t in enumerate(tokens)}
    if len(ids) != len(tokens):
        raise SourceInvalid("a token's text stands twice", field="tokenizer.ggml.tokens")
    added = [i for i, kind in enumerate(kinds) if kind in (UNKNOWN, CONTROL, USER_DEFINED)]
    splits = [_split(pattern) for pattern in PRE_TOKENIZERS[pre]]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(i, tokens[i], kinds[i] != USER_DEFINED) for i in added],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, level]},
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre in _WHOLE_WORDS,
            "vocab": ids,
            "merges": _merges(meta, ids),
        },
    }
    special = {tokens[i]: i for i in added if kinds[i] != USER_DEFINED}
    bos = _id(meta, "tokenizer.ggml.bos_token_id", vocab)
    return Tokenizer(
        json=document,
        bos=bos,
        eos=_ends(meta, vocab, special),
        add_bos=bos is not None and meta.flag("tokenizer.ggml.add_bos_token", pre in _BOS_BY_DEFAULT),
        special=special,
    )


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _added(token: int, content: str, special: bool) -> dict[str, Any]:
    return {
        "id": token,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def _merges(meta: Metadata, ids: dict[str, int]) -> list[list[str]]:
    out: list[list[str]] = []
    for line in meta.items("tokenizer.ggml.merges", str):
        left, space, right = line.partition(" ")
        if not space or not left or not right or left + right not in ids or left not in ids or right not in ids:
            raise SourceInvalid(f"merge {line[:60]!r} joins no tokens", field="tokenizer.ggml.merges")
        out.append([left, right])
    return out


def _id(meta: Metadata, key: str, vocab: int) -> int | None:
    if meta.get(key) is None:
        return None
    v = meta.integer(key)
    if not 0 <= v < vocab:
        raise SourceInvalid(f"{key}: {v} is not a token", field=key)
    return v


def _ends(meta: Metadata, vocab: int, special: dict[str, int]) -> tuple[int, ...]:
    keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    found = [_id(meta, key, vocab) for key in keys] + [special.get(text) for text in _END_TEXTS]
    return tuple(dict.fromkeys(i for i in found if i is not None))
