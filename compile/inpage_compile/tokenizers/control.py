"""Which tokens are control tokens, and which of them end an answer.

Types in GGUF files are often wrong: an end of turn that is declared as text would let a user's text end a turn, and be
shown. So, as in llama.cpp, well-known texts are control tokens whatever their type; beyond llama.cpp so is each token
that a key names. Source of the texts: llama.cpp, src/llama-vocab.cpp.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .vocabulary import CONTROL, NORMAL, UNKNOWN, Vocabulary, token_id

if TYPE_CHECKING:
    from ..gguf.metadata import Metadata

ENDS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>", "<EOT>", "_<EOT>",
    "[EOT]", "[EOS]", "</s>", "<eos>", "<|eom_id|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
    "<end_of_utterance>", "<turn|>", "<|tool_response>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "[e~[",
)  # fmt: skip
# Of a file that names none: what fills a gap, names a repository or divides files begins another document, and so ends
# an answer.
_FILL_ENDS = {
    "fim_pad_token_id": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep_token_id": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep_token_id": ("<|file_sep|>",),
}
_FILL = {
    ("fim_pre_token_id", "prefix_token_id"): (
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<\uff5cfim\u2581begin\uff5c>", "<PRE>", "\u2581<PRE>",
        "<|code_prefix|>", "<|prefix|>",
    ),
    ("fim_suf_token_id", "suffix_token_id"): (
        "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<\uff5cfim\u2581hole\uff5c>", "<SUF>", "\u2581<SUF>",
        "<|code_suffix|>", "<|suffix|>",
    ),
    ("fim_mid_token_id", "middle_token_id"): (
        "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<\uff5cfim\u2581end\uff5c>", "<MID>", "\u2581<MID>",
        "<|code_middle|>", "<|middle|>",
    ),
}  # fmt: skip
_ENDING = ("eos_token_id", "eot_token_id", "eom_token_id")
# Files name any token here, even a letter, where a model has none of its own.
_LOOSE = ("unknown_token_id", "seperator_token_id", "padding_token_id", "cls_token_id", "mask_token_id")
_SHAPED = re.compile(r"<[^\s]+>|\[[^\s]+\]")


@dataclass(frozen=True, slots=True)
class Control:
    """``ends``: ids that end an answer, the model's own first. ``ids``: all control tokens."""

    bos: int | None
    ends: tuple[int, ...]
    ids: frozenset[int]


def read_control(
    meta: Metadata,
    vocabulary: Vocabulary,
    bos: int | None = None,
    eos: int | None = None,
    unknown: int | None = None,
) -> Control:
    """``bos``, ``eos`` and ``unknown``: where the file names none. Raises `SourceInvalid` for a key without a token."""
    size, known = len(vocabulary.tokens), vocabulary.ids

    def named(key: str, default: int | None = None) -> int | None:
        return token_id(meta, f"tokenizer.ggml.{key}", size, default)

    begin = named("bos_token_id", bos)
    ends = [named(key, eos if key == "eos_token_id" else None) for key in _ENDING]
    ends += [known.get(text) for text in ENDS]
    for key, texts in _FILL_ENDS.items():
        found = named(key)
        ends += [known.get(text) for text in texts] if found is None else [found]
    strict = [begin, *ends, *(named(key) for keys in _FILL for key in keys)]
    strict += [known.get(text) for texts in (*_FILL_ENDS.values(), *_FILL.values()) for text in texts]
    ids = set(vocabulary.of(UNKNOWN, CONTROL))
    ids |= {i for i in strict if i is not None and not vocabulary.is_letter(i)}
    loose = [found for key in _LOOSE if (found := named(key, unknown if key == _LOOSE[0] else None)) is not None]
    ids |= {i for i in loose if vocabulary.kinds[i] != NORMAL or _SHAPED.fullmatch(vocabulary.tokens[i])}
    ending = dict.fromkeys(i for i in ends if i is not None)
    by_text = {vocabulary.tokens[i]: i for i in ending}
    calls = "<|call|>" in by_text or "<|calls|>" in by_text
    if "<|end|>" in by_text and calls and ("<|return|>" in by_text or "<|flush|>" in by_text):
        del ending[by_text["<|end|>"]]  # of a channel, in Harmony's format
    if "</s>" in by_text and "<|tool_response>" in by_text:
        del ending[by_text["</s>"]]  # a tag of HTML, for Gemma 4
        ids.discard(by_text["</s>"])
    return Control(begin, tuple(ending), frozenset(ids))
