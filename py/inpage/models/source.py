"""Where a model of the registry comes from: its artifacts, measured and opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ..backends.memory_ceiling import kv_bytes
from ..backends.selection import choose
from ..engines.protocol import Progress
from ..errors import InvalidRequest
from ..format.plan import parse_plan
from ..format.schema import Manifest, Variant
from ..host.artifact_store import Store, level_of, open_store
from ..host.capability import this_device
from ..kv import Blocks
from ..router import Router
from ..settings import Settings
from .levels import Grant, Level


class Source(Protocol):
    """What the registry needs of a model; its calls raise as `Router.load` does."""

    async def levels(self) -> list[Level]:
        """What it carries, the best first."""
        ...

    async def embeds(self) -> bool:
        """Whether it answers with vectors or ranks, known without loading it."""
        ...

    async def open(self, grant: Grant | None, on_progress: Progress) -> Router:
        """Load it, within the grant if there is one."""
        ...


class Artifacts:
    """One model as one or several artifacts, the best first: folders in CPython, URLs in the page. Each may carry
    several levels itself."""

    def __init__(
        self,
        places: Sequence[str | Path],
        *,
        settings: Settings,
        backend: str | None = None,
        threads: int | None = None,
        replicas: int | None = None,
        trust: bool = False,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._places, self._trust = list(places), trust
        self._backend, self._threads = backend, threads
        if replicas is not None:
            settings = dataclasses.replace(settings, engine=dataclasses.replace(settings.engine, replicas=replicas))
        self._settings = settings
        self._on_change = on_change
        self._levels: list[Level] | None = None
        self._embeds: bool | None = None
        self._carried: list[str] = []  # where each artifact or level of one is, as `Router.load` takes it

    async def levels(self) -> list[Level]:
        """Read once: an artifact does not change. Raises `InvalidRequest` where they have not one tokenizer."""
        if self._levels is None:
            levels: list[Level] = []
            carried: list[str] = []
            first: tuple[str, Manifest] | None = None
            for place in self._places:
                store = open_store(place)
                manifest, _ = await store.manifest()
                found = [(str(place), manifest)]
                for ref in manifest.levels[1:]:
                    found.append((f"{place}#{ref.name}", (await level_of(store, manifest, ref))[0]))
                first = first or found[0]
                for where, each in found:
                    _check_tokenizer(*first, where, each)
                    levels += await self._of(len(carried), store, each)
                    carried.append(where)
            self._levels, self._carried = levels, carried
        return self._levels

    async def embeds(self) -> bool:
        """Read once, as well."""
        if self._embeds is None:
            manifest, _ = await open_store(self._places[0]).manifest()
            self._embeds = manifest.embedding is not None
        return self._embeds

    async def open(self, grant: Grant | None, on_progress: Progress) -> Router:
        settings, place, refused = self._settings, str(self._places[0]), {}
        if grant is not None:
            kv = settings.kv
            if grant.kv is not None:
                most = grant.kv if kv.memory_bytes is None else min(grant.kv, kv.memory_bytes)
                settings = dataclasses.replace(settings, kv=dataclasses.replace(kv, memory_bytes=most))
            place, refused = self._carried[grant.level.artifact], dict(grant.level.refused)
        return await Router.load(
            place,
            backend=self._backend,
            threads=self._threads,
            refused=refused,
            on_progress=on_progress,
            on_change=self._on_change,
            settings=settings,
            trust=self._trust,
        )

    async def _of(self, artifact: int, store: Store, manifest: Manifest) -> list[Level]:
        """All variants that can run here, then without the one that takes the most beside KV pages, and so on, down to
        one with a plan. What an engine without a plan takes beside its weights is known of MLC's alone."""
        pin = self._settings.engine.backend if self._backend is None else self._backend
        ranked = choose(manifest.variants, await this_device(), backend=pin).ranked
        planned = [c.variant for c in ranked if "plan" in c.variant.files]
        plans = {v.name: parse_plan(await store.text(v.files["plan"], "plan"), manifest.tensors) for v in planned}
        if not plans:
            least = min((bytes_without_plan(manifest, c.variant) for c in ranked), default=manifest.weights.bytes)
            return [
                Level(artifact, manifest.level or manifest.id, least, 0, Blocks(1), manifest.architecture.context, 1)
            ]
        fixed = {c.name: bytes_without_plan(manifest, c.variant) for c in ranked}
        fixed |= {name: manifest.weights.bytes + plan.arena_bytes for name, plan in plans.items()}
        levels: list[Level] = []
        refused: dict[str, str] = {}
        for name in sorted(fixed, key=lambda name: fixed[name], reverse=True):
            left = [plan for other, plan in plans.items() if other not in refused]
            if not left:
                break
            largest = max(left, key=kv_bytes)
            level = Level(
                artifact,
                manifest.level or manifest.id,
                fixed[name],
                largest.page_bytes,
                Blocks(largest.page_tokens, largest.kv_groups),
                max(plan.maxima.context for plan in left),
                max(plan.maxima.sequences for plan in left),
                tuple(refused.items()),
                self._settings.engine.replicas,
                fixed[name] - (manifest.weights.bytes if ranked[0].kind.maps_weights else 0),
                largest.maxima.rows,
            )
            if not levels or level.fixed < levels[-1].fixed:
                levels.append(level)
            what, size = ("arena", plans[name].arena_bytes) if name in plans else ("graph", fixed[name])
            refused[name] = f"its {what} of {size / 1e6:.0f} MB is beyond the memory budget"
        return levels


def bytes_without_plan(manifest: Manifest, variant: Variant) -> int:
    """Bytes of weights; a library of MLC's keeps room for the keys and values of a whole context from the start."""
    weights = manifest.weights_of(variant).bytes
    if "library" not in variant.files:
        return weights
    a = manifest.architecture
    width = 2 if "shader-f16" in variant.requires else 4
    return weights + 2 * a.layers * a.kv_heads * a.head_dim * a.context * width


def _check_tokenizer(first: str, best: Manifest, where: str, manifest: Manifest) -> None:
    """An answer that moves between levels goes on from its token ids: they must mean the same."""
    one, other = ((m.tokenizer.sha256, m.architecture.vocab) for m in (best, manifest))
    if one != other:
        raise InvalidRequest(
            f"{where} has another tokenizer than {first}, so an answer could not move between them: add artifacts of "
            "one tokenizer, or each as a model of its own", field="artifacts",
        )  # fmt: skip
