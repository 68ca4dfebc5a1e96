"""A Hugging Face tokenizer.json rebuilt from GGUF metadata, encoding like llama.cpp: one file for each kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from inpage.errors import SourceInvalid

from .byte_level import byte_level
from .sentencepiece import sentencepiece
from .tokenizer import Tokenizer
from .unigram import gguf_unigram
from .vocabulary import Vocabulary, read_vocabulary
from .wordpiece import gguf_wordpiece

if TYPE_CHECKING:
    from ..gguf.metadata import Metadata

Builder: TypeAlias = "Callable[[Metadata, Vocabulary], Tokenizer]"

# tokenizer.ggml.model → what it is, and how it is built.
_KINDS: dict[str, tuple[str, Builder]] = {
    "gpt2": ("byte-level BPE", byte_level),
    "llama": ("SentencePiece", sentencepiece),
    "bert": ("WordPiece", gguf_wordpiece),
}
# Of models that answer with vectors alone.
_EMBEDDERS: dict[str, tuple[str, Builder]] = {"t5": ("Unigram", gguf_unigram)}


def build_tokenizer(meta: Metadata, vocab: int, embeds: bool = False) -> Tokenizer:
    """The tokenizer of a GGUF file whose embedding has ``vocab`` rows; ``embeds``: of a model that answers with
    vectors, where a text may end with a token. Raises `SourceInvalid`."""
    model = meta.text("tokenizer.ggml.model")
    kinds = _KINDS | (_EMBEDDERS if embeds else {})
    if model not in kinds:
        known = ", ".join(f"{name} ({what})" for name, (what, _) in kinds.items())
        raise SourceInvalid(
            f"tokenizer model {model!r} is not supported; supported: {known}", field="tokenizer.ggml.model"
        )
    made = kinds[model][1](meta, read_vocabulary(meta, vocab))
    ends = made.add_eos or (embeds and bool(made.eos) and meta.flag("tokenizer.ggml.add_eos_token", False))
    return replace(made, add_eos=ends)
