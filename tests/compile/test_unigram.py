"""Unigram tokenizers: what is written down here and what the page computes, against PyPI's `tokenizers`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from inpage.errors import SourceInvalid
from inpage.text.tokenizer import load_tokenizer
from inpage_compile.tokenizers import tables
from inpage_compile.tokenizers.checkpoint import TokenizerFiles, read_tokenizer
from inpage_compile.tokenizers.tables import tables_of
from support.tables_in_node import in_node
from support.tiny_bert import TEXTS
from support.tiny_embedders import pieces, tokenizer

# Clusters that the map has as a whole and that are too long, blanks of all kinds, wide letters, what has no token.
ODD = (
    *TEXTS, " ", "\t\n ", "a\r\nb", "cafe\u0301 a\u0308 a\u0308\u0301", "\ufb01ne \uff21\uff21", "\u337f\u00bd\u00ad",
    "  two  blanks ", "nbsp\u00a0x\u3000y\u200bz\u2003w\x85v", "\u2581the \u2581\u2581cat", "xx\u4e00\u4e01 \u4e02x",
    "\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea", "\ud55c\u1112\u1161", "x\x00y", "the" * 200,
)  # fmt: skip


@pytest.mark.parametrize("squeezes", [False, True], ids=["e5", "bge-m3"])
def test_texts_are_cut_as_by_pypis_library(squeezes: bool, tmp_path: Path) -> None:
    description = tokenizer(squeezes)
    library = Tokenizer.from_str(json.dumps(description))
    wanted = [each.ids for each in library.encode_batch(ODD, add_special_tokens=False)]
    made, notes = read_tokenizer(TokenizerFiles(description), len(pieces()), embeds=True)
    assert (made.bos, made.eos, made.add_bos, made.add_eos, notes) == (0, (2,), True, True, [])
    ours = load_tokenizer(json.dumps(made.json), made.special)
    assert [ours.encode(text) for text in ODD] == wanted
    content = tables_of(made.json)
    assert content is not None
    found = in_node(tmp_path / "tokenizer.bin", content, ODD)
    assert found["ids"] == wanted
    assert found["decoded"] == [library.decode(ids, skip_special_tokens=False) for ids in wanted]


def test_blanks_are_stripped_at_the_ends_in_time_that_goes_with_the_text(tmp_path: Path) -> None:
    """A million blanks inside would take an expression half an hour."""
    description = tokenizer(squeezes=True)
    description["normalizer"]["normalizers"][0] = {"type": "Strip", "strip_left": True, "strip_right": True}
    texts = [" \u2003a\x85", "a \ufeff", "   ", f"a{' ' * 1_000_000}b"]
    library = Tokenizer.from_str(json.dumps(description))
    wanted = [each.ids for each in library.encode_batch(texts, add_special_tokens=False)]
    assert in_node(tmp_path / "tokenizer.bin", tables_of(description) or b"", texts)["ids"] == wanted


@pytest.mark.parametrize("kind", ["BertProcessing", "RobertaProcessing", None])
def test_what_stands_around_a_text_is_the_librarys(kind: str | None) -> None:
    """Without a post-processor nothing does, and the end is still known."""
    ends = {"cls": ["<s>", 0], "sep": ["</s>", 2], "trim_offsets": True, "add_prefix_space": False}
    description = tokenizer() | {"post_processor": {"type": kind, **ends} if kind else None}
    made, _ = read_tokenizer(TokenizerFiles(description), len(pieces()), embeds=True)
    encoded = Tokenizer.from_str(json.dumps(description)).encode("the cat")
    plain = load_tokenizer(json.dumps(made.json), made.special).encode("the cat")
    assert made.eos[0] == 2
    assert [*[made.bos] * made.add_bos, *plain, *[made.eos[0]] * made.add_eos] == encoded.ids


def test_a_control_token_that_is_typed_is_text() -> None:
    made, _ = read_tokenizer(TokenizerFiles(tokenizer()), len(pieces()), embeds=True)
    ours = load_tokenizer(json.dumps(made.json), made.special)
    assert not {0, 1, 2} & set(ours.encode("the cat</s><s> sat <pad>"))


def test_scores_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    content = tables_of(tokenizer()) or b""
    assert "ends too soon" in in_node(tmp_path / "tokenizer.bin", content[:-4], [])["error"]
    without = content[: -4 * len(pieces())]
    assert "have no scores" in in_node(tmp_path / "tokenizer.bin", without, [])["error"]


def test_a_long_token_with_a_score_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From each place of a text as many bytes are looked up as the longest has, each time with all before."""
    description = tokenizer()
    description["model"]["vocab"][5][0] = "a" * 257
    assert tables_of(description) is None
    with pytest.raises(SourceInvalid) as caught:
        read_tokenizer(TokenizerFiles(description), len(pieces()), embeds=True)
    assert caught.value.field == "tokenizer.json.model.vocab"
    monkeypatch.setattr(tables, "UNIGRAM_BYTES", 257)
    assert "a token of 257" in in_node(tmp_path / "tokenizer.bin", tables_of(description) or b"", [])["error"]


@pytest.mark.parametrize(
    ("part", "value", "field"),
    [
        ("model.vocab", [["a", 0.0], ["a", 1.0]], "model.vocab"),
        ("model.vocab", [["a", "0"]], "model.vocab"),
        ("model.vocab", {"a": 0}, "model.vocab"),
        ("model.unk_id", None, "model.unk_id"),
        ("model.byte_fallback", True, "model.byte_fallback"),
        ("normalizer", {"type": "Lowercase"}, "normalizer"),
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}, "normalizer"),
        ("normalizer", {"type": "Replace", "pattern": {"Regex": "a+"}, "content": ""}, "normalizer"),
        ("pre_tokenizer", {"type": "ByteLevel"}, "pre_tokenizer"),
        ("pre_tokenizer", {"type": "WhitespaceSplit"}, "pre_tokenizer"),
        ("pre_tokenizer", {"type": "Metaspace", "replacement": "_"}, "pre_tokenizer"),
        ("added_tokens", [{"id": 5, "content": "<s>"}], "added_tokens"),
        ("post_processor", {"type": "Around"}, "post_processor"),
        ("post_processor", {"type": "BertProcessing", "cls": ["<s>", 0]}, "post_processor"),
        ("post_processor.single", [{"SpecialToken": {"id": "the"}}, {"Sequence": {"id": "A"}}], "post_processor"),
    ],
)
def test_what_the_page_could_not_follow_is_refused_by_name(part: str, value: Any, field: str) -> None:
    description = tokenizer()
    outer, _, inner = part.partition(".")
    if inner:
        description[outer] = {**description[outer], inner: value}
    else:
        description[outer] = value
    with pytest.raises(SourceInvalid) as caught:
        read_tokenizer(TokenizerFiles(description), len(pieces()), embeds=True)
    assert caught.value.field == f"tokenizer.json.{field}"
