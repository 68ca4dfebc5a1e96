"""The rebuilt tokenizer.json encodes as llama.cpp does: its own ids, and those of the reference answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from inpage.errors import SourceInvalid
from inpage.text.tokenizer import Detokenizer, load_tokenizer
from inpage_compile.sources import Source, open_source
from inpage_compile.tokenizers.pre_tokenizers import PRE_TOKENIZERS
from support.tiny import Tiny
from support.vocabularies import SPM, ids_of, small, stored, tokenizer_of, write_vocabulary

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
    assert (t.bos, t.eos, t.add_bos) == (1, (2, 0, 4), False)  # 4 is <reponame>: an end to llama.cpp
    assert (t.special["<|im_start|>"], t.special["<|im_end|>"], len(t.special)) == (1, 2, 17)


# Pieces by hand from the expressions' meaning; white space shows as the byte letters Ġ (space) and Ċ (line feed).
TEXT = "It's 12345 I'LL\n\n  go!\n"
PIECES = {
    "smollm": ["It", "'s", "Ġ", "1", "2", "3", "4", "5", "ĠI", "'", "LL", "ĊĊĠ", "Ġgo", "!", "Ċ"],
    "gpt-2": ["It", "'s", "Ġ12345", "ĠI", "'", "LL", "ĊĊĠ", "Ġgo", "!", "Ċ"],
    "llama-bpe": ["It", "'s", "Ġ", "123", "45", "ĠI", "'LL", "ĊĊ", "Ġ", "Ġgo", "!Ċ"],
    "qwen2": ["It", "'s", "Ġ", "1", "2", "3", "4", "5", "ĠI", "'LL", "ĊĊ", "Ġ", "Ġgo", "!Ċ"],
}


@pytest.mark.parametrize("pre", PIECES)
def test_pre_tokenizers(pre: str, tmp_path: Path) -> None:
    source = open_source(str(Tiny().write(tmp_path / "t.gguf", {"tokenizer.ggml.pre": pre})))
    split = tokenizer(source).pre_tokenizer
    assert split is not None
    assert [piece for piece, _ in split.pre_tokenize_str(TEXT)] == PIECES[pre]


@pytest.mark.parametrize("name", [*PRE_TOKENIZERS, *SPM])
def test_ids_equal_llama_cpps(name: str, tmp_path: Path) -> None:
    """Of odd texts, with every pre-tokenizer's name and with SentencePiece vocabularies."""
    built = tokenizer_of(small(name, tmp_path))
    encoding = load_tokenizer(json.dumps(built.json), built.special)
    for way, encode in (("plain", encoding.encode), ("parsed", lambda text: encoding.encode_rendered(text, {}))):
        found = [encode(text) for text in stored()["texts"]]
        wrong = [
            (text, got, want)
            for text, got, want in zip(stored()["texts"], found, ids_of(name, way), strict=True)
            if got != want
        ]
        assert wrong == [], way


def test_the_witness_tells_families_apart() -> None:
    """Whichever name had another family's expressions would be found out."""
    names = {pre.splits: name for name, pre in PRE_TOKENIZERS.items()}
    assert len({json.dumps(ids_of(name, "plain")) for name in names.values()}) == len(names)


def test_decoded_text_equals_llama_cpps(tmp_path: Path) -> None:
    """Also where it is streamed token by token; a blank in front is shown only where other text stands before it."""
    for name in SPM:
        built = tokenizer_of(small(name, tmp_path))
        decoding = load_tokenizer(json.dumps(built.json), built.special)
        for ids, text in stored()["decoded"][name]:
            assert decoding.decode(ids) == text
            detokenizer = Detokenizer(decoding)
            assert "".join([*(detokenizer.push([i]) for i in ids), detokenizer.flush()]) == text
        for text, ids in zip(stored()["texts"], ids_of(name, "plain"), strict=True):
            # Text behind a user-defined token gets a blank in front as well; and the letter for a blank becomes one.
            if not any(part in text for part in ("   ", "<|tag|>", "\u2581")):
                assert decoding.decode(ids) == text
                assert decoding.decode(ids, inner=True) == (" " if name == "spm" and text else "") + text


def test_a_character_of_byte_tokens_is_never_taken_back(tmp_path: Path) -> None:
    built = tokenizer_of(small("spm", tmp_path))
    detokenizer = Detokenizer(load_tokenizer(json.dumps(built.json), built.special))
    pushed = [detokenizer.push([3 + byte]) for byte in (0xE2, 0x82, 0xAC, 0xFF, 0x41)]
    assert pushed == ["", "", "\u20ac", "", "\ufffdA"]


def test_text_never_becomes_a_token_of_control_or_of_a_byte(tmp_path: Path) -> None:
    built = tokenizer_of(small("spm", tmp_path))
    encoding = load_tokenizer(json.dumps(built.json), built.special)
    assert (built.bos, built.eos, built.add_bos) == (1, (2,), True)
    assert set(built.special) == {"<unk>", "<s>", "</s>"}
    assert encoding.decode(encoding.encode("<s></s><unk><0x41>")) == "<s></s><unk><0x41>"
    assert encoding.encode_rendered("<s></s>", {}) == [1, 2]


def test_declared_ends_of_turns(tmp_path: Path) -> None:
    """Fine-tuned SentencePiece models declare them as text."""
    some = stored()["vocabularies"]["sentencepiece"]
    more = {**some, "tokens": [*some["tokens"], "<|im_end|>"], "kinds": [*some["kinds"], 4]}
    more["scores"] = [*some["scores"], 0.0]
    end = len(some["tokens"])
    keys = {"eos_token_id": 2, "add_bos_token": False}
    built = tokenizer_of(write_vocabulary(tmp_path / "t.gguf", "llama", more, keys))
    assert (built.eos, built.add_bos, built.special["<|im_end|>"]) == ((2, end), False, end)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scores": [0.0]}, "tokenizer.ggml.scores: must be an array"),
        ({"tokens": ["<0x4>", "<0x04>"]}, "of the byte type"),
        ({"tokens": ["<0x04>", "other"]}, "byte token <0x04> is missing"),
    ],
)
def test_broken_sentencepiece_vocabularies(change: dict[str, list[Any]], said: str, tmp_path: Path) -> None:
    broken: dict[str, Any] = dict(stored()["vocabularies"]["sentencepiece"])
    if "tokens" in change:
        new, old = change["tokens"][::-1] if "other" in change["tokens"] else change["tokens"]
        at = broken["tokens"].index(old)
        kind = 6 if new.startswith("<0x") else 1
        broken["tokens"] = [*broken["tokens"][:at], new, *broken["tokens"][at + 1 :]]
        broken["kinds"] = [*broken["kinds"][:at], kind, *broken["kinds"][at + 1 :]]
    else:
        broken |= change
    with pytest.raises(SourceInvalid, match=said):
        tokenizer_of(write_vocabulary(tmp_path / "t.gguf", "llama", broken, {}))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"tokenizer.ggml.pre": "gemma4"}, "'gemma4' is not supported; supported: default, smollm"),
        ({"tokenizer.ggml.model": "t5"}, r"'t5' is not supported; supported: gpt2 \(byte-level BPE\), llama"),
    ],
)
def test_other_kinds_are_refused_by_name(keys: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceInvalid, match=said):
        open_source(str(Tiny().write(tmp_path / "t.gguf", dict(keys))))


def test_no_pre_tokenizer_is_the_default_one(tmp_path: Path) -> None:
    vocabulary = stored()["vocabularies"]["byte_level"]
    found = [
        tokenizer_of(write_vocabulary(tmp_path / "t.gguf", "gpt2", vocabulary, keys)).json
        for keys in ({}, {"pre": "default"}, {"pre": ""})
    ]
    assert found[0] == found[1] == found[2]


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
