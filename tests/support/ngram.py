"""An engine that is no more than a table of which token follows which two: it has no KV pages, no plan, no grammars and
no logprobs, and keeps its sequences itself. It is strict about the protocol, so that a bug in how it is driven shows.

All that the product needs to know of it is ``KIND``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict

from inpage.engines.protocol import EngineInfo, Flags, Grammar, OnTokens, RunOutput, SequenceInput, StepOutput
from inpage.engines.registry import EngineKind, LoadJob
from inpage.errors import DeviceLost

FLAGS = Flags(paged=False, deterministic=False, grammars=False, logprobs=False)
_FIRST = 300  # behind the control tokens and single bytes


def follows(tokens: Sequence[int], vocab: int) -> int:
    """What comes after ``tokens``."""
    before, last = tokens[-2:] if len(tokens) > 1 else (0, tokens[-1])
    return _FIRST + (before * 7919 + last * 104729 + 17) % (vocab - _FIRST)


def continued(tokens: Sequence[int], count: int, vocab: int) -> list[int]:
    """The next ``count`` tokens."""
    all_tokens = list(tokens)
    for _ in range(count):
        all_tokens.append(follows(all_tokens, vocab))
    return all_tokens[len(tokens) :]


class NGram:
    """``fate``: asked before each token, by how many this engine gave; true where it dies."""

    fate: Callable[[int], bool] = staticmethod(lambda given: False)

    def __init__(self, info: EngineInfo) -> None:
        self.info = info
        self.sequences: dict[str, list[int]] = {}
        self.begun = self.given = 0  # sequences from their first token on, tokens chosen
        self.busy_s = 0.0
        self._busy = self._rung = False
        self._dropped: set[str] = set()

    async def prepare(self, grammar: Grammar) -> None:
        raise AssertionError("a grammar for an engine that follows none")

    async def step(self, feeds: Sequence[SequenceInput]) -> list[StepOutput]:
        async with self._alone(feeds):
            outs = []
            for feed in feeds:
                self._take(feed)
                outs.append(StepOutput(token=self._next(feed.request) if feed.sample else None))
            return outs

    async def run(
        self, feeds: Sequence[SequenceInput], max_steps: int, on_tokens: OnTokens | None = None
    ) -> list[RunOutput]:
        async with self._alone(feeds):
            self._rung = False
            for feed in feeds:
                assert len(feed.tokens) == 1
                self._take(feed)
            outs = [RunOutput([], None) for _ in feeds]
            for step in range(max_steps):
                if step and on_tokens is not None:
                    on_tokens(outs)
                    outs = [RunOutput([], out.finished) for out in outs]
                for feed, out in zip(feeds, outs, strict=True):
                    if out.finished is None:
                        token = self._next(feed.request)
                        out.tokens.append(token)
                        given = len(self.sequences[feed.request]) - feed.start
                        out.finished = "length" if given == feed.max_new_tokens else None
                        if out.finished is None and step + 1 < max_steps:
                            self.sequences[feed.request].append(token)
                await asyncio.sleep(0)
                if self._rung or all(out.finished for out in outs):
                    break
            return outs

    def drop(self, request: str) -> None:
        if self._busy:
            self._dropped.add(request)
        else:
            self.sequences.pop(request, None)

    async def interrupt(self) -> None:
        self._rung = True

    async def counts(self) -> dict[str, int]:
        return {"sampled": self.given}

    async def unload(self) -> None:
        assert not self._busy

    def _take(self, feed: SequenceInput) -> None:
        own = self.sequences.setdefault(feed.request, [])
        assert feed.request and not feed.pages and feed.targets is None
        assert feed.grammar is None and feed.top is None, "it was asked for what it cannot do"
        assert feed.start <= len(own), "the tokens before these are not here"
        assert feed.start + len(feed.tokens) <= self.info.context
        del own[feed.start :]
        own += feed.tokens
        self.begun += feed.start == 0
        assert len(self.sequences) <= self.info.max_sequences + 1, "sequences that ended were not dropped"

    def _next(self, request: str) -> int:
        if self.fate(self.given):
            raise DeviceLost("the table is torn")
        self.given += 1
        return follows(self.sequences[request], self.info.vocab)

    def _alone(self, feeds: Sequence[SequenceInput]) -> _Alone:
        assert 0 < len(feeds) <= self.info.max_sequences
        assert sum(len(feed.tokens) for feed in feeds) <= self.info.max_rows
        return _Alone(self)


class _Alone:
    def __init__(self, engine: NGram) -> None:
        self._engine = engine

    async def __aenter__(self) -> None:
        assert not self._engine._busy, "two calls at once"
        self._engine._busy = True
        await asyncio.sleep(0)

    async def __aexit__(self, *_: object) -> None:
        engine = self._engine
        engine._busy = False
        for request in engine._dropped:
            engine.sequences.pop(request, None)
        engine._dropped.clear()


async def load(job: LoadJob) -> NGram:
    architecture = job.manifest.architecture
    return NGram(
        EngineInfo(
            backend=job.variant.backend,
            variant=job.variant.name,
            threads=1,
            vocab=architecture.vocab,
            context=512,
            page_tokens=1,
            page_bytes=0,
            max_rows=32,
            max_sequences=2,
            max_logit_rows=32,
            max_pages=0,
            weight_bytes=0,
            arena_bytes=0,
            load_ms=0.0,
            **asdict(job.flags),
        )
    )


KIND = EngineKind("ngram", "n-grams", "host", load, FLAGS, files=())
