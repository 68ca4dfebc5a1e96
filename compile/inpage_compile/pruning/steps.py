"""Tokens, layers and bits of the embedding that leave a model, one step after the other, and what each saves and costs.

Both are measured on the model before and after the step, compiled for this machine at the artifact's best level.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from inpage.format.schema import Pruning

from ..artifact.checks import load_manifest
from ..measure import perplexity
from ..sources import Source
from . import layers, price
from .embedding import check_embedding
from .vocabulary import prune_vocabulary

# A source, with its embedding in a format ("": as it is), as an artifact with a native variant while it is measured.
Compiled = Callable[[Source, str], AbstractContextManager[Path]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """``corpus``: a text whose tokens stay; ``drop_layers``: how many; ``embedding``: its format; ``text``: on which
    perplexities and the layers' influence are measured, by default that of `measure.perplexity`."""

    corpus: str = field(default="", repr=False)
    drop_layers: int = 0
    embedding: str = ""
    text: str = field(default_factory=perplexity.text, repr=False)

    def __bool__(self) -> bool:
        return bool(self.corpus or self.drop_layers or self.embedding)

    @property
    def kinds(self) -> list[str]:
        """The steps, in their order."""
        asked = {"vocabulary": self.corpus, "layers": self.drop_layers, "embedding": self.embedding}
        return [kind for kind, given in asked.items() if given]

    def check(self, source: Source) -> None:
        """Raise, before anything is compiled, for what cannot be."""
        if self.drop_layers:
            layers.check_count(source.architecture, self.drop_layers)
        if self.embedding:
            check_embedding(source, self.embedding)

    def mark(self) -> dict[str, Any]:
        """For an artifact's fingerprint."""
        texts = {"corpus": self.corpus, "text": self.text}
        hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
        return {"drop_layers": self.drop_layers, "embedding": self.embedding, **hashes}


@dataclass(frozen=True, slots=True)
class _Measured:
    """``bytes``: of weights and tokenizer; ``influences``: of the layers, where they were asked for."""

    bytes: int
    score: price.Scored
    influences: Sequence[float]


def prune(source: Source, wanted: Wanted, compiled: Compiled) -> tuple[Source, list[Pruning]]:
    """The smaller model, but for its embedding's format, which each level is given; and what each step did. Raises
    `InvalidRequest` and `Unsupported` for what is refused."""
    wanted.check(source)
    done: list[Pruning] = []
    kinds, embedding = [*wanted.kinds, ""], ""
    before = _measure(source, embedding, wanted.text, compiled, kinds[0] == "layers")
    for kind, following in pairwise(kinds):
        facts: dict[str, Any]
        if kind == "vocabulary":
            source = prune_vocabulary(source, wanted.corpus)
            facts = {"tokens": source.architecture.vocab}
        elif kind == "layers":
            dropped = layers.least(before.influences, wanted.drop_layers)
            source = layers.drop_layers(source, dropped)
            facts = {"layers": tuple(dropped)}
        else:
            embedding = wanted.embedding
            facts = {"format": embedding}
        after = _measure(source, embedding, wanted.text, compiled, following == "layers")
        step = Pruning(
            kind=kind,
            saved_bytes=max(0, before.bytes - after.bytes),
            perplexity_before=before.score.perplexity,
            perplexity=after.score.by_tokens_of(before.score),
            **facts,
        )
        done.append(step)
        before = after
    return source, done


def _measure(source: Source, embedding: str, text: str, compiled: Compiled, layered: bool) -> _Measured:
    with compiled(source, embedding) as folder:
        manifest = load_manifest(folder)
        tables = manifest.tokenizer.tables
        size = manifest.weights.bytes + manifest.tokenizer.bytes + (tables.bytes if tables else 0)
        score = price.scored(folder, text)
        influences = price.run(layers.influences(folder, score.ids)) if layered else ()
    return _Measured(size, score, influences)
