"""The table of `inpage chat --profile`: parts add up to the whole, and what no span covers is the rest."""

from __future__ import annotations

import json
from typing import Any

from inpage.cli.profile import profile


def span(track: int, name: str, at: float, ms: float) -> dict[str, Any]:
    return {"name": name, "ph": "X", "ts": at * 1e3, "dur": ms * 1e3, "tid": track, "args": {}}


def test_parts_and_the_rest_add_up_to_the_whole() -> None:
    names = {1: "router", 2: "requests", 3: "engine"}
    events = [{"name": "thread_name", "ph": "M", "tid": t, "args": {"name": name}} for t, name in names.items()]
    events += [span(1, "encode", 5, 10), span(1, "admit", 16, 2), span(3, "prefill", 20, 20), span(3, "prefill", 42, 8)]
    events += [span(3, "decode", 55, 40), span(1, "encode", 100, 5)]
    for name, facts in (("reading", {"tokens": 70, "cached": 16}), ("answering", {"tokens": 9, "finish": "stop"})):
        events.append({"name": name, "ph": "b", "ts": 2e4, "tid": 2, "id": 0, "args": facts})
    lines = profile(json.dumps({"traceEvents": events})).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "encode: template and tokenizer",
        "admit: pages for the prompt",
        "prefill: reading the prompt, 54 tokens",
        "decode: writing the answer, 8 tokens",
        "the rest: queue, text, messages",
        "whole",
    ]
    assert [line.split()[-4:-2] for line in lines[1:5]] == [["2", "15.0"], ["1", "2.0"], ["2", "28.0"], ["1", "40.0"]]
    assert [line.split()[-3:] for line in lines[5:]] == [["15.0", "15.0", "%"], ["100.0", "100.0", "%"]]


def test_nothing_recorded_is_said() -> None:
    assert profile(json.dumps({"traceEvents": []})) == "nothing was recorded"
