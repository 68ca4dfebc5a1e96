"""SentencePiece's map of characters for tests: a double array as darts-clone writes it, and the texts it leads to."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping

# As in the map that most models have: blanks, ligatures, wide letters, composition, and what is left out.
CHANGES = {
    "\t": " ", "\n": " ", "\r": " ", "\u00a0": " ", "\u3000": " ", "\u200b": " ", "\ufb01": "fi", "\uff21": "A",
    "\u337f": "\u682a\u5f0f\u4f1a\u793e", "e\u0301": "\u00e9", "a\u0308": "\u00e4", "\u00bd": "1\u20442", "\u00ad": "",
}  # fmt: skip


def charsmap(changes: Mapping[str, str] = CHANGES) -> bytes:
    texts, keys = b"", dict[bytes, int]()
    for found, put in changes.items():
        keys[found.encode()] = len(texts)
        texts += put.encode() + b"\0"
    units = _double_array(keys)
    return struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + texts


def encoded(changes: Mapping[str, str] = CHANGES) -> str:
    return base64.b64encode(charsmap(changes)).decode()


def _double_array(keys: Mapping[bytes, int]) -> list[int]:
    """A node's children stand at its base ^ their byte, its own value at its base."""
    units: dict[int, int] = {0: 0}

    def place(at: int, label: int, inside: Mapping[bytes, int]) -> None:
        branches: dict[int, dict[bytes, int]] = {}
        for key, value in inside.items():
            if key:
                branches.setdefault(key[0], {})[key[1:]] = value
        wanted = [*branches, *([0] if b"" in inside else [])]
        base = next(b for b in range(1, 1 << 20) if not any(b ^ byte in units for byte in wanted))
        units[at] = (at ^ base) << 10 | (0x100 if b"" in inside else 0) | label
        if b"" in inside:
            units[base] = inside[b""] | 1 << 31
        for byte in branches:
            units[base ^ byte] = 0  # taken
        for byte, rest in branches.items():
            place(base ^ byte, byte, rest)

    place(0, 0, keys)
    return [units.get(i, 0) for i in range(-(-(max(units) + 1) // 256) * 256)]
