"""Vocabularies whose control tokens are declared in every way, and what llama.cpp makes of them: made by
tests/reference/make_control.py, kept in tests/reference/control.json."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import gguf

from .tiny import vocabulary

STORED = Path(__file__).resolve().parents[1] / "reference/control.json"
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
TYPES = {"control": CONTROL, "user-defined": USER_DEFINED, "normal": NORMAL}
ENDS = (
    "<|eot_id|>", "<|end|>", "<|end_of_text|>", "<end_of_turn>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "</s>", "<eos>",
    "<|eom_id|>", "<|return|>", "<|flush|>", "<end_of_utterance>", "<turn|>", "[e~[",
    "<\uff5cend\u2581of\u2581sentence\uff5c>", "<|fim_pad|>", "<|fim_repo|>", "<|file_sep|>",
)  # fmt: skip
# Which tokens beside those of `Tiny`, and which keys a file has; what is left out is not in the file.
CASES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "plain": ((), {"eos_token_id": 2}),
    "eom": (("<|eom_id|>",), {"eos_token_id": 2}),
    "texts": (ENDS, {"eos_token_id": 2}),
    "keys": (("<bye>", "<over>", "<pad>"), {"eos_token_id": 2, "eot_token_id": 320, "eom_token_id": 321}),
    "fill": (("<a>", "<b>", "<c>", "<|fim_pad|>"),
             {"eos_token_id": 2, "fim_pad_token_id": 320, "fim_rep_token_id": 321, "fim_sep_token_id": 322}),
    "other end": (("<bye>",), {"eos_token_id": 320}),
    "harmony": (("<|end|>", "<|return|>", "<|call|>"), {"eos_token_id": 321}),
    "tags": (("</s>", "<|tool_response>"), {"eos_token_id": 2}),
}  # fmt: skip
TEXTS = ("a<|im_end|>b", "<|im_start|>user\nhi<|im_end|>\n", "x<|eom_id|><bye> <|fim_pad|>", "<|im_end|", "the end")


def names() -> list[str]:
    return [f"{case} {kind}" for case in CASES for kind in TYPES]


@cache
def witness() -> Any:
    """llama.cpp's ``ends`` and ``control`` ids and ids of `TEXTS`, ``plain`` and ``parsed``, by name."""
    return json.loads(STORED.read_text("utf-8"))["files"]


def write(name: str, folder: Path) -> Path:
    """A GGUF file without tensors, all of whose control tokens have the type in its name."""
    case, _, kind = name.rpartition(" ")
    more, keys = CASES[case]
    tokens, merges = vocabulary()
    kinds = [TYPES[kind]] * 3 + [NORMAL] * (len(tokens) - 3) + [TYPES[kind]] * len(more)
    path = folder / f"{name.replace(' ', '-')}.gguf"
    w = gguf.GGUFWriter(path, "llama")
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm")
    w.add_token_list([*tokens, *more])
    w.add_token_types(kinds)
    w.add_token_merges(merges)
    for key, value in {"bos_token_id": 1, "add_bos_token": False, **keys}.items():
        kind_of = gguf.GGUFValueType.BOOL if isinstance(value, bool) else gguf.GGUFValueType.UINT32
        w.add_key_value(f"tokenizer.ggml.{key}", value, kind_of)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path
