"""How many sentences a second we make into vectors, against the goal and transformers.js in its best form."""

from __future__ import annotations

from .against_native import Side
from .results import Results, Target

GROUP = "Embeddings"
_TIMES = 3.0
_SCENARIOS = {"embed-batch-64": "a batch of 64 texts", "embed-single": "texts one after another"}


def lines(results: Results) -> list[Target]:
    """For our first engine in a page; none where nothing was embedded."""
    engines = enumerate(results.engines)
    mine = next((i for i, e in engines if e.kind == "inpage" and e.in_page and not e.error), None)
    model = next((model for model in results.models if model.embeds), None)
    if mine is None or model is None:
        return []
    side = Side(results, model, mine)
    found = [
        side.line(name, scenario, "sentences_per_s", lambda e: e.family == "transformers.js", "transformers.js", _TIMES)
        for scenario, name in _SCENARIOS.items()
    ]
    for line in found:
        line.group = GROUP
    return found
