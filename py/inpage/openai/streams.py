"""Answers as streams of server-sent events, and what it takes to go on with one whose router died."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import InpageError, InvalidRequest, only_faults, typed
from ..requests.tool_calls import CallReader, Event, Said
from ..responses.stream import Completion, Delta, Stream
from . import responses
from .logprobs import Places
from .responses import Echo, ResponseWriter


@dataclass(slots=True)
class Position:
    """How far a stream is. Another router that is asked the same with this goes on with the next event.

    ``token_ids``: all that the events so far are made of; they are complete for each text of the iterator."""

    id: str
    created: int
    seed: int
    token_ids: list[int] = field(default_factory=list)
    events: int = 0

    @staticmethod
    def of(given: Any) -> Position:
        """Check what came as JSON; the router checks the ids."""
        kinds = {"id": str, "created": int, "seed": int, "token_ids": list, "events": int}
        if not isinstance(given, dict) or set(given) != set(kinds):
            raise InvalidRequest(f"resume must be an object of {', '.join(kinds)}", field="resume")
        for name, kind in kinds.items():
            if not isinstance(given[name], kind) or isinstance(given[name], bool):
                raise InvalidRequest(f"resume.{name} must be of type {kind.__name__}", field=f"resume.{name}")
        return Position(**given)


class Writes(Protocol):
    """Turns pieces of answers into the events that tell them."""

    def delta(self, index: int, delta: Delta) -> list[str]: ...
    def replay(self, earlier: str, tokens: Sequence[int], events: int) -> None:
        """Take in what an earlier run's events said, of one answer alone."""
        ...

    def end(self) -> list[str]:
        """What comes after the last piece of the last answer."""
        ...

    def failed(self, error: InpageError) -> list[str]: ...


class ChoiceEvents:
    """The events of chat completions and completions. ``stops``: there are stop strings, so that what a token stands
    for may yet be left out."""

    def __init__(self, answer: ResponseWriter, echoes: list[Echo], include_usage: bool, stops: bool) -> None:
        self._answer, self._echoes, self._include_usage, self._stops = answer, echoes, include_usage, stops
        self._said = [len(echo.text) for echo in echoes]  # characters of each choice
        written = answer.written
        self._places = written and [Places(written.tokenizer, len(echo.text), echo.inner) for echo in echoes]
        self._readers = [CallReader() if answer.calls else None for _ in echoes]
        self._begun: set[int] = set()
        self._done: dict[int, Completion] = {}

    def delta(self, index: int, delta: Delta) -> list[str]:
        answer, events = self._answer, []
        if index not in self._begun:
            self._begun.add(index)
            echo = self._echoes[index]
            if answer.chat:
                events.append(answer.first(index))
            elif echo.text:
                events.append(answer.piece(index, echo.text, echo.logprobs))
        reader, text = self._readers[index], delta.text
        calls: list[Event] = []
        self._said[index] += len(text)
        if reader is not None:
            calls = reader.push(text) + (reader.flush() if delta.result is not None else [])
            text = "".join(event.text for event in calls if isinstance(event, Said))
        placed = []
        if self._places:
            for one in delta.logprobs:
                self._places[index].push(one.token, one.logprob, one.top)
            placed = self._places[index].take(self._said[index] if self._stops else None)
        if text or placed:
            events.append(answer.piece(index, text, placed))
        events += [answer.call(index, event) for event in calls if not isinstance(event, Said)]
        if delta.result is not None:
            self._done[index] = delta.result
            events.append(answer.last(index, delta.result, reader.calls if reader else 0))
        return [responses.event(event) for event in events]

    def replay(self, earlier: str, tokens: Sequence[int], events: int) -> None:
        self.delta(0, Delta(earlier, list(tokens)))
        if self._places:
            self._places[0].skip(tokens)

    def end(self) -> list[str]:
        totals = [self._answer.totals([self._done[i] for i in sorted(self._done)])] if self._include_usage else []
        return [*map(responses.event, totals), responses.event("[DONE]")]

    def failed(self, error: InpageError) -> list[str]:
        return [responses.event(responses.error_body(error))]


async def events(writer: Writes, streams: list[Stream], position: Position | None) -> AsyncGenerator[str]:
    """All events, those of one piece of an answer together. ``position``, of one stream alone, is kept up to date; what
    it counts already is not sent again."""
    begun, left = False, len(streams)
    sent = list(position.token_ids) if position else []
    try:
        async with aclosing(_merged(streams)) as pieces:
            async for index, delta in pieces:
                if sent and position:
                    writer.replay(streams[index].earlier, sent, position.events)
                    sent = []
                written = writer.delta(index, delta)
                left -= delta.result is not None
                if not left:
                    written += writer.end()
                if position is not None:
                    position.token_ids += delta.token_ids
                    position.events += len(written)
                if written:
                    begun = True
                    yield "".join(written)
    except BaseException as error:
        only_faults(error)
        if not begun:
            raise
        yield "".join(writer.failed(typed(error)))  # the status is sent already: the stream itself must say it


async def _merged(streams: list[Stream]) -> AsyncGenerator[tuple[int, Delta]]:
    """The pieces of all streams as they come. Ends with the first error; leaving it cancels what runs."""
    pieces: asyncio.Queue[tuple[int, Delta | BaseException | None]] = asyncio.Queue()

    async def pump(index: int, stream: Stream) -> None:
        try:
            async with aclosing(stream.__aiter__()) as deltas:
                async for delta in deltas:
                    pieces.put_nowait((index, delta))
        except BaseException as error:
            only_faults(error)
            pieces.put_nowait((index, error))
        else:
            pieces.put_nowait((index, None))

    tasks = [asyncio.ensure_future(pump(i, stream)) for i, stream in enumerate(streams)]
    left = len(tasks)
    try:
        while left:
            index, piece = await pieces.get()
            if isinstance(piece, BaseException):
                raise piece
            if piece is None:
                left -= 1
            else:
                yield index, piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Begun(AsyncGenerator[str]):
    """Events, the first of which is known. Closing it, read or not, ends the answer and lets the model go."""

    def __init__(self, first: str, rest: AsyncGenerator[str], using: AsyncExitStack) -> None:
        self._first: str | None = first
        self._rest, self._using = rest, using

    async def asend(self, value: None) -> str:
        first, self._first = self._first, None
        if first is not None:
            return first
        try:
            return await anext(self._rest)
        except BaseException:
            await self._using.aclose()
            raise

    async def athrow(self, *thrown: Any) -> str:
        await self._using.aclose()
        return await super().athrow(*thrown)
