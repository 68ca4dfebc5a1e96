"""The real matcher, in Node as a page's grammar worker has it (matcher.mjs), and the schemas that are tried on it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from inpage.requests.grammar import asked_grammar

TESTS = Path(__file__).resolve().parents[1]
CASES: list[dict[str, Any]] = json.loads((TESTS / "reference" / "json-schemas.json").read_text("utf-8"))


def matched(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the real matcher makes of grammars, see tests/support/matcher.mjs."""
    script = str(TESTS / "support" / "matcher.mjs")
    done = subprocess.run(["node", script], input=json.dumps(jobs), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def source(schema: Any) -> str:
    grammar = asked_grammar({"schema": schema})
    assert grammar is not None and grammar.kind == "schema"
    return grammar.source
