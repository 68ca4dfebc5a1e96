"""Stop strings against str.find on the whole text, for every way of cutting it into pieces."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inpage.stops import StopStrings

TEXT = st.text("ab\n", max_size=40)
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=5), min_size=1, max_size=4)


@given(TEXT, STOPS, st.lists(st.integers(0, 40)))
def test_however_the_text_is_cut(text: str, stops: list[str], cuts: list[int]) -> None:
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    matcher, shown = StopStrings(stops), ""
    for start, end in itertools.pairwise(borders):
        shown += matcher.push(text[start:end])
        first = min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))
        assert len(shown) <= first  # nothing of a stop string is ever shown
    shown += matcher.flush()
    places = [at for stop in stops if (at := text.find(stop)) >= 0]
    assert (matcher.matched is not None) == bool(places)
    assert shown == text[: min(places)] if places else shown == text


def test_what_cannot_become_a_stop_string_is_shown_at_once() -> None:
    matcher = StopStrings(["END"])
    assert [matcher.push(piece) for piece in ("one E", "N", "X E")] == ["one ", "", "ENX "]
    assert matcher.flush() == "E"


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopStrings([""])
