"""A TEST DOUBLE of an engine that says a given text, token by token, whatever it is asked; otherwise `PagedDouble`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inpage.engines.protocol import Grammar, SequenceInput
from inpage.text.tokenizer import Tokenizer

from .paged_double import PagedDouble


class Scripted(PagedDouble):
    """``text`` is what every answer says; then it ends. It claims to follow grammars, and keeps those it is given."""

    def __init__(self, tokenizer: Tokenizer, text: str, **sizes: Any) -> None:
        super().__init__(vocab=320, grammars=True, **sizes)
        self.grammars: list[Grammar | None] = []
        self._says = [*tokenizer.encode(text), 2]
        self._starts: dict[int, int] = {}  # by first page: where its answer begins

    def _step(self, feed: SequenceInput) -> Any:
        if feed.sample:
            self._starts[feed.pages[0]] = feed.start + len(feed.tokens) - 1
            self.grammars.append(feed.grammar)
        return super()._step(feed)

    def _choose(self, feed: SequenceInput, position: int, history: Sequence[int]) -> int:
        super()._choose(feed, position, history)  # which checks the pages
        return self._says[position - self._starts[feed.pages[0]]] if feed.targets is None else 3
