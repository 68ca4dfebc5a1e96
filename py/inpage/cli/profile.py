"""Where the time of a turn went, as a table for people, from the spans that the router recorded
(`inpage.observe.tracing`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

# One after the other, by the track that has them; what is between them is the rest.
_PARTS = {
    ("router", "encode"): "template and tokenizer",
    ("router", "admit"): "pages for the prompt",
    ("engine", "prefill"): "reading the prompt",
    ("engine", "decode"): "writing the answer",
}


def profile(trace: str) -> str:
    """``trace``: a Chrome trace of one turn or several, as `Tracer.to_json` writes it. A line a part: how often, its
    milliseconds in all, its share of the time from the first span's beginning to the last one's end."""
    events: list[dict[str, Any]] = json.loads(trace)["traceEvents"]
    tracks = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    timed = [event for event in events if event["ph"] != "M"]
    if not timed:
        return "nothing was recorded"
    whole = max(e["ts"] + e.get("dur", 0.0) for e in timed) - min(e["ts"] for e in timed)
    spans: dict[tuple[str, str], list[float]] = {}
    for event in timed:
        if event["ph"] == "X":
            spans.setdefault((tracks[event["tid"]], event["name"]), []).append(event["dur"])
    rows = [
        (f"{name}: {what}{_tokens(name, timed)}", len(found), sum(found))
        for (track, name), what in _PARTS.items()
        if (found := spans.get((track, name)))
    ]
    rest = max(0.0, whole - sum(us for _, _, us in rows))
    rows += [("the rest: queue, text, messages", 0, rest), ("whole", 0, whole)]
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{'where the time went':{width}}  {'times':>5}  {'ms':>9}  {'share':>7}"]
    lines += [f"{name:{width}}  {times or '':>5}  {us / 1e3:9.1f}  {_share(us, whole)}" for name, times, us in rows]
    return "\n".join(lines)


def _tokens(name: str, events: Iterable[Mapping[str, Any]]) -> str:
    """How many tokens a part had, as the requests' own spans tell it."""
    begun = {"prefill": "reading", "decode": "answering"}.get(name)
    if begun is None:
        return ""
    told = [event["args"] for event in events if event["ph"] == "b" and event["name"] == begun]
    # The first token of an answer comes with its prompt's last row.
    count = sum(a["tokens"] - (a["cached"] if name == "prefill" else 1) for a in told)
    return f", {count:,} tokens"


def _share(part: float, whole: float) -> str:
    return f"{part / whole * 100:5.1f} %" if whole else f"{'–':>7}"
