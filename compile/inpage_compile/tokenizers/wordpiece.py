"""WordPiece vocabularies, BERT's: a tokenizer.json of the folder, or rebuilt from a GGUF file.

The token for unknown words is no control token: it is what a word becomes that has no pieces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from inpage.errors import SourceInvalid, quoted

from .tokenizer import Tokenizer
from .vocabulary import NORMAL, Vocabulary, added_token, token_id

if TYPE_CHECKING:
    from ..gguf.metadata import Metadata

FILE = "tokenizer.json"
_NAMES = {"cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
_PREFIX, _LONGEST = "##", 100
_BLANK = "\u2581"
# What PyPI's library does with these, npm's leaves: ideographs beyond the first plane stand apart (those for
# compatibility are made others by then, of the first plane too), characters for private use are dropped, and a Σ is a σ
# at the end of a word as well. As steps that both have, it changes nothing in the first and mends the second.
_IDEOGRAPHS = (
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0002a6df\U0002a700-\U0002b81f\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f]"
)
_SHAPED = re.compile(r"\[[^\s\]]+\]|<[^\s>]+>")


def read_wordpiece(tokenizer: Mapping[str, Any], names: Mapping[str, str], size: int) -> tuple[Tokenizer, list[str]]:
    """Of a folder. ``names``: texts of special tokens by what they are ("cls"); ``size``: rows of the embedding. Beside
    it what was left out."""
    model = tokenizer.get("model")
    assert isinstance(model, Mapping)
    vocab, unknown = model.get("vocab"), model.get("unk_token")
    if not isinstance(vocab, Mapping) or not all(type(i) is int and 0 <= i < size for i in vocab.values()):
        raise _wrong("model.vocab", f"must map tokens to ids below {size}, the rows of the embedding")
    if not isinstance(unknown, str) or unknown not in vocab:
        raise _wrong("model.unk_token", f"{quoted(unknown)} is not in the vocabulary")
    longest, prefix = model.get("max_input_chars_per_word", _LONGEST), model.get("continuing_subword_prefix", _PREFIX)
    if type(longest) is not int or longest < 1 or not isinstance(prefix, str) or not prefix:
        raise _wrong("model", "max_input_chars_per_word must be a number, continuing_subword_prefix a text")
    normalizer = tokenizer.get("normalizer")
    if not isinstance(normalizer, Mapping) or normalizer.get("type") != "BertNormalizer":
        raise _wrong("normalizer", "is not supported; BertNormalizer is")
    cut = tokenizer.get("pre_tokenizer")
    if not isinstance(cut, Mapping) or cut.get("type") != "BertPreTokenizer":
        raise _wrong("pre_tokenizer", "is not supported; BertPreTokenizer is")
    special = _special(vocab, {**_NAMES, **names}, unknown)
    notes: list[str] = []
    added = tokenizer.get("added_tokens") or []
    if not isinstance(added, list):
        raise _wrong("added_tokens", "must be a list")
    for entry in added:
        text = entry.get("content") if isinstance(entry, Mapping) else None
        if not isinstance(text, str):
            raise _wrong("added_tokens", "each must have a content")
        if text not in special and text != unknown:
            notes.append(f"{FILE}: the added token {quoted(text)} is left out: it is cut as text is")
    flags = {
        name: normalizer.get(name) for name in ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
    }
    if not all(value in (True, False, None) for value in flags.values()):
        raise _wrong("normalizer", "its settings must be true, false or null")
    return _made(dict(vocab), special, {**_NAMES, **names}, unknown, flags, prefix, longest), notes


def gguf_wordpiece(meta: Metadata, vocabulary: Vocabulary) -> Tokenizer:
    """Pieces that begin a word stand in the file behind a ▁, the others without their ##."""
    size, texts = len(vocabulary.tokens), dict[str, int]()
    keys = {"cls": "bos", "sep": "seperator", "pad": "padding", "mask": "mask", "unk": "unknown"}
    ids = {name: token_id(meta, f"tokenizer.ggml.{key}_token_id", size) for name, key in keys.items()}
    if ids["cls"] is None:
        ids["cls"] = token_id(meta, "tokenizer.ggml.cls_token_id", size)
    names = {name: vocabulary.tokens[i] for name, i in ids.items() if i is not None}
    unknown = names.pop("unk", "[UNK]")
    whole = {*names.values(), unknown}
    for i, text in enumerate(vocabulary.tokens):
        if text in whole or (vocabulary.kinds[i] != NORMAL and _SHAPED.fullmatch(text)):
            piece = text
        else:
            piece = text[1:] if text.startswith(_BLANK) else _PREFIX + text
        texts.setdefault(piece, i)
    if unknown not in texts:
        raise SourceInvalid("tokenizer.ggml.unknown_token_id is missing", field="tokenizer.ggml.unknown_token_id")
    names = {**_NAMES, **names}
    flags = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    return _made(texts, _special(texts, names, unknown), names, unknown, flags, _PREFIX, _LONGEST)


def _special(vocab: Mapping[str, int], names: Mapping[str, str], unknown: str) -> dict[str, int]:
    special = {text: vocab[text] for text in names.values() if text in vocab and text != unknown}
    for name in ("cls", "sep"):
        if names[name] not in special:
            raise _wrong("model.vocab", f"{quoted(names[name])} is missing, which stands around a text")
    return special


def _made(
    vocab: dict[str, int], special: dict[str, int], names: Mapping[str, str], unknown: str, flags: dict[str, Any],
    prefix: str, longest: int,
) -> Tokenizer:  # fmt: skip
    private = {"type": "Replace", "pattern": {"Regex": r"\p{Co}"}, "content": ""}
    dropped = [private] if flags["clean_text"] is not False else []
    sigma = {"type": "Replace", "pattern": {"String": "\u03a3"}, "content": "\u03c3"}
    cased = [sigma] if flags["lowercase"] is not False else []
    ideographs = {"type": "Split", "pattern": {"Regex": _IDEOGRAPHS}, "behavior": "Isolated", "invert": False}
    apart = [ideographs] if flags["handle_chinese_chars"] is not False else []
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(i, text, True) for text, i in sorted(special.items(), key=lambda e: e[1])],
        "normalizer": {"type": "Sequence", "normalizers": [*dropped, *cased, {"type": "BertNormalizer", **flags}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*apart, {"type": "BertPreTokenizer"}]},
        "post_processor": None,
        "decoder": {"type": "WordPiece", "prefix": prefix, "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": prefix,
            "max_input_chars_per_word": longest,
            "vocab": vocab,
        },
    }
    cls, sep = special[names["cls"]], special[names["sep"]]
    return Tokenizer(json=document, bos=cls, eos=(sep,), add_bos=True, special=special, add_eos=True)


def _wrong(what: str, why: str) -> SourceInvalid:
    return SourceInvalid(f"{FILE}: {what}: {why}", field=f"{FILE}.{what}")
