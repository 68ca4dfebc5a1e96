"""The form of a tokenizer that the page reads: a vocabulary with BPE's merges or Unigram's scores as flat arrays, with
nothing to parse.

tokenizer.json stays what native code reads. To parse one of 262,144 tokens and to build the library's maps of it takes
a page seconds and 119 MB; this is read by web/engine/format/tokenizer_tables.js in a few passes over bytes.

A merge is stored as the token that it makes and where that is cut, which says the same as its two halves: they are
looked up when they are needed, and most tokens made follow each other. All numbers are LEB128::

    "INTK", version
    outline       bytes, then JSON: the tokenizer.json without merges, and of the vocabulary the longest token with the
                  largest id
    vocabulary    ids, then for each the bytes of its text, 0 for one without; then all texts, UTF-8
    merges        how many, then for each, by rank, the token minus the one before (zigzag); then for each the bytes
                  of its first half; none of Unigram, of which follow
    scores        each token's, float32 if that holds all of them, else float64, little-endian
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from inpage.format.limits import TOKENIZER_TABLES, UNIGRAM_BYTES

MAGIC = b"INTK"


def tables_of(description: Mapping[str, Any]) -> bytes | None:
    """Of a tokenizer.json; None where it is neither BPE nor Unigram, or nothing that these arrays can hold."""
    model = description.get("model") or {}
    vocab = model.get("vocab")
    if model.get("type") == "Unigram":
        return _unigram(description, model)
    if model.get("type", "BPE") != "BPE" or not isinstance(vocab, dict) or not vocab or "" in vocab:
        return None
    if model.get("end_of_word_suffix") or model.get("continuing_subword_prefix") or model.get("dropout"):
        return None
    merges = _merges(model.get("merges") or (), vocab)
    try:
        texts = {token: text.encode() for text, token in vocab.items()}
    except UnicodeEncodeError:  # half a character
        return None
    if merges is None or len(texts) != len(vocab):
        return None
    size = 1 + max(texts)
    longest = max(vocab, key=len)
    outline = {**description, "model": {**model, "vocab": {longest: size - 1}, "merges": []}}
    made = [token for token, _ in merges]
    return b"".join(
        (
            _beginning(outline, texts),
            _numbers((len(merges), *(_zigzag(b - a) for a, b in zip([0, *made], made, strict=False)))),
            _numbers(cut for _, cut in merges),
        )
    )


def _unigram(description: Mapping[str, Any], model: Mapping[str, Any]) -> bytes | None:
    vocab = model.get("vocab") or []
    try:
        texts = {i: text.encode() for i, (text, _) in enumerate(vocab)}
        scores = np.array([score for _, score in vocab], np.float64)
    except (UnicodeEncodeError, AttributeError, TypeError, ValueError):
        return None
    if not vocab or len(set(texts.values())) != len(texts) or b"" in texts.values():
        return None
    if max(map(len, texts.values())) > UNIGRAM_BYTES:
        return None
    longest = max((text for text, _ in vocab), key=len)
    outline = {**description, "model": {**model, "vocab": [[longest, 0.0]]}}
    short = scores.astype("<f4")
    exact = bool((short.astype(np.float64) == scores).all())
    return b"".join((_beginning(outline, texts), _numbers((0,)), (short if exact else scores.astype("<f8")).tobytes()))


def _beginning(outline: Mapping[str, Any], texts: Mapping[int, bytes]) -> bytes:
    """Up to the merges. ``texts``: by token."""
    written = json.dumps(outline, ensure_ascii=False, separators=(",", ":")).encode()
    size = 1 + max(texts)
    return b"".join(
        (
            MAGIC,
            _numbers((TOKENIZER_TABLES, len(written))),
            written,
            _numbers((size, *(len(texts.get(i, b"")) for i in range(size)))),
            *(texts[i] for i in sorted(texts)),
        )
    )


def _merges(merges: Iterable[Any], vocab: Mapping[str, int]) -> list[tuple[int, int]] | None:
    """By rank: the token made, and the bytes of its first half. Of a merge that stands twice the last one counts."""
    found: dict[tuple[int, int], None] = {}
    for merge in merges:
        first, second = merge.split(" ", 1) if isinstance(merge, str) else merge
        if not first or not second or not {first, second, first + second} <= vocab.keys():
            return None
        key = (vocab[first + second], len(first.encode()))
        found.pop(key, None)
        found[key] = None
    return list(found)


def _zigzag(number: int) -> int:
    return 2 * number if number >= 0 else -2 * number - 1


def _numbers(numbers: Iterable[int]) -> bytes:
    out = bytearray()
    for number in numbers:
        while number > 0x7F:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        out.append(number)
    return bytes(out)
