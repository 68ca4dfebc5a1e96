"""Small vocabularies of each kind of tokenizer, and what llama.cpp makes of odd texts with them: made by
tests/reference/make_tokenizers.py, kept in tests/reference/tokenizers.json.xz."""

from __future__ import annotations

import json
import lzma
from functools import cache
from pathlib import Path
from typing import Any

import gguf

from inpage_compile.gguf import reading
from inpage_compile.gguf.metadata import Metadata
from inpage_compile.tokenizers.gguf import build_tokenizer
from inpage_compile.tokenizers.tokenizer import Tokenizer

STORED = Path(__file__).resolve().parents[1] / "reference/tokenizers.json.xz"


@cache
def stored() -> Any:
    """``texts``; ``vocabularies`` by kind; ``rows``: for each text the different lists of ids; ``which``: for each
    tokenizer and way ("plain": control tokens are text; "parsed") the row of each text; ``decoded``: for each
    SentencePiece tokenizer lists of ids and their text."""
    return json.loads(lzma.decompress(STORED.read_bytes()))


def ids_of(name: str, way: str) -> list[list[int]]:
    """llama.cpp's, of every text."""
    found = stored()
    return [rows[i] for rows, i in zip(found["rows"], found["which"][name][way], strict=True)]


def write_vocabulary(path: Path, model: str, vocabulary: dict[str, Any], keys: dict[str, Any]) -> Path:
    """A GGUF file without tensors."""
    w = gguf.GGUFWriter(path, "llama")
    w.add_tokenizer_model(model)
    w.add_token_list(vocabulary["tokens"])
    if vocabulary["kinds"] is not None:
        w.add_token_types(vocabulary["kinds"])
    if "merges" in vocabulary:
        w.add_token_merges(vocabulary["merges"])
    else:
        w.add_token_scores(vocabulary["scores"])
    for key, value in keys.items():
        kind = gguf.GGUFValueType.BOOL if isinstance(value, bool) else gguf.GGUFValueType.STRING
        kind = gguf.GGUFValueType.UINT32 if type(value) is int else kind
        w.add_key_value(f"tokenizer.ggml.{key}", value, kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def tokenizer_of(path: Path) -> Tokenizer:
    """Built from a file as the compiler does."""
    meta = Metadata(reading._reader(path))
    return build_tokenizer(meta, len(meta.items("tokenizer.ggml.tokens", str)))


def small(name: str, folder: Path) -> Path:
    """The file of a stored tokenizer: a pre-tokenizer's name, or one of `SPM`."""
    vocabularies = stored()["vocabularies"]
    if name in SPM:
        return write_vocabulary(folder / "spm.gguf", "llama", vocabularies["sentencepiece"], SPM[name])
    return write_vocabulary(folder / "bpe.gguf", "gpt2", vocabularies["byte_level"], {"pre": name})


# SentencePiece tokenizers, by their keys.
SPM: dict[str, dict[str, Any]] = {
    "spm": {},
    "spm-no-prefix": {"add_space_prefix": False, "remove_extra_whitespaces": True},
}
