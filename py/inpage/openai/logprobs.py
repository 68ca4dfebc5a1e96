"""Logprobs as OpenAI writes them: tokens by text and bytes, at their places, what ends the answer left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..engines.protocol import Logprob
from ..text.tokenizer import Detokenizer, Tokenizer


@dataclass(frozen=True, slots=True)
class Placed:
    """``offset``: characters of the choice before the token; of one inside a character, those before the character.
    ``logprob``: None where nothing stands before the token."""

    token: int
    logprob: float | None
    top: Sequence[tuple[int, float]]
    offset: int


class Places:
    """Where the tokens of a choice stand. ``start``: characters before the first; ``inner`` as in
    `Tokenizer.decode`."""

    def __init__(self, tokenizer: Tokenizer, start: int = 0, inner: bool = False) -> None:
        self._control = tokenizer.control_ids
        self._detokenizer = Detokenizer(tokenizer, inner=inner)
        self._at = start
        self._held: list[Placed] = []

    def skip(self, tokens: Sequence[int]) -> None:
        """Tokens that are known to the reader."""
        self._at += len(self._detokenizer.push(tokens))

    def push(self, token: int, logprob: float | None, top: Sequence[tuple[int, float]]) -> None:
        if token in self._control:
            return
        self._held.append(Placed(token, logprob, top, self._at))
        self._at += len(self._detokenizer.push([token]))

    def take(self, said: int | None = None) -> list[Placed]:
        """Those that stand before so many characters, or all: where a stop string ends the answer, what it is made of
        is no part of it."""
        ready = self._held if said is None else [one for one in self._held if one.offset < said]
        self._held = self._held[len(ready) :]
        return ready


class Written:
    """``tokenizer`` of the model that answered."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._control = {token: text for text, token in tokenizer.control.items()}

    def prompt(self, tokens: Sequence[int], found: Sequence[Logprob | None]) -> list[Placed]:
        """A prompt that the answer repeats, with what the model made of each of its tokens."""
        places = Places(self.tokenizer)
        for token, one in zip(tokens, found, strict=True):
            places.push(token, None if one is None else one.logprob, () if one is None else one.top)
        return places.take()

    def answer(self, logprobs: Sequence[Logprob], start: int, inner: bool, said: int) -> list[Placed]:
        """A whole answer, which stands behind ``start`` of the choice's ``said`` characters."""
        places = Places(self.tokenizer, start, inner)
        for one in logprobs:
            places.push(one.token, one.logprob, one.top)
        return places.take(said)

    def chat(self, placed: Sequence[Placed]) -> dict[str, Any]:
        """The ``logprobs`` of a choice of chat completions."""
        content = [
            {**self._token(one.token, one.logprob), "top_logprobs": [self._token(*pair) for pair in one.top]}
            for one in placed
        ]
        return {"content": content, "refusal": None}

    def completion(self, placed: Sequence[Placed]) -> dict[str, Any]:
        """The same of completions."""
        top = [
            None
            if one.logprob is None
            else {self._text(token, "bytes:"): logprob for token, logprob in reversed(one.top)}
            for one in placed
        ]
        return {
            "tokens": [self._text(one.token, "bytes:") for one in placed],
            "token_logprobs": [one.logprob for one in placed],
            "top_logprobs": top if any(top) else None,
            "text_offset": [one.offset for one in placed],
        }

    def _token(self, token: int, logprob: float | None) -> dict[str, Any]:
        return {"token": self._text(token), "logprob": logprob, "bytes": list(self._bytes(token))}

    def _bytes(self, token: int) -> bytes:
        text = self._control.get(token)
        return self.tokenizer.bytes_of(token) if text is None else text.encode()

    def _text(self, token: int, mark: str = "") -> str:
        """By its bytes where it ends or begins inside a character."""
        found = self._bytes(token)
        try:
            return found.decode()
        except UnicodeDecodeError:
            return mark + "".join(f"\\x{byte:02x}" for byte in found)
