"""The page's form of a tokenizer says what its tokenizer.json says; tokenizer.spec.js has the page's ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inpage_compile.tokenizers.tables import MAGIC, tables_of
from support.vocabularies import SPM, small, tokenizer_of


class Reader:
    """As the docstring of `inpage_compile.tokenizers.tables` has it."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def take(self, count: int) -> bytes:
        self.at += count
        return self.content[self.at - count : self.at]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value


def read(content: bytes) -> tuple[dict[str, Any], dict[str, int], list[list[str]]]:
    """The outline, the vocabulary and the merges."""
    reader = Reader(content)
    assert (reader.take(4), reader.number()) == (MAGIC, 1)
    outline = json.loads(reader.take(reader.number()))
    texts = [reader.take(n).decode() for n in [reader.number() for _ in range(reader.number())]]
    made, token = [], 0
    for _ in range(reader.number()):
        step = reader.number()
        token += -(step + 1) // 2 if step % 2 else step // 2
        made.append(texts[token].encode())
    merges = [[text[: (n := reader.number())].decode(), text[n:].decode()] for text in made]
    assert reader.at == len(content)
    return outline, {text: i for i, text in enumerate(texts) if text}, merges


@pytest.mark.parametrize("name", ["llama-bpe", *SPM])
def test_tables_hold_all_of_a_tokenizer(name: str, tmp_path: Path) -> None:
    description = tokenizer_of(small(name, tmp_path)).json
    content = tables_of(description)
    assert content is not None
    outline, vocab, merges = read(content)
    model = description["model"]
    assert vocab == model["vocab"]
    assert merges == [list(m) if not isinstance(m, str) else m.split(" ", 1) for m in model["merges"]]
    assert len(merges) > 100
    ((longest, last),) = outline["model"]["vocab"].items()
    assert (len(longest), last) == (max(map(len, vocab)), max(vocab.values()))
    rest = {**description, "model": {**model, "vocab": {longest: last}, "merges": []}}
    assert outline == rest


def test_a_merge_that_stands_twice_counts_where_it_stands_last() -> None:
    vocab = {text: i for i, text in enumerate(["a", "b", "é", "ab", "bé", "abé"])}
    merges = ["a b", "b é", "a b", "ab é", "a bé"]
    content = tables_of({"model": {"type": "BPE", "vocab": vocab, "merges": merges}})
    assert content is not None
    assert read(content)[2] == [["b", "é"], ["a", "b"], ["ab", "é"], ["a", "bé"]]


@pytest.mark.parametrize(
    "model",
    [
        {"type": "Unigram", "vocab": [["a", 0.0]]},
        {"type": "BPE", "vocab": {}, "merges": []},
        {"type": "BPE", "vocab": {"": 0, "a": 1}, "merges": []},
        {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []},
        {"type": "BPE", "vocab": {"a": 0, "\ud800": 1}, "merges": []},
        {"type": "BPE", "vocab": {"a": 0, "ab": 1}, "merges": ["a b"]},
        {"type": "BPE", "vocab": {"a": 0, "b</w>": 1}, "merges": [], "end_of_word_suffix": "</w>"},
        {"type": "BPE", "vocab": {"a": 0, "##b": 1}, "merges": [], "continuing_subword_prefix": "##"},
    ],
)
def test_what_tables_cannot_hold_has_none(model: dict[str, Any]) -> None:
    assert tables_of({"model": model}) is None
