"""What a router tells of itself, for people: which variant runs and why, how fast the others are, what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .engines.protocol import EngineInfo
from .failover import Backends
from .notes import Notes
from .selection import Candidate, about_threads, rate


def verdicts(candidates: Sequence[Candidate], backends: Backends, notes: Notes) -> list[dict[str, Any]]:
    """Of every variant: whether it can run here, how fast, and what went wrong with it."""
    told = []
    for candidate in candidates:
        figure = notes.figures.get(candidate.name)
        told.append(
            {
                "variant": candidate.name,
                "backend": candidate.variant.backend,
                "running": candidate is backends.current,
                "can_run": candidate.can_run,
                "reason": candidate.reason,
                "decode_tps": figure and figure.decode_tps,
                "prefill_tps": figure and figure.prefill_tps,
                "fault": notes.log.sentence(candidate.name),
            }
        )
    return told


def explain(why: str, speeds: str, info: EngineInfo, told: Sequence[dict[str, Any]], several: bool) -> str:
    """``told``: what `verdicts` gave; ``speeds``: all backends in a sentence, if they were measured; ``several``:
    whether there is anything to choose from."""
    lines = [f"Running {why}."]
    if speeds:
        lines.append(f"{speeds}.")
    if info.threads_measured:
        lines.append(f"{about_threads(info.threads, info.threads_measured)}.")
    for found in told:
        parts = [f"{'*' if found['running'] else ' '} {found['variant']}: {found['reason']}"]
        if found["decode_tps"]:
            parts.append(f"{rate(found['decode_tps'])} tokens a second, prompt {rate(found['prefill_tps'])}")
        elif found["can_run"] and several:
            parts.append("not measured yet")
        lines.append("; ".join([*parts, found["fault"]] if found["fault"] else parts))
    return "\n".join(lines)
