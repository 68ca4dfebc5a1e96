"""Good and bad documents of `format/corpus`, which the tests of both languages read."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "format" / "corpus"


def corpus(name: str) -> dict[str, Any]:
    """``good``: a document, or several by name. ``bad``: changes to one (``at``, ``to`` or ``remove``), each with the
    ``field`` that is at fault then."""
    return dict(json.loads((FOLDER / f"{name}.json").read_text("utf-8")))


def changed(good: Any, case: dict[str, Any]) -> Any:
    """A copy of ``good`` with one change; ``times``: the value so many times, in a list."""
    out = copy.deepcopy(good)
    place = out
    *way, last = case["at"]
    for key in way:
        place = place[key]
    if case.get("remove"):
        del place[last]
    else:
        place[last] = [case["to"]] * case["times"] if "times" in case else case["to"]
    return out


def case_id(case: dict[str, Any]) -> str:
    return f"{'.'.join(map(str, case['at']))}={str(case.get('to', '-'))[:30]}"
