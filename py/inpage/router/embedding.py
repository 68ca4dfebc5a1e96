"""Vectors for texts, and ranks of texts for a query, by encoders.

Texts become requests of their own, so that the scheduler packs them into steps by tokens, takes turns between clients,
and tries those of an engine that died again. Of a long list only so many are under way at once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import time
from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ..errors import Cancelled, DeviceLost, InvalidRequest, QueueFull, Timeout, Unsupported, quoted
from ..format.limits import REQUEST_CHARS
from ..format.schema import Manifest
from ..requests.params import checked_ids, checked_text, options
from ..requests.request import Burst, Request
from ..responses import Answer, AnswerCache, weights_digest
from ..text.tokenizer import Tokenizer
from .replicas import Replicas

_UNDER_WAY = 128  # requests of one call at once, and never more than half of the queue
_RETRY_S = 0.02  # until a full queue is tried again
_TOKENIZED, _CHARS = 64, 1 << 20  # texts that are tokenized together, and their characters
_KEPT = 64  # a call with more texts is no query: its vectors are not kept
_TEXTS = 1 << 20  # of one call
_NUMBERS = 1 << 24  # of the vectors of one message: 64 MiB, and more as text
_PARAMS = ("client", "priority", "timeout", "cache", "tags")
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Embeddings:
    """``vectors``: one a text, float32. ``prompt_tokens``: of all texts together."""

    vectors: list[array[float]]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Rank:
    """``index``: of the document in the list that was given."""

    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """``results``: the best first."""

    results: list[Rank]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class _Text:
    ids: list[int]
    segment: int | None = None


class Embedder:
    """Of one router."""

    def __init__(
        self, manifest: Manifest, tokenizer: Tokenizer, replicas: Replicas, answers: AnswerCache | None
    ) -> None:
        self._manifest, self._tokenizer, self._replicas, self._answers = manifest, tokenizer, replicas, answers
        self._weights = weights_digest(manifest)

    @property
    def _context(self) -> int:
        return self._replicas.schedulers[0].info.context

    async def embed(
        self, texts: Any, prompt_name: str | None, dimensions: int | None, truncate: bool, on_progress: OnProgress,
        params: dict[str, Any], field: str,
    ) -> Embeddings:  # fmt: skip
        if self._manifest.embedding is None or self._manifest.architecture.labels:
            what = "ranks texts" if self._manifest.embedding else "answers with text"
            raise Unsupported(f"{self._manifest.id} {what}: embeddings need a model made for them", field="model")
        width = self._manifest.width
        if dimensions is not None and (type(dimensions) is not int or not 1 <= dimensions <= width):
            raise InvalidRequest(f"dimensions is {quoted(dimensions)}; it must be 1 to {width}", field="dimensions")
        _check_options(truncate, on_progress)
        (given, several), before = _listed(texts, field), self._prompt(prompt_name)

        async def made(first: int, some: Sequence[Any]) -> list[_Text]:
            places = [f"{field}[{first + i}]" if several else field for i in range(len(some))]
            return await self._texts(some, places, before, truncate)

        found, tokens = await self._all(given, made, on_progress, params)
        normalized = self._manifest.architecture.normalized
        return Embeddings([_shortened(vector, dimensions, normalized) for vector in found], tokens)

    async def rerank(
        self, query: str, documents: Any, top_n: int | None, truncate: bool, on_progress: OnProgress,
        params: dict[str, Any],
    ) -> Ranking:  # fmt: skip
        labels = self._manifest.architecture.labels
        if self._manifest.embedding is None or labels != 1:
            why = f"gives {labels} scores a pair" if labels else "is none"
            raise Unsupported(f"{self._manifest.id} {why}: ranks need a cross-encoder with one score", field="model")
        if top_n is not None and (type(top_n) is not int or top_n < 1):
            raise InvalidRequest(f"top_n is {quoted(top_n)}; it must be 1 at least", field="top_n")
        _check_options(truncate, on_progress)
        _check_size(checked_text(query, "query"), "query")
        if isinstance(documents, str):
            raise InvalidRequest("documents must be a list of texts, not a text", field="documents")
        documents = _collected(documents, "documents", "a list of texts that is not empty")
        for i, document in enumerate(documents):
            _check_size(checked_text(document, f"documents[{i}]", empty=True), f"documents[{i}]")
        (question,) = await self._tokenizer.encode_all([query])

        async def made(first: int, some: Sequence[Any]) -> list[_Text]:
            encoded = await self._tokenizer.encode_all(some)
            return [self._pair(question, ids, f"documents[{first + i}]", truncate) for i, ids in enumerate(encoded)]

        found, tokens = await self._all(documents, made, on_progress, params)
        ranks = [Rank(i, self._score(vector[0])) for i, vector in enumerate(found)]
        ranks.sort(key=lambda rank: (-rank.score, rank.index))
        return Ranking(ranks[:top_n], tokens)

    # -- texts to ids --------------------------------------------------------------------------------------------

    def _prompt(self, name: str | None) -> str:
        """What stands before a text."""
        ref = self._manifest.embedding
        assert ref is not None
        name = ref.default_prompt if name is None else name
        if name is None:
            return ""
        if not isinstance(name, str) or name not in ref.prompts:
            known = ", ".join(map(quoted, ref.prompts)) or "none"
            raise InvalidRequest(
                f"prompt_name: this model has no prompt {quoted(name)}; it has {known}", field="prompt_name"
            )
        return ref.prompts[name]

    async def _texts(self, some: Sequence[Any], places: Sequence[str], before: str, truncate: bool) -> list[_Text]:
        """Of texts, and of ids as they are."""
        vocab, ref = self._manifest.architecture.vocab, self._manifest.tokenizer
        written = [
            before + checked_text(each, place, empty=True)
            for each, place in zip(some, places, strict=True)
            if isinstance(each, str)
        ]
        encoded = iter(await self._tokenizer.encode_all(written) if written else [])
        begin = [ref.bos] if ref.add_bos and ref.bos is not None else []
        end = [ref.eos[0]] if ref.add_eos else []
        out: list[_Text] = []
        for each, place in zip(some, places, strict=True):
            if isinstance(each, str):
                ids, room = next(encoded), self._context - len(begin) - len(end)
                if len(ids) > room and not truncate:
                    raise _too_long(place, len(ids) + len(begin) + len(end), self._context)
                whole = [*begin, *ids[:room], *end]
                if not whole:
                    raise InvalidRequest(f"{place} has no tokens: this model makes no vector of it", field=place)
                out.append(_Text(whole))
                continue
            ids = checked_ids(each, vocab, place, most=None)
            if len(ids) > self._context and not truncate:
                raise _too_long(place, len(ids), self._context)
            out.append(_Text(ids[: self._context]))
        return out

    def _pair(self, query: list[int], document: list[int], place: str, truncate: bool) -> _Text:
        """[CLS] query [SEP] document [SEP], as BERT has it, or with as many [SEP] between the two as the model has. Cut
        as transformers' ``longest_first`` cuts."""
        ref, embedding = self._manifest.tokenizer, self._manifest.embedding
        between = [ref.eos[0]] * (embedding.separators if embedding else 1)
        bos = [] if ref.bos is None else [ref.bos]
        first, second = len(query), len(document)
        room = self._context - len(bos) - len(between) - 1
        if first + second > room:
            if not truncate:
                raise _too_long(f"query and {place}", first + second + self._context - room, self._context)
            short = min(first, second)
            long = short if short > room else max(short, room - short)
            if short + long > room:
                short, long = room // 2, room // 2 + room % 2
            first, second = (short, long) if first <= second else (long, short)
        front = [*bos, *query[:first], *between]
        return _Text([*front, *document[:second], ref.eos[0]], len(front))

    def _score(self, logit: float) -> float:
        ref = self._manifest.embedding
        assert ref is not None
        if ref.scores == "logit":
            return logit
        return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))

    # -- requests ------------------------------------------------------------------------------------------------

    async def _all(
        self, given: Sequence[Any], made: Callable[[int, Sequence[Any]], Awaitable[list[_Text]]],
        on_progress: OnProgress, params: dict[str, Any],
    ) -> tuple[list[array[float]], int]:  # fmt: skip
        """What the encoder gives for each, and how many tokens they have."""
        for name in params:
            if name not in _PARAMS:
                raise InvalidRequest(f"unknown parameter {quoted(name)}", field=name[:80])
        asked = options(params, self._manifest.architecture.vocab)
        deadline = None if asked.timeout is None else time.perf_counter() + asked.timeout
        keeps = self._answers if asked.cache and len(given) <= _KEPT else None
        tags = (f"model:{self._manifest.id}", *asked.tags)
        found: list[Any] = [None] * len(given)
        under_way: deque[tuple[int, Request, str]] = deque()
        queue_size = self._replicas.schedulers[0].settings.scheduler.queue_size
        window = max(1, min(_UNDER_WAY, queue_size // 2))
        done = tokens = 0
        submitted = False

        def advanced() -> None:
            nonlocal done
            done += 1
            on_progress(done, len(given))

        async def one() -> None:
            i, request, key = under_way[0]
            event = await request.events.get()
            under_way.popleft()
            if isinstance(event, BaseException):
                raise event
            assert isinstance(event, Burst)
            if request.vector is None:
                raise Cancelled("it was cancelled")
            found[i] = request.vector
            if keeps is not None and request.reproducible:
                await keeps.put(key, Answer(_halves(request.vector), "length", tags))
            advanced()

        async def submit(request: Request) -> None:
            """As soon as there is room: a list waits for it behind its first text, others' requests fill the queue."""
            while True:
                try:
                    if len(under_way) < window:
                        return self._replicas.submit(request)
                except QueueFull:
                    if not submitted:
                        raise
                except DeviceLost as error:
                    if submitted and isinstance(error.__cause__, Cancelled):  # unloaded in mid-list
                        raise error.__cause__ from None
                    raise
                if under_way:
                    await one()
                elif deadline is not None and time.perf_counter() >= deadline:
                    raise Timeout("the texts were not all embedded in time: allow more, or ask for less")
                else:
                    await asyncio.sleep(_RETRY_S)

        try:
            for first, some in _slices(given):
                for i, text in enumerate(await made(first, some), first):
                    tokens += len(text.ids)
                    key = "" if keeps is None else _key(self._weights, text)
                    kept = None if keeps is None else await keeps.get(key)
                    if kept is not None and (vector := _floats(kept[0].token_ids, self._manifest.width)) is not None:
                        found[i] = vector
                        advanced()
                        continue
                    request = Request(
                        text.ids, embeds=True, segment=text.segment, client=asked.client, priority=asked.priority,
                        deadline=deadline, patient=submitted,
                    )  # fmt: skip
                    await submit(request)
                    submitted = True
                    under_way.append((i, request, key))
            while under_way:
                await one()
        finally:
            for _, request, _ in under_way:
                self._replicas.cancel(request)
        return found, tokens


def check_one_message(texts: Any, dimensions: Any, width: int, field: str) -> None:
    """Raise `InvalidRequest` for more texts than one message carries vectors of."""
    most = _NUMBERS // (dimensions if type(dimensions) is int and 0 < dimensions < width else width)
    if isinstance(texts, list) and len(texts) > most and isinstance(texts[0], str | list):
        raise InvalidRequest(
            f"{field} has {len(texts)} texts; at most {most} vectors of this model fit into one answer: ask for "
            "them in several calls",
            field=field,
        )


def _listed(texts: Any, field: str) -> tuple[Sequence[Any], bool]:
    """One text, or ids of one, as a list of it, and whether a list was given."""
    if isinstance(texts, str):
        _check_size(texts, field)
        return [texts], False
    texts = _collected(texts, field, "a text, ids, or a list of these that is not empty")
    if isinstance(texts[0], int) and not isinstance(texts[0], bool):
        return [texts], False
    for i, each in enumerate(texts):
        if not isinstance(each, str | list | tuple) or (not isinstance(each, str) and not each):
            raise InvalidRequest(f"{field}[{i}] is {quoted(each)}; it must be a text, or ids", field=f"{field}[{i}]")
        _check_size(each, f"{field}[{i}]")
    return texts, True


def _collected(given: Any, field: str, what: str) -> Sequence[Any]:
    """A list or tuple as it is, of any other iterable its items: as many as one call takes, of which there is one."""
    unordered = isinstance(given, Mapping | Set | bytes | bytearray | memoryview)
    if isinstance(given, Iterable) and not isinstance(given, list | tuple) and not unordered:
        given = list(islice(given, _TEXTS + 1))
    if not isinstance(given, list | tuple) or not given:
        raise InvalidRequest(f"{field} must be {what}", field=field)
    if len(given) > _TEXTS:
        raise InvalidRequest(f"{field} has more than {_TEXTS} texts, and no more are taken", field=field)
    return given


def _check_size(text: Sequence[Any], field: str) -> None:
    """Of a text's characters, or of ids."""
    if len(text) > REQUEST_CHARS:
        raise InvalidRequest(f"{field} is {len(text)} long; at most {REQUEST_CHARS} are read", field=field)


def _check_options(truncate: Any, on_progress: Any) -> None:
    if type(truncate) is not bool:
        raise InvalidRequest(f"truncate is {quoted(truncate)}; it must be true or false", field="truncate")
    if not callable(on_progress):
        raise InvalidRequest(f"on_progress is {quoted(on_progress)}; it must be callable", field="on_progress")


def _slices(given: Sequence[Any]) -> Iterator[tuple[int, Sequence[Any]]]:
    """What is tokenized together, and where it begins."""
    first = chars = 0
    for i, each in enumerate(given):
        if i > first and (i - first == _TOKENIZED or chars + len(each) > _CHARS):
            yield first, given[first:i]
            first, chars = i, 0
        chars += len(each)
    yield first, given[first:]


def _too_long(place: str, tokens: int, most: int) -> InvalidRequest:
    return InvalidRequest(
        f"{place} has {tokens} tokens and the model takes {most}: shorten it, or let it be cut with truncate",
        field=place.rpartition(" ")[2],
    )


def _shortened(vector: array[float], dimensions: int | None, normalized: bool) -> array[float]:
    """The first so many numbers (Kusupati et al., "Matryoshka Representation Learning", 2022), of length 1 again where
    the model's vectors are ``normalized``."""
    if dimensions is None or dimensions == len(vector):
        return vector
    some = vector[:dimensions]
    if not normalized:
        return some
    length = math.sqrt(math.fsum(x * x for x in some))
    return array("f", [x / length for x in some]) if length else some


def _key(weights: str, text: _Text) -> str:
    parts = ["embedding", weights, text.ids, text.segment]
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def _halves(vector: array[float]) -> tuple[int, ...]:
    """The float32 numbers as 16-bit whole numbers, of which kept answers consist."""
    return tuple(array("H", bytes(vector)))


def _floats(halves: Sequence[int], width: int) -> array[float] | None:
    if len(halves) != 2 * width or max(halves) >= 1 << 16:
        return None
    return array("f", array("H", halves).tobytes())
