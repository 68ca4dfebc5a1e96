"""Fixtures of the compiler's tests: the real model as a source, and tiny ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from inpage_compile.sources import Source, open_source
from support.tiny import MODELS

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.fixture(scope="session")
def smollm2() -> Source:
    """SmolLM2-135M-Instruct as its recipe names it: from the download cache, or fetched once."""
    return open_source("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A GGUF file of every tiny model."""
    folder = tmp_path_factory.mktemp("tiny")
    return {name: tiny.write(folder / f"tiny-{name}.gguf") for name, tiny in MODELS.items()}


@pytest.fixture
def tiny(tiny_files: dict[str, Path]) -> Source:
    """One tiny model, quantized as SmolLM2's file is."""
    return open_source(str(tiny_files["mixed"]))
