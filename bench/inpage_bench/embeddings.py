"""How many sentences a second we make into vectors, against the goal and transformers.js.

It pads the texts of a call to the longest of them, so that its own batch can be slower than a loop over the same texts:
our batch is judged against the better of the two."""

from __future__ import annotations

from .against_native import Side
from .results import Results, Target

GROUP = "Embeddings"
_TIMES = 3.0
_BATCH, _SINGLE = "embed-batch-64", "embed-single"
_SCENARIOS = {_BATCH: ("a batch of 64 texts", (_BATCH, _SINGLE)), _SINGLE: ("texts one after another", ())}


def lines(results: Results) -> list[Target]:
    """For our first engine in a page; none where nothing was embedded."""
    engines = enumerate(results.engines)
    mine = next((i for i, e in engines if e.kind == "inpage" and e.in_page and not e.error), None)
    model = next((model for model in results.models if model.embeds), None)
    if mine is None or model is None:
        return []
    side = Side(results, model, mine)
    found = [
        side.line(
            name, scenario, "sentences_per_s", lambda e: e.family == "transformers.js", "transformers.js", _TIMES,
            theirs_in=theirs,
        )
        for scenario, (name, theirs) in _SCENARIOS.items()
    ]  # fmt: skip
    for line in found:
        line.group = GROUP
    return found
