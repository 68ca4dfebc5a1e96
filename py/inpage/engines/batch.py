"""Feeds → the typed arrays of a plan's inputs, and an engine's answers → outputs. Shared by every adapter.

All is checked here, so that
a malformed request is one `InvalidRequest` naming the field, and never reaches an engine.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..errors import InvalidRequest, quoted
from ..format.abi import (
    HISTORY,
    MAX_BIAS,
    MAX_STOP,
    SCORE_RESULTS,
    SCORE_WORDS,
    SEQUENCE,
    SEQUENCE_RESULTS,
    SEQUENCE_WORDS,
    pack_sequence,
)
from ..format.plan_types import KvGroup, page_sizes
from .block_tables import first_columns
from .protocol import RunOutput, Sampling, SequenceInput, StepOutput

_REASONS = {0: None, 1: "stop", 2: "length", 3: "pages"}

Words: TypeAlias = "array[int] | array[float] | bytes | bytearray | memoryview"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a loaded plan takes. ``pages``: how many are reserved now. ``groups``: as `EngineInfo.groups`."""

    vocab: int
    context: int
    page_tokens: int
    blocks_per_sequence: int
    rows: int
    sequences: int
    logit_rows: int
    pages: int
    groups: Sequence[KvGroup] = ()
    encoder: bool = False  # without a KV cache: see `inpage.format.plan`
    # Of a `SequenceEngine`, by name: the number of each sequence, which stands in place of its block table.
    slots: Mapping[str, int] | None = None

    @property
    def page_sizes(self) -> list[int]:
        """Tokens of a page, for each of a sequence's block tables."""
        return page_sizes(self.page_tokens, self.groups)


@dataclass(slots=True)
class StepBatch:
    """One forward pass. Arrays are int32: ids, positions and sequences [rows]; block tables [sequences, blocks].

    Logit rows come in this order: those that choose a token (``sequences`` holds a struct for each), those whose
    logits are wanted, those that are scored. ``targets`` is as long as ``logit_rows``.
    """

    token_ids: array[int]
    positions: array[int]
    row_sequence: array[int]
    block_tables: array[int]
    logit_rows: array[int]
    targets: array[int] | None
    sequences: array[int] | None
    bias: array[int]
    want_logits: bool
    chosen: list[int | None] = field(default_factory=list)  # by feed: index into `sequences`
    logits: list[int | None] = field(default_factory=list)  # by feed: index into `logit_rows`
    scored: list[list[int] | None] = field(default_factory=list)  # by feed: indices into `logit_rows`


@dataclass(slots=True)
class RunBatch:
    """One burst of ``n`` sequences; as in `StepBatch`."""

    n: int
    block_tables: array[int]
    sequences: array[int]
    bias: array[int]


def step_batch(feeds: Sequence[SequenceInput], limits: Limits) -> StepBatch:
    """Flatten feeds for one forward pass. Raises `InvalidRequest`."""
    _check_inputs(feeds, limits)
    if limits.encoder:
        _check_whole(feeds)
    batch = StepBatch(
        token_ids=array("i"),
        positions=array("i"),
        row_sequence=array("i"),
        block_tables=_block_tables(feeds, limits),
        logit_rows=array("i"),
        targets=None,
        sequences=None,
        bias=array("i"),
        want_logits=any(f.want_logits for f in feeds),
    )
    ends: list[int] = []  # by feed: the row after its last
    for i, feed in enumerate(feeds):
        batch.token_ids.extend(feed.tokens)
        batch.positions.extend(range(feed.start, feed.start + len(feed.tokens)))
        batch.row_sequence.extend([i] * len(feed.tokens))
        ends.append(len(batch.token_ids))
    if len(batch.token_ids) > limits.rows:
        raise InvalidRequest(f"{len(batch.token_ids)} tokens in one step, at most {limits.rows}", field="tokens")
    _add_logit_rows(batch, feeds, ends)
    if len(batch.logit_rows) > limits.logit_rows:
        which = "targets" if batch.targets is not None else "sample"
        raise InvalidRequest(f"{len(batch.logit_rows)} rows of logits wanted, at most {limits.logit_rows}", field=which)
    return batch


def _add_logit_rows(batch: StepBatch, feeds: Sequence[SequenceInput], ends: Sequence[int]) -> None:
    place: dict[int, int] = {}  # row → index into logit_rows: a row that is wanted twice is computed once

    def want(row: int) -> int:
        if row not in place:
            place[row] = len(batch.logit_rows)
            batch.logit_rows.append(row)
        return place[row]

    for feed, end in zip(feeds, ends, strict=True):
        batch.chosen.append(want(end - 1) if feed.sample else None)
        if feed.sample:
            if batch.sequences is None:
                batch.sequences = array("i")
            batch.sequences.extend(_pack(feed, feed.start + len(feed.tokens) - 1, 0, batch.bias))
    for feed, end in zip(feeds, ends, strict=True):
        batch.logits.append(want(end - 1) if feed.want_logits else None)
    for feed, end in zip(feeds, ends, strict=True):
        rows = range(end - len(feed.tokens), end)
        batch.scored.append(None if feed.targets is None else [want(row) for row in rows])
    if all(feed.targets is None for feed in feeds):
        return
    batch.targets = array("i", [-1]) * len(batch.logit_rows)
    for feed, rows_scored in zip(feeds, batch.scored, strict=True):
        for index, target in zip(rows_scored or (), feed.targets or (), strict=True):
            batch.targets[index] = target


def run_batch(feeds: Sequence[SequenceInput], max_steps: int, limits: Limits) -> RunBatch:
    """Lay out a burst. Raises `InvalidRequest`."""
    if limits.encoder:
        raise InvalidRequest("an encoder has no bursts: it embeds and scores texts", field="feeds")
    if max_steps < 1:
        raise InvalidRequest("a burst has at least one step", field="max_steps")
    _check_inputs(feeds, limits)
    if len(feeds) > min(limits.rows, limits.logit_rows):
        raise InvalidRequest(f"{len(feeds)} sequences, at most {min(limits.rows, limits.logit_rows)}", field="feeds")
    batch, sizes = RunBatch(len(feeds), _block_tables(feeds, limits), array("i"), array("i")), limits.page_sizes
    for feed in feeds:
        if len(feed.tokens) != 1:
            raise InvalidRequest(f"a burst feeds one token a sequence, not {len(feed.tokens)}", field="tokens")
        if feed.max_new_tokens < 1:
            raise InvalidRequest("must be at least 1", field="max_new_tokens")
        if len(feed.stop_ids) > MAX_STOP:
            raise InvalidRequest(f"at most {MAX_STOP} stop ids", field="stop_ids")
        tables = () if limits.slots is not None else zip(_tables(feed, limits), sizes, strict=True)
        reserved = min([limits.context, *(len(pages) * size for pages, size in tables)])
        batch.sequences.extend(_pack(feed, feed.start, reserved, batch.bias))
    return batch


def step_outputs(batch: StepBatch, sequences: Words | None, logits: Words | None, scores: Words | None,
                 width: int) -> list[StepOutput]:  # fmt: skip
    """What an engine answered, by feed. ``sequences``: the structs after the choice; ``logits``: float32 [logit rows,
    width]; ``scores``: inpage_score_row words, one a target."""
    sequence_bytes, score_bytes = _bytes(sequences), _bytes(scores)
    floats = _bytes(logits).cast("f")
    out = []
    for chosen, wanted, scored in zip(batch.chosen, batch.logits, batch.scored, strict=True):
        result = StepOutput()
        if chosen is not None:
            result.token, result.logprob, result.margin = choice(sequence_bytes, chosen)
        if wanted is not None:
            result.logits = array("f", floats[wanted * width : (wanted + 1) * width])
        if scored is not None:
            result.scores = [SCORE_RESULTS.unpack_from(score_bytes, 4 * SCORE_WORDS * i) for i in scored]
        out.append(result)
    return out


def choice(sequences: Words, i: int) -> tuple[int, float, float]:
    """Token, logprob and margin of what struct ``i`` chose last."""
    token, logprob, margin = SEQUENCE_RESULTS.unpack_from(
        _bytes(sequences), 4 * (i * SEQUENCE_WORDS + SEQUENCE["chosen"])
    )
    return token, logprob, margin


def run_outputs(n: int, steps: int, out: Words, finished: Words) -> list[RunOutput]:
    """What a burst, or a part of one, produced, by feed. ``out``: int32 [steps, n], -1 where a sequence had finished;
    ``finished``: int32 [n], inpage_sequence's word of that name."""
    words, reasons = _bytes(out).cast("i"), _bytes(finished).cast("i")
    if n == 1:
        return [RunOutput([t for t in words[:steps] if t >= 0], _REASONS[reasons[0]])]
    return [RunOutput([t for t in words[i : steps * n : n] if t >= 0], _REASONS[reasons[i]]) for i in range(n)]


def finished_words(n: int, sequences: Words) -> array[int]:
    """Whether and why each of ``n`` sequences has finished, int32 [n]."""
    words = _bytes(sequences).cast("i")
    return array("i", words[SEQUENCE["finished"] : n * SEQUENCE_WORDS : SEQUENCE_WORDS])


def next_slice(steps: int, took_s: float, tell_s: float) -> int:
    """How many steps to run before telling again, after ``steps`` that took so long: four times as many, until that
    takes ``tell_s``. So the first tokens are told at once. As web/engine/core/slices.js has it."""
    return max(1, min(4 * steps, round(tell_s * steps / took_s) if took_s else 4 * steps))


def tell_seconds(n: int) -> float:
    """How often a burst of ``n`` sequences is to be told. Telling costs the router time for each, on a core that the
    engine may need: told every 60 ms, one sequence is decoded a tenth slower on two cores than told every 120 ms."""
    return 0.12 + 0.01 * n


def _bytes(words: Words | None) -> memoryview:
    view = memoryview(b"" if words is None else words)
    return view if view.format == "B" else view.cast("B")


def _check_whole(feeds: Sequence[SequenceInput]) -> None:
    for feed in feeds:
        if feed.start != 0 or feed.sample or feed.targets is not None or not feed.want_logits:
            raise InvalidRequest("an encoder takes whole sequences, and gives a vector for each", field="feeds")
        if feed.segment is not None and not 0 <= feed.segment <= len(feed.tokens):
            raise InvalidRequest(f"{feed.segment} of {len(feed.tokens)} tokens", field="segment")


def _sequence_rows(feeds: Sequence[SequenceInput]) -> array[int]:
    """Of each sequence its first row in the step, how many it has, and how many come before the second segment."""
    out, first = array("i"), 0
    for feed in feeds:
        count = len(feed.tokens)
        out.extend((first, count, count if feed.segment is None else feed.segment))
        first += count
    return out


def _block_tables(feeds: Sequence[SequenceInput], limits: Limits) -> array[int]:
    if limits.encoder:
        return _sequence_rows(feeds)
    if limits.slots is not None:
        return array("i", [limits.slots[feed.request] for feed in feeds])
    out = array("i", bytes(4 * limits.blocks_per_sequence * len(feeds)))
    firsts = first_columns(limits.context, limits.page_sizes)
    for i, feed in enumerate(feeds):
        for first, pages in zip(firsts, _tables(feed, limits), strict=True):
            at = i * limits.blocks_per_sequence + first
            out[at : at + len(pages)] = array("i", pages)
    return out


def _tables(feed: SequenceInput, limits: Limits) -> Sequence[Sequence[int]]:
    return feed.tables if limits.groups else (feed.pages,)


def _pack(feed: SequenceInput, position: int, reserved: int, bias: array[int]) -> array[int]:
    """The struct of one feed; its bias pairs are appended to ``bias``."""
    s = feed.sampling
    first = len(bias) // 2
    for token, value in s.logit_bias:
        bias.append(token)
        bias.frombytes(struct.pack("<f", value))
    history, stop = feed.history[-HISTORY:], feed.stop_ids[:MAX_STOP]
    return pack_sequence(
        temperature=s.temperature,
        top_k=s.top_k,
        top_p=s.top_p,
        min_p=s.min_p,
        repetition_penalty=s.repetition_penalty,
        presence_penalty=s.presence_penalty,
        frequency_penalty=s.frequency_penalty,
        seed=(s.seed & 0xFFFFFFFF, s.seed >> 32),
        token=feed.tokens[-1],
        position=position,
        remaining=feed.max_new_tokens,
        reserved=reserved,
        n_stop=len(stop),
        stop=stop,
        n_bias=len(s.logit_bias),
        bias=first,
        mask=-1,
        n_history=len(history),
        history=history,
    )


def _check_inputs(feeds: Sequence[SequenceInput], limits: Limits) -> None:
    if not 1 <= len(feeds) <= limits.sequences:
        raise InvalidRequest(f"{len(feeds)} sequences in one batch, must be 1 to {limits.sequences}", field="feeds")
    sizes = limits.page_sizes
    for feed in feeds:
        n = len(feed.tokens)
        if n == 0:
            raise InvalidRequest("no token to feed", field="tokens")
        _check_ids(feed.tokens, limits.vocab, "tokens")
        _check_ids(feed.history, limits.vocab, "history")
        _check_ids(feed.stop_ids, limits.vocab, "stop_ids")
        if feed.start < 0 or feed.start + n > limits.context:
            last = feed.start + n - 1
            raise InvalidRequest(
                f"positions {feed.start} to {last} leave the context of {limits.context}", field="start"
            )
        _check_pages(feed, limits, sizes)
        if feed.targets is not None:
            if len(feed.targets) != n:
                raise InvalidRequest(f"{len(feed.targets)} targets for {n} tokens", field="targets")
            _check_ids([t for t in feed.targets if t != -1], limits.vocab, "targets")
        _check_sampling(feed.sampling, limits.vocab)


def _check_pages(feed: SequenceInput, limits: Limits, sizes: Sequence[int]) -> None:
    if limits.encoder or limits.slots is not None:
        return
    tables, end = _tables(feed, limits), feed.start + len(feed.tokens)
    name = "tables" if limits.groups else "pages"
    if len(tables) != len(sizes):
        raise InvalidRequest(f"{len(tables)} block tables, must be {len(sizes)}", field=name)
    for pages, size in zip(tables, sizes, strict=True):
        _check_ids(pages, limits.pages, name)
        most = -(-limits.context // size)
        if len(pages) > most:
            raise InvalidRequest(f"{len(pages)} pages, at most {most}", field=name)
        if len(pages) * size < end:
            raise InvalidRequest(f"{len(pages)} pages do not cover position {end - 1}", field=name)


def _check_ids(ids: Sequence[int], limit: int, name: str) -> None:
    if len(ids) > 0 and not 0 <= min(ids) <= max(ids) < limit:
        raise InvalidRequest(f"{min(ids)} to {max(ids)}: must lie in 0 to {limit - 1}", field=name)


def _check_sampling(s: Sampling, vocab: int) -> None:
    _check_number(s.temperature, 0.0, 1e6, "temperature")
    _check_number(s.top_k, 0, 2**31 - 1, "top_k")
    _check_number(s.top_p, 0.0, 1.0, "top_p")
    _check_number(s.min_p, 0.0, 1.0, "min_p")
    _check_number(s.repetition_penalty, 1e-6, 1e6, "repetition_penalty")
    _check_number(s.presence_penalty, -1e6, 1e6, "presence_penalty")
    _check_number(s.frequency_penalty, -1e6, 1e6, "frequency_penalty")
    _check_number(s.seed, 0, 2**64 - 1, "seed")
    if len(s.logit_bias) > MAX_BIAS:
        raise InvalidRequest(f"{len(s.logit_bias)} biased tokens, at most {MAX_BIAS}", field="logit_bias")
    _check_ids([token for token, _ in s.logit_bias], vocab, "logit_bias")
    for _, value in s.logit_bias:
        _check_number(value, -1e30, 1e30, "logit_bias")


def _check_number(value: Any, low: float, high: float, name: str) -> None:
    if not math.isfinite(value) or not low <= value <= high:
        raise InvalidRequest(f"{quoted(value)} is outside {low} to {high}", field=name)
