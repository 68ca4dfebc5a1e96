"""What a compiled model knows of its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """``json``: a Hugging Face tokenizer.json. ``special``: control tokens by text. ``eos``: ids that end an
    answer, the model's own first. ``add_eos``: a text to embed ends with the first of them."""

    json: dict[str, Any] = field(repr=False)
    bos: int | None
    eos: tuple[int, ...]
    add_bos: bool
    special: Mapping[str, int]
    add_eos: bool = False
