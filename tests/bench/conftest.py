"""Fixtures of the bench's tests."""

from __future__ import annotations

import pytest

from inpage.text.tokenizer import Tokenizer, load_tokenizer
from support.small import small_tokenizer_json


@pytest.fixture(scope="session")
def small_tokenizer() -> Tokenizer:
    return load_tokenizer(small_tokenizer_json(), {})
