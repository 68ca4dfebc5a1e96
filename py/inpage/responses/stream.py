"""One answer on its way to the caller: as a stream of pieces, or whole.

async for delta in router.chat("Hello"):    # pieces; leaving the loop cancels the request
    print(delta.text, end="")
answer = await router.chat("Hello")         # whole
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..engines.protocol import Logprob
from ..errors import InvalidRequest
from ..requests.request import Burst, Request
from ..text.stop_strings import StopStrings
from ..text.tokenizer import Detokenizer, Tokenizer
from .sharing import Events, SharedRuns


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished answer. ``token_ids`` include the stop token that ended it; ``text`` leaves control tokens out.

    ``ttft_ms`` is from the call to the first token, waiting included; ``prefill_tps`` and ``decode_tps`` are tokens a
    second while the prompt was read and while the tokens after the first were made (0 where there were none).
    ``failovers``: each engine that died in mid-answer, as ``{"from", "to", "reason", "gap_ms"}`` with variants' names
    and the milliseconds until the answer went on; ``backend`` and ``variant`` are those that ended it."""

    prompt_ids: list[int]
    token_ids: list[int]
    text: str
    finish_reason: str  # "stop", "length" or "cancelled"
    seed: int
    load_ms: float
    ttft_ms: float
    prefill_tps: float
    decode_tps: float
    threads: int
    backend: str
    variant: str
    why: str
    failovers: list[dict[str, Any]] = field(default_factory=list)
    cached_tokens: int = 0  # of the prompt: read from pages that an earlier request had computed
    source: str = "engine"  # or whence the answer came: "memory", "storage", "bundle", "shared" (with one in flight)
    logprobs: list[Logprob] = field(default_factory=list)  # of this run's tokens, where they were asked for
    ended: str = ""  # "repeats": it went in circles, and ``max_repeats`` ended it

    @property
    def usage(self) -> dict[str, Any]:
        """Token counts, in OpenAI's words."""
        return usage([self])


# The answer to a request that was cancelled before anything was known of it.
NOTHING = Completion([], [], "", "cancelled", 0, 0.0, 0.0, 0.0, 0.0, 0, "", "", "")


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer: what became certain since the piece before. ``text`` never ends inside a character and
    may be empty. The last piece has ``result``. ``failovers``: those just before this piece, as in `Completion`;
    ``logprobs``: of ``token_ids``, where they were asked for."""

    text: str
    token_ids: list[int] = field(default_factory=list)
    result: Completion | None = None
    failovers: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Facts:
    """What every completion reports of the engine that made it."""

    load_ms: float
    threads: int
    backend: str
    variant: str
    why: str


@dataclass(frozen=True, slots=True)
class Kept:
    """Where an answer may come from instead of a run of one's own: see `inpage.responses.sharing`."""

    runs: SharedRuns
    key: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Later:
    """A request whose prompt is long: made when it is read, beside the event loop, or at once by ``now``. Both give the
    request and where its answer may be kept, and raise what is wrong with it."""

    seed: int
    now: Callable[[], tuple[Request, Kept | None]]
    aside: Callable[[], Awaitable[tuple[Request, Kept | None]]]


class Submits(Protocol):
    """What is needed of `Scheduler` or `Replicas`."""

    def submit(self, request: Request) -> None: ...
    def cancel(self, request: Request) -> None: ...


class Stream:
    """Iterate it or await it, once. The request is queued when that begins, and cancelled when the iterator is closed
    or the awaiting task is."""

    def __init__(
        self,
        scheduler: Submits,
        asked: Request | Later,
        tokenizer: Tokenizer,
        facts: Callable[[], Facts],
        stop: Sequence[str] = (),
        kept: Kept | None = None,
        continues: bool = False,
    ) -> None:
        """``continues``: the answer goes on with the prompt's text, and is no text of its own."""
        self._scheduler = scheduler
        self._continues = continues
        self._later = asked if isinstance(asked, Later) else None
        self._made = (asked, kept) if isinstance(asked, Request) else None
        self._tokenizer = tokenizer
        self._facts = facts
        self._stop = stop
        self._left = False
        self._begun = False
        self._events: Events | None = None
        self._source = "engine"
        self.earlier = ""  # what was said before this run, where it resumes another: known when the first piece is

    @property
    def prompt_ids(self) -> list[int]:
        """Those of a long prompt are there without waiting once it is read."""
        return list(self._request.prompt)

    @property
    def seed(self) -> int:
        return self._request.sampling.seed if self._later is None else self._later.seed

    @property
    def inner(self) -> bool:
        """Whether its text goes on with a text before it. A grammar's is the grammar's from its first character."""
        request = self._request
        return request.grammar is not None or (
            self._continues and request.prompt[-1] not in self._tokenizer.control_ids
        )

    @property
    def kept(self) -> Kept | None:
        """Where a kept answer would lie; None where the answer is not determined, or none are kept."""
        return self._prepared[1]

    @property
    def _request(self) -> Request:
        return self._prepared[0]

    @property
    def _prepared(self) -> tuple[Request, Kept | None]:
        if self._made is None:
            assert self._later is not None
            self._made = self._later.now()
        return self._made

    def cancel(self) -> None:
        """End it from outside: whoever reads it gets what there is, with ``finish_reason`` "cancelled"."""
        self._leave()

    def _leave(self) -> None:
        self._left = True
        if self._made is None:
            return  # it is cancelled as soon as it is made
        kept = self.kept
        if kept is None:
            self._scheduler.cancel(self._request)
            return
        kept.runs.leave(kept.key, self._request)
        if not self._request.done:
            self._request.done = True
            if self._events is not None:
                self._events.put_nowait(Burst([], "cancelled"))

    async def _open(self) -> Events:
        """Where the answer's bursts come from. A request that was cancelled before is not begun."""
        kept = self.kept
        if self._request.max_tokens == 0 or (kept is not None and self._request.done):
            events: Events = asyncio.Queue()
            events.put_nowait(Burst([], "cancelled" if self._left else "length"))
            return events
        if kept is None:
            self._scheduler.submit(self._request)
            return self._request.events
        self._events, self._source = await kept.runs.open(kept.key, self._request, kept.tags)
        return self._events

    def __aiter__(self) -> AsyncGenerator[Delta]:
        return self._read()

    def __await__(self) -> Generator[Any, None, Completion]:
        return self._whole().__await__()

    async def _whole(self) -> Completion:
        async for delta in self:
            if delta.result is not None:
                return delta.result
        raise AssertionError("a stream ends with a result or an error")

    async def _read(self) -> AsyncGenerator[Delta]:
        if self._begun:
            raise InvalidRequest("a stream can be read once; make a new one")
        self._begun = True
        if self._made is None and self._later is not None:
            self._made = await self._later.aside()
            if self._left:
                self._leave()
        request, stops = self._request, StopStrings(self._stop)
        detokenizer = Detokenizer(self._tokenizer, inner=self.inner)
        texts = [stops.push(detokenizer.push(request.tokens))]  # of an earlier run, whose reader has them
        self.earlier = texts[0]
        said, told = len(request.tokens), 0
        try:
            events = await self._open()
            while True:
                event = await events.get()
                if isinstance(event, BaseException):
                    raise event
                text, tokens, finish = "", event.tokens, event.finish
                if self._stop:
                    for i, token in enumerate(self._shown(tokens, finish)):
                        text += stops.push(detokenizer.push([token]))
                        if stops.matched is not None:
                            tokens = tokens[: i + 1]
                            break
                else:
                    text = detokenizer.push(self._shown(tokens, finish))
                if finish is not None:
                    text += stops.push(detokenizer.flush()) + stops.flush()
                if stops.matched is not None:
                    finish = "stop"
                texts.append(text)
                said += len(tokens)
                logprobs = request.logprobs[said - len(tokens) - request.resumed_at : said - request.resumed_at]
                result = None if finish is None else self._completion("".join(texts), said, finish, stops.matched)
                over = [i.report() for i in request.interruptions[told:] if i.gap_ms is not None]
                told += len(over)
                yield Delta(text, tokens, result, over, logprobs)
                if result is not None:
                    return
        finally:
            self._leave()

    def _shown(self, tokens: list[int], finish: str | None) -> list[int]:
        """Without the token that ended the answer, be it text."""
        ended = finish == "stop" and tokens and tokens[-1] in self._request.stop_ids
        return tokens[:-1] if ended else tokens

    def _completion(self, text: str, tokens: int, finish: str, stop: str | None) -> Completion:
        request, facts = self._request, self._facts()
        given = request.tokens[:tokens]
        circles = finish == "stop" and stop is None and request.circle(given) == len(given) > 0
        submitted, started = request.submitted, request.started
        first, last = request.first, request.last
        read = request.length - request.produced - request.cached
        return Completion(
            prompt_ids=list(request.prompt),
            token_ids=given,
            text=text,
            finish_reason=finish,
            seed=request.sampling.seed,
            ttft_ms=0.0 if first is None or submitted is None else (first - submitted) * 1e3,
            prefill_tps=0.0 if first is None or started is None else _rate(read, first - started),
            decode_tps=0.0 if first is None or last is None else _rate(request.produced - 1, last - first),
            load_ms=facts.load_ms,
            threads=facts.threads,
            backend=facts.backend,
            variant=facts.variant,
            why=facts.why,
            failovers=[interruption.report() for interruption in request.interruptions],
            cached_tokens=request.cached,
            source=self._source,
            logprobs=request.logprobs[: tokens - request.resumed_at],
            ended="repeats" if circles else "",
        )


def usage(answers: Sequence[Completion], choices: int = 1) -> dict[str, Any]:
    """Tokens of one request's answers together, in OpenAI's words; a prompt counts once for its ``choices``, which
    stand behind each other."""
    firsts = answers[::choices]
    read = sum(len(answer.prompt_ids) for answer in firsts)
    written = sum(len(answer.token_ids) for answer in answers)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": sum(answer.cached_tokens for answer in firsts)},
    }


async def together(streams: Sequence[Stream]) -> list[Completion]:
    """All answers, in the streams' order, or the first error; the others are cancelled then."""
    tasks = [asyncio.ensure_future(stream._whole()) for stream in streams]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def _rate(count: int, seconds: float) -> float:
    return count / seconds if count > 0 and seconds > 0 else 0.0
