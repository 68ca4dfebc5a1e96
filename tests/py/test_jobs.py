"""What the page's main thread is told of work that nothing can interrupt (web/client/watch.js has the limits)."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from inpage.host import jobs
from inpage.requests.grammar import schema_grammar
from inpage.text.chat_template import ChatTemplate
from inpage.text.tokenizer import load_tokenizer
from support.small import small_tokenizer_json

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    names: list[str | None] = []
    monkeypatch.setattr(jobs, "_post", lambda message: names.append((message["job"] or {"name": None})["name"]))
    return names


def test_within_a_job_another_one_has_its_own_limit(told: list[str | None]) -> None:
    with jobs.job("prompt", 9):
        with pytest.raises(ZeroDivisionError), jobs.job("template"):
            raise ZeroDivisionError
        with jobs.job("template"):
            pass
    assert told == ["prompt", "template", "prompt", "template", "prompt", None]


def test_what_only_some_requests_need_is_imported_and_compiled_as_jobs(
    told: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("inpage.text.template_sandbox", "inpage.json_schema"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    ChatTemplate("{{ messages[0]['content'] }}", load_tokenizer(small_tokenizer_json(), {}), bos=None, eos=None)
    assert told == ["import", None, "template", None]
    del told[:]
    schema: dict[str, Any] = {"type": "integer", "minimum": 17, "maximum": 4711}
    schema_grammar(schema)
    assert told == ["import", None, "schema", None]
    del told[:]
    ChatTemplate("{{ 1 }}", load_tokenizer(small_tokenizer_json(), {}), bos=None, eos=None)
    schema_grammar(schema)  # kept
    assert told == ["template", None]


def test_the_page_has_a_limit_for_each() -> None:
    named = re.compile(r"\bjob\(\"(\w+)\"")
    asked = {name for path in (ROOT / "py/inpage").rglob("*.py") for name in named.findall(path.read_text("utf-8"))}
    watch = (ROOT / "web/client/watch.js").read_text("utf-8")
    limits = set(re.findall(r"^  (\w+): \{ ms: ", watch, re.MULTILINE))
    assert asked == limits - {"script", "start"}  # those two are JavaScript's
