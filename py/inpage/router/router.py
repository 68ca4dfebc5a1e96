"""The face of inpage: load a compiled model on what this device has, and ask it. The same in the page and in CPython.

router = await Router.load("build/models/smollm2-135m-instruct")
async for delta in router.chat("What is gravity?", max_tokens=100):
    print(delta.text, end="", flush=True)
await router.unload()
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..backends.device_profile import DeviceProfile
from ..backends.failover import Backends
from ..backends.recovery import Gap
from ..backends.selection import Candidate, Choice
from ..engines.protocol import Engine, Logprob, Progress
from ..errors import Cancelled, InpageError, InvalidRequest, Unsupported, quoted
from ..format.schema import Manifest
from ..host.capability import Device, host_device
from ..kv.storage import PageStorage, open_storage
from ..observe.health import Health
from ..observe.tracing import Tracer
from ..responses import AnswerCache
from ..responses.opening import open_answers
from ..responses.stream import Completion, Delta, Facts, Stream, together
from ..scheduling import scoring
from ..scheduling.scheduler import Scheduler
from ..scheduling.scoring import Score
from ..scheduling.tuning import Tuner
from ..settings import Settings
from ..text.tokenizer import Tokenizer
from .asking import Asking
from .embedding import Embedder, Embeddings, Ranking
from .explain import Report
from .handover import Handover
from .loading import ignore_progress, load_model
from .prefixes import Prefixes
from .prefixes import Prompt as Prefix
from .replicas import Replicas
from .status import MemoryWatch, add_gauges

__all__ = ["Completion", "Delta", "Embeddings", "Ranking", "Router", "Score", "Stream"]

SCORE_WINDOW = 512  # tokens of a text that are scored together


class Router:
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
        self.device = device or host_device()
        self._handover: Handover | None = None
        self.scheduler = Scheduler(engine, settings=settings, backends=backends, on_change=self._changed)
        self.replicas = Replicas(self.scheduler)
        self.replicas.room = self._room
        self._profile = profile or DeviceProfile(manifest.id, "")
        self._backends = backends or Backends(choice.ranked, _nothing_else, self._profile.log)
        self._on_change = on_change
        self._tuner = Tuner(self.scheduler, self._backends, self._profile, room=self._room, on_change=on_change)
        self.answers = answers
        add_gauges(self.scheduler, answers)
        self.memory = MemoryWatch(self.scheduler)
        self.report = Report(
            manifest,
            choice,
            self.device,
            load_ms,
            replicas=self.replicas,
            backends=self._backends,
            profile=self._profile,
            answers=answers,
            memory=self.memory,
        )
        sampling = (settings or Settings()).sampling
        self._asking = Asking(manifest, tokenizer, self.replicas, self._facts, answers, sampling)
        self._embedder = Embedder(manifest, tokenizer, self.replicas, answers)
        self._prefixes = Prefixes(self.scheduler, manifest, self.device, self._asking.prefix_ids, pages)
        self._saving: asyncio.Task[None] | None = None
        self._unloaded = False

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
        report = on_progress or ignore_progress
        loaded = await load_model(artifact, backend, threads, report, settings, refused or {}, trust)
        more: dict[str, Any] = {name: getattr(loaded, name) for name in ("backends", "profile", "device", "settings")}
        more |= {"answers": answers or await open_answers(loaded.settings.answers), "on_change": on_change}
        more |= {"pages": open_storage(loaded.settings.kv), "load_ms": loaded.load_ms}
        router = cls(loaded.manifest, loaded.choice, loaded.engine, loaded.tokenizer, **more)
        router.warnings.extend(loaded.warnings)
        router.memory.start()
        try:
            await router.replicas.fill(loaded.replicas, loaded.backends, loaded.settings, router._replaced)
            if loaded.backends.count > 1 and loaded.backends.current.name not in loaded.profile.measurements:
                await router._tuner.measure_current()
            if loaded.settings.kv.system_prompts:
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

        Parameters: ``max_tokens`` (to the end of the context), ``temperature`` (0 is greedy), ``top_p``, ``top_k``,
        ``min_p`` and ``repetition_penalty`` (of these five what is not given is as `inpage.settings` has it, else as
        the model's makers mean it, else the model's own probabilities decide), ``presence_penalty``,
        ``frequency_penalty``, ``seed``, ``logit_bias``, ``stop`` (texts that end the answer where they would begin),
        ``timeout`` (seconds until it is given up with `Timeout`), ``client`` (any name: clients take turns, each with
        all of its requests) and ``priority`` (0; higher goes first). With an answer cache, a determined request
        (greedy, or with a ``seed``) may be answered from it, unless ``cache`` is false; ``tags`` are names to
        `AnswerCache.invalidate` it by. ``schema`` (JSON schema), ``regex`` or ``grammar`` (EBNF with a rule ``root``):
        what the answer is held to, see `inpage.requests.grammar`; ``logprobs`` (0 to 20): report each token, with so
        many of the likeliest. ``tools`` and the two after it are OpenAI's: see `inpage.requests.tools`;
        `inpage.requests.tool_calls` reads the calls out of the text. ``resume``: token ids that an earlier run of the
        same request gave (with the same ``seed``); the answer goes on after them. Raises `InvalidRequest` at once, or
        when it is read where the prompt is long: that is tokenized beside the event loop then; `QueueFull` when it is
        read."""
        return self._asking.chat(messages, tools, tool_choice, parallel_tool_calls, resume, params)

    def complete(self, prompt: str | Iterable[int], *, resume: Iterable[int] = (), **params: Any) -> Stream:
        """Continue a text, or token ids as they are, without the chat template. Otherwise as `chat`."""
        return self._asking.complete(prompt, resume, params)

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
        return self._asking.text(prompt, None).now()

    async def score(self, ids: str | Iterable[int], window: int | None = None) -> Score:
        """Perplexity of a text or of ids, in independent windows: see `inpage.scheduling.scoring`. ``window`` None: 512
        tokens, or as many as there is room for."""
        text = self._asking.text(ids, None)
        checked = await text.aside() if text.long else text.now()
        capacity = self.scheduler.capacity
        window = min(SCORE_WINDOW, capacity) if window is None else window
        if isinstance(window, bool) or not isinstance(window, int) or not 2 <= window <= capacity:
            raise InvalidRequest(
                f"window is {quoted(window)}; it must be a whole number of 2..{capacity}", field="window"
            )
        if len(checked) < 2:
            raise InvalidRequest("one token alone predicts nothing: give at least two", field="ids")
        return await scoring.score(self.scheduler, checked, window)

    async def prompt_logprobs(self, ids: Sequence[int], top: int = 0) -> list[Logprob | None]:
        """What the model makes of each id after those before it, with so many of the likeliest; None for the first.
        With ``top`` it takes a step a token."""
        if len(ids) < 2:
            return [None] * len(ids)
        return [None, *await scoring.logprobs(self.scheduler, ids, top)]

    async def embed(
        self,
        texts: str | Iterable[str] | Iterable[int] | Iterable[Iterable[int]],
        *,
        prompt_name: str | None = None,
        dimensions: int | None = None,
        truncate: bool = False,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        field: str = "texts",
        **params: Any,
    ) -> Embeddings:
        """Vectors, float32, for a text or several, by a model that is made for it; texts may be given as ids, with
        whatever stands around them. ``prompt_name``: which of the model's prompts stands before each ("query",
        "document"), its default one if not given; ``dimensions``: only so many numbers of each, of length 1 again
        where the model's are; ``truncate``: cut what is longer than the model takes, which is refused otherwise;
        ``on_progress`` is told how many are done, and of how many; errors call the texts ``field``. ``client``,
        ``priority``, ``timeout``, ``cache`` and ``tags`` as for `chat`: with an answer cache the vectors of a few texts
        are kept. Cancel the task to end it. Raises `InvalidRequest`, `Unsupported`, `QueueFull` where not even the
        first text finds room (of a long list at most half of the queue is taken, and later ones wait), `Timeout`."""
        return await self._embedder.embed(texts, prompt_name, dimensions, truncate, on_progress, params, field)

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        truncate: bool = False,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        **params: Any,
    ) -> Ranking:
        """How well documents answer a query, the best first, by a cross-encoder: ``results`` with ``index`` and
        ``score``, at most ``top_n`` of them. The rest as for `embed`; a pair that is too long is cut at the longer
        text's end."""
        return await self._embedder.rerank(query, documents, top_n, truncate, on_progress, params)

    async def count_tokens(self, messages: str | Sequence[Mapping[str, Any]]) -> int:
        """How many tokens the prompt has that `chat` makes of these messages, also where it is longer than the context:
        what remains of ``info["context"]`` is room for the answer."""
        return await self._asking.count(messages)

    # -- prompts to come ---------------------------------------------------------------------------------------

    async def prefetch(self, prompts: Iterable[Prefix]) -> list[int]:
        """Read prompts while nobody waits, so that requests which begin like them start at once. A prompt is what
        `chat` takes (messages may end with the system's), or token ids. Gives how many tokens of each are kept."""
        return [await self._prefixes.read(ids) for ids in [await self._prefixes.encode(prompt) for prompt in prompts]]

    async def warm_up(self) -> dict[str, int]:
        """Make the system prompts of the settings ready, and what was exported: from storage, else by reading them,
        which stores them too. Gives tokens: ``{"imported", "read"}``."""
        return await self._prefixes.warm_up()

    async def export_prefix(self, prompt: Prefix) -> int:
        """Store the KV pages of a prompt (see `prefetch`), reading it first where it was not; gives how many tokens.
        Raises `Unsupported` without storage, `InvalidRequest` beyond ``kv.storage_bytes``, `StorageFull`."""
        return await self._prefixes.save(await self._prefixes.encode(prompt))

    async def import_prefix(self, prompt: Prefix) -> int:
        """Bring an exported prompt's pages back; gives how many of its tokens need not be read any more. Pages that
        another version, variant or device computed, or that are damaged, count as absent."""
        return await self._prefixes.load(await self._prefixes.encode(prompt))

    # -- what it is and did: see `Report` ------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """The one that runs now; another may take over."""
        return self.scheduler.engine

    @property
    def load_ms(self) -> float:
        return self.report.load_ms

    @property
    def warnings(self) -> list[str]:
        return self.report.warnings

    @property
    def why(self) -> str:
        return self.report.why

    @property
    def info(self) -> dict[str, Any]:
        return self.report.info

    @property
    def sentence(self) -> str:
        return self.report.sentence

    @property
    def candidates(self) -> list[dict[str, Any]]:
        return self.report.candidates

    @property
    def kernels(self) -> str:
        return self.report.kernels

    async def counters(self) -> dict[str, int]:
        return await self.report.counters()

    @property
    def held(self) -> dict[str, int]:
        return self.report.held

    def metrics(self) -> str:
        return self.report.metrics()

    def health(self) -> Health:
        return self.report.health()

    @property
    def trace(self) -> Tracer:
        return self.report.trace

    def explain(self) -> str:
        return self.report.explain()

    # -- while it runs ------------------------------------------------------------------------------------------

    async def forget(self, tag: str | None = None) -> int:
        """Forget kept answers that depend on ``tag`` (one that a request gave, or ``model:<id>``), or all; gives how
        many. Those of the bundle stay."""
        if tag is not None and not isinstance(tag, str):
            raise InvalidRequest("tag must be a text", field="tag")
        return 0 if self.answers is None else await self.answers.invalidate(tag)

    async def measure(self) -> list[dict[str, Any]]:
        """Time now what was never timed on this device: the kernels that can be chosen, and each variant. Takes from a
        tenth of a second to some seconds, by the model's size; gives `candidates`."""
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

    def _room(self, candidate: Candidate) -> bool:
        """Whether an engine of this variant can be loaded beside the one that runs: its weights, twice for a moment."""
        running = self.engine.info.weight_bytes
        needed = running + 2 * self.manifest.weights_of(candidate.variant).bytes
        if self.scheduler.settings.kv.memory_bytes is not None or len(self.replicas.schedulers) > 1:
            return False  # somebody counts the bytes
        return getattr(self.engine, "stored", True) and (self.device.memory is None or needed < self.device.memory // 2)

    async def unload(self) -> None:
        """Free the model. Requests in flight end with `Cancelled`; unloading twice is harmless."""
        await self._end(lambda: self.replicas.close(Cancelled("the model was unloaded")))

    def redirect(self, reason: InpageError) -> Handover:
        """Whatever is asked here from now on waits for another load of the model. Call `hand_over` then."""
        self._handover = Handover(Gap(self.engine.info.variant, reason, time.perf_counter()))
        self.replicas.successor = self._handover
        return self._handover

    async def hand_over(self, handover: Handover) -> None:
        """Free the model, as `unload`; what it was answering waits as well."""
        await self._end(lambda: self.replicas.hand_over(handover))

    def take_over(self, handover: Handover) -> None:
        """Go on with what another router of this model was answering."""
        handover.arrive(self.replicas, self._facts)
        self._on_change()

    async def _end(self, end_requests: Callable[[], Awaitable[None]]) -> None:
        if self._unloaded:
            return
        self._unloaded = True
        self.memory.stop()
        await self._tuner.close()
        await self._prefixes.close()
        await end_requests()
        await self._tuner.close()
        await self.replicas.unload()

    def _facts(self) -> Facts:
        facts = self.report.facts()
        return facts if self._handover is None else self._handover.facts(facts)

    async def __aenter__(self) -> Router:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.unload()


async def _nothing_else(candidate: Candidate) -> Engine:
    raise Unsupported(f"{candidate.name} cannot be loaded again here")
