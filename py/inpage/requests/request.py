"""One sequence on its way through the scheduler: what was asked, how far it is, the way back to its caller."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..engines.protocol import EngineInfo, Grammar, Logprob, Sampling, SequenceInput
from ..errors import Unsupported
from ..format.abi import MAX_STOP
from .grammar import unmet_need
from .rounds import Rounds

_HISTORY = 256  # how far back an engine's penalties look (INPAGE_HISTORY)
_serial = itertools.count()


@dataclass(slots=True)
class Burst:
    """Tokens that became known together. ``finish`` is set on a request's last event, which may have none."""

    tokens: list[int]
    finish: str | None = None  # "stop", "length", "cancelled"


@dataclass(slots=True)
class Interruption:
    """An engine that died in mid-answer. ``gap_ms`` runs until the answer goes on; None while it does not."""

    before: str  # variant
    after: str
    reason: str
    began: float
    gap_ms: float | None = None

    def report(self) -> dict[str, Any]:
        return {"from": self.before, "to": self.after, "reason": self.reason, "gap_ms": self.gap_ms}


@dataclass(slots=True, eq=False)
class Request:
    """A sequence to generate (``max_tokens`` > 0), to score (``targets``: an id a prompt position, -1: none) or to
    embed (``embeds``): then ``vector`` is what an encoder gives for it, and ``segment`` says how many of its tokens
    come before a second text.

    ``tokens`` given at the start were produced by an earlier run: the answer goes on after them. Its KV can be thrown
    away at any time and computed again from ``prompt + tokens``: ``num_computed_tokens`` counts the positions whose KV
    stands in ``pages``.
    """

    prompt: Sequence[int]
    max_tokens: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    stop_ids: Sequence[int] = ()
    targets: Sequence[int] | None = None
    client: str = ""  # requests of one client share its turns
    priority: int = 0  # higher goes first
    deadline: float | None = None  # of `time.perf_counter`
    patient: bool = False  # waits for its turn for as long as that takes: what it waits for is of the same call
    grammar: Grammar | None = None  # what the answer is held to
    embeds: bool = False
    segment: int | None = None
    top: int | None = None  # report each token in ``logprobs``, with so many of the likeliest
    max_repeats: int | None = None  # copies of a block of tokens that end the answer

    serial: int = field(default_factory=lambda: next(_serial))
    tokens: list[int] = field(default_factory=list)
    scores: list[tuple[int, float, float]] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)  # of this run's tokens
    vector: Any = None  # float32 array
    pages: list[int] = field(default_factory=list)
    tables: list[list[int]] = field(default_factory=list)  # by group, where the engine has several
    num_computed_tokens: int = 0
    cached: int = 0  # tokens of the prompt that were not computed, because another request had
    cancelled: bool = False
    done: bool = False
    reproducible: bool = True  # all of its tokens came from engines that give the same ones again
    suspect: bool = False  # an engine died in its call: it runs alone until it gets on
    killed: list[str] = field(default_factory=list)  # variants whose engine died running it alone, without a new token
    interruptions: list[Interruption] = field(default_factory=list)
    events: asyncio.Queue[Burst | BaseException] = field(default_factory=asyncio.Queue)

    resumed_at: int = field(init=False)  # tokens that an earlier run had produced
    _rounds: Rounds | None = field(init=False, default=None)
    _circles: bool = field(init=False, default=False)  # the earlier run's tokens do
    submitted: float | None = None
    started: float | None = None  # first prefill chunk goes in
    first: float | None = None  # first token comes out
    last: float | None = None  # last token came out

    def __post_init__(self) -> None:
        self.resumed_at = len(self.tokens)
        if self.max_repeats is not None:
            self._rounds = Rounds(self.max_repeats)
            self._circles = self._rounds.push(self.tokens) is not None

    @property
    def name(self) -> str:
        """By which an engine knows what it keeps of this sequence."""
        return str(self.serial)

    @property
    def needs(self) -> list[str]:
        """The `Flags` that an engine must have for it."""
        needs = {"grammars": self.grammar is not None, "logprobs": self.top is not None, "embeds": self.embeds}
        return [flag for flag, needed in needs.items() if needed]

    def unmet(self, info: EngineInfo) -> Unsupported | None:
        """What it needs that this engine has not."""
        if self.embeds and not info.embeds:
            return Unsupported(
                "this model answers with text: embeddings and ranks need a model made for them", field="model"
            )
        if info.embeds and not self.embeds:
            return Unsupported(
                "this model makes embeddings or ranks texts: it does not write or score them", field="model"
            )
        return unmet_need(self.grammar, self.top, info)

    @property
    def produced(self) -> int:
        """Tokens of this run."""
        return len(self.tokens) - self.resumed_at

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.tokens)

    @property
    def end(self) -> int:
        """Positions that this request can ever occupy."""
        return len(self.prompt) + self.max_tokens

    @property
    def goes_elsewhere(self) -> bool:
        """Whether another engine can go on from its tokens: scores and vectors are of one engine."""
        return self.targets is None and not self.embeds

    def room(self, more: int = 0) -> int:
        """Tokens for which another engine must have room to go on with it. ``more``: it may have got until then."""
        return min(self.end, self.length + more + 1) if self.goes_elsewhere else 0

    @property
    def decoding(self) -> bool:
        """Everything but the newest token is in the KV pages."""
        return bool(self.tokens) and self.num_computed_tokens == self.length - 1

    @property
    def to_prefill(self) -> int:
        """Tokens to feed before decoding (again). The newest produced token is left for the decode step."""
        return 0 if self.decoding else self.length - self.num_computed_tokens - (1 if self.tokens else 0)

    @property
    def ending(self) -> str | None:
        """How it ends already, where it was made with tokens that another run had produced."""
        if self._circles or (self.tokens and self.tokens[-1] in self.stop_ids):
            return "stop"
        return "length" if self.tokens and len(self.tokens) >= self.max_tokens else None

    def end_in(self, tokens: Sequence[int]) -> int | None:
        """How many of its next tokens it takes to an end that the engine does not know of; None where there is none."""
        more = self.stop_ids[MAX_STOP:]
        ends = [next((i + 1 for i, token in enumerate(tokens) if token in more), None)] if more else []
        if self._rounds is not None:
            ends.append(self._rounds.push(tokens))
        return min((end for end in ends if end is not None), default=None)

    def circle(self, tokens: Sequence[int]) -> int | None:
        """How many tokens an answer of these has by ``max_repeats``; None for all."""
        return None if self.max_repeats is None else Rounds(self.max_repeats).push(tokens)

    def goes_on(self, now: float) -> None:
        """A token came out, or none ever will: gaps are over."""
        for interruption in self.interruptions:
            if interruption.gap_ms is None:
                interruption.gap_ms = (now - interruption.began) * 1e3

    def ids(self, count: int | None = None) -> Sequence[int]:
        """Its first ``count`` tokens, prompt and answer, or all."""
        return self.slice(0, self.length if count is None else count)

    def prefill_input(self, count: int) -> SequenceInput:
        """The next ``count`` tokens; the last chunk of a fresh prompt also chooses the first token."""
        if self.embeds:
            return SequenceInput(self.prompt, 0, (), request=self.name, want_logits=True, segment=self.segment)
        end = self.num_computed_tokens + count
        first_choice = self.targets is None and not self.tokens and end == len(self.prompt)
        feed = SequenceInput(
            tokens=self.slice(self.num_computed_tokens, end),
            start=self.num_computed_tokens,
            pages=self.pages,
            tables=self.tables,
            request=self.name,
            sampling=self.sampling,
            history=self._history() if first_choice else (),
            sample=first_choice or (self.targets is not None and self.top is not None),
            targets=None if self.targets is None else self.targets[self.num_computed_tokens : end],
        )
        return self._guided(feed) if feed.sample else feed

    def decode_input(self) -> SequenceInput:
        return self._guided(
            SequenceInput(
                tokens=self.tokens[-1:],
                start=self.num_computed_tokens,
                pages=self.pages,
                tables=self.tables,
                request=self.name,
                sampling=self.sampling,
                history=self._history(),
                max_new_tokens=self.max_tokens - len(self.tokens),
                stop_ids=self.stop_ids[:MAX_STOP],
            )
        )

    def _guided(self, feed: SequenceInput) -> SequenceInput:
        feed.top = self.top
        if self.grammar is not None:
            feed.grammar, feed.answer = self.grammar, self.tokens
        return feed

    def slice(self, start: int, end: int) -> Sequence[int]:
        """Its tokens ``start`` to ``end``, prompt and answer, without copying those before."""
        split = len(self.prompt)
        if end <= split:
            return self.prompt[start:end]
        return [*self.prompt[start:split], *self.tokens[max(0, start - split) : end - split]]

    def _history(self) -> Sequence[int]:
        """What penalties count. Presence and frequency are OpenAI's and count the answer alone, and so does what goes
        with them; repetition alone counts the prompt too, as in vLLM and llama.cpp."""
        s = self.sampling
        if s.presence_penalty or s.frequency_penalty:
            return self.tokens[-_HISTORY:]
        return () if s.repetition_penalty == 1.0 else self.slice(max(0, self.length - _HISTORY), self.length)
