"""The form of a tokenizer that the page reads: a BPE vocabulary and its merges as flat arrays, with nothing to parse.

tokenizer.json stays what native code reads. To parse one of 262,144 tokens and to build the library's maps of it takes
a page seconds and 119 MB; this is read by web/engine/format/tokenizer_tables.js in a few passes over bytes.

A merge is stored as the token that it makes and where that is cut, which says the same as its two halves: they are
looked up when they are needed, and most tokens made follow each other. All numbers are LEB128::

    "INTK", version
    outline       bytes, then JSON: the tokenizer.json without merges, and of the vocabulary the longest token with the
                  largest id
    vocabulary    ids, then for each the bytes of its text, 0 for one without; then all texts, UTF-8
    merges        how many, then for each, by rank, the token minus the one before (zigzag); then for each the bytes
                  of its first half
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from inpage.format.limits import TOKENIZER_TABLES

MAGIC = b"INTK"


def tables_of(description: Mapping[str, Any]) -> bytes | None:
    """Of a tokenizer.json; None where it is not a BPE tokenizer that these arrays can hold."""
    model = description.get("model") or {}
    vocab = model.get("vocab")
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
    written = json.dumps(outline, ensure_ascii=False, separators=(",", ":")).encode()
    made = [token for token, _ in merges]
    return b"".join(
        (
            MAGIC,
            _numbers((TOKENIZER_TABLES, len(written))),
            written,
            _numbers((size, *(len(texts.get(i, b"")) for i in range(size)))),
            *(texts[i] for i in sorted(texts)),
            _numbers((len(merges), *(_zigzag(b - a) for a, b in zip([0, *made], made, strict=False)))),
            _numbers(cut for _, cut in merges),
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
