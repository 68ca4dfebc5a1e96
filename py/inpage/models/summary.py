"""What the registry tells of its models together: metrics, health, reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..observe.health import Health, too_full
from ..observe.prometheus import Counter, Gauge, Registry, merged
from ..router import Router
from .entry import ModelState

if TYPE_CHECKING:
    from .registry import Models

_WORSE = ("healthy", "degraded", "unhealthy")


class Tally:
    """What the registry counts."""

    def __init__(self, models: Models) -> None:
        self.registry = r = Registry()
        self.loads = r.add(Counter("inpage_model_loads_total", "Loads that began, by model", ["model"]))
        self.unloads = r.add(Counter("inpage_model_unloads_total", "Models unloaded, by why", ["why"]))
        self.failures = r.add(Counter("inpage_model_load_failures_total", "Loads that failed, by model", ["model"]))
        r.add(Gauge("inpage_models_loaded", "Models in memory", lambda: len(models.routers())))
        r.add(Gauge("inpage_models_bytes", "Bytes that models hold", lambda: sum(held(models.routers()).values())))
        r.add(Gauge("inpage_models_budget_bytes", "Bytes that models may hold, 0: any", lambda: models.budget))


def held(routers: Mapping[str, Router]) -> dict[str, int]:
    """Bytes by model."""
    return {name: sum(router.held.values()) for name, router in routers.items()}


def metrics(tally: Tally, routers: Mapping[str, Router]) -> str:
    """As Prometheus text: each router's metrics, with the label "model", and those of the registry."""
    parts = []
    for name, router in routers.items():
        several = router.replicas.schedulers
        for i, scheduler in enumerate(several):
            labels = {"model": name} | ({"replica": str(i)} if len(several) > 1 else {})
            parts.append((labels, scheduler.metrics.registry))
    return tally.registry.text() + merged(parts)


def health(routers: Mapping[str, Router], failures: Mapping[str, str], budget: int | None) -> Health:
    """The worst of all; ``failures``: why models could not be loaded the last time; ``budget``: the registry's."""
    each = {name: router.health() for name, router in routers.items()}
    reasons = [f"{name}: {reason}" for name, found in each.items() for reason in found.reasons]
    rank = max((_WORSE.index(found.status) for found in each.values()), default=0)
    together = sum(held(routers).values())
    full = too_full(together, budget)
    more = [f"{name} could not be loaded: {why}" for name, why in failures.items()] + [full] * bool(full)
    status = _WORSE[max(rank, 1 if more else 0)]
    statuses = {name: found.status for name, found in each.items()}
    return Health(
        status, (*reasons, *more), {"memory_bytes": together, "memory_budget": budget, "models": statuses}
    )  # fmt: skip


def explain(states: Sequence[ModelState], names: Sequence[str], routers: Mapping[str, Router]) -> str:
    """A paragraph a model that is loaded, then the names of the others."""
    parts = []
    for state in states:
        lesser = f"Level {state.lesser}.\n" if state.lesser else ""
        router = routers.get(state.name)
        parts.append(str(state) if router is None else f"{state}:\n{lesser}{router.explain()}")
    others = [name for name in names if name not in {state.name for state in states}]
    return "\n".join(parts + ([f"Not loaded: {', '.join(others)}."] if others else []))
