"""Stop strings against a reading letter by letter, for every way of cutting the text into pieces."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inpage.text.stop_strings import StopStrings

TEXT = st.text("ab\n", max_size=40)
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=5), min_size=1, max_size=4)


def stopped(text: str, stops: list[str]) -> int | None:
    """Where the answer ends that is read letter by letter until one of the stops is complete."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return min(starts)
    return None


@example("\naa", ["a", "\naa"], [2])
@given(TEXT, STOPS, st.lists(st.integers(0, 40)))
def test_however_the_text_is_cut(text: str, stops: list[str], cuts: list[int]) -> None:
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    matcher, shown, ending = StopStrings(stops), "", stopped(text, stops)
    for start, end in itertools.pairwise(borders):
        shown += matcher.push(text[start:end])
        assert ending is None or len(shown) <= ending  # nothing of a stop string is ever shown
    shown += matcher.flush()
    assert (matcher.matched is None) == (ending is None)
    assert shown == text[:ending]


def test_what_cannot_become_a_stop_string_is_shown_at_once() -> None:
    matcher = StopStrings(["END"])
    assert [matcher.push(piece) for piece in ("one E", "N", "X E")] == ["one ", "", "ENX "]
    assert matcher.flush() == "E"


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopStrings([""])
