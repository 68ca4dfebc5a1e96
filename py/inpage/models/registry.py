"""Many models, few in memory.

    models = Models({"models": {"max_loaded": 2, "target_memory": 1_000_000_000}})
    models.add("build/models/smollm2-135m-instruct", pinned=True)
    async for delta in models.chat("What is gravity?", model="smollm2-135m-instruct"):
        print(delta.text, end="", flush=True)

A model is loaded when it is first asked for, once however many ask, and unloaded after it was idle for a while, or
when another needs its place: the least recently used first. One that answers is never unloaded, nor one that is pinned.
What a model may hold is set aside before it is loaded, so all together never exceed the budget. Where that is lowered
while models are loaded, or memory runs out, those that answer move to a lower level: what they answer goes on there.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ..backends.memory_ceiling import ceiling
from ..engines.protocol import Progress
from ..errors import Cancelled, InpageError, InvalidRequest, OutOfMemory, Timeout, quoted
from ..observe.health import Health
from ..responses.stream import Delta, Stream
from ..router import Router
from ..router.handover import Handover
from ..settings import Settings, settings_from
from . import summary
from .clock import Clock, SystemClock
from .entry import Entry, ModelState
from .levels import Grant, Level, best_fit, holding, next_lower
from .places import Places
from .reclaim import reclaim
from .source import Artifacts, Source


class Models:
    """The registry. Names are those that requests give as ``model``; the first model added is the default."""

    def __init__(self, settings: Settings | Mapping[str, Any] | None = None, *, clock: Clock | None = None) -> None:
        self.settings = settings if isinstance(settings, Settings) else settings_from(settings or {})
        self.tally = summary.Tally(self)
        self._clock = clock or SystemClock()
        self._entries: dict[str, Entry] = {}
        self._places = Places(self.settings.models, self._entries)
        self._admission = asyncio.Lock()  # who needs room takes it in turn
        self._moved = asyncio.Event()  # set, and replaced, when somebody left or stopped answering
        self._watch: asyncio.Task[None] | None = None
        self._closed = False

    # -- what there is ---------------------------------------------------------------------------------------------

    def add(
        self,
        *artifacts: str | Path,
        name: str | None = None,
        pinned: bool = False,
        backend: str | None = None,
        threads: int | None = None,
        replicas: int | None = None,
        trust: bool = False,
        on_change: Callable[[], None] = lambda: None,
    ) -> str:
        """Make a model known; nothing is read yet. Several ``artifacts`` are one model in several precisions, the best
        first, all with one tokenizer: with a memory budget the first that fits is loaded. ``trust``: see `Router.load`.
        Its name, by default the first one's last part, is returned. Raises `InvalidRequest` for a name that is
        taken."""
        if not artifacts:
            raise InvalidRequest("give at least one artifact", field="artifacts")
        name = name or default_name(artifacts[0])
        how: dict[str, Any] = {"backend": backend, "threads": threads, "replicas": replicas, "on_change": on_change}
        how["trust"] = trust
        source = Artifacts(artifacts, settings=self.settings, **how)
        return self.add_source(name, source, pinned=pinned)

    def add_source(self, name: str, source: Source, *, pinned: bool = False) -> str:
        if name in self._entries:
            raise InvalidRequest(f"there is a model {quoted(name)} already", field="name")
        self._entries[name] = Entry(name, source, pinned)
        return name

    def pin(self, name: str, pinned: bool = True) -> None:
        """Keep it loaded once it is, or no longer."""
        entry = self._entry(name)
        entry.pinned, entry.used = pinned, self._clock.now()
        self._stir()

    @property
    def names(self) -> list[str]:
        return list(self._entries)

    @property
    def default(self) -> str:
        """The model of requests that name none. Raises `InvalidRequest` where there is no model at all."""
        if not self._entries:
            raise InvalidRequest("no model is known: add one first", field="model")
        return next(iter(self._entries))

    async def embeds(self, name: str | None = None) -> bool:
        """Whether a model makes embeddings or ranks texts; loads none for that."""
        return await self._entry(name).source.embeds()

    def loaded(self) -> list[ModelState]:
        """Those in memory or on their way, the most recently used first."""
        held = [e for e in self._entries.values() if e.placed]
        return [e.state(self._clock.now()) for e in sorted(held, key=lambda e: (not e.uses, -e.used))]

    def routers(self) -> dict[str, Router]:
        """The routers of what is loaded now, by model, to look at; to ask one, `use` it."""
        return {e.name: e.router for e in self._entries.values() if e.router is not None}

    @property
    def budget(self) -> int:
        """Bytes that models may hold; 0: any."""
        return self.settings.models.target_memory or 0

    def metrics(self) -> str:
        """Of all loaded models and of the registry, as Prometheus text."""
        return summary.metrics(self.tally, self.routers())

    def health(self) -> Health:
        """Of all loaded models together, degraded above 90 % of the memory budget."""
        failures = {e.name: e.failure for e in self._entries.values() if e.failure}
        return summary.health(self.routers(), failures, self.settings.models.target_memory)

    def explain(self) -> str:
        """For people: what is loaded, how, and why."""
        return summary.explain(self.loaded(), self.names, self.routers())

    # -- asking ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def use(self, name: str | None = None, *, on_progress: Progress | None = None) -> AsyncIterator[Router]:
        """A model's router, loaded if need be, and kept as long as the block lasts.

        Raises `InvalidRequest` for an unknown name, `OutOfMemory` (with the numbers) where no level fits, `Timeout`
        where all places are taken by models that answer and stay so, and whatever `Router.load` raises."""
        entry = self._entry(name)
        entry.uses += 1
        try:
            with entry.listening(on_progress):
                router = await self._router(entry)
            entry.serving += 1
            try:
                yield router
            finally:
                entry.serving -= 1
        finally:
            entry.uses -= 1
            entry.used = self._clock.now()
            self._stir()

    def lesser(self, name: str | None = None) -> str:
        """Why not the model's best precision is loaded, for people; empty where it is, or none."""
        return self._entry(name).lesser

    async def preload(self, name: str | None = None, *, on_progress: Progress | None = None) -> None:
        """Load it now. It is then as if it had just been used."""
        async with self.use(name, on_progress=on_progress):
            pass

    def chat(self, messages: Any, *, model: str | None = None, **params: Any) -> AsyncGenerator[Delta]:
        """`Router.chat` of a model, piece by piece."""
        return self._pieces(model, lambda router: router.chat(messages, **params))

    def complete(self, prompt: Any, *, model: str | None = None, **params: Any) -> AsyncGenerator[Delta]:
        """`Router.complete` of a model, piece by piece."""
        return self._pieces(model, lambda router: router.complete(prompt, **params))

    async def quick(self, prompt: str, *, model: str | None = None, **params: Any) -> str:
        """The text of an answer to one message."""
        async with self.use(model) as router:
            return await router.quick(prompt, **params)

    async def _pieces(self, model: str | None, ask: Callable[[Router], Stream]) -> AsyncGenerator[Delta]:
        async with self.use(model) as router, aclosing(ask(router).__aiter__()) as deltas:
            async for delta in deltas:
                yield delta

    # -- memory ----------------------------------------------------------------------------------------------------

    async def set_target_memory(self, target_memory: int | None) -> None:
        """Another budget (`ModelSettings.target_memory`) while models are loaded. Where they are beyond it, those that
        are idle are unloaded, and of the others each moves to the best level that fits: what it answers goes on there
        as after a failover, from its tokens so far; scores and vectors, which are of one level, fail with
        `OutOfMemory`. A higher one counts from the next load on. What loads, moves or is being unloaded is waited for
        first; cancelled later, it is done all the same.

        Raises `OutOfMemory`, with the numbers, where one that is pinned, or answers, fits at no level with what it has
        answered so far: nothing changes then. `InvalidRequest`."""
        tree = dataclasses.asdict(self.settings.models) | {"target_memory": target_memory}
        wanted = settings_from({"models": tree}).models
        levels: dict[str, Sequence[Level]] = {}
        while True:
            for entry in [e for e in self._places.placed() if target_memory is not None and e.name not in levels]:
                levels[entry.name] = await entry.source.levels()
            busy = [task for e in self._places.placed() for task in (e.loading, e.leaving) if task is not None]
            if not busy and (target_memory is None or all(e.name in levels for e in self._places.placed())):
                break
            if busy:
                await asyncio.wait(busy)
        changes = self._places.shrunk(wanted, levels)
        self.settings = dataclasses.replace(self.settings, models=wanted)
        self._places.settings = wanted
        why = OutOfMemory(f"the memory budget is {(target_memory or 0) / 1e6:.1f} MB now", field="models.target_memory")
        tasks = [
            self._leave(entry, "evicted") if grant is None else self._move(entry, grant, why, levels[entry.name])
            for entry, grant in changes.items()
        ]
        self._stir()
        if tasks:
            await asyncio.wait(tasks)  # which they outlive, if it is cancelled
        for task in tasks:
            task.result()

    # -- unloading -------------------------------------------------------------------------------------------------

    async def unload(self, name: str) -> None:
        """Free a model, pinned or not, once what it answers now has ended; it is loaded again when it is asked for."""
        entry = self._entry(name)
        while (coming := entry.loading or (entry.leaving if entry.router is None else None)) is not None:
            await asyncio.wait([coming])  # a load, or a move to another level
        if entry.router is not None:
            await asyncio.wait([self._leave(entry, "asked")])

    async def sweep(self) -> None:
        """Unload what has been idle for too long."""
        limit = self.settings.models.idle_seconds
        late = [e for e in self._places.idle() if limit is not None and e.used + limit <= self._clock.now()]
        if late:
            await asyncio.wait([self._leave(entry, "idle") for entry in late])

    async def hide(self, hidden: bool) -> None:
        """Nobody sees the page, or somebody does again: see `KvSettings.hidden_seconds`."""
        for router in self.routers().values():
            router.hide(hidden)
        spared = [e for e in self._places.idle() if e.router is not None and ceiling(e.router.device) is not None]
        if hidden and spared:
            await asyncio.wait([self._leave(entry, "hidden") for entry in spared])

    async def close(self) -> None:
        """Unload everything; requests in flight end with `Cancelled`."""
        self._closed = True
        self._stir()
        tasks: list[asyncio.Task[Any]] = [e.loading for e in self._entries.values() if e.loading is not None]
        for task in tasks:
            task.cancel()
        moving = [e.leaving for e in self._entries.values() if e.router is None and e.leaving is not None]
        tasks += [*moving, *(self._leave(e, "asked") for e in self._entries.values() if e.router is not None)]
        if self._watch is not None:
            self._watch.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def __aenter__(self) -> Models:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- within ----------------------------------------------------------------------------------------------------

    def _entry(self, name: str | None) -> Entry:
        chosen = self.default if name is None else name
        if chosen not in self._entries:
            known = ", ".join(self._entries)
            raise InvalidRequest(f"there is no model {quoted(chosen)} here; there is {known or 'none'}", field="model")
        return self._entries[chosen]

    async def _router(self, entry: Entry) -> Router:
        while not self._closed:
            if entry.leaving is not None:
                await asyncio.wait([entry.leaving])
            elif entry.router is not None:
                return entry.router
            else:
                if entry.loading is None:
                    entry.loading = asyncio.get_running_loop().create_task(self._load(entry))
                await self._share(entry, entry.loading)
        raise Cancelled("the models were unloaded")

    async def _share(self, entry: Entry, loading: asyncio.Task[object]) -> None:
        """Wait for a load beside others; when the last who waits leaves, it is given up."""
        entry.waiters += 1
        try:
            await asyncio.wait([loading])
        finally:
            entry.waiters -= 1
            if not entry.waiters and not loading.done():
                loading.cancel()
        if not loading.cancelled():
            loading.result()

    async def _load(self, entry: Entry) -> None:
        try:
            grant = await self._admit(entry)
            self.tally.loads.add(model=entry.name)
            try:
                entry.router = await self._open(entry, grant)
            finally:
                if entry.router is None:
                    entry.placed, entry.grant = False, None
            entry.failure = ""
        except InpageError as error:
            self.tally.failures.add(model=entry.name)
            entry.failure = f"{error.code}: {error}"
            raise
        finally:
            entry.loading = None
            entry.used = self._clock.now()
            self._stir()

    async def _open(self, entry: Entry, grant: Grant | None, tokens: int = 0) -> Router:
        """Load it within the grant, or at the next lower level that the device's memory takes. ``tokens``: that a level
        must have room for, to go on with what was answered."""
        while True:
            try:
                router = await entry.source.open(grant, entry.tell)
            except InpageError as error:
                full = isinstance(error.__cause__ or error, OutOfMemory)
                lower = await self._lower(entry, tokens) if full else None
                if lower is None:
                    raise
                entry.grant = grant = lower
                entry.lesser = f"{lower.level.name}, because memory ran out at a higher one: {error}"
                continue
            router.replicas.step_down = partial(self._step_down, entry, router)
            return router

    async def _lower(self, entry: Entry, tokens: int) -> Grant | None:
        """At the next lower level with room for ``tokens``, within what it has been granted; None where there is
        none."""
        levels = list[Level]()
        with contextlib.suppress(InpageError):  # what made this necessary counts
            levels = holding(await entry.source.levels(), tokens)
        before, settings = entry.grant, self.settings.models
        artifact = 0 if before is None else before.level.artifact
        if before is None or before.kv is None:
            return next_lower(levels, artifact)
        rest = [level for level in levels if level.artifact > artifact]
        return best_fit(rest, before.total, share=before.total, least=max(settings.least_context, tokens))

    async def _step_down(self, entry: Entry, router: Router, error: OutOfMemory) -> bool:
        """The device has no memory for what the model answers: whether it is loaded anew at a lower level."""
        lower = await self._lower(entry, router.replicas.longest)
        if router.replicas.successor is not None:
            return True  # it moves already, because of another of its engines or of the budget
        if lower is None or entry.router is not router or entry.leaving is not None or self._closed:
            return False
        self._move(entry, lower, error)
        return True

    async def _admit(self, entry: Entry) -> Grant | None:
        """Take a place and the bytes of the best level that can be had, at the expense of others that are idle."""
        patience, places, levels = self.settings.scheduler.timeout, self._places, list[Level]()
        try:
            async with asyncio.timeout(patience), self._admission:
                while True:
                    if self.settings.models.target_memory is not None and not levels:
                        levels = await entry.source.levels()
                        continue
                    possible, grant = places.possible(levels, places.fixed(), entry)
                    if not possible:
                        if not places.possible(levels, places.pinned(), entry)[0]:
                            raise places.too_large(entry, levels)
                        await self._moved.wait()
                    elif places.fits(grant):
                        entry.placed, entry.grant = True, grant
                        entry.lesser = places.lesser(entry, levels, grant)
                        return grant
                    else:
                        await asyncio.wait([self._leave(min(places.idle(), key=lambda e: e.used), "evicted")])
        except TimeoutError:
            raise Timeout(f"{entry.name} waited {patience:g} s for a place in memory; {self._holders()}") from None

    def _holders(self) -> str:
        return "in memory: " + ", ".join(str(state) for state in self.loaded())

    def _leave(self, entry: Entry, why: str) -> asyncio.Task[None]:
        """Begin to unload it. Later requests for it wait until it is gone, and load it again."""
        if entry.leaving is None:
            entry.leaving = asyncio.get_running_loop().create_task(self._unload(entry, why))
        return entry.leaving

    def _move(
        self, entry: Entry, grant: Grant, why: OutOfMemory, levels: Sequence[Level] = ()
    ) -> asyncio.Task[None]:  # fmt: skip
        """Begin to load it anew within another grant; later requests for it wait for that. ``levels``: where a changed
        budget is the reason."""
        router, entry.router = entry.router, None
        assert router is not None
        handover = router.redirect(why)
        if entry.bytes < grant.total:
            entry.grant = grant  # what it holds now or will hold, whichever is more, is no other's meanwhile
        reloading = self._reload(entry, router.hand_over(handover), handover, grant, levels)
        entry.leaving = asyncio.get_running_loop().create_task(reloading)
        return entry.leaving

    async def _reload(
        self, entry: Entry, ending: Awaitable[None], handover: Handover, grant: Grant, levels: Sequence[Level]
    ) -> None:
        failure = InpageError("the model could not be loaded again")
        try:
            await ending
            reclaim()
            self.tally.unloads.add(why="moved")
            entry.grant = grant
            self._stir()
            # Only those that a change of the budget unloads or moves as well can be in the way still: what is granted
            # to all after it is within the budget, and the next change waits for this move.
            while not self._places.within() and not self._closed:
                await self._moved.wait()
            why = handover.gap.error
            lesser = self._places.lesser(entry, levels, grant) if levels else f"{grant.level.name}, because {why}"
            entry.lesser = lesser
            router = await self._reopen(entry, grant, handover.longest)
            entry.router, entry.failure = router, ""
            router.take_over(handover)
        except InpageError as error:
            self.tally.failures.add(model=entry.name)
            entry.failure, failure = f"{error.code}: {error}", error
        finally:
            if entry.router is None:
                entry.placed, entry.grant = False, None
                handover.fail(failure)
            entry.leaving = None
            self._stir()

    async def _reopen(self, entry: Entry, grant: Grant, tokens: int) -> Router:
        """`_open` as a load that `close` gives up. Raises `Cancelled` then."""
        self._check_open()
        self.tally.loads.add(model=entry.name)
        entry.loading = opening = asyncio.get_running_loop().create_task(self._open(entry, grant, tokens))
        await asyncio.wait([opening])
        entry.loading = None
        if self._closed and not opening.cancelled() and opening.exception() is None:
            await opening.result().unload()
        self._check_open()
        return opening.result()

    def _check_open(self) -> None:
        if self._closed:
            raise Cancelled("the models were unloaded")

    async def _unload(self, entry: Entry, why: str) -> None:
        while entry.serving and not self._closed:
            await self._moved.wait()
        router, entry.router = entry.router, None
        try:
            if router is not None:
                await router.unload()
                del router
                reclaim()
                self.tally.unloads.add(why=why)
        finally:
            entry.placed, entry.grant, entry.leaving = False, None, None
            self._stir()

    def _stir(self) -> None:
        """Something changed: who waits looks again, and who idles is watched."""
        self._moved.set()
        self._moved = asyncio.Event()
        if (self._watch is None or self._watch.done()) and not self._closed and self._due() is not None:
            self._watch = asyncio.get_running_loop().create_task(self._unload_idle())

    def _due(self) -> float | None:
        """When the next model has been idle for too long."""
        limit = self.settings.models.idle_seconds
        return None if limit is None else min((e.used + limit for e in self._places.idle()), default=None)

    async def _unload_idle(self) -> None:
        while (due := self._due()) is not None:
            await self._clock.sleep(max(0.0, due - self._clock.now()))
            await self.sweep()


def default_name(artifact: str | Path) -> str:
    """The last part of its path or URL."""
    return str(artifact).rstrip("/").rpartition("/")[2]
