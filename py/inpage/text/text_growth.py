"""How much longer the steps of a tokenizer.json make a text. Each may lengthen what the last one gave, so that a file
with twenty of them turns a word into gigabytes: what could is refused before the file is used."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import ArtifactInvalid

_STEPS = 64  # of a part; the longest lists in use have about ten
_TIMES = 256  # bytes as letters (2), then a few replacements by something longer
_WRITTEN = 64  # characters that one step puts in
_MAPPED = 256  # bytes that a map of characters puts in for one; NFKC makes 33 of one
_INNER = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}


def check_growth(description: Mapping[str, Any]) -> None:
    """Raises `ArtifactInvalid` for a tokenizer.json whose steps may make a text more than 256 times as long, or are
    more than 64. How long its expressions search is bounded by the native library, and in the page by the watch."""
    times, mapped = 1.0, False
    for part, inner in _INNER.items():
        if part == "decoder":
            times = 1.0  # it begins with ids
        for count, step in enumerate(_steps(description.get(part), inner), 1):
            times *= _times(step)
            if step.get("type") == "Precompiled":
                if mapped:
                    raise _invalid("has more than one map of characters (Precompiled)")
                mapped = True
            if count > _STEPS:
                raise _invalid(f"has more than {_STEPS} steps in its {part}")
            if times > _TIMES:
                raise _invalid(f"has steps (the last is in its {part}) that make a text over {_TIMES} times as long")


def _steps(found: Any, inner: str) -> Iterator[Mapping[str, Any]]:
    """Those of a part in order, those of sequences in their place."""
    left = [found]
    while left:
        step = left.pop()
        if not isinstance(step, Mapping):
            continue
        yield step
        if step.get("type") == "Sequence" and isinstance(step.get(inner), list):
            left += reversed(step[inner])


def _times(step: Mapping[str, Any]) -> float:
    """How many times as long it makes a text at most. What Unicode's forms and a model's own map of characters do is
    left out: they do not do it twice, and the map is bounded by itself."""
    kind = step.get("type")
    written = max(_size(step.get(key)) for key in ("content", "prepend", "replacement"))
    if written > _WRITTEN:
        raise _invalid(f"has a step ({kind}) that writes {written} characters; the most is {_WRITTEN}")
    if kind == "ByteLevel":
        return 2  # a byte outside ASCII becomes a letter of two bytes
    if kind == "Metaspace":
        if _size(step.get("replacement", " ")) != 1:
            raise _invalid("has a step (Metaspace) whose replacement is not one character")
        return 2  # a blank in front of each word, which may be one character
    if kind == "Replace":
        pattern = step.get("pattern")
        replaced = _size(pattern.get("String")) if isinstance(pattern, Mapping) else 0
        # An expression may find the empty text before each character.
        return max(1.0, written / replaced if replaced else 1 + written)
    if kind == "Precompiled":
        _check_map(step.get("precompiled_charsmap"))
    return 1


def _check_map(charsmap: Any) -> None:
    """SentencePiece's, base64: how many bytes its trie has, the trie, and the texts that it leads to, each up to a
    zero. What else is wrong with it the library says."""
    try:
        data = base64.b64decode(charsmap or "")
    except (binascii.Error, TypeError, ValueError):
        return
    texts = data[4 + int.from_bytes(data[:4], "little") :]
    if max(map(len, texts.split(b"\0"))) > _MAPPED:
        raise _invalid(f"has a map of characters that writes over {_MAPPED} bytes for one")


def _size(text: Any) -> int:
    return len(text) if isinstance(text, str) else 0


def _invalid(what: str) -> ArtifactInvalid:
    return ArtifactInvalid(f"tokenizer.json {what}", field="tokenizer.file")
