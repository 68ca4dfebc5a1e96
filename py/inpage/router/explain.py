"""What a router tells of itself, for people: which variant runs and why, how fast the others are, what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..backends import kernel_choice
from ..backends.device_profile import DeviceProfile
from ..backends.failover import Backends
from ..backends.selection import Candidate, Choice, about_threads, rate, sentence
from ..engines.protocol import Engine, EngineInfo
from ..format.schema import Manifest
from ..host.capability import Device
from ..observe.health import Health
from ..observe.tracing import Tracer
from ..responses import AnswerCache
from ..responses.stream import Facts
from ..scheduling.scheduler import Scheduler
from .replicas import Replicas
from .status import MemoryWatch, kv_pages

_UNSURE = (
    "{} does not compute the same bits each time: its answers are not kept, and one that goes on after an engine was "
    "lost goes on from its tokens, and may end otherwise than it would have."
)


class Explained:
    """A router, seen from outside: what it runs and why, what it did and holds, how it is."""

    manifest: Manifest
    choice: Choice
    device: Device
    load_ms: float
    scheduler: Scheduler
    replicas: Replicas
    answers: AnswerCache | None
    memory: MemoryWatch
    warnings: list[str]  # what is less than it could be, for people
    _backends: Backends
    _profile: DeviceProfile

    @property
    def engine(self) -> Engine:
        """The one that runs now; another may take over."""
        return self.scheduler.engine

    @property
    def why(self) -> str:
        """Why the engine that runs is the one, in a sentence."""
        backends = self._backends
        measurement = self._profile.measurements.get(backends.current.name)
        reason = self.choice.reason(backends.current, measurement, backends.took_over)
        count = self.engine.info.threads
        if self.engine.info.threads_measured and count != self.choice.threads:
            return f"{reason}, but {count} thread{'s' * (count > 1)} measured faster"
        return reason

    def _facts(self) -> Facts:
        info = self.engine.info
        return Facts(self.load_ms, info.threads, info.backend, info.variant, self.why)

    @property
    def info(self) -> dict[str, Any]:
        """The model, where it runs and why, and what it holds in bytes."""
        info = self.engine.info
        return {
            "model": self.manifest.id,
            "name": self.manifest.name,
            "revision": self.manifest.revision,
            "level": self.manifest.level,
            "license": self.manifest.license.id,
            "backend": info.backend,
            "variant": info.variant,
            "threads": info.threads,
            "why": self.why,
            "sentence": self.sentence,
            "kernels": self.kernels,
            "candidates": self.candidates,
            "load_ms": self.load_ms,
            "context": self.scheduler.capacity,
            "vocab": info.vocab,
            "max_sequences": info.max_sequences,
            "weight_bytes": info.weight_bytes,
            "arena_bytes": info.arena_bytes,
            "kv_bytes": self.held["kv"],
            "kv_pages": kv_pages(self.scheduler),
            "requests": {
                "active": sum(len(s.active) for s in self.replicas.schedulers),
                "waiting": sum(len(s.waiting) for s in self.replicas.schedulers),
            },
            "replicas": len(self.replicas.schedulers),
            "warnings": list(self.warnings),
        }

    @property
    def sentence(self) -> str:
        """The backends and their speeds, for people."""
        return sentence(self.choice.ranked, self.choice.candidates, self._profile.measurements, self.device)

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """Every variant of the artifact: whether it can run here, how fast, and what went wrong with it."""
        return verdicts(self.choice.candidates, self._backends, self._profile)

    @property
    def kernels(self) -> str:
        """Which of the kernels that do the same run here, for people; empty where none were timed."""
        choice, alternatives = self._profile.choices.get(self._backends.current.name), self.engine.info.alternatives
        fits = choice is not None and choice.fits(self.engine.info)
        return kernel_choice.sentence(choice, alternatives) if choice and fits else ""

    async def counters(self) -> dict[str, int]:
        """What the engine did since it was loaded: "steps", "launches", "rows", "sampled" and, on a GPU, more; then
        the time in which some request was not yet over and what the engine computed of it, in microseconds
        ("working_us", "busy_us"); requests answered from a cache, as "cache_hits.memory" and so on, and those that
        began like an earlier one ("cache_hits.prefix")."""
        hits = {} if self.answers is None else self.answers.hits
        cached = {f"cache_hits.{tier}": count for tier, count in hits.items()}
        metrics = self.scheduler.metrics
        times = {"working_us": int(metrics.working.total * 1e6), "busy_us": int(metrics.computing.total * 1e6)}
        return await self.engine.counts() | times | cached | {"cache_hits.prefix": int(metrics.prefix_hits.total)}

    @property
    def held(self) -> dict[str, int]:
        """Bytes by kind: "weights", "arena", "kv", "swap"."""
        return self.replicas.held

    def metrics(self) -> str:
        """Counters, gauges and histograms as Prometheus text."""
        return self.replicas.metrics()

    def health(self) -> Health:
        """``healthy``, ``degraded`` or ``unhealthy``, with reasons."""
        held = sum(self.held.values())
        lost, watch = self.replicas.lost, self.scheduler.metrics.health
        leak = self.memory.leaks.suspicion()
        took_over = self._backends.took_over or self.replicas.trouble
        return watch.verdict(held=held, budget=self.device.memory, lost=lost, took_over=took_over, leak=leak)

    @property
    def trace(self) -> Tracer:
        """What happens when: `start` it, ask, and `to_json` opens in a trace viewer."""
        return self.scheduler.metrics.trace

    def explain(self) -> str:
        """A sentence for people, then each variant of the artifact: why it runs, could run or cannot run here, how
        fast it was measured, and what went wrong with it."""
        speeds = self.sentence if self._profile.measurements else ""
        told = explain(self.why, speeds, self.engine.info, self.candidates, self._backends.count > 1, self.kernels)
        lost, trouble, fewer = self.replicas.lost, self.replicas.trouble, self.replicas.why_fewer
        said = [f"Nothing runs: {lost}."] * bool(lost) + [f"{trouble}."] * bool(trouble)
        said += [f"Fewer replicas than asked for: {fewer}."] * bool(fewer)
        said += [f"{warning}." for warning in self.warnings]
        said += [_UNSURE.format(self.engine.info.variant)] * (not self.engine.info.deterministic)
        return "\n".join([*said, told])


def verdicts(candidates: Sequence[Candidate], backends: Backends, profile: DeviceProfile) -> list[dict[str, Any]]:
    """Of every variant: whether it can run here, how fast, and what went wrong with it."""
    told = []
    for candidate in candidates:
        measurement = profile.measurements.get(candidate.name)
        told.append(
            {
                "variant": candidate.name,
                "backend": candidate.variant.backend,
                "running": candidate is backends.current,
                "can_run": candidate.can_run,
                "reason": candidate.reason,
                "decode_tps": measurement and measurement.decode_tps,
                "prefill_tps": measurement and measurement.prefill_tps,
                "fault": profile.log.sentence(candidate.name),
            }
        )
    return told


def explain(
    why: str, speeds: str, info: EngineInfo, told: Sequence[dict[str, Any]], several: bool, kernels: str = ""
) -> str:
    """``told``: what `verdicts` gave; ``speeds``: all backends in a sentence, if they were measured; ``several``:
    whether there is anything to choose from; ``kernels``: those that were chosen, see `kernel_choice.sentence`."""
    lines = [f"Running {why}."]
    if speeds:
        lines.append(f"{speeds}.")
    if info.threads_measured:
        lines.append(f"{about_threads(info.threads, info.threads_measured)}.")
    if kernels:
        lines.append(f"Kernels, chosen by timing them here: {kernels}.")
    for found in told:
        parts = [f"{'*' if found['running'] else ' '} {found['variant']}: {found['reason']}"]
        if found["decode_tps"]:
            parts.append(f"{rate(found['decode_tps'])} tokens a second, prompt {rate(found['prefill_tps'])}")
        elif found["can_run"] and several:
            parts.append("not measured yet")
        lines.append("; ".join([*parts, found["fault"]] if found["fault"] else parts))
    return "\n".join(lines)
