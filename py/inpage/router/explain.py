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


class Report:
    """Of one router. ``load_ms``: until its first engine was ready; ``warnings``: what is less than it could be."""

    def __init__(
        self,
        manifest: Manifest,
        choice: Choice,
        device: Device,
        load_ms: float,
        *,
        replicas: Replicas,
        backends: Backends,
        profile: DeviceProfile,
        answers: AnswerCache | None,
        memory: MemoryWatch,
    ) -> None:
        self.load_ms = load_ms
        self.warnings: list[str] = []
        self._manifest, self._choice, self._device = manifest, choice, device
        self._replicas, self._backends, self._profile = replicas, backends, profile
        self._answers, self._memory = answers, memory

    @property
    def _scheduler(self) -> Scheduler:
        return self._replicas.schedulers[0]

    @property
    def _engine(self) -> Engine:
        return self._scheduler.engine

    @property
    def why(self) -> str:
        """Why the engine that runs is the one, in a sentence."""
        backends = self._backends
        measurement = self._profile.measurements.get(backends.current.name)
        reason = self._choice.reason(backends.current, measurement, backends.took_over)
        count = self._engine.info.threads
        if self._engine.info.threads_measured and count != self._choice.threads:
            return f"{reason}, but {count} thread{'s' * (count > 1)} measured faster"
        return reason

    def facts(self) -> Facts:
        info = self._engine.info
        return Facts(self.load_ms, info.threads, info.backend, info.variant, self.why)

    @property
    def info(self) -> dict[str, Any]:
        """The model, where it runs and why, and what it holds in bytes."""
        info = self._engine.info
        return {
            "model": self._manifest.id,
            "name": self._manifest.name,
            "revision": self._manifest.revision,
            "level": self._manifest.level,
            "license": self._manifest.license.id,
            "backend": info.backend,
            "variant": info.variant,
            "threads": info.threads,
            "why": self.why,
            "sentence": self.sentence,
            "kernels": self.kernels,
            "kernels_settled": self.kernels_settled,
            "candidates": self.candidates,
            "load_ms": self.load_ms,
            "context": self._scheduler.capacity,
            "vocab": info.vocab,
            "max_sequences": info.max_sequences,
            "weight_bytes": info.weight_bytes,
            "arena_bytes": info.arena_bytes,
            "kv_bytes": self.held["kv"],
            "kv_pages": kv_pages(self._scheduler),
            "requests": {
                "active": sum(len(s.active) for s in self._replicas.schedulers),
                "waiting": sum(len(s.waiting) for s in self._replicas.schedulers),
            },
            "replicas": len(self._replicas.schedulers),
            "warnings": list(self.warnings),
        }

    @property
    def sentence(self) -> str:
        """The backends and their speeds, for people."""
        return sentence(self._choice.ranked, self._choice.candidates, self._profile.measurements, self._device)

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """Every variant of the artifact: whether it can run here, how fast, and what went wrong with it."""
        return verdicts(self._choice.candidates, self._backends, self._profile)

    @property
    def kernels(self) -> str:
        """Which of the kernels that do the same run here, for people; empty where none were timed."""
        choice, alternatives = self._profile.choices.get(self._backends.current.name), self._engine.info.alternatives
        fits = choice is not None and choice.fits(self._engine.info)
        return kernel_choice.sentence(choice, alternatives) if choice and fits else ""

    @property
    def kernels_settled(self) -> bool:
        """Whether those stay; else they are timed once more after a while without a request."""
        choice = self._profile.choices.get(self._backends.current.name)
        return choice is None or choice.settled

    async def counters(self) -> dict[str, int]:
        """What the engine did since it was loaded: "steps", "launches", "rows", "sampled" and, on a GPU, more; then
        the time in which some request was not yet over and what the engine computed of it, in microseconds
        ("working_us", "busy_us"); requests answered from a cache, as "cache_hits.memory" and so on, and those that
        began like an earlier one ("cache_hits.prefix")."""
        hits = {} if self._answers is None else self._answers.hits
        cached = {f"cache_hits.{tier}": count for tier, count in hits.items()}
        metrics = self._scheduler.metrics
        times = {"working_us": int(metrics.working.total * 1e6), "busy_us": int(metrics.computing.total * 1e6)}
        return await self._engine.counts() | times | cached | {"cache_hits.prefix": int(metrics.prefix_hits.total)}

    @property
    def held(self) -> dict[str, int]:
        """Bytes by kind: "weights", "arena", "kv", "swap"."""
        return self._replicas.held

    def metrics(self) -> str:
        """Counters, gauges and histograms as Prometheus text."""
        return self._replicas.metrics()

    def health(self) -> Health:
        """``healthy``, ``degraded`` or ``unhealthy``, with reasons."""
        held = sum(self.held.values())
        lost, watch = self._replicas.lost, self._scheduler.metrics.health
        leak = self._memory.leaks.suspicion()
        took_over = self._backends.took_over or self._replicas.trouble
        return watch.verdict(held=held, budget=self._device.memory, lost=lost, took_over=took_over, leak=leak)

    @property
    def trace(self) -> Tracer:
        """What happens when: `start` it, ask, and `to_json` opens in a trace viewer."""
        return self._scheduler.metrics.trace

    def explain(self) -> str:
        """A sentence for people, then each variant of the artifact: why it runs, could run or cannot run here, how
        fast it was measured, and what went wrong with it."""
        speeds = self.sentence if self._profile.measurements else ""
        told = explain(self.why, speeds, self._engine.info, self.candidates, self._backends.count > 1, self.kernels)
        lost, trouble, fewer = self._replicas.lost, self._replicas.trouble, self._replicas.why_fewer
        said = _about_level(self._manifest)
        said += [f"Nothing runs: {lost}."] * bool(lost) + [f"{trouble}."] * bool(trouble)
        said += [f"Fewer replicas than asked for: {fewer}."] * bool(fewer)
        said += [f"{warning}." for warning in self.warnings]
        said += [f"Smaller than its source: {step.sentence}." for step in self._manifest.pruning]
        said += [_UNSURE.format(self._engine.info.variant)] * (not self._engine.info.deterministic)
        return "\n".join([*said, told])


def _about_level(manifest: Manifest) -> list[str]:
    """What its precision costs, in a sentence, where that was measured."""
    found = manifest.perplexity
    if found is None:
        return []
    cost = f"{abs(found.cost) * 100:.1f} % {'above' if found.cost >= 0 else 'below'}"
    named = f"Level {manifest.level}: perplexity" if manifest.level else "Perplexity"
    return [f"{named} {found.value:.2f} on {found.text}, {cost} that of the model as its source holds it."]


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
        lines.append(f"{about_threads(info.threads, info.threads_measured, info.prompt_threads)}.")
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
