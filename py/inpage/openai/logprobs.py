"""Logprobs as OpenAI writes them: tokens by their text, what ends the answer left out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from ..engines.protocol import Logprob
from ..text.tokenizer import Tokenizer

_HALF = "\ufffd"


class Written:
    """``tokenizer`` of the model that answered."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._control = {token: text for text, token in tokenizer.control.items()}

    def chat(self, logprobs: Sequence[Logprob]) -> dict[str, Any]:
        """The ``logprobs`` of a choice of chat completions."""
        content = [
            {**self._token(one.token, one.logprob), "top_logprobs": [self._token(*pair) for pair in one.top]}
            for one in self._said(logprobs)
        ]
        return {"content": content, "refusal": None}

    def completion(self, logprobs: Sequence[Logprob], offset: int) -> dict[str, Any]:
        """The same of completions. ``offset``: characters of the choice before the first token."""
        said = self._said(logprobs)
        tokens = [self._text(one.token) for one in said]
        offsets = list(accumulate((len(text) for text in tokens[:-1]), initial=offset))[: len(tokens)]
        top = [{self._text(token): logprob for token, logprob in reversed(one.top)} for one in said]
        return {
            "tokens": tokens,
            "token_logprobs": [one.logprob for one in said],
            "top_logprobs": top if any(top) else None,
            "text_offset": offsets,
        }

    def _said(self, logprobs: Sequence[Logprob]) -> list[Logprob]:
        return [one for one in logprobs if one.token not in self._control]

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._text(token)
        # A token that ends inside a character has no text of its own, and which bytes it has is not told.
        return {"token": text, "logprob": logprob, "bytes": None if _HALF in text else list(text.encode())}

    def _text(self, token: int) -> str:
        return self._control.get(token) or self._tokenizer.decode([token], inner=True)
