"""A TEST DOUBLE of an engine: no model, but strict about KV pages, so that a bug in their bookkeeping shows.

It stores the tokens themselves as "KV", in the pages that a feed names, and reads every earlier token of the sequence
back from those pages before it chooses the next one, which is a hash of all that it read. A wrong page, position or
block table changes the answer or raises. It also refuses what the protocol forbids: overlapping calls, too many rows
or sequences, a write to a page that another sequence reads, a page never reserved.

With ``groups`` it stores each token in the pages of every group, and reads back from each what its window shows. The
first group tells what the next token is: where that one sees everything, answers are those of an engine without groups.
"""

from __future__ import annotations

import asyncio
import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from inpage.engines.protocol import EngineInfo, Grammar, Logprob, OnTokens, RunOutput, SequenceInput, StepOutput
from inpage.errors import InvalidRequest, OutOfMemory
from inpage.format.plan_types import KvGroup


def double_info(**changes: int) -> EngineInfo:
    sizes = {
        "vocab": 1000,
        "context": 256,
        "page_tokens": 4,
        "page_bytes": 64,
        "max_rows": 32,
        "max_sequences": 4,
        "max_logit_rows": 8,
        "max_pages": 256,
        "weight_bytes": 0,
        "arena_bytes": 0,
        "load_ms": 1,
    } | changes
    return EngineInfo(backend="double", variant="double", threads=1, **sizes)


class PagedDouble:
    """``memory_pages``: reserving more raises `OutOfMemory`. ``poison``: a token that makes its call fail."""

    def __init__(
        self,
        *,
        memory_pages: int = 10_000,
        poison: int | None = None,
        stop_every: int = 0,
        groups: Sequence[KvGroup] = (),
        **sizes: int,
    ) -> None:
        self.info = replace(double_info(**sizes), groups=tuple(groups))
        self.groups = tuple(groups) or (KvGroup((), self.info.page_tokens),)
        self.memory_pages, self.poison, self.stop_every = memory_pages, poison, stop_every
        self.reserved = 0
        self.failure: BaseException | None = None
        self.calls: list[tuple[str, list[SequenceInput]]] = []
        self.interrupts = 0
        self.unloaded = False
        self.busy_s = 0.0  # a millisecond a call
        self.compiling: asyncio.Event | None = None  # set when grammars are ready
        self.compiled: list[Grammar] = []
        self._kv: dict[tuple[int, int], tuple[int, int]] = {}
        self._busy = False
        self._doorbell = False

    async def reserve_pages(self, pages: int) -> None:
        if pages > self.memory_pages or pages > self.info.max_pages:
            raise OutOfMemory(f"{pages} pages")
        await asyncio.sleep(0)
        self.reserved = max(self.reserved, pages)

    async def read_pages(self, pages: Sequence[int]) -> bytes:
        """What `_write` put there, -1 where it put nothing; padded to ``page_bytes``. May come beside other calls."""
        assert all(0 <= page < self.reserved for page in pages), "a page was never reserved"
        await asyncio.sleep(0)
        slots = range(self._slots)
        values = [array("i", [n for s in slots for n in self._kv.get((page, s), (-1, -1))]) for page in pages]
        return b"".join(words.tobytes().ljust(self.info.page_bytes, b".") for words in values)

    async def write_pages(self, pages: Sequence[int], data: bytes) -> None:
        size = self.info.page_bytes
        assert all(0 <= page < self.reserved for page in pages), "a page was never reserved"
        assert len(data) == len(pages) * size
        await asyncio.sleep(0)
        for i, page in enumerate(pages):
            words = array("i", data[i * size : i * size + 8 * self._slots])
            for slot in range(self._slots):
                self._kv[page, slot] = words[2 * slot], words[2 * slot + 1]

    @property
    def _slots(self) -> int:
        return max(group.page_tokens for group in self.groups)

    def _tables(self, feed: SequenceInput) -> list[tuple[KvGroup, Sequence[int]]]:
        if self.info.groups:
            assert [*feed.tables[0]] == [*feed.pages]
        return list(zip(self.groups, feed.tables if self.info.groups else [feed.pages], strict=True))

    async def prepare(self, grammar: Grammar) -> None:
        if self.compiling is not None:
            await self.compiling.wait()
        if not grammar.source:
            raise InvalidRequest("schema cannot be followed", field="schema")
        self.compiled.append(grammar)

    async def step(self, feeds: Sequence[SequenceInput]) -> list[StepOutput]:
        with self._alone():
            self._check("step", feeds)
            await asyncio.sleep(0)
            return [self._step(feed) for feed in feeds]

    async def run(
        self, feeds: Sequence[SequenceInput], max_steps: int, on_tokens: OnTokens | None = None
    ) -> list[RunOutput]:
        with self._alone():
            self._check("run", feeds)
            assert all(len(feed.tokens) == 1 and feed.max_new_tokens > 0 for feed in feeds)
            self._doorbell = False
            outs = [RunOutput([], None) for _ in feeds]
            heard, next_tell = 0, 1
            for step in range(1, max_steps + 1):
                for feed, out in zip(feeds, outs, strict=True):
                    self._decode(feed, out)
                await asyncio.sleep(0)
                if self._doorbell or all(out.finished for out in outs):
                    break
                if on_tokens is not None and step == next_tell and step < max_steps:
                    on_tokens([RunOutput(out.tokens[heard:], out.finished, out.logprobs[heard:]) for out in outs])
                    heard, next_tell = step, step + 2 * (step - heard)
            return [RunOutput(out.tokens[heard:], out.finished, out.logprobs[heard:]) for out in outs]

    async def interrupt(self) -> None:
        self.interrupts += 1
        self._doorbell = True

    async def counts(self) -> dict[str, int]:
        return {}

    async def unload(self) -> None:
        assert not self._busy
        self.unloaded = True

    def _decode(self, feed: SequenceInput, out: RunOutput) -> None:
        if out.finished:
            return
        position = feed.start + len(out.tokens)
        if any(position >= len(pages) * group.page_tokens for group, pages in self._tables(feed)):
            out.finished = "pages"
            return
        self._write(feed, position, out.tokens[-1] if out.tokens else feed.tokens[0])
        out.tokens.append(self._choose(feed, position, [*feed.history, *out.tokens]))
        out.logprobs = [*out.logprobs, *_told(feed, out.tokens[-1])]
        if out.tokens[-1] in feed.stop_ids:
            out.finished = "stop"
        elif len(out.tokens) == feed.max_new_tokens:
            out.finished = "length"

    def _step(self, feed: SequenceInput) -> StepOutput:
        out = StepOutput(scores=[] if feed.targets is not None else None)
        for i, token in enumerate(feed.tokens):
            self._write(feed, feed.start + i, token)
            if feed.targets is not None and out.scores is not None:
                guess = self._choose(feed, feed.start + i, feed.history)
                out.scores.append((guess, (guess % 97) / 10, 1.0))
        if feed.sample:
            out.token = self._choose(feed, feed.start + len(feed.tokens) - 1, feed.history)
            out.logprobs = _told(feed, out.token)
        return out

    def _write(self, feed: SequenceInput, position: int, token: int) -> None:
        for group, pages in self._tables(feed):
            page, slot = divmod(position, group.page_tokens)
            self._kv[pages[page], slot] = (position, token)

    def _choose(self, feed: SequenceInput, position: int, history: Sequence[int]) -> int:
        views = [self._seen(group, pages, position) for group, pages in self._tables(feed)]
        shortest = min(map(len, views))
        assert all(view[-shortest:] == views[0][-shortest:] for view in views)
        seen = views[0]
        penalties = history if feed.sampling.repetition_penalty != 1.0 else ()
        seed = feed.sampling.seed if feed.sampling.temperature > 0 else None
        digest = hashlib.sha256(repr((seen, tuple(penalties), seed)).encode()).digest()
        number = int.from_bytes(digest[:4], "little")
        if self.stop_every and number % self.stop_every == 0:
            return 2
        return 3 + number % (self.info.vocab - 3)

    def _seen(self, group: KvGroup, pages: Sequence[int], position: int) -> list[int]:
        out = []
        for earlier in range(0 if group.window is None else max(0, position - group.window + 1), position + 1):
            page, slot = divmod(earlier, group.page_tokens)
            stored, token = self._kv[pages[page], slot]
            assert stored == earlier, f"page {pages[page]} holds position {stored}, not {earlier}"
            out.append(token)
        return out

    def _check(self, kind: str, feeds: Sequence[SequenceInput]) -> None:
        self.calls.append((kind, list(feeds)))
        self.busy_s += 1e-3
        if self.failure is not None:
            raise self.failure
        info = self.info
        assert 0 < len(feeds) <= info.max_sequences
        assert sum(len(feed.tokens) for feed in feeds) <= info.max_rows
        assert sum(len(f.targets) if f.targets is not None else int(f.sample) for f in feeds) <= info.max_logit_rows
        tables = [(feed, group, pages) for feed in feeds for group, pages in self._tables(feed)]
        readers = Counter(page for feed, group, pages in tables for page in self._live(feed, group, pages))
        written = [page for feed, group, pages in tables for page in pages[feed.start // group.page_tokens :]]
        assert all(readers[page] == 1 for page in written), "a page that is written is in two sequences"
        assert all(0 <= page < self.reserved for _, _, pages in tables for page in pages), "a page was never reserved"
        for feed, group, pages in tables:
            assert feed.start + len(feed.tokens) <= len(pages) * group.page_tokens
        for feed in feeds:
            assert feed.tokens and all(0 <= token < info.vocab for token in feed.tokens)
            if self.poison is not None and self.poison in feed.tokens:
                raise RuntimeError("poisoned token")

    def _live(self, feed: SequenceInput, group: KvGroup, pages: Sequence[int]) -> Sequence[int]:
        """Those that this feed reads or writes."""
        first = 0 if group.window is None else max(0, feed.start - group.window + 1)
        return pages[first // group.page_tokens :]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        assert not self._busy, "two calls at once"
        self._busy = True
        try:
            yield
        finally:
            self._busy = False


def _told(feed: SequenceInput, token: int) -> list[Logprob]:
    """A logprob that tells the token; the likeliest after it are those that follow it."""
    if feed.top is None:
        return []
    return [Logprob(token, -token / 100, tuple((token + i, -(token + i) / 100) for i in range(feed.top)))]
