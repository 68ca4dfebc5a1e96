"""The page's form of a tokenizer says what its tokenizer.json says; tokenizer.spec.js has the page's ids."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from inpage_compile.tokenizers.tables import MAGIC, _numbers, tables_of
from support.tables_in_node import in_node
from support.vocabularies import SPM, small, tokenizer_of

SIZE = 262_144 if "INPAGE_SLOW" in os.environ else 65_536  # Gemma's, or a quarter


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
        {"type": "Unigram", "vocab": [["a", 0.0], ["a", 1.0]]},
        {"type": "WordPiece", "vocab": {"a": 0}},
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


def large(rng: random.Random) -> dict[str, Any]:
    """A large SentencePiece vocabulary, whose merges are all ways to cut its tokens."""
    texts = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *"abcdefghijklmnopqrstuvwxyzéßж日本語"]
    vocab = {text: i for i, text in enumerate(texts)}
    letters = texts[257:]
    pairs = [*letters, *rng.sample([a + b for a in letters for b in letters], 800)]
    fours = [*pairs, *rng.sample([a + b for a in pairs for b in pairs], 4000)]
    for text in (*pairs, *fours):
        vocab.setdefault(text, len(vocab))
    while len(vocab) < SIZE:
        vocab.setdefault(rng.choice(fours) + rng.choice(fours), len(vocab))
    merges = [[t[:i], t[i:]] for t in vocab if t[0] != "<" for i in range(1, len(t)) if {t[:i], t[i:]} <= vocab.keys()]
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    shown = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": blanks,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [shown, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "byte_fallback": True,
            "fuse_unk": True,
            "vocab": vocab,
            "merges": merges,
        },
    }


def test_a_large_vocabulary_is_small_and_gives_the_librarys_ids(tmp_path: Path) -> None:
    rng = random.Random(7)
    description = large(rng)
    content = tables_of(description)
    assert content is not None
    assert len(description["model"]["merges"]) > 0.95 * SIZE
    assert len(gzip.compress(content)) < 23 * SIZE
    letters = [*"abcdefghijklmnopqrstuvwxyz", *"éßж日本語", " ", " ", "\n", "😀", "ю"]
    texts = ["".join(rng.choices(letters, k=rng.randrange(1, 200))) for _ in range(300)]
    found = in_node(tmp_path / "tokenizer.bin", content, texts)
    library = Tokenizer.from_str(json.dumps(description))
    assert found["ids"] == [encoded.ids for encoded in library.encode_batch(texts)]
    assert found["decoded"] == texts
    assert found["bytes"] < 60e6 * SIZE / 262_144


@pytest.mark.parametrize(
    ("zeros", "size", "merges", "most", "said"),
    [
        (30, 1 << 24, 0, 1 << 24, "ends too soon"),  # 64 MB for each of four arrays
        (3000, 1000, 0, 999, "has 1000, at most 999 is allowed"),  # more than the model knows
        (40_000, 10, 19_000, 10, "has 19000, at most 0 is allowed"),  # there is nothing to cut
    ],
)
def test_no_room_is_made_for_what_tables_only_say_that_they_hold(
    tmp_path: Path, zeros: int, size: int, merges: int, most: int, said: str
) -> None:
    head = MAGIC + _numbers((1, 2)) + b"{}" + _numbers((size,))
    content = head + (bytes(size) + _numbers((merges,)) if size <= zeros else b"") + bytes(zeros)
    found = in_node(tmp_path / "tokenizer.bin", content, [], str(most))
    assert said in found["error"]
    assert found["peak"] < 10_000


def words(**model: Any) -> dict[str, Any]:
    """Of words between blanks; whatever is neither a, b nor $ is unknown."""
    vocab = {"<unk>": 0, "a": 1, "b": 2, "$": 3, "ab": 4}
    bpe = {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "vocab": vocab, "merges": [["a", "b"]]}
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": bpe | model,
    }


@pytest.mark.parametrize("kind", ["tables", "text", "unigram"])
def test_what_is_unknown_is_one_token_within_a_word_only(kind: str, tmp_path: Path) -> None:
    description = words()
    if kind == "unigram":
        pieces = [[text, -1.0] for text in description["model"]["vocab"]]
        description["model"] = {"type": "Unigram", "unk_id": 0, "vocab": pieces}
    texts = ["xx", "x y", "xy yx a", "axxb x ab", "\u00e9\u00e9 \u00e9"]
    content, name = json.dumps(description).encode(), "tokenizer.json"
    if kind == "tables":
        content, name = tables_of(description) or b"", "tokenizer.bin"
    library = Tokenizer.from_str(json.dumps(description))
    assert in_node(tmp_path / name, content, texts)["ids"] == [encoded.ids for encoded in library.encode_batch(texts)]


def test_what_a_step_puts_in_is_text(tmp_path: Path) -> None:
    """As in native code: "$&" is two characters, and not what was found."""
    description = words(
        vocab={"<unk>": 0, **{text: i for i, text in enumerate("ab$&`'1x", 1)}}, merges=[], fuse_unk=False
    )
    swaps = [("x", "$&"), ("b", "$`$'"), ("1", "$$1")]
    steps = [{"type": "Replace", "pattern": {"String": found}, "content": put} for found, put in swaps]
    description["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "NFC"}, {"type": "Sequence", "normalizers": steps}],
    }
    description["decoder"] = {
        "type": "Sequence",
        "decoders": [{"type": "Replace", "pattern": {"String": "a"}, "content": "$&$"}, {"type": "Fuse"}],
    }
    texts = ["axa", "aba", "a1 x", "$$"]
    library = Tokenizer.from_str(json.dumps(description))
    encoded = library.encode_batch(texts)
    for content, name in (
        (json.dumps(description).encode(), "tokenizer.json"),
        (tables_of(description) or b"", "tokenizer.bin"),
    ):
        found = in_node(tmp_path / name, content, texts)
        assert found["ids"] == [each.ids for each in encoded]
        assert found["decoded"] == [library.decode(each.ids, skip_special_tokens=False) for each in encoded]
