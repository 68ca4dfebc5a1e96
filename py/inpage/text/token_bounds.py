"""How many tokens a text has at least, known from its length: what cannot fit is refused before it is tokenized."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_COMPOSES = 4  # NFC makes at most so many characters one
# Pre-tokenizers that leave no character out.
_KEEPING = {"ByteLevel", "Metaspace", "Digits", "UnicodeScripts", "Punctuation", "Split", "FixedLength"}


def longest_token(description: Mapping[str, Any], control: Iterable[str]) -> int | None:
    """The most characters of a text that one token can stand for, by a tokenizer.json; None where that is unbounded: it
    drops characters, or has one token for a run of unknown ones."""
    normalizing = _normalizer(description.get("normalizer"))
    model = description.get("model") or {}
    added = [token for token in description.get("added_tokens") or [] if isinstance(token, Mapping)]
    # A token that swallows the blanks around it stands for any number of them.
    swallows = any(token.get("lstrip") or token.get("rstrip") for token in added)
    if normalizing is None or swallows or not _keeps(description.get("pre_tokenizer")) or _fuses(model):
        return None
    vocab = model.get("vocab") or ()
    texts = vocab if isinstance(vocab, Mapping) else (piece[0] for piece in vocab)
    longest = max(map(len, texts), default=1)
    more = [*control, *(str(token.get("content", "")) for token in added)]
    return max(longest, 1, *map(len, more)) * normalizing


def _fuses(model: Mapping[str, Any]) -> bool:
    kind = model.get("type", "BPE")
    if kind == "BPE":
        return bool(model.get("fuse_unk")) and model.get("unk_token") is not None and not model.get("byte_fallback")
    return kind != "Unigram" or not model.get("byte_fallback")


def _normalizer(found: Any) -> int | None:
    """How many characters of a text it makes one at most."""
    if found is None:
        return 1
    kind = found.get("type")
    if kind in ("NFC", "NFKC"):
        return _COMPOSES
    if kind in ("NFD", "NFKD", "Prepend", "Lowercase", "ByteLevel"):
        return 1
    if kind == "Replace":
        pattern = (found.get("pattern") or {}).get("String")
        return 1 if isinstance(pattern, str) and len(str(found.get("content", ""))) >= len(pattern) else None
    if kind != "Sequence":
        return None
    most = 1
    for each in found.get("normalizers") or ():
        times = _normalizer(each)
        if times is None:
            return None
        most *= times
    return most


def _keeps(found: Any) -> bool:
    if found is None:
        return True
    if found.get("type") == "Sequence":
        return all(_keeps(each) for each in found.get("pretokenizers") or ())
    return found.get("type") in _KEEPING and found.get("behavior", "Isolated") != "Removed"
