"""Join the results of shards that ran on one machine or on several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from inpage.errors import InvalidRequest

from .results import Cell, Engine, Results
from .run import sum_up


def merge(parts: Sequence[Results]) -> Results:
    """One file of them all: engines that are the same become one row, a cell measured twice is refused, and so are
    parts of different models or versions. Raises `InvalidRequest`."""
    if len(parts) < 2:
        raise InvalidRequest("give at least two results to merge", field="results")
    first = parts[0]
    whole = replace(first, models=[], engines=[], cells=[], pairs=[], differences=[], targets=[], shards=[])
    places: dict[tuple[object, ...], int] = {}
    for part in parts:
        _join_models(whole, part)
        if (part.tool.version, part.tool.revision) != (first.tool.version, first.tool.revision):
            raise InvalidRequest(
                f"{_of(first)} and {_of(part)} cannot be merged: they are different builds", field="tool"
            )
        offset = len(whole.shards)
        whole.shards += part.shards
        index = [_place(whole, places, engine) for engine in part.engines]
        for cell in part.cells:
            _add(whole, replace(cell, engine=index[cell.engine], shard=cell.shard + offset))
    whole.complete = all(part.complete for part in parts)
    whole.duration_s = round(sum(part.duration_s for part in parts), 1)
    sum_up(whole)
    return whole


def _join_models(whole: Results, part: Results) -> None:
    for model in part.models:
        known = next((m for m in whole.models if m.id == model.id), None)
        if known is None:
            whole.models.append(model)
        elif known.sha256 != model.sha256:
            raise InvalidRequest(
                f"{model.id} is not the same model in all parts: {known.sha256}, {model.sha256}", field="models"
            )


def _place(whole: Results, places: dict[tuple[object, ...], int], engine: Engine) -> int:
    key = (engine.name, engine.kind, engine.variant, engine.threads, engine.version)
    if key in places:
        row = whole.engines[places[key]]
        row.notes += [note for note in engine.notes if note not in row.notes]
        if engine.error is None:
            row.error = None  # it could run somewhere; where it could not, its cells say so
        return places[key]
    whole.engines.append(replace(engine, notes=list(engine.notes)))
    places[key] = len(whole.engines) - 1
    return places[key]


def _add(whole: Results, cell: Cell) -> None:
    known = whole.cell(cell.engine, cell.model, cell.scenario)
    if known is None:
        whole.cells.append(cell)
    elif cell.scenario != "heat":  # every shard runs its own heats
        engine = whole.engines[cell.engine].name
        raise InvalidRequest(
            f"{engine} has {cell.scenario} in two parts: these are not shards of one run", field="cells"
        )


def _of(results: Results) -> str:
    revision = (results.tool.revision or "no checkout")[:12]
    return f"{results.tool.version} ({revision})"
