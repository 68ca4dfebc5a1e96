"""Tokens as bytes, for vocabularies that spell bytes out (``<0xE2>``): SentencePiece's.

The two libraries differ where such bytes are no character, and one of them takes back characters before it. Here what
a token adds depends on nothing behind it, as in llama.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_BYTE = re.compile("<0x[0-9A-F]{2}>")
_BLANK = "\u2581"


class Pieces:
    """``piece``: a token as the vocabulary has it; ``front``: whether texts were encoded with a blank in front, which
    is not part of them."""

    def __init__(self, piece: Callable[[int], str | None], added: Mapping[str, int], front: bool) -> None:
        self.front = front
        self._text = piece
        self._added = {token: text.encode() for text, token in added.items()}
        self._bytes: dict[int, bytes] = dict(self._added)

    def decode(self, ids: Sequence[int], inner: bool = False) -> str:
        """``inner``: other text stands before this, so that a blank in front is one."""
        text = b"".join([self.bytes_of(token) for token in ids]).decode("utf-8", "replace")
        return text[1:] if self.front and not inner and text.startswith(" ") else text

    def bytes_of(self, token: int) -> bytes:
        return self._bytes.get(token) or self._piece(token)

    def _piece(self, token: int) -> bytes:
        text = self._text(token) or ""
        found = bytes([int(text[3:5], 16)]) if _BYTE.fullmatch(text) else text.replace(_BLANK, " ").encode()
        self._bytes[token] = found
        return found


def pieces_of(description: Mapping[str, Any], piece: Callable[[int], str | None]) -> Pieces | None:
    """By a tokenizer.json and `Pieces.piece`; None where its decoder takes no bytes spelled out."""
    steps = (description.get("decoder") or {}).get("decoders") or ()
    kinds = [step.get("type") for step in steps]
    if "ByteFallback" not in kinds:
        return None
    added = {str(token["content"]): int(token["id"]) for token in description.get("added_tokens") or ()}
    return Pieces(piece, added, "Strip" in kinds)
