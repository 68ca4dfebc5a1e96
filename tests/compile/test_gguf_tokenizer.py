"""The rebuilt tokenizer.json encodes as llama.cpp does: its own ids, and those of the reference answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from inpage_compile.sources import Source, open_source
from inpage_compile.tokenizers.gguf import PRE_TOKENIZERS
from support.tiny import Tiny

REFERENCE = Path(__file__).parents[1] / "reference"


def load(name: str) -> Any:
    return json.loads((REFERENCE / name).read_text("utf-8"))


def tokenizer(source: Source) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(json.dumps(source.tokenizer_json))


@pytest.fixture(scope="module")
def smol(smollm2: Source) -> tokenizers.Tokenizer:
    return tokenizer(smollm2)


@pytest.mark.model
@pytest.mark.parametrize("mode", ["ids", "plain_ids"])
def test_corpus(mode: str, smol: tokenizers.Tokenizer) -> None:
    """``ids``: control tokens are recognized; ``plain_ids``: they are text."""
    smol.encode_special_tokens = mode == "plain_ids"
    texts = load("tokenizer-corpus.json")["texts"]
    wrong = [t["text"] for t in texts if smol.encode(t["text"], add_special_tokens=False).ids != t[mode]]
    smol.encode_special_tokens = False
    assert len(texts) > 250
    assert wrong == []


@pytest.mark.model
def test_reference_prompts(smol: tokenizers.Tokenizer) -> None:
    for name, prompt in load("smollm2-135m-instruct.json")["prompts"].items():
        assert smol.encode(prompt["text"], add_special_tokens=False).ids == prompt["ids"], name
        assert smol.decode(prompt["ids"], skip_special_tokens=False) == prompt["text"], name
    text = load("smollm2-135m-instruct-text.json")
    assert smol.encode(text["text"], add_special_tokens=False).ids == text["ids"]


@pytest.mark.model
def test_control_tokens(smollm2: Source) -> None:
    t = smollm2.tokenizer
    assert (t.bos, t.eos, t.add_bos) == (1, (2, 0), False)
    assert (t.special["<|im_start|>"], t.special["<|im_end|>"], len(t.special)) == (1, 2, 17)


# Pieces by hand from the expressions' meaning; white space shows as the byte letters Ġ (space) and Ċ (line feed).
TEXT = "It's 12345 I'LL\n\n  go!\n"
PIECES = {
    "smollm": ["It", "'s", "Ġ", "1", "2", "3", "4", "5", "ĠI", "'", "LL", "ĊĊĠ", "Ġgo", "!", "Ċ"],
    "gpt-2": ["It", "'s", "Ġ12345", "ĠI", "'", "LL", "ĊĊĠ", "Ġgo", "!", "Ċ"],
    "llama-bpe": ["It", "'s", "Ġ", "123", "45", "ĠI", "'LL", "ĊĊ", "Ġ", "Ġgo", "!Ċ"],
    "qwen2": ["It", "'s", "Ġ", "1", "2", "3", "4", "5", "ĠI", "'LL", "ĊĊ", "Ġ", "Ġgo", "!Ċ"],
}


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_pre_tokenizers(pre: str, tmp_path: Path) -> None:
    source = open_source(str(Tiny().write(tmp_path / "t.gguf", {"tokenizer.ggml.pre": pre})))
    split = tokenizer(source).pre_tokenizer
    assert split is not None
    expected = PIECES.get(pre, PIECES["smollm"])
    assert [piece for piece, _ in split.pre_tokenize_str(TEXT)] == expected


def test_llama_bpe_begins_with_bos(tmp_path: Path) -> None:
    keys = {"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.add_bos_token": None}
    assert open_source(str(Tiny().write(tmp_path / "t.gguf", keys))).tokenizer.add_bos
    keys = {"tokenizer.ggml.pre": "smollm", "tokenizer.ggml.add_bos_token": None}
    assert not open_source(str(Tiny().write(tmp_path / "t.gguf", keys))).tokenizer.add_bos


def test_tiny_tokenizer_returns_every_byte(tiny: Source) -> None:
    tok = tokenizer(tiny)
    text = "Hello, the world! 你好 🙂 \t\n\r\x00\x04 é 123"
    assert tok.decode(tok.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text
    assert tok.encode("<|im_start|>a<|im_end|>", add_special_tokens=False).tokens == ["<|im_start|>", "a", "<|im_end|>"]
