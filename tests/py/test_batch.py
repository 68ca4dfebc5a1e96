"""Feeds flattened to typed arrays, structs as abi.h lays them out, and every bound that a request can break."""

from __future__ import annotations

import struct
from array import array
from dataclasses import replace
from typing import Any

import pytest

from inpage.engines import batch as flat
from inpage.engines.protocol import Sampling, SequenceInput
from inpage.errors import InvalidRequest
from inpage.format.plan_types import KvGroup

LIMITS = flat.Limits(vocab=100, context=60, page_tokens=16, blocks_per_sequence=4, rows=8, sequences=3, logit_rows=4,
                     pages=10)  # fmt: skip


def test_a_batch_of_several_sequences_is_laid_out_row_by_row() -> None:
    feeds = [
        SequenceInput([1, 2, 3], 14, [4, 9], sample=True),
        SequenceInput([5], 0, [0], want_logits=True),
        SequenceInput([7, 8], 30, [1, 2], targets=[-1, 99]),
    ]
    b = flat.step_batch(feeds, LIMITS)
    assert b.token_ids.tolist() == [1, 2, 3, 5, 7, 8]
    assert b.positions.tolist() == [14, 15, 16, 0, 30, 31]
    assert b.row_sequence.tolist() == [0, 0, 0, 1, 2, 2]
    assert b.block_tables.tolist() == [4, 9, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0]
    assert b.logit_rows.tolist() == [2, 3, 4, 5]
    assert b.targets is not None and b.targets.tolist() == [-1, -1, -1, 99]
    assert b.want_logits and b.sequences is not None and len(b.sequences) == flat.SEQUENCE_WORDS


def test_tables_of_groups_stand_one_behind_the_other() -> None:
    groups = (KvGroup((0,), 16), KvGroup((1, 2), 40, window=8))
    limits = replace(LIMITS, groups=groups, blocks_per_sequence=7)
    feeds = [
        SequenceInput([1], 16, [4, 9], tables=[[4, 9], [6]], max_new_tokens=90),
        SequenceInput([2], 40, [1, 2, 3], tables=[[1, 2, 3], [0, 8]], max_new_tokens=90),
    ]
    b = flat.run_batch(feeds, 9, limits)
    assert b.block_tables.tolist() == [4, 9, 0, 0, 6, 0, 0, 1, 2, 3, 0, 0, 8, 0]
    assert [b.sequences[flat.SEQUENCE_WORDS * i + flat.SEQUENCE["reserved"]] for i in range(2)] == [32, 48]
    assert flat.step_batch(feeds, limits).block_tables == b.block_tables
    for tables in ([[4, 9]], [[4, 9], []], [[4, 9], [10]], [[4, 9], [0, 1, 2]], [[4], [6]]):
        with pytest.raises(InvalidRequest) as e:
            flat.step_batch([replace(feeds[0], tables=tables)], limits)
        assert e.value.field == "tables"


def test_a_sequence_without_pages_has_its_number_in_their_place() -> None:
    limits = replace(LIMITS, slots={"a": 5, "b": 0}, blocks_per_sequence=1, page_tokens=1, pages=0)
    feeds = [SequenceInput([1], 40, (), request="a", max_new_tokens=90), SequenceInput([2], 0, (), request="b")]
    assert flat.step_batch(feeds, limits).block_tables.tolist() == [5, 0]
    burst = flat.run_batch(feeds[:1], 9, limits)
    assert burst.block_tables.tolist() == [5]
    assert burst.sequences[flat.SEQUENCE["reserved"]] == limits.context


def test_a_row_that_is_wanted_twice_gets_logits_once_and_choices_come_first() -> None:
    feeds = [
        SequenceInput([1, 2], 0, [0], targets=[2, 3], want_logits=True),
        SequenceInput([3], 0, [1], sample=True, targets=[4], want_logits=True),
    ]
    b = flat.step_batch(feeds, LIMITS)
    assert b.logit_rows.tolist() == [2, 1, 0]
    assert b.targets is not None and b.targets.tolist() == [4, 3, 2]
    chosen = array("i", b.sequences or ())
    chosen[283:286] = array("i", struct.pack("<iff", 42, -1.5, 0.25))
    logits = array("f", range(300))
    scores = array("i", struct.pack("<iffiffiff", 1, 0.5, 1.0, 2, 0.25, 2.0, 3, 0.125, 3.0))
    first, second = flat.step_outputs(b, chosen, logits, scores, 100)
    assert first.token is None and (second.token, second.logprob, second.margin) == (42, -1.5, 0.25)
    assert list(first.logits) == list(range(100, 200)) and list(second.logits) == list(range(100))
    assert first.scores == [(3, 0.125, 3.0), (2, 0.25, 2.0)] and second.scores == [(1, 0.5, 1.0)]


def test_a_struct_stands_as_the_abi_says() -> None:
    sampling = Sampling(0.5, 40, 0.9, 0.05, 1.25, 0.75, -0.5, seed=(7 << 32) | 5, logit_bias=((9, 1.5), (8, -2.0)))
    other = SequenceInput([1], 0, [0], Sampling(logit_bias=((3, 1.0),)), max_new_tokens=1)
    feed = SequenceInput([77], 20, [1, 2, 3, 4], sampling, history=[4, 5, 6], max_new_tokens=12, stop_ids=[2, 50])
    b = flat.run_batch([other, feed], 5, LIMITS)
    words = b.sequences[flat.SEQUENCE_WORDS :]
    assert len(words) == flat.SEQUENCE_WORDS == 286
    data = words.tobytes()
    assert struct.unpack_from("<f", data, 0)[0] == 0.5
    assert struct.unpack_from("<5f", data, 8) == pytest.approx((0.9, 0.05, 1.25, 0.75, -0.5))
    assert words[1] == 40 and words[7:9].tolist() == [5, 7]
    token, position, remaining, finished, reserved, n_stop = words[9:15]
    assert (token, position, remaining, finished, n_stop) == (77, 20, 12, 0, 2)
    assert reserved == 60, "four pages would be 64, the context ends before"
    assert words[15:23].tolist() == [2, 50, 0, 0, 0, 0, 0, 0]
    assert words[23:27].tolist() == [2, 1, -1, 3]
    assert words[27:31].tolist() == [4, 5, 6, 0]
    assert b.bias.tobytes() == struct.pack("<ififif", 3, 1.0, 9, 1.5, 8, -2.0)


def test_the_history_keeps_its_last_256_tokens() -> None:
    feed = SequenceInput([1], 0, [0], history=[i % 100 for i in range(1000)], max_new_tokens=1)
    words = flat.run_batch([feed], 1, LIMITS).sequences
    assert words[26] == 256 and words[27:283].tolist() == [i % 100 for i in range(744, 1000)]


def test_a_burst_comes_apart_into_tokens_and_reasons() -> None:
    sequences = array("i", bytes(4 * flat.SEQUENCE_WORDS * 3))
    for i, finished in enumerate((1, 0, 3)):
        sequences[i * flat.SEQUENCE_WORDS + 12] = finished
    out = array("i", [5, 6, 7, 2, 8, -1, -1, 9, -1, 77, 77, 77])
    got = flat.run_outputs(3, 3, out, flat.finished_words(3, sequences))
    assert [(o.tokens, o.finished) for o in got] == [([5, 2], "stop"), ([6, 8, 9], None), ([7], "pages")]


GOOD = SequenceInput([1, 2], 3, [0], max_new_tokens=1, sample=True)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tokens": []}, "tokens"),
        ({"tokens": [1, 100]}, "tokens"),
        ({"tokens": [-1]}, "tokens"),
        ({"tokens": [1] * 9}, "tokens"),
        ({"start": -1}, "start"),
        ({"start": 59, "pages": [0, 1, 2, 3]}, "start"),
        ({"start": 15}, "pages"),
        ({"pages": []}, "pages"),
        ({"pages": [10]}, "pages"),
        ({"pages": [-1]}, "pages"),
        ({"pages": [0] * 5}, "pages"),
        ({"targets": [1]}, "targets"),
        ({"targets": [1, 100]}, "targets"),
        ({"targets": [1, -2]}, "targets"),
        ({"tokens": [1] * 5, "targets": [1] * 5}, "targets"),
        ({"history": [100]}, "history"),
        ({"stop_ids": [100]}, "stop_ids"),
        *[({"sampling": Sampling(**{name: value})}, name)
          for name, values in {
              "temperature": (-0.1, float("nan"), float("inf")), "top_k": (-1, 2**31), "top_p": (-0.1, 1.1),
              "min_p": (-0.1, 1.1), "repetition_penalty": (0.0, -1.0), "presence_penalty": (float("nan"),),
              "frequency_penalty": (float("-inf"),), "seed": (-1, 2**64),
              "logit_bias": (((100, 1.0),), ((1, float("nan")),), tuple((i % 100, 1.0) for i in range(1025))),
          }.items() for value in values],
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as e:
        flat.step_batch([replace(GOOD, **change)], LIMITS)
    assert e.value.field == field
    flat.step_batch([GOOD], LIMITS)


@pytest.mark.parametrize(
    ("change", "field"),
    [({"tokens": [1, 2]}, "tokens"), ({"max_new_tokens": 0}, "max_new_tokens"), ({"stop_ids": [1] * 9}, "stop_ids")],
)
def test_what_a_burst_cannot_do_is_named(change: dict[str, Any], field: str) -> None:
    good = replace(GOOD, tokens=[1])
    with pytest.raises(InvalidRequest) as e:
        flat.run_batch([replace(good, **change)], 4, LIMITS)
    assert e.value.field == field
    flat.run_batch([good], 4, LIMITS)


def test_too_many_sequences_rows_or_steps() -> None:
    for feeds in ([], [GOOD] * 4):
        with pytest.raises(InvalidRequest) as e:
            flat.step_batch(feeds, LIMITS)
        assert e.value.field == "feeds"
    with pytest.raises(InvalidRequest) as e:
        flat.step_batch([replace(GOOD, tokens=[1] * 3)] * 3, LIMITS)
    assert e.value.field == "tokens"
    one = replace(GOOD, tokens=[1])
    with pytest.raises(InvalidRequest) as e:
        flat.run_batch([one] * 3, 4, replace(LIMITS, logit_rows=2))
    assert e.value.field == "feeds"
    with pytest.raises(InvalidRequest) as e:
        flat.run_batch([one], 0, LIMITS)
    assert e.value.field == "max_steps"
