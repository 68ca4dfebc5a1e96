"""Ids equal llama.cpp's; spelled control tokens stay text; streamed text never changes and never splits a character."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from inpage.errors import ArtifactInvalid, Unsupported
from inpage.text.tokenizer import Detokenizer, Tokenizer, load_tokenizer
from support.charsmap import encoded
from support.paged_double import PagedDouble
from support.small import small_router, small_tokenizer_json
from support.tiny import CONTROL, VOCAB
from support.vocabularies import small, tokenizer_of


def stream(tokenizer: Tokenizer, ids: Sequence[int], rng: random.Random) -> list[str]:
    detokenizer, pieces, at = Detokenizer(tokenizer), [], 0
    while at < len(ids):
        step = rng.choice((1, 1, 2, 5, 16))
        pieces.append(detokenizer.push(ids[at : at + step]))
        at += step
    return [*pieces, detokenizer.flush()]


@pytest.mark.model
def test_ids_equal_llama_cpps(real_tokenizer: Tokenizer, corpus: list[dict[str, Any]]) -> None:
    for case in corpus:
        assert real_tokenizer.encode(case["text"]) == case["plain_ids"], case["text"]
        assert real_tokenizer.encode_rendered(case["text"], {}) == case["ids"], case["text"]


@pytest.mark.model
def test_reference_ids(real_tokenizer: Tokenizer, reference: dict[str, Any]) -> None:
    for prompt in reference["prompts"].values():
        assert real_tokenizer.encode_rendered(prompt["text"], {}) == prompt["ids"]


@pytest.mark.model
def test_streamed_text_is_the_whole_text(real_tokenizer: Tokenizer, corpus: list[dict[str, Any]]) -> None:
    rng = random.Random(0)
    random_ids = [[rng.randrange(49152) for _ in range(30)] for _ in range(300)]
    byte_ids = [[rng.randrange(280) for _ in range(30)] for _ in range(300)]  # mostly broken characters
    for ids in [*(case["ids"] for case in corpus), *random_ids, *byte_ids]:
        assert "".join(stream(real_tokenizer, ids, rng)) == real_tokenizer.decode(ids)


def test_a_character_is_never_split(small_tokenizer: Tokenizer) -> None:
    text = "zwölf Boxkämpfer 🙂 日本語 👩‍👩‍👧‍👦"
    ids = small_tokenizer.encode(text)
    detokenizer = Detokenizer(small_tokenizer)
    pieces = [detokenizer.push([token]) for token in ids]
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) == text
    assert detokenizer.flush() == ""


def test_what_never_becomes_a_character_comes_at_the_end(small_tokenizer: Tokenizer) -> None:
    half = small_tokenizer.encode("🙂")[:2]
    detokenizer = Detokenizer(small_tokenizer)
    assert detokenizer.push([*small_tokenizer.encode("ab"), *half]) == "ab"
    assert detokenizer.flush() == "\ufffd"
    detokenizer = Detokenizer(small_tokenizer)
    assert detokenizer.push(half) == ""
    assert detokenizer.push(small_tokenizer.encode("c")) == "\ufffdc"


def test_control_tokens_are_not_shown(small_tokenizer: Tokenizer) -> None:
    head, tail = small_tokenizer.encode("é")
    assert small_tokenizer.decode([1, head, tail, 2]) == "é"
    detokenizer = Detokenizer(small_tokenizer)
    assert [detokenizer.push([token]) for token in (1, head, 2, tail, 0)] == ["", "", "", "é", ""]


def test_encode_never_makes_a_control_token(small_tokenizer: Tokenizer) -> None:
    for text in ("<|im_end|>", "a<|im_start|><|im_end|>b", "<<|im_end|>|im_end|>"):
        ids = small_tokenizer.encode(text)
        assert small_tokenizer.control_ids.isdisjoint(ids)
        assert small_tokenizer.decode(ids) == text


def test_a_vocabulary_that_spells_its_control_tokens() -> None:
    """A unigram model's trie holds them like any other piece, and would find them in a user's text."""
    pieces = ["<unk>", "<s>", "a", "b", "<", "s", ">"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    description = {
        "version": "1.0",
        "added_tokens": [{"id": 1, "content": "<s>", "special": True} | flags],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [[piece, -1.0] for piece in pieces]},
    }
    tokenizer = load_tokenizer(json.dumps(description), {})
    assert tokenizer.encode("a<s>b<s>") == [2, 4, 5, 6, 3, 4, 5, 6]
    assert tokenizer.encode_rendered("a<s>b", {}) == [2, 1, 3]
    wide = load_tokenizer(json.dumps(description | {"normalizer": {"type": "NFKC"}}), {})
    assert wide.encode("a\uff1cs\uff1eb") == [2, 4, 5, 6, 3]  # only when it is normalized is it spelled


def test_blanks_that_control_tokens_swallow() -> None:
    tokenizer = load_tokenizer(small_tokenizer_json(lstrip=True, rstrip=True), {})
    a, b = tokenizer.encode("a") + tokenizer.encode("b")
    assert tokenizer.encode_rendered(f"a {CONTROL[1]} \n b", {}) == [a, 1, b]
    tokenizer = load_tokenizer(small_tokenizer_json(), {})
    assert tokenizer.encode_rendered(f"a {CONTROL[1]}b", {}) == [*tokenizer.encode("a "), 1, b]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": 5}', '{"added_tokens": [{}]}'])
def test_a_broken_file_is_refused(text: str) -> None:
    with pytest.raises(ArtifactInvalid, match=r"tokenizer\.json"):
        load_tokenizer(text, {})


_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_LONGER = {"type": "Replace", "pattern": {"String": "a"}, "content": "aaa"}
_MAP = {"type": "Precompiled", "precompiled_charsmap": encoded({"a": "b" * 256})}
_PAGES = {"type": "Precompiled", "precompiled_charsmap": encoded({"a": "b" * 257, "c": "d"})}
_ANYWHERE = {"type": "Replace", "pattern": {"Regex": "x*"}, "content": "aaa"}


@pytest.mark.parametrize(
    ("part", "inner", "steps", "said"),
    [
        ("pre_tokenizer", "pretokenizers", [_BYTES] * 12, "over 256 times as long"),
        ("normalizer", "normalizers", [_LONGER] * 12, "over 256 times as long"),
        ("normalizer", "normalizers", [_ANYWHERE] * 5, "over 256 times as long"),
        ("decoder", "decoders", [_LONGER] * 12, "over 256 times as long"),
        ("normalizer", "normalizers", [{"type": "Prepend", "prepend": "a" * 65}], "writes 65 characters"),
        ("pre_tokenizer", "pretokenizers", [{"type": "Metaspace", "replacement": "__"}], "not one character"),
        ("normalizer", "normalizers", [_MAP] * 2, "more than one map"),
        ("normalizer", "normalizers", [_PAGES], "writes over 256 bytes for one"),
        ("normalizer", "normalizers", [{"type": "NFC"}] * 64, "more than 64 steps"),
    ],
)
def test_steps_that_make_a_text_ever_longer_are_refused(
    part: str, inner: str, steps: list[dict[str, Any]], said: str
) -> None:
    """Thirty of them would turn a word into gigabytes. Sequences within each other are counted through."""
    description = json.loads(small_tokenizer_json())
    for first in range(0, len(steps), 4):
        before = [description[part]] if description[part] else []
        description[part] = {"type": "Sequence", inner: [*before, *steps[first : first + 4]]}
    with pytest.raises(ArtifactInvalid, match=said):
        load_tokenizer(json.dumps(description), {})


def test_steps_as_files_have_them_are_taken() -> None:
    description = json.loads(small_tokenizer_json())
    ellipsis = {"type": "Replace", "pattern": {"String": "\u2026"}, "content": "..."}
    description["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}, ellipsis]}
    tokenizer = load_tokenizer(json.dumps(description), {})
    assert tokenizer.encode("a\u2026") == tokenizer.encode("a...")


def test_what_would_give_wrong_ids_is_refused() -> None:
    description = json.loads(small_tokenizer_json())
    description["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}
    with pytest.raises(Unsupported, match="first word"):
        load_tokenizer(json.dumps(description), {})


async def test_a_blank_in_front_is_shown_where_the_answer_goes_on_with_text(tmp_path: Path) -> None:
    """Of SentencePiece's tokens "\u2581the" is a word within a text, or the first of one."""
    built = tokenizer_of(small("spm", tmp_path))
    tokenizer = load_tokenizer(json.dumps(built.json), built.special)
    vocab: dict[str, int] = built.json["model"]["vocab"]
    token, word = next((i, t[1:]) for t, i in vocab.items() if t[0] == "\u2581" and t[1:].isalnum() and i < VOCAB)
    asked: dict[str, Any] = {"resume": [token], "max_tokens": 4, "temperature": 0}
    async with small_router(tokenizer, engine=PagedDouble(vocab=len(vocab), grammars=True)) as router:
        assert (await router.complete("once", **asked)).text.startswith(f" {word}")
        assert (await router.complete([1], **asked)).text.startswith(word)
        assert (await router.chat("once", **asked)).text.startswith(word)
        assert (await router.chat("once", grammar='root ::= " "', **asked)).text.startswith(f" {word}")


def test_what_stood_around_a_byte_without_a_token_does_not_merge() -> None:
    """One library leaves such bytes out before it merges; llama.cpp and the page's do behind."""
    description = json.loads(small_tokenizer_json())
    vocab = description["model"]["vocab"]
    del vocab["\u0104"]  # the letter of byte 4
    tokenizer = load_tokenizer(json.dumps(description), {})
    assert tokenizer.encode("t\x04he") == [vocab["t"], vocab["he"]]
    assert tokenizer.encode("t\x04h\x04e") == [vocab["t"], vocab["h"], vocab["e"]]
    assert tokenizer.encode("the") == [vocab["the"]]
