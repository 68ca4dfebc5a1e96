"""Unigram vocabularies, SentencePiece's with a score for each token: a tokenizer.json of the folder, or rebuilt from a
GGUF file (``tokenizer.ggml.model`` "t5").

What stands here are the steps that web/router/unigram.js takes as PyPI's library does. The token for unknown words is
no control token: it is what a word becomes that has no pieces."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inpage.errors import SourceInvalid, quoted
from inpage.format.limits import UNIGRAM_BYTES

from .pieces import flat
from .tokenizer import Tokenizer
from .vocabulary import CONTROL, Vocabulary, added_token, token_id

if TYPE_CHECKING:
    from ..gguf.metadata import Metadata

FILE = "tokenizer.json"
_BLANK = "\u2581"
_NAMES = {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "mask": "<mask>"}
_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
_RUNS = " {2,}"  # of blanks: the only expression that is replaced
_UNITS = 4  # bytes of a unit of the trie in a map of characters
_SUPPORTED = f"supported: Precompiled, {', '.join(_FORMS)}, Strip, Replace of a text or of {_RUNS!r}"


def read_unigram(
    tokenizer: Mapping[str, Any], names: Mapping[str, str], around: tuple[str | None, str | None], size: int
) -> tuple[Tokenizer, list[str]]:
    """Of a folder. ``names``: texts of special tokens by what they are ("bos"); ``around``: what a post-processor puts
    in front of a text and behind it; ``size``: rows of the embedding. Beside it what was left out."""
    model = tokenizer.get("model")
    assert isinstance(model, Mapping)
    vocab, unknown = model.get("vocab"), model.get("unk_id")
    if not isinstance(vocab, list) or not all(map(_is_piece, vocab)) or not 0 < len(vocab) <= size:
        raise _wrong("model.vocab", f"must be a list of at most {size} tokens, the rows of the embedding, with a score")
    pieces = dict(vocab)
    if len(pieces) != len(vocab) or "" in pieces:
        raise _wrong("model.vocab", "a token's text stands twice, or is empty")
    _check_sizes(pieces, f"{FILE}.model.vocab")
    if type(unknown) is not int or not 0 <= unknown < len(vocab):
        raise _wrong("model.unk_id", f"{quoted(unknown)} is not in the vocabulary")
    if model.get("byte_fallback"):
        raise _wrong("model.byte_fallback", "is not supported with a Unigram vocabulary")
    ids = {text: i for i, (text, _) in enumerate(vocab)}
    added, notes = _added(tokenizer.get("added_tokens"), ids, size)
    marked = {text for text, special in added.items() if special} | set(names.values())
    special = {text: ids[text] for text in (*_NAMES.values(), *sorted(marked)) if text in ids and ids[text] != unknown}
    for text in around:
        if text is not None and text not in special:
            raise _wrong("post_processor", f"{quoted(text)} is no special token")
    notes += [
        f"{FILE}: the added token {quoted(text)} is left out: it is cut as text is"
        for text, is_special in added.items()
        if not is_special and text not in special
    ]
    normalizers = [_normal(step) for step in flat(tokenizer.get("normalizer"), "normalizers", "normalizer")]
    cuts = [_cut(step) for step in flat(tokenizer.get("pre_tokenizer"), "pretokenizers", "pre_tokenizer")]
    if [cut["type"] for cut in cuts] not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
        raise _wrong("pre_tokenizer", "is not supported; Metaspace is, or WhitespaceSplit and Metaspace")
    front, behind = (None if text is None else special[text] for text in around)
    end = special.get(names.get("eos", _NAMES["eos"]))
    return _made(vocab, unknown, special, normalizers, cuts, front, behind, end), notes


def gguf_unigram(meta: Metadata, vocabulary: Vocabulary) -> Tokenizer:
    """As XLM-RoBERTa's tokenizer.json has it, with the file's own map of characters. Texts stand between the beginning
    and the end that the file names."""
    size, key = len(vocabulary.tokens), "tokenizer.ggml.scores"
    scores = meta.get(key)
    if not isinstance(scores, list) or len(scores) != size or not all(map(_is_score, scores)):
        raise SourceInvalid(f"{key}: must be an array of {size} numbers, one a token", field=key)
    _check_sizes(vocabulary.tokens, "tokenizer.ggml.tokens")
    named = {
        name: token_id(meta, f"tokenizer.ggml.{key}_token_id", size)
        for name, key in {"bos": "bos", "eos": "eos", "pad": "padding", "mask": "mask", "unk": "unknown"}.items()
    }
    unknown = named.pop("unk")
    if unknown is None:
        raise SourceInvalid("tokenizer.ggml.unknown_token_id is missing", field="tokenizer.ggml.unknown_token_id")
    ids = {*vocabulary.of(CONTROL), *(i for i in named.values() if i is not None)} - {unknown}
    charsmap = meta.get("tokenizer.ggml.precompiled_charsmap")
    steps = []
    if charsmap is not None:
        if not isinstance(charsmap, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in charsmap):
            raise SourceInvalid("precompiled_charsmap must be bytes", field="tokenizer.ggml.precompiled_charsmap")
        steps.append(_precompiled(base64.b64encode(bytes(charsmap)).decode(), "tokenizer.ggml.precompiled_charsmap"))
    cuts = [{"type": "WhitespaceSplit"}] if meta.flag("tokenizer.ggml.remove_extra_whitespaces", True) else []
    cuts.append(_metaspace(meta.flag("tokenizer.ggml.add_space_prefix", True)))
    front = named["bos"] if meta.flag("tokenizer.ggml.add_bos_token", True) else None
    behind = named["eos"] if meta.flag("tokenizer.ggml.add_eos_token", True) else None
    vocab = [[text, float(score)] for text, score in zip(vocabulary.tokens, scores, strict=True)]
    special = {vocabulary.tokens[i]: i for i in sorted(ids)}
    return _made(vocab, unknown, special, steps, cuts, front, behind, named["eos"])


def _made(
    vocab: Sequence[Any], unknown: int, special: Mapping[str, int], normalizers: list[dict[str, Any]],
    cuts: list[dict[str, Any]], front: int | None, behind: int | None, end: int | None,
) -> Tokenizer:  # fmt: skip
    """``end``: the end of a text, which also stands between two; ``front``, ``behind``: what is put around each."""
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(i, text, True) for text, i in sorted(special.items(), key=lambda e: e[1])],
        "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": cuts},
        "post_processor": None,
        "decoder": cuts[-1],
        "model": {"type": "Unigram", "unk_id": unknown, "vocab": list(vocab), "byte_fallback": False},
    }
    ends = tuple(dict.fromkeys(token for token in (behind, end) if token is not None))
    return Tokenizer(document, front, ends, front is not None, special, behind is not None)


def _added(entries: Any, ids: Mapping[str, int], size: int) -> tuple[dict[str, bool], list[str]]:
    """Texts of added tokens, and whether each is special. One without a place in the vocabulary is left out: no text
    becomes it."""
    if not isinstance(entries or [], list):
        raise _wrong("added_tokens", "must be a list")
    found: dict[str, bool] = {}
    notes: list[str] = []
    for entry in entries or []:
        text, token = (entry.get("content"), entry.get("id")) if isinstance(entry, Mapping) else (None, None)
        if not isinstance(text, str) or type(token) is not int:
            raise _wrong("added_tokens", "each must have an id and a content")
        if text in ids and ids[text] != token:
            raise _wrong("added_tokens", f"{quoted(text)} is token {ids[text]}, not {token}")
        if text in ids:
            found[text] = entry.get("special") is True
        else:
            notes.append(f"{FILE}: the added token {quoted(text)} has no score and is left out")
    return found, notes


def _normal(step: Mapping[str, Any]) -> dict[str, Any]:
    kind, content = step["type"], step.get("content")
    if kind == "Precompiled":
        return _precompiled(step.get("precompiled_charsmap"), f"{FILE}.normalizer")
    if kind in _FORMS:
        return {"type": kind}
    if kind == "Strip":
        return {"type": kind, **{f"strip_{side}": step.get(f"strip_{side}") is True for side in ("left", "right")}}
    pattern = step.get("pattern")
    if kind == "Replace" and isinstance(pattern, Mapping) and isinstance(content, str) and len(pattern) == 1:
        ((how, text),) = pattern.items()
        if (how == "String" and isinstance(text, str) and text) or (how == "Regex" and text == _RUNS):
            return {"type": kind, "pattern": {how: text}, "content": content}
    raise _wrong("normalizer", f"{quoted(kind)} is not supported so; {_SUPPORTED}")


def _precompiled(charsmap: Any, field: str) -> dict[str, Any]:
    """SentencePiece's map of characters, base64: how long its trie is, the trie, and the texts that it leads to."""
    try:
        data = base64.b64decode(charsmap or "", validate=True)
        end = _UNITS + int.from_bytes(data[:_UNITS], "little")
        if len(data) < end or end % _UNITS or end <= _UNITS:
            raise ValueError("its trie is cut off")
        data[end:].decode()
    except (binascii.Error, TypeError, ValueError) as e:
        raise SourceInvalid(f"{field}: precompiled_charsmap is no map of characters: {e}", field=field) from e
    return {"type": "Precompiled", "precompiled_charsmap": charsmap}


def _cut(step: Mapping[str, Any]) -> dict[str, Any]:
    if step["type"] == "WhitespaceSplit":
        return {"type": "WhitespaceSplit"}
    if step["type"] != "Metaspace":
        raise _wrong("pre_tokenizer", f"{quoted(step['type'])} is not supported; WhitespaceSplit and Metaspace are")
    scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
    if step.get("replacement", _BLANK) != _BLANK or scheme not in ("always", "never") or step.get("split") is False:
        raise _wrong("pre_tokenizer", f"Metaspace is only supported with {_BLANK}, split, before every word or none")
    return _metaspace(scheme == "always")


def _metaspace(prefix: bool) -> dict[str, Any]:
    scheme = "always" if prefix else "never"
    return {"type": "Metaspace", "replacement": _BLANK, "prepend_scheme": scheme, "split": True}


def _check_sizes(texts: Iterable[str], field: str) -> None:
    for text in texts:
        if len(text.encode(errors="replace")) > UNIGRAM_BYTES:
            why = f"{quoted(text)} has over {UNIGRAM_BYTES} bytes, which is not supported with scores"
            raise SourceInvalid(f"{field}: {why}", field=field)


def _is_piece(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and _is_score(entry[1])


def _is_score(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _wrong(what: str, why: str) -> SourceInvalid:
    return SourceInvalid(f"{FILE}: {what}: {why}", field=f"{FILE}.{what}")
