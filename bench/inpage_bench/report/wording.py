"""The findings in plain words: who is faster, by how much, and what to mind when reading."""

from __future__ import annotations

from ..results import Results
from .text import about, list_of, number, quantity, ratio
from .view import View

BY_SHAPE = " by shape, random weights"  # such models are called so
LEVEL = 1.05  # closer than this, two speeds are called level


def headline(view: View) -> list[str]:
    """One or two sentences: how fast, and against each family of peers at its fastest."""
    best = view.best
    if best is None or not view.speed(best):
        others = list_of([view.name_of(e) for e in view.engines if view.speed(e)])
        said = f"No decoding speed of inpage was measured with {view.name}"
        return [f"{said}, only that of {others}." if others else f"{said}."]
    engine, ours = view.results.engines[best], view.speed(best)
    where = "in the browser" if engine.in_page else "outside the browser"
    threads = "one thread" if engine.threads == 1 else f"{engine.threads} threads" if engine.threads else ""
    place = f"{where} on {threads}" if threads else where
    found = [f"{engine.name} decodes {view.name} at {number(ours)} tokens a second {place}"]
    against = [(e, ours / view.speed(e)) for e in view.rivals if view.speed(e)]
    ahead = [f"{_times(r)} as fast as {_peer(view, e)}" for e, r in sorted(against, key=lambda p: -p[1]) if r >= LEVEL]
    level = [_peer(view, e) for e, r in against if 1 / LEVEL < r < LEVEL]
    behind = [f"{_peer(view, e)} is {_times(1 / r)} as fast" for e, r in against if r <= 1 / LEVEL]
    if ahead:
        found[0] += f": {list_of([ahead[0], *(a.replace(' as fast as', '') for a in ahead[1:])])}."
    else:
        found[0] += "." if against else "; no peer was measured beside it."
    if level:
        found.append(f"About as fast: {list_of(level)}.")
    if behind:
        found.append(f"{list_of(behind)}.")
    return found


def warnings(results: Results) -> list[str]:
    """What makes the numbers worth less, most important first."""
    by_shape = list_of([m.name.removesuffix(BY_SHAPE) for m in results.models if m.random])
    found = [f"Measured by shape, random weights: {by_shape}. Speeds hold; answers mean nothing."] if by_shape else []
    if not results.complete:
        found.insert(0, "The run was cut short: this is what it had measured.")
    environments = [s.environment for s in results.shards] or [results.environment]
    for i, env in enumerate(environments):
        where = f" (part {results.shards[i].part or i + 1})" if len(environments) > 1 else ""
        if env.busy:
            load = " and ".join(number(v, 2) for v in (env.load_before, env.load_after) if v is not None)
            share = quantity(env.foreign_cpu_share, "share") if env.foreign_cpu_share is not None else ""
            facts = [f"{share} of the processor went to others" if share else ""]
            facts.append(f"load average {load} on {env.cores} cores" if load else "")
            detail = ", ".join(filter(None, facts))
            said = f"The machine was busy with other work{where}"
            found.append(f"{said}: {detail}. Times and speeds are worth less." if detail else f"{said}.")
        if env.adapter and env.adapter.software:
            found.append(
                f"The WebGPU adapter is software ({env.adapter.description or env.adapter.vendor}){where}: "
                "its times say nothing of a GPU; its counts do."
            )
        if not env.isolated:
            found.append(f"The pages were not cross-origin isolated{where}: engines ran on one thread.")
    dirty = [s.tool for s in results.shards if s.tool.dirty] or ([results.tool] if results.tool.dirty else [])
    if dirty:
        found.append(
            f"The build had uncommitted changes on top of {(dirty[0].revision or 'an unknown revision')[:19]}."
        )
    return found


def _times(value: float) -> str:
    """A difference of some per cent is told to the per cent."""
    return about(value) if value >= 1.15 else ratio(value)


def _peer(view: View, engine: int) -> str:
    found = view.results.engines[engine]
    native = "" if found.in_page else ", outside the browser"
    return f"{found.name} ({number(view.speed(engine))}{native})"
