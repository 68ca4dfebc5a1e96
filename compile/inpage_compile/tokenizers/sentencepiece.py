"""SentencePiece vocabularies (``tokenizer.ggml.model`` "llama"): no list of merges, but a score for each token.

llama.cpp merges whichever neighbours make the token with the highest score, the leftmost first. A tokenizer.json has
ranked pairs instead: every pair of tokens that makes a third one, ranked by its score. Both find the same tokens unless
two different pairs of equal score overlap, where the rank decides and not the place.

As in llama.cpp: characters without a token become tokens of their bytes; every text between control and user-defined
tokens gets a space in front (``add_space_prefix``); ``remove_extra_whitespaces`` changes nothing, runs of blanks stay.
Unlike there, text never merges into a control token, into the unknown token or into one of a byte.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from inpage.errors import SourceInvalid

from .control import read_control
from .tokenizer import Tokenizer
from .vocabulary import BYTE, USER_DEFINED, Vocabulary, added_token, document

if TYPE_CHECKING:
    from ..gguf.metadata import Metadata

_BLANK = "\u2581"  # how tokens show a space
_BYTE = re.compile("<0x[0-9A-F]{2}>")
_KEEPING = ("<unk>", "<s>", "<|endoftext|>")
# What files that name none mean.
_UNKNOWN, _BOS, _EOS = 0, 1, 2


def sentencepiece(meta: Metadata, vocabulary: Vocabulary) -> Tokenizer:
    vocabulary = _with_bytes(vocabulary)
    size, tokens = len(vocabulary.tokens), vocabulary.tokens
    _check_bytes(vocabulary)
    control = read_control(meta, vocabulary, _BOS, _EOS, _UNKNOWN)  # there are 256 tokens at least
    special = {tokens[i]: i for i in sorted(control.ids)}
    added = sorted({*vocabulary.of(USER_DEFINED), *control.ids})
    prefix = meta.flag("tokenizer.ggml.add_space_prefix", True)
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": _BLANK}
    swallows = set(added) if _swallowing(meta) else set()
    swallows -= {vocabulary.ids[text] for text in _KEEPING if text in vocabulary.ids}
    spaces = {"type": "Replace", "pattern": {"String": _BLANK}, "content": " "}
    in_front = [{"type": "Prepend", "prepend": _BLANK}] if prefix else []
    stripped = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return Tokenizer(
        json=document(
            [added_token(i, tokens[i], i in control.ids, i in swallows) for i in added],
            normalizer={"type": "Sequence", "normalizers": [*in_front, blanks]},
            pre_tokenizer=None,
            decoder={"type": "Sequence", "decoders": [spaces, {"type": "ByteFallback"}, {"type": "Fuse"}, *stripped]},
            byte_fallback=True,
            vocab=vocabulary.ids,
            merges=_merges(vocabulary, _scores(meta, size), special),
        ),
        bos=control.bos,
        eos=control.ends,
        add_bos=control.bos is not None and meta.flag("tokenizer.ggml.add_bos_token", True),
        special=special,
    )


def _swallowing(meta: Metadata) -> bool:
    """Phi-3's control tokens swallow the white space behind them, which no key of the file says: llama.cpp goes by the
    model's name."""
    name = meta.text("general.name", "").lower()
    return "phi-3" in name or "phi3" in name


def _with_bytes(vocabulary: Vocabulary) -> Vocabulary:
    """In a file without types, those that spell bytes out are known by their texts."""
    if vocabulary.of(BYTE):
        return vocabulary
    pairs = zip(vocabulary.tokens, vocabulary.kinds, strict=True)
    return replace(vocabulary, kinds=[BYTE if _BYTE.fullmatch(text) else kind for text, kind in pairs])


def _check_bytes(vocabulary: Vocabulary) -> None:
    for i in vocabulary.of(BYTE):
        if not _BYTE.fullmatch(vocabulary.tokens[i]):
            raise SourceInvalid(
                f"token {i} is of the byte type, but {vocabulary.tokens[i][:20]!r}; expected <0x00> to <0xFF>",
                field="tokenizer.ggml.tokens",
            )
    for byte in range(256):
        text = f"<0x{byte:02X}>"
        if text not in vocabulary.ids and not (byte < 0x80 and chr(byte) in vocabulary.ids):
            raise SourceInvalid(
                f"byte token {text} is missing: text with characters that are no tokens cannot be encoded",
                field="tokenizer.ggml.tokens",
            )


def _scores(meta: Metadata, size: int) -> list[float]:
    key = "tokenizer.ggml.scores"
    found = meta.get(key)
    if not isinstance(found, list) or len(found) != size or not all(isinstance(x, (int, float)) for x in found):
        raise SourceInvalid(f"{key}: must be an array of {size} numbers, one a token", field=key)
    if any(math.isnan(x) for x in found):
        raise SourceInvalid(f"{key}: must be numbers", field=key)
    return [float(x) for x in found]


def _merges(vocabulary: Vocabulary, scores: list[float], special: dict[str, int]) -> list[list[str]]:
    never = {*vocabulary.of(BYTE), *special.values()}
    known = {text for text, i in vocabulary.ids.items() if i not in never}
    ranked = sorted((-scores[vocabulary.ids[text]], vocabulary.ids[text], text) for text in known if len(text) > 1)
    pairs: list[list[str]] = []
    for _, _, text in ranked:
        halves = ((text[:cut], text[cut:]) for cut in range(len(text) - 1, 0, -1))
        pairs += ([left, right] for left, right in halves if left in known and right in known)
    return pairs
