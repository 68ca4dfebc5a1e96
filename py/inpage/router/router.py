"""The face of inpage: load a compiled model on what this device has, and ask it. The same in the page and in CPython.

router = await Router.load("build/models/smollm2-135m-instruct")
async for delta in router.chat("What is gravity?", max_tokens=100):
    print(delta.text, end="", flush=True)
await router.unload()
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from ..backends.device_profile import DeviceProfile
from ..backends.failover import Backends
from ..backends.load import load_engine
from ..backends.memory_ceiling import fitted
from ..backends.selection import Candidate, Choice, choose
from ..engines.protocol import Engine, Grammar, Progress
from ..errors import Cancelled, InpageError, InvalidRequest, Unsupported
from ..format.schema import Manifest
from ..host.artifact_store import open_store
from ..host.browser import IN_PAGE
from ..host.capability import Device, host_device, this_device
from ..host.jobs import job
from ..kv.storage import PageStorage, open_storage
from ..requests.grammar import one_grammar, unmet_need
from ..requests.params import Options, answer_room, checked_ids, options
from ..requests.prompts import Prompt, Prompts
from ..requests.request import Request
from ..requests.tools import asked_tools
from ..responses import AnswerCache, answer_key, weights_digest
from ..responses.opening import open_answers
from ..responses.sharing import SharedRuns
from ..responses.stream import Completion, Delta, Kept, Later, Stream, together
from ..scheduling import scoring
from ..scheduling.scheduler import Scheduler
from ..scheduling.scoring import Score
from ..scheduling.tuning import Tuner
from ..settings import Settings, settings_from
from ..text.tokenizer import Tokenizer, load_tokenizer
from .explain import Explained
from .prefixes import Prefixes, ReadAhead
from .prefixes import Prompt as Prefix
from .replicas import Replicas, affordable
from .status import MemoryWatch, add_gauges

__all__ = ["Completion", "Delta", "Router", "Score", "Stream"]


class Router(Explained, ReadAhead):
    """One loaded model and its queue. Made by `load`; any number of requests may run at once."""

    def __init__(
        self,
        manifest: Manifest,
        choice: Choice,
        engine: Engine,
        tokenizer: Tokenizer,
        *,
        load_ms: float,
        settings: Settings | None = None,
        answers: AnswerCache | None = None,
        pages: PageStorage | None = None,
        backends: Backends | None = None,
        profile: DeviceProfile | None = None,
        device: Device | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.manifest = manifest
        self.choice = choice
        self.tokenizer = tokenizer
        self.load_ms = load_ms
        self.device = device or host_device()
        self.scheduler = Scheduler(engine, settings=settings, backends=backends, on_change=self._changed)
        self.replicas = Replicas(self.scheduler)
        self.replicas.room = self._room
        self._profile = profile or DeviceProfile(manifest.id, "")
        self._backends = backends or Backends(choice.ranked, _nothing_else, self._profile.log)
        self._on_change = on_change
        self._tuner = Tuner(self.scheduler, self._backends, self._profile, room=self._room, on_change=on_change)
        self._prefixes = Prefixes(self.scheduler, manifest, self.device, self._prefix_ids, pages)
        self.answers = answers
        self._runs = SharedRuns(answers, self.replicas.submit, self.replicas.cancel) if answers else None
        self._weights = weights_digest(manifest)
        add_gauges(self.scheduler, answers)
        self.memory = MemoryWatch(self.scheduler)
        self._prompts = Prompts(manifest, tokenizer, lambda: self.scheduler.metrics.work("encode"))
        self._saving: asyncio.Task[None] | None = None
        self._unloaded = False
        self.warnings = []

    @classmethod
    async def load(
        cls,
        artifact: str | Path,
        *,
        backend: str | None = None,
        threads: int | None = None,
        on_progress: Progress | None = None,
        on_change: Callable[[], None] = lambda: None,
        settings: Settings | Mapping[str, Any] | None = None,
        answers: AnswerCache | None = None,
        refused: Mapping[str, str] | None = None,
        trust: bool = False,
    ) -> Router:
        """Load an artifact: a folder in CPython, a URL in the page.

        ``backend`` pins a backend ("wasm", "native") or a variant ("wasm-simd"); ``on_progress`` is called with
        ``{"phase": "manifest" | "tokenizer" | "kernels" | "weights" | "ready"}`` and, where bytes move, ``"loaded"``
        and ``"total"``; ``on_change`` when another engine runs or something was measured. ``settings``: see
        `inpage.settings`; ``answers``: a cache of your own in place of the one that they describe; ``refused``:
        variants that shall not run, and why; ``trust``: run native kernels that this machine did not compile, which
        can do whatever this process may. Raises `ArtifactInvalid`, `Untrusted`, `Unsupported` (with the reason of each
        candidate), `InvalidRequest` for a bad pin or setting, `OutOfMemory`, `NetworkError`."""
        started = time.perf_counter()
        chosen = settings if isinstance(settings, Settings) else settings_from(settings or {})
        backend = chosen.engine.backend if backend is None else backend
        threads = chosen.engine.threads if threads is None else threads
        if not chosen.wasm.shared and IN_PAGE:
            threads = 1
        store = open_store(artifact)
        report = on_progress or _unheard
        report({"phase": "manifest"})
        manifest, text = await store.manifest()
        device = await this_device(chosen.webgpu.power_preference)
        profile = await DeviceProfile.open(manifest, device, threads)
        choice = choose(
            manifest.variants,
            device,
            backend=backend,
            threads=threads,
            measurements=profile.measurements,
            refused=refused,
        )
        chosen, shrunk = await fitted(chosen, device, store, manifest, choice)
        report({"phase": "tokenizer"})

        async def tokenizing() -> Tokenizer:
            description = await store.text(manifest.tokenizer, "tokenizer")
            with job("tokenizer", len(description)):
                return load_tokenizer(description, manifest.tokenizer.special)

        wanted = chosen.engine.replicas
        share = max(1, choice.threads // wanted)
        pinned = threads is not None or wanted > 1

        async def load(candidate: Candidate) -> Engine:
            return await load_engine(
                candidate.variant, share, pinned, store, manifest, text, report, chosen, profile, trust
            )

        backends = Backends(choice.ranked, load, profile.log)
        engine, tokenizer = await backends.first_beside(tokenizing())
        report = _unheard  # what is loaded later concerns nobody who waits for this
        count, chosen = affordable(wanted, engine.info, chosen, device.memory)
        load_ms = (time.perf_counter() - started) * 1e3
        more: dict[str, Any] = {"backends": backends, "profile": profile, "device": device, "on_change": on_change}
        more |= {"settings": chosen, "answers": answers or await open_answers(chosen.answers)}
        more |= {"pages": open_storage(chosen.kv)}
        router = cls(manifest, choice, engine, tokenizer, load_ms=load_ms, **more)
        router.warnings += [shrunk] * bool(shrunk)
        router.memory.start()
        try:
            await router.replicas.fill(count, backends, chosen, router._replaced)
            if backends.count > 1 and backends.current.name not in profile.measurements:
                await router._tuner.measure_current()
            if chosen.kv.system_prompts:
                router._prefixes.begin()
        except BaseException:
            await router.unload()
            raise
        return router

    # -- asking ------------------------------------------------------------------------------------------------

    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        parallel_tool_calls: bool | None = None,
        resume: Iterable[int] = (),
        **params: Any,
    ) -> Stream:
        """Answer a conversation; a string is one user message. Iterate the result for pieces or await it whole.

        Parameters: ``max_tokens`` (to the end of the context), ``temperature`` (0.7; 0 is greedy), ``top_p`` (0.95),
        ``top_k``, ``min_p``, ``repetition_penalty``, ``presence_penalty``, ``frequency_penalty``, ``seed``,
        ``logit_bias``, ``stop`` (texts that end the answer where they would begin), ``timeout`` (seconds until it is
        given up with `Timeout`), ``client`` (any name: clients take turns, each with all of its requests) and
        ``priority`` (0; higher goes first). With an answer cache, a determined request (greedy, or with a ``seed``) may
        be answered from it, unless ``cache`` is false; ``tags`` are names to `AnswerCache.invalidate` it by.
        ``schema`` (JSON schema), ``regex`` or ``grammar`` (EBNF with a rule ``root``): what the answer is held to, see
        `inpage.requests.grammar`; ``logprobs`` (0 to 20): report each token, with so many of the likeliest. ``tools``
        and the two after it are OpenAI's: see `inpage.requests.tools`; `inpage.requests.tool_calls` reads the calls out
        of the text. ``resume``: token ids that an earlier run of the same request gave (with the same ``seed``); the
        answer goes on after them. Raises `InvalidRequest` at once, or when it is read where the prompt is long: that is
        tokenized beside the event loop then; `QueueFull` when it is read."""
        grammars = self.replicas.can("grammars")
        use = asked_tools(tools, tool_choice, parallel_tool_calls, self.manifest.chat_template, grammars)
        prompt = self._prompts.chat(messages, self.scheduler.capacity - 1, use.tools)
        return self._ask(prompt, params, "messages", resume, use.grammar)

    def complete(self, prompt: str | Iterable[int], *, resume: Iterable[int] = (), **params: Any) -> Stream:
        """Continue a text, or token ids as they are, without the chat template. Otherwise as `chat`."""
        return self._ask(self._text(prompt, self.scheduler.capacity - 1), params, "prompt", resume)

    async def quick(self, prompt: str, **params: Any) -> str:
        """The text of an answer to one message."""
        return (await self.chat(prompt, **params)).text

    def stream(self, prompt: str, **params: Any) -> Stream:
        """An answer to one message, to be read piece by piece: `chat` by another name."""
        return self.chat(prompt, **params)

    async def batch(self, prompts: Iterable[str], **params: Any) -> list[Completion]:
        """Answers to several messages, computed together, in their order. The first error cancels the rest."""
        return await together([self.chat(prompt, **params) for prompt in prompts])

    def encode(self, prompt: str | Iterable[int]) -> list[int]:
        """The ids that `complete` would feed for a prompt; control tokens that it spells stay text."""
        return self._text(prompt, None).now()

    def _text(self, prompt: str | Iterable[int], most: int | None) -> Prompt:
        return self._prompts.text(prompt, self.engine.info.vocab, most)

    async def _prefix_ids(self, prompt: Prefix) -> list[int]:
        most = self.scheduler.capacity - 1
        first = prompt[0] if isinstance(prompt, Sequence) and prompt else None
        if not isinstance(prompt, str) and not isinstance(first, Mapping):
            return checked_ids(prompt, self.engine.info.vocab, "prompt", most=most)
        found = self._prompts.chat(prompt, most, answer=None)
        return await found.aside() if found.long else found.now()

    async def score(self, ids: str | Iterable[int], window: int = 512) -> Score:
        """Perplexity of a text or of ids, in independent windows: see `inpage.scheduling.scoring`."""
        text = self._text(ids, None)
        checked = await text.aside() if text.long else text.now()
        capacity = self.scheduler.capacity
        if isinstance(window, bool) or not isinstance(window, int) or not 2 <= window <= capacity:
            raise InvalidRequest(f"window is {window!r}; it must be a whole number of 2..{capacity}", field="window")
        if len(checked) < 2:
            raise InvalidRequest("one token alone predicts nothing: give at least two", field="ids")
        return await scoring.score(self.scheduler, checked, window)

    def _ask(self, prompt: Prompt, params: Mapping[str, Any], field: str, resume: Iterable[int],
             calls: Grammar | None = None) -> Stream:  # fmt: skip
        asked = options(params, self.engine.info.vocab)
        grammar = one_grammar(asked.grammar, calls)
        unmet = unmet_need(grammar, asked.top, self.engine.info, self.replicas.can)
        if unmet is not None:
            raise unmet
        given = checked_ids(resume, self.engine.info.vocab, "resume", empty=True, most=self.scheduler.capacity)
        began = time.perf_counter()

        def made(ids: list[int]) -> tuple[Request, Kept | None]:
            return self._request(ids, asked, grammar, given, field, began)

        async def aside() -> tuple[Request, Kept | None]:
            return made(await prompt.aside())

        if prompt.long:
            later = Later(asked.sampling.seed, lambda: made(prompt.now()), aside)
            return Stream(self.replicas, later, self.tokenizer, self._facts, stop=asked.stop)
        request, kept = made(prompt.now())
        return Stream(self.replicas, request, self.tokenizer, self._facts, stop=asked.stop, kept=kept)

    def _request(self, prompt: list[int], asked: Options, grammar: Grammar | None, given: list[int], field: str,
                 began: float) -> tuple[Request, Kept | None]:  # fmt: skip
        room = answer_room(len(prompt), asked.max_tokens, self.scheduler.capacity, field)
        if len(given) > room:
            raise InvalidRequest(f"resume has {len(given)} tokens, the answer at most {room}", field="resume")
        request = Request(
            prompt,
            room,
            asked.sampling,
            stop_ids=self.manifest.tokenizer.eos,
            client=asked.client,
            priority=asked.priority,
            deadline=None if asked.timeout is None else began + asked.timeout,
            tokens=list(given),
            grammar=grammar,
            top=asked.top,
        )
        keepable = asked.cache and asked.determined and asked.timeout is None and asked.top is None
        if self._runs is None or not keepable or given or not self.engine.info.deterministic:
            return request, None
        held = {} if grammar is None else {"grammar": astuple(grammar)}
        # The model's context, not this device's memory: an answer made elsewhere is as good.
        most = asked.max_tokens or self.engine.info.context - len(prompt)
        key = answer_key(self._weights, prompt, asked.sampling, most, request.stop_ids, **held)
        return request, Kept(self._runs, key, (f"model:{self.manifest.id}", *asked.tags))

    # -- while it runs ------------------------------------------------------------------------------------------

    async def forget(self, tag: str | None = None) -> int:
        """Forget kept answers that depend on ``tag`` (one that a request gave, or ``model:<id>``), or all; gives how
        many. Those of the bundle stay."""
        if tag is not None and not isinstance(tag, str):
            raise InvalidRequest("tag must be a text", field="tag")
        return 0 if self.answers is None else await self.answers.invalidate(tag)

    async def measure(self) -> list[dict[str, Any]]:
        """Time now what was never timed on this device, each variant for some milliseconds; gives `candidates`."""
        await self._tuner.measure_all()
        return self.candidates

    def hide(self, hidden: bool) -> None:
        """The page was hidden for long, or is seen again: see `KvSettings.hidden_seconds`."""
        for scheduler in self.replicas.schedulers:
            scheduler.hide(hidden)

    def _changed(self, what: str) -> None:
        if what == "busy":
            self._tuner.busy()
            self._prefixes.busy()
        elif what == "idle":
            self._tuner.idle()
            self._prefixes.idle()
        else:
            self._replaced(what)

    def _replaced(self, what: str) -> None:
        if what == "engine":  # another took over
            self._saving = asyncio.get_running_loop().create_task(self._profile.save())
            self._on_change()
        elif what == "damaged":
            self._saving = asyncio.get_running_loop().create_task(self._forget_computed())

    async def _forget_computed(self) -> None:
        """Answers and pages that damaged weights may have given."""
        if self.answers is not None:
            await self.answers.invalidate(f"model:{self.manifest.id}")
        if self._prefixes.storage is not None:
            with contextlib.suppress(InpageError):
                await self._prefixes.storage.clear("")

    def _room(self) -> bool:
        """Whether a second engine can be loaded for a moment, without downloading anything."""
        needed = 3 * self.manifest.weights.bytes
        if self.scheduler.settings.kv.memory_bytes is not None or len(self.replicas.schedulers) > 1:
            return False  # somebody counts the bytes
        return getattr(self.engine, "stored", True) and (self.device.memory is None or needed < self.device.memory // 2)

    async def unload(self) -> None:
        """Free the model. Requests in flight end with `Cancelled`; unloading twice is harmless."""
        if self._unloaded:
            return
        self._unloaded = True
        self.memory.stop()
        await self._tuner.close()
        await self._prefixes.close()
        await self.replicas.close(Cancelled("the model was unloaded"))
        await self._tuner.close()
        await self.replicas.unload()

    async def __aenter__(self) -> Router:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.unload()


def _unheard(_: dict[str, Any]) -> None:
    """Progress that nobody asked for."""


async def _nothing_else(candidate: Candidate) -> Engine:
    raise Unsupported(f"{candidate.name} cannot be loaded again here")
