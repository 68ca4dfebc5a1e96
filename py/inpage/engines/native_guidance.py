"""Grammars of the native engine, where it was loaded with them: what its steps hold answers to."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Unsupported
from ..format.schema import Manifest
from .guided_decoding import FIELDS, Held
from .protocol import Grammar, SequenceInput

if TYPE_CHECKING:
    from .native_grammar import GrammarPool


class Guidance:
    """``opening``: gives what follows grammars, when one is first asked for; None for an engine that follows none."""

    def __init__(self, opening: Callable[[], GrammarPool] | None = None) -> None:
        self._opening = opening
        self._opened: GrammarPool | None = None
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: Path, manifest: Manifest, sequences: int) -> Guidance:
        def opening() -> GrammarPool:
            from .native_grammar import GrammarPool  # takes wasmtime, which takes its time

            return GrammarPool(folder, manifest, 2 * sequences)

        return cls(opening)

    @property
    def there(self) -> bool:
        return self._opening is not None

    def prepare(self, grammar: Grammar) -> None:
        """Takes a while. Raises `InvalidRequest`, `Unsupported`, `ArtifactInvalid`."""
        self._check(grammar)
        self._pool.prepare(grammar)

    def held(self, feeds: Sequence[SequenceInput]) -> dict[int, Held]:
        """Those of ``feeds`` that have a grammar, by place. Raises `Unsupported`."""
        held = {}
        for i, feed in enumerate(feeds):
            if feed.grammar is not None:
                self._check(feed.grammar)
                held[i] = Held(feed.grammar, feed.request, list(feed.answer))
        return held

    def serve(self, held: Mapping[int, Held]) -> None:
        """What whatever runs is held to, from now on."""
        if self._opened is not None:
            self._opened.serve(each.grammar for each in held.values())

    def mask(self, held: Mapping[int, Held], sequences: array[int] | None) -> array[int] | None:
        """The masks of these structs; in each is put where its own begins."""
        return self._pool.mask(held, sequences) if held and sequences is not None else None

    def ended(self, held: Held) -> None:
        self._pool.forget(held)

    @property
    def _pool(self) -> GrammarPool:
        with self._lock:
            if self._opened is None:
                assert self._opening is not None
                self._opened = self._opening()
            return self._opened

    def _check(self, grammar: Grammar) -> None:
        if self._opening is None:
            field = FIELDS[grammar.kind]
            raise Unsupported(f"{field} cannot be followed: the engine was loaded without grammars", field=field)
