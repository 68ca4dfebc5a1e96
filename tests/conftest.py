"""What all tests of Python share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


def pytest_collection_finish() -> None:
    """What was imported stays: no collection looks through TVM and the tests' code again, which takes half a second."""
    gc.collect()
    gc.freeze()


# These hold every way of a linear layer to the same bits.
EVERY_WAY = {"test_kernel_linear", "test_plan_lowering"}


@pytest.fixture(autouse=True, scope="module")
def _few_ways(request: pytest.FixtureRequest) -> Iterator[None]:
    """What tests compile has one way of each linear layer, unless they ask for more."""
    if request.module.__name__.rpartition(".")[2] in EVERY_WAY:
        yield
        return
    from support.models import first_ways

    with first_ways():
        yield
