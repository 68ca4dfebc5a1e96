"""A BPE tokenizer with fewer tokens, that turns the texts it was pruned for into the same tokens as before.

A token that stays needs every token that it is built of: those of its characters, and what merges made of them on the
way. Merges between tokens that stay keep their order, so that none of those texts is cut otherwise; all other texts are
spelled in smaller pieces, down to letters of bytes or to bytes spelled out, which stay. So whatever was encoded without
loss still is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from inpage.errors import InvalidRequest, Unsupported, quoted
from inpage.format.limits import BLOCK_ROWS

from .tokenizer import Tokenizer

FIELD = "prune_vocab"
_BLANK, _LETTER = "\u2581", "\u0120"  # how tokens show a blank: in pieces, and as a letter of a byte
_BLANKS = (_BLANK, _LETTER)


@dataclass(frozen=True, slots=True)
class Pruned:
    """``kept``: the old id of each new one, ascending."""

    tokenizer: Tokenizer
    kept: list[int]


def prune(tokenizer: Tokenizer, needed: Iterable[int]) -> Pruned:
    """Without the tokens that are neither ``needed`` (ids) nor what needed ones are built of. A word that is needed
    stays in each form that is a token: with and without a blank in front, in small letters, capitalised, in capitals;
    where tokens are letters of bytes, a word of ASCII letters.
    Bytes and whatever stands in ``added_tokens``, control tokens among them, stay. Rows of the embedding come in
    blocks: what is left of the last one is filled with the tokens of the lowest ids, which cost nothing.

    Raises `Unsupported` where texts could not be encoded any more, `InvalidRequest` where nothing would go."""
    model = tokenizer.json["model"]
    vocab: dict[str, int] = model.get("vocab") if isinstance(model.get("vocab"), dict) else {}
    texts = {token: text for text, token in vocab.items()}
    added = {int(token["id"]) for token in tokenizer.json.get("added_tokens") or ()}
    fixed = added | set(tokenizer.special.values()) | set(tokenizer.eos)
    fixed |= set() if tokenizer.bos is None else {tokenizer.bos}
    letters = _letters(tokenizer.json, vocab)
    built = _Built(model["merges"], vocab)
    kept = fixed | letters
    for text in {form for token in set(needed) - added for form in _forms(texts[token])} & vocab.keys():
        kept.add(vocab[text])
        kept |= built.of(text)
    _check_spelled(tokenizer.json, texts, letters, kept)
    if len(kept) == len(texts):
        raise InvalidRequest("the corpus needs every token of the vocabulary: none can be left out", field=FIELD)
    kept |= _fill(texts, kept, built)
    return Pruned(_renumbered(tokenizer, texts, sorted(kept)), sorted(kept))


def _forms(text: str) -> set[str]:
    word = text[1:] if text[0] in _BLANKS else text
    if not word.isalpha():
        return {text}
    forms = {word, word.lower(), word.capitalize(), word.upper()}
    return forms | {blank + form for blank in _BLANKS for form in forms}


class _Built:
    """Of which tokens the merges build a token."""

    def __init__(self, merges: Iterable[Any], vocab: Mapping[str, int]) -> None:
        self._ranks = {(left, right): rank for rank, (left, right) in enumerate(merges)}
        self._vocab = vocab

    def of(self, text: str) -> set[int]:
        """Ids, its own included; none where no merges lead to it: it is found as a whole then, or never."""
        symbols, seen = list(text), set(text)
        while len(symbols) > 1:
            pairs = [(rank, i) for i in range(len(symbols) - 1)
                     if (rank := self._ranks.get((symbols[i], symbols[i + 1]))) is not None]  # fmt: skip
            if not pairs:
                return set()
            _, at = min(pairs)
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
            seen.add(symbols[at])
        return {self._vocab[symbol] for symbol in seen} if seen <= self._vocab.keys() else set()


def _letters(description: Mapping[str, Any], vocab: Mapping[str, int]) -> set[int]:
    """The tokens that any text can be spelled in. Raises `Unsupported` where there are none."""
    model = description["model"]
    if model.get("type", "BPE") != "BPE":
        why = "a word whose pieces are gone would become the unknown token, and its text be lost"
        raise Unsupported(f"the vocabulary cannot be pruned: this tokenizer is {model['type']}: {why}", field=FIELD)
    if model.get("byte_fallback"):
        found = {vocab.get(f"<0x{byte:02X}>", vocab.get(chr(byte)) if byte < 0x80 else None) for byte in range(256)}
        if None in found or _BLANK not in vocab:
            what = "a blank" if None not in found else "a byte"
            raise _lost(f"{what} has no token of its own")
        return {i for i in (*found, *(vocab.get(chr(code)) for code in range(0x80)), vocab[_BLANK]) if i is not None}
    if (description.get("decoder") or {}).get("type") == "ByteLevel":
        return {i for text, i in vocab.items() if len(text) == 1}
    raise _lost("it has neither letters of bytes nor bytes to fall back on")


def _check_spelled(description: Mapping[str, Any], texts: Mapping[int, str], letters: set[int], kept: set[int]) -> None:
    """Tokens that go must be spelled in what stays. (Bytes that never had a token are another matter: they are dropped
    as before.)"""
    if description["model"].get("byte_fallback"):
        return
    known = {texts[i] for i in letters}
    for token, text in texts.items():
        if token not in kept and not known.issuperset(text) and description["model"].get("ignore_merges"):
            raise _lost(f"{quoted(text)} is a token, but its letters are not")


def _lost(why: str) -> Unsupported:
    return Unsupported(f"the vocabulary cannot be pruned: {why}, so that texts would be lost", field=FIELD)


def _fill(texts: Mapping[int, str], kept: set[int], built: _Built) -> set[int]:
    """Tokens for the rest of the last block, each built of what stays."""
    more: set[int] = set()
    for token in sorted(texts):
        if (len(kept) + len(more)) % BLOCK_ROWS == 0:
            break
        if token not in kept and token in (parts := built.of(texts[token])) and parts - {token} <= kept | more:
            more.add(token)
    return more


def _renumbered(tokenizer: Tokenizer, texts: Mapping[int, str], kept: list[int]) -> Tokenizer:
    new = {old: i for i, old in enumerate(kept)}
    model = tokenizer.json["model"]
    vocab = {texts[old]: i for old, i in new.items()}
    merges = [
        list(pair) for pair in model["merges"] if pair[0] in vocab and pair[1] in vocab and pair[0] + pair[1] in vocab
    ]
    added = [{**token, "id": new[token["id"]]} for token in tokenizer.json.get("added_tokens") or ()]
    return replace(
        tokenizer,
        json={**tokenizer.json, "added_tokens": added, "model": {**model, "vocab": vocab, "merges": merges}},
        bos=None if tokenizer.bos is None else new[tokenizer.bos],
        eos=tuple(new[token] for token in tokenizer.eos),
        special={text: new[token] for text, token in tokenizer.special.items()},
    )
