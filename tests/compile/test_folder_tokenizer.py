"""The tokenizer of a folder encodes as its own tokenizer.json does in the library that it was made for."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from inpage.errors import SourceInvalid
from inpage.text.tokenizer import load_tokenizer
from inpage_compile.tokenizers.checkpoint import TokenizerFiles, chat_template, read_tokenizer
from support.folder import reference
from support.vocabularies import stored

ROOT = Path(__file__).parents[2]
TEXTS: list[str] = stored()["texts"]
FEW = TEXTS if "INPAGE_SLOW" in os.environ else TEXTS[::4]
BLANK = "\u2581"
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tiny() -> dict[str, Any]:
    """As transformers saved it."""
    found: dict[str, Any] = json.loads(reference()["tokenizer"]["tokenizer.json"])
    return found


def split(expression: str, behavior: str = "Isolated", invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": behavior, "invert": invert}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


def pieces(front: bool) -> dict[str, Any]:
    """Characters with bytes to fall back on, as Llama 2's and Gemma's."""
    letters = ["e", "a", "t", "h", "n", "i", BLANK, ".", "1"]
    merges = [("t", "h"), ("th", "e"), (BLANK, "the"), (BLANK, BLANK), ("a", "n"), (BLANK, "a"), (BLANK + "a", "n")]
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *map("".join, merges)]
    control = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                "special": True} for i, t in enumerate(texts[:3])]  # fmt: skip
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
    before = [{"type": "Prepend", "prepend": BLANK}] if front else []
    behind = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if front else []
    spaces = {"type": "Replace", "pattern": {"String": BLANK}, "content": " "}
    return {
        "version": "1.0", "added_tokens": control, "normalizer": {"type": "Sequence", "normalizers": [*before, blanks]},
        "pre_tokenizer": None, "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [spaces, {"type": "ByteFallback"}, {"type": "Fuse"}, *behind]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
                  "vocab": {text: i for i, text in enumerate(texts)}, "merges": [list(pair) for pair in merges]},
    }  # fmt: skip


def gemma() -> dict[str, Any]:
    """Cuts at blanks that its normalizer has replaced."""
    cut = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
    return pieces(False) | {"normalizer": blanks, "pre_tokenizer": cut}


def metaspace(scheme: str) -> dict[str, Any]:
    """As transformers 5 converts Llama 2's."""
    cut = {"type": "Metaspace", "replacement": BLANK, "prepend_scheme": scheme, "split": False}
    return pieces(scheme != "never") | {"normalizer": None, "pre_tokenizer": cut}


KINDS: dict[str, dict[str, Any]] = {
    "smollm": tiny(),
    "gpt2": tiny() | {"pre_tokenizer": LEVEL},
    "llama3": tiny() | {"pre_tokenizer": sequence(split(CL100K), LEVEL | {"use_regex": False})},
    "qwen2": tiny() | {"normalizer": {"type": "NFC"},
                       "pre_tokenizer": sequence(split(CL100K.replace("{1,3}", "")), LEVEL | {"use_regex": False})},
    "phi4": tiny() | {"pre_tokenizer": sequence(split(CL100K, "Removed", True), LEVEL | {"use_regex": False})},
    "deepseek": tiny() | {"pre_tokenizer": sequence(
        split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"),
        {"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Contiguous"},
        LEVEL | {"use_regex": False})},
    "llama2": pieces(True),
    "gemma": gemma(),
    "metaspace": metaspace("always"),
    "unprefixed": metaspace("never"),
}  # fmt: skip


def read(tokenizer: dict[str, Any], size: int = 320, **files: Any) -> Any:
    return read_tokenizer(TokenizerFiles(tokenizer, **files), size)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_odd_texts_as_the_library(kind: str) -> None:
    """Of texts that spell no control token, which are no text here."""
    size = len(KINDS[kind]["model"]["vocab"])
    made = read(KINDS[kind], size)
    ours = load_tokenizer(json.dumps(made.json), made.special)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(KINDS[kind]))
    texts = [text for text in FEW if not any(control in text for control in made.special)]
    assert len(texts) > 50
    wrong = [t for t in texts if ours.encode(t) != theirs.encode(t, add_special_tokens=False).ids]
    assert wrong == []


def test_the_pages_library_cuts_alike(tmp_path: Path) -> None:
    """npm's `@huggingface/tokenizers` on what is written here, against PyPI's on what the folder has."""
    script = tmp_path / "encode.mjs"
    library = (ROOT / "node_modules/@huggingface/tokenizers/dist/tokenizers.mjs").as_uri()
    script.write_text(
        f"import {{ Tokenizer }} from {json.dumps(library)};\n"
        "import { readFileSync } from 'node:fs';\n"
        "const { texts, documents } = JSON.parse(readFileSync(0, 'utf8'));\n"
        "const ids = documents.map((d) => { const t = new Tokenizer(d, {}); return texts.map((x) => "
        "t.encode(x, { add_special_tokens: false }).ids); });\n"
        "process.stdout.write(JSON.stringify(ids));\n"
    )
    # Characters that the one knows of and the other not yet, and bytes without a token, are for other tests.
    texts = [t for t in FEW if not any(c in t for c in ("<", "\u2581")) and all(ord(c) < 0x10000 for c in t)]
    made = [read(KINDS[kind], len(KINDS[kind]["model"]["vocab"])).json for kind in KINDS]
    job = json.dumps({"texts": texts, "documents": made})
    done = subprocess.run(["node", script], input=job, capture_output=True, text=True, check=True)
    for kind, ids in zip(KINDS, json.loads(done.stdout), strict=True):
        library_ids = tokenizers.Tokenizer.from_str(json.dumps(KINDS[kind])).encode_batch(
            texts, add_special_tokens=False
        )
        wrong = [t for t, a, b in zip(texts, ids, library_ids, strict=True) if a != b.ids]
        assert wrong == [], kind


def test_first_blanks_are_llama_cpps() -> None:
    made, notes = read_tokenizer(TokenizerFiles(metaspace("first")), 275)
    assert made.json == read(metaspace("always"), 275).json
    assert notes == ["tokenizer.json: text behind a control token gets a blank in front, as in llama.cpp"]
    assert '"Strip"' not in json.dumps(read(metaspace("never"), 275).json["decoder"])


def test_rows_without_a_token_and_tokens_without_a_row() -> None:
    made, notes = read_tokenizer(TokenizerFiles(tiny()), 330)
    assert len(made.json["model"]["vocab"]) == 330 and made.json["model"]["vocab"]["[PAD329]"] == 329
    beyond = tiny()
    beyond["added_tokens"].append({"id": 320, "content": "<image>", "special": True})
    made, notes = read_tokenizer(TokenizerFiles(beyond), 320)
    assert "<image>" not in json.dumps(made.json)
    assert notes == ["tokenizer.json: token '<image>' has no row of the embedding and is left out"]
    with pytest.raises(SourceInvalid, match="the embedding has 300 rows"):
        read(tiny(), 300)


def test_which_tokens_end_an_answer() -> None:
    """The tokenizer's own first, then generation_config.json's, then what llama.cpp takes for ends by their texts."""
    named = {"tokenizer_config": {"bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>"}}
    made = read(tiny(), **named)
    assert (made.bos, made.eos, made.add_bos) == (1, (2, 0), False)
    made = read(tiny(), generation_config={"eos_token_id": [300, 2]}, config={"eos_token_id": 5}, **named)
    assert made.eos == (2, 300, 0)
    assert 300 in made.special.values()  # what ends an answer is no text
    made = read(tiny(), config={"eos_token_id": [299, 2], "bos_token_id": 1})
    assert (made.bos, made.eos) == (1, (299, 2, 0))
    assert read(tiny(), config={"eos_token_id": -1, "bos_token_id": None}).eos == (2, 0)
    letter = tiny()["model"]["vocab"]["a"]
    made = read(tiny(), generation_config={"eos_token_id": letter})  # else texts with it could not be written
    assert letter not in made.special.values() and made.eos == (letter, 2, 0)
    for value in (320, "2", [2, "x"], True):
        with pytest.raises(SourceInvalid, match="is not a token") as e:
            read(tiny(), generation_config={"eos_token_id": value})
        assert e.value.field == "generation_config.json.eos_token_id"


def test_declared_as_text_and_yet_control() -> None:
    """A token that ends a turn, which a fine-tune's files declare as text."""
    found = tiny()
    for token in found["added_tokens"]:
        token["special"] = False
    assert read(found).special == {"<|endoftext|>": 0, "<|im_end|>": 2}


def test_texts_begin_with_bos_where_it_is_said() -> None:
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}}]}  # fmt: skip
    named = {"bos_token": "<|im_start|>"}
    with_bos = tiny() | {"post_processor": {"type": "Sequence", "processors": [LEVEL, template]}}
    assert read(with_bos, tokenizer_config=named).add_bos
    assert not read(with_bos, tokenizer_config=named | {"add_bos_token": False}).add_bos
    assert read(tiny(), tokenizer_config=named | {"add_bos_token": True}).add_bos
    assert not read(tiny(), tokenizer_config={"add_bos_token": True}).add_bos  # there is none
    template["single"].append({"SpecialToken": {"id": "<|im_end|>", "type_id": 0}})  # type: ignore[attr-defined]
    _, notes = read_tokenizer(TokenizerFiles(with_bos, named), 320)
    assert notes == ["tokenizer.json: post_processor puts '<|im_end|>' behind a text, which is left out"]


def changed(path: str, value: Any) -> dict[str, Any]:
    out = copy.deepcopy(tiny())
    at: Any = out
    *before, last = path.split(".")
    for key in before:
        at = at[int(key) if key.isdigit() else key]
    at[last] = value
    return out


@pytest.mark.parametrize(
    ("path", "value", "field", "match"),
    [
        ("model", None, "model", "missing"),
        ("model.type", "Unigram", "model.type", "'Unigram' is not supported; only BPE is"),
        ("model.dropout", 0.1, "model.dropout", "0.1"),
        ("model.end_of_word_suffix", "</w>", "model.end_of_word_suffix", "</w>"),
        ("model.vocab", [], "model.vocab", "must map"),
        ("model.vocab", {"a": "0"}, "model.vocab", "must map"),
        ("model.vocab", {"a": 400}, "model.vocab", "400"),
        ("model.vocab.zz", 5, "model.vocab", "token 5 is"),
        ("model.merges", {}, "model.merges", "must be a list"),
        ("model.merges", [["q", "zz"]], "model.merges[0]", "joins no tokens"),
        ("model.merges", ["t"], "model.merges[0]", "joins no tokens"),
        ("model.merges", [["q", "x"]], "model.merges[0]", "makes no token"),
        ("added_tokens", {}, "added_tokens[0]", "must have an id"),
        ("added_tokens.0.id", "0", "added_tokens[0]", "must have an id"),
        ("added_tokens.0.single_word", True, "added_tokens[0]", "single word"),
        ("added_tokens.1.id", 0, "added_tokens[1]", "already"),
        ("normalizer", {"type": "Lowercase"}, "normalizer", "'Lowercase' is not supported"),
        ("normalizer", {"type": "Replace", "pattern": {"Regex": "a+"}, "content": ""}, "normalizer", "Replace"),
        ("normalizer", "NFC", "normalizer", "an object with a type"),
        ("pre_tokenizer", sequence({"type": "UnicodeScripts"}, LEVEL), "pre_tokenizer", "'UnicodeScripts'"),
        ("pre_tokenizer", sequence(split("a", "MergedWithNext"), LEVEL), "pre_tokenizer", "MergedWithNext"),
        ("pre_tokenizer", sequence(split("a", "Removed"), LEVEL), "pre_tokenizer", "Removed"),
        ("pre_tokenizer", sequence(split("a" * 30_000), LEVEL), "pre_tokenizer", "at most"),
        ("pre_tokenizer", LEVEL | {"add_prefix_space": True}, "pre_tokenizer", "add_prefix_space"),
        ("pre_tokenizer", None, "decoder", "'ByteLevel' is not supported"),
        ("decoder", {"type": "WordPiece"}, "decoder", "'WordPiece' is not supported; supported: ByteLevel"),
    ],
)
def test_what_is_not_followed_is_refused_by_name(path: str, value: Any, field: str, match: str) -> None:
    with pytest.raises(SourceInvalid, match=match) as e:
        read(changed(path, value))
    assert e.value.field == f"tokenizer.json.{field}"
    assert "\n" not in str(e.value)


def test_an_expression_that_is_none() -> None:
    with pytest.raises(SourceInvalid, match=r"tokenizer\.json cannot be used"):
        read(changed("pre_tokenizer", sequence(split("(a"), LEVEL)))
    found = pieces(True)
    found["model"]["vocab"].pop("<0x0A>")
    with pytest.raises(SourceInvalid, match="byte token <0x0A> is missing"):
        read(found, 275)
    with pytest.raises(SourceInvalid, match="neither byte-level nor"):
        read(pieces(True) | {"model": pieces(True)["model"] | {"byte_fallback": False}}, 275)


def test_chat_templates() -> None:
    assert chat_template({}, None) == (None, [])
    assert chat_template({"chat_template": "a"}, None) == ("a", [])
    assert chat_template({"chat_template": "a"}, "b") == ("b", [])
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    text, notes = chat_template({"chat_template": named}, None)
    assert text == "d"
    assert notes == ["tokenizer_config.json: of the chat templates only 'default' is taken, not 'tool_use'"]
    assert chat_template({"chat_template": named[:1]}, None)[0] == "t"
    assert chat_template({"chat_template": [named[0], {"name": "rag", "template": "r"}]}, None)[0] is None
    for wrong in (7, [{"name": "default", "template": 7}]):
        with pytest.raises(SourceInvalid, match="must be a text"):
            chat_template({"chat_template": wrong}, None)
