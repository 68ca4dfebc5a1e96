"""What all tests of Python share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

# Each process takes one file after the other: a long one that comes late leaves the others with nothing to do.
LONG = (
    "test_tiny_models", "test_cli_build", "test_bench_cli", "test_kernel_linear", "test_kernel_attention",
    "test_levels", "test_pruning", "test_real_model", "test_cli", "test_pyodide", "test_native_trust",
    "test_pipeline", "test_shape", "test_router_native", "test_wheel", "test_snapshot", "test_engines",
)  # fmt: skip


gc.disable()  # until all is imported, see below


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


def pytest_collection_finish() -> None:
    """What was imported stays: no collection looks through TVM and the tests' code again, which takes half a second."""
    gc.collect()
    gc.freeze()
    gc.enable()


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
