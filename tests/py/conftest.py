"""Fixtures of the router's tests: the compiled real model where a test needs it, small stand-ins elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inpage.backends import device_profile
from inpage.text.tokenizer import Tokenizer, load_tokenizer
from support.models import built_artifact
from support.small import small_tokenizer_json

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "tests" / "reference"


@pytest.fixture(autouse=True, scope="session")
def _nothing_remembered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What routers note about this machine stays out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr(device_profile, "cache_folder", lambda: folder)
        yield


@pytest.fixture(scope="session")
def artifact() -> Path:
    """The folder of the compiled SmolLM2, which `make test` makes."""
    folder = built_artifact()
    if not (folder / "manifest.json").is_file():
        pytest.fail(f"no compiled model in {folder}: run `make compile`")
    return folder


@pytest.fixture(scope="session")
def manifest_json(artifact: Path) -> dict[str, Any]:
    text = (artifact / "manifest.json").read_text("utf-8")
    return dict(json.loads(text))


@pytest.fixture(scope="session")
def real_tokenizer(artifact: Path, manifest_json: dict[str, Any]) -> Tokenizer:
    text = (artifact / "tokenizer.json").read_text("utf-8")
    return load_tokenizer(text, manifest_json["tokenizer"]["special"])


@pytest.fixture(scope="session")
def small_tokenizer() -> Tokenizer:
    return load_tokenizer(small_tokenizer_json(), {})


@pytest.fixture(scope="session")
def reference() -> dict[str, Any]:
    """Reference answers of SmolLM2, made outside of this project."""
    return dict(json.loads((REFERENCE / "smollm2-135m-instruct.json").read_text("utf-8")))


@pytest.fixture(scope="session")
def corpus() -> list[dict[str, Any]]:
    """Texts of many kinds with the ids that llama.cpp gives them."""
    return list(json.loads((REFERENCE / "tokenizer-corpus.json").read_text("utf-8"))["texts"])
