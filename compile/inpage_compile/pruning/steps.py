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

from inpage.errors import InvalidRequest
from inpage.format.schema import Pruning
from inpage.format.structure import one_line

from ..artifact.checks import load_manifest
from ..measure import perplexity
from ..sources import Source
from . import layers
from .embedding import check_embedding
from .vocabulary import loaded, prune_vocabulary

# A source, with its embedding in a format ("": as it is), as an artifact with a native variant while it is measured.
Compiled = Callable[[Source, str], AbstractContextManager[Path]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """``corpus``: a text whose tokens stay; ``drop_layers``: how many; ``embedding``: its format; ``text``: on which
    perplexities and the layers' influence are measured, by default that of `measure.perplexity`, and ``text_name``,
    which is written down."""

    corpus: str = field(default="", repr=False)
    drop_layers: int = 0
    embedding: str = ""
    text: str = field(default="", repr=False)
    text_name: str = ""

    def __bool__(self) -> bool:
        return bool(self.corpus or self.drop_layers or self.embedding)

    @property
    def kinds(self) -> list[str]:
        """The steps, in their order."""
        kinds = ("vocabulary", "layers", "embedding")
        return [kind for kind, given in zip(kinds, self.options.values(), strict=True) if given]

    @property
    def options(self) -> dict[str, object]:
        """What is asked of each step, by the name that an error gives it."""
        return {"prune_vocab": self.corpus, "drop_layers": self.drop_layers, "embedding": self.embedding}

    @property
    def measured_on(self) -> tuple[str, str]:
        """The text, and its name."""
        if not self.text:
            return perplexity.text(), perplexity.TEXT
        return self.text, one_line(self.text_name) or f"a text of {len(self.text)} characters"

    def mark(self) -> dict[str, Any]:
        """For an artifact's fingerprint."""
        text, name = self.measured_on
        texts = {"corpus": self.corpus, "text": text}
        hashes = {of: hashlib.sha256(each.encode()).hexdigest() for of, each in texts.items()}
        return {"drop_layers": self.drop_layers, "embedding": self.embedding, "text name": name, **hashes}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known before anything is compiled. ``fewer_tokens``: the source without the tokens that go. ``sized``: as
    large as what `prune` gives, but for the embedding; of layers that differ the lightest are left out."""

    source: Source = field(repr=False)
    fewer_tokens: Source = field(repr=False)
    sized: Source = field(repr=False)


def prepare(source: Source, wanted: Wanted) -> Prepared:
    """Raises `InvalidRequest` and `Unsupported` for what is refused."""
    if wanted.drop_layers:
        layers.check_count(source.architecture, wanted.drop_layers)
    if wanted.embedding:
        check_embedding(source, wanted.embedding)
    text, name = wanted.measured_on
    if len(loaded(source).encode(text)) < 2:
        raise InvalidRequest(f"{name} has no two tokens: nothing can be measured on it", field="text")
    fewer = prune_vocabulary(source, wanted.corpus) if wanted.corpus else source
    count = wanted.drop_layers
    return Prepared(source, fewer, layers.drop_layers(fewer, layers.lightest(fewer, count)) if count else fewer)


@dataclass(frozen=True, slots=True)
class _Measured:
    """``bytes``: of weights and tokenizer; ``influences``: of the layers, where they were asked for."""

    bytes: int
    score: perplexity.Scored
    influences: Sequence[float]


def prune(prepared: Prepared, wanted: Wanted, compiled: Compiled) -> tuple[Source, list[Pruning]]:
    """The smaller model, but for its embedding's format, which each level is given; and what each step did. Raises
    `Unsupported` where every layer with attention would go."""
    source = prepared.source
    text, name = wanted.measured_on
    done: list[Pruning] = []
    kinds, embedding = [*wanted.kinds, ""], ""
    before = _measure(source, embedding, text, compiled, kinds[0] == "layers")
    for kind, following in pairwise(kinds):
        facts: dict[str, Any]
        if kind == "vocabulary":
            source = prepared.fewer_tokens
            facts = {"tokens": source.architecture.vocab}
        elif kind == "layers":
            dropped = layers.least(before.influences, wanted.drop_layers)
            source = layers.drop_layers(source, dropped)
            facts = {"layers": tuple(dropped)}
        else:
            embedding = wanted.embedding
            facts = {"format": embedding}
        after = _measure(source, embedding, text, compiled, following == "layers")
        step = Pruning(
            kind=kind,
            saved_bytes=max(0, before.bytes - after.bytes),
            perplexity_before=before.score.perplexity,
            perplexity=after.score.by_tokens_of(before.score),
            text=name,
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
        (score,) = perplexity.measure(folder, [""], "native", on=text)
        influences = perplexity.run(layers.influences(folder, score.ids)) if layered else ()
    return _Measured(size, score, influences)
