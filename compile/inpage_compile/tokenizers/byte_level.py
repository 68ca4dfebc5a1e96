"""Byte-level BPE (``tokenizer.ggml.model`` "gpt2"): pieces of text as bytes, each byte a letter, merged by a list.

A byte without a token of its own is dropped by llama.cpp: hence no unknown token. A prompt's pieces are cut by the
expressions of `pre_tokenizers`, and no pre-tokenizer is used by a name of the library, since those differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inpage.errors import SourceInvalid

from .control import read_control
from .pre_tokenizers import PRE_TOKENIZERS
from .tokenizer import Tokenizer
from .vocabulary import USER_DEFINED, Vocabulary, added_token, document

if TYPE_CHECKING:
    from ..gguf.metadata import Metadata

_DEFAULT = "default"


def byte_level(meta: Metadata, vocabulary: Vocabulary) -> Tokenizer:
    name = meta.text("tokenizer.ggml.pre", _DEFAULT) or _DEFAULT
    pre = PRE_TOKENIZERS.get(name)
    if pre is None:
        known = ", ".join(PRE_TOKENIZERS)
        raise SourceInvalid(f"pre-tokenizer {name!r} is not supported; supported: {known}", field="tokenizer.ggml.pre")
    tokens, control = vocabulary.tokens, read_control(meta, vocabulary)
    added = sorted({*vocabulary.of(USER_DEFINED), *control.ids})
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return Tokenizer(
        json=document(
            [added_token(i, tokens[i], i in control.ids) for i in added],
            normalizer=None,
            pre_tokenizer={"type": "Sequence", "pretokenizers": [*map(_split, pre.splits), level]},
            decoder=level,
            ignore_merges=pre.whole_words,
            vocab=vocabulary.ids,
            merges=_merges(meta, vocabulary.ids),
        ),
        bos=control.bos,
        eos=control.ends,
        add_bos=control.bos is not None and meta.flag("tokenizer.ggml.add_bos_token", pre.add_bos),
        special={tokens[i]: i for i in sorted(control.ids)},
    )


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _merges(meta: Metadata, ids: dict[str, int]) -> list[list[str]]:
    out: dict[tuple[str, str], None] = {}  # of a pair that stands twice the first counts
    for line in meta.items("tokenizer.ggml.merges", str):
        left, space, right = line.partition(" ")
        if not space or not left or not right or left + right not in ids or left not in ids or right not in ids:
            raise SourceInvalid(f"merge {line[:60]!r} joins no tokens", field="tokenizer.ggml.merges")
        out.setdefault((left, right))
    return [list(pair) for pair in out]
