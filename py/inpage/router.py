"""The face of inpage: load a compiled model on what this device has, and ask it. The same in the page and in CPython.

router = await Router.load("build/models/smollm2-135m-instruct")
async for delta in router.chat("What is gravity?", max_tokens=100):
    print(delta.text, end="", flush=True)
await router.unload()
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import scoring
from .capability import this_device
from .engines.protocol import Engine, Progress
from .errors import Cancelled, InvalidRequest, Unsupported
from .params import answer_room, checked_ids, checked_messages, checked_text, options
from .request import Request
from .scheduler import Scheduler
from .schema import Manifest
from .scoring import Score
from .selection import Choice, choose
from .store import Store, open_store
from .stream import Completion, Delta, Facts, Stream
from .template import ChatTemplate
from .tokenizer import Tokenizer, load_tokenizer

__all__ = ["Completion", "Delta", "Router", "Score", "Stream"]


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
        max_queue: int = 64,
    ) -> None:
        self.manifest = manifest
        self.choice = choice
        self.engine = engine
        self.tokenizer = tokenizer
        self.load_ms = load_ms
        self.scheduler = Scheduler(engine, max_queue=max_queue)
        self._template: ChatTemplate | None = None
        self._unloaded = False

    @classmethod
    async def load(
        cls,
        artifact: str | Path,
        *,
        backend: str | None = None,
        threads: int | None = None,
        on_progress: Progress | None = None,
        max_queue: int = 64,
    ) -> Router:
        """Load an artifact: a folder in CPython, a URL in the page.

        ``backend`` pins a backend ("wasm", "native") or a variant ("wasm-simd"); ``on_progress`` is called with
        ``{"phase": "manifest" | "tokenizer" | "kernels" | "weights" | "ready"}`` and, where bytes move, ``"loaded"``
        and ``"total"``. Raises `ArtifactInvalid`, `Unsupported` (with the reason of each
        candidate), `InvalidRequest` for a bad pin, `OutOfMemory`, `NetworkError`."""
        started = time.perf_counter()
        store = open_store(artifact)
        report = on_progress or (lambda _: None)
        report({"phase": "manifest"})
        manifest, text = await store.manifest()
        choice = choose(manifest.variants, this_device(), backend=backend, threads=threads)
        report({"phase": "tokenizer"})
        tokenizer = load_tokenizer(await store.tokenizer(manifest), manifest.tokenizer.special)
        engine = await _load_engine(choice, store, manifest, text, report)
        load_ms = (time.perf_counter() - started) * 1e3
        return cls(manifest, choice, engine, tokenizer, load_ms=load_ms, max_queue=max_queue)

    # -- asking ------------------------------------------------------------------------------------------------

    def chat(self, messages: str | Sequence[Mapping[str, str]], **params: Any) -> Stream:
        """Answer a conversation; a string is one user message. Iterate the result for pieces or await it whole.

        Parameters: ``max_tokens`` (to the end of the context), ``temperature`` (0.7; 0 is greedy), ``top_p`` (0.95),
        ``top_k``, ``min_p``, ``repetition_penalty``, ``presence_penalty``, ``frequency_penalty``, ``seed``,
        ``logit_bias``. Raises `InvalidRequest` at once; `QueueFull` when it is read."""
        checked = checked_messages(messages)
        return self._ask(self._chat_template().encode(checked), params, "messages")

    def complete(self, prompt: str | Iterable[int], **params: Any) -> Stream:
        """Continue a text, or token ids as they are, without the chat template. Otherwise as `chat`."""
        return self._ask(self.encode(prompt), params, "prompt")

    def encode(self, prompt: str | Iterable[int]) -> list[int]:
        """The ids that `complete` would feed for a prompt; control tokens that it spells stay text."""
        if not isinstance(prompt, str):
            return checked_ids(prompt, self.engine.info.vocab, "prompt")
        ref = self.manifest.tokenizer
        ids = self.tokenizer.encode(checked_text(prompt, "prompt"))
        return [ref.bos, *ids] if ref.add_bos and ref.bos is not None else ids

    async def score(self, ids: str | Iterable[int], window: int = 512) -> Score:
        """Perplexity of a text or of ids, in independent windows: see `inpage.scoring`."""
        checked = self.encode(ids)
        capacity = self.scheduler.capacity
        if isinstance(window, bool) or not isinstance(window, int) or not 2 <= window <= capacity:
            raise InvalidRequest(f"window is {window!r}; it must be a whole number of 2..{capacity}", field="window")
        if len(checked) < 2:
            raise InvalidRequest("one token alone predicts nothing: give at least two", field="ids")
        return await scoring.score(self.scheduler, checked, window)

    def _ask(self, prompt: list[int], params: Mapping[str, Any], field: str) -> Stream:
        asked = options(params, self.engine.info.vocab)
        room = answer_room(len(prompt), asked.max_tokens, self.scheduler.capacity, field)
        request = Request(prompt, room, asked.sampling, stop_ids=self.manifest.tokenizer.eos)
        return Stream(self.scheduler, request, self.tokenizer, self._facts)

    def _chat_template(self) -> ChatTemplate:
        source = self.manifest.chat_template
        if source is None:
            raise Unsupported("this model has no chat template; use complete", field="messages")
        if self._template is None:
            ref = self.manifest.tokenizer
            eos = ref.eos[0] if ref.eos else None
            self._template = ChatTemplate(source, self.tokenizer, bos=ref.bos, eos=eos)
        return self._template

    # -- what it is --------------------------------------------------------------------------------------------

    def _facts(self) -> Facts:
        info = self.engine.info
        return Facts(self.load_ms, info.threads, info.backend, info.variant, self.choice.why)

    @property
    def info(self) -> dict[str, Any]:
        """The model, where it runs and why, and what it holds in bytes."""
        info, pool = self.engine.info, self.scheduler.pool
        return {
            "model": self.manifest.id,
            "name": self.manifest.name,
            "revision": self.manifest.revision,
            "license": self.manifest.license.id,
            "backend": info.backend,
            "variant": info.variant,
            "threads": info.threads,
            "why": self.choice.why,
            "load_ms": self.load_ms,
            "context": self.scheduler.capacity,
            "vocab": info.vocab,
            "max_sequences": info.max_sequences,
            "weight_bytes": info.weight_bytes,
            "arena_bytes": info.arena_bytes,
            "kv_bytes": pool.reserved * info.page_bytes,
            "kv_pages": {"used": pool.used, "reserved": pool.reserved, "limit": pool.limit},
            "requests": {"active": len(self.scheduler.active), "waiting": len(self.scheduler.waiting)},
        }

    def explain(self) -> str:
        """A sentence for each variant of the artifact: why it runs, could run or cannot run here."""
        chosen = self.choice.variant.name
        lines = [f"{'*' if c.variant.name == chosen else ' '} {c}" for c in self.choice.candidates]
        return "\n".join([f"Running {self.choice.why}.", *lines])

    async def unload(self) -> None:
        """Free the model. Requests in flight end with `Cancelled`; unloading twice is harmless."""
        if self._unloaded:
            return
        self._unloaded = True
        await self.scheduler.close(Cancelled("the model was unloaded"))
        await self.engine.unload()

    async def __aenter__(self) -> Router:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.unload()


async def _load_engine(choice: Choice, store: Store, manifest: Manifest, text: str, on_progress: Progress) -> Engine:
    variant, threads = choice.variant.name, choice.threads
    if choice.variant.backend == "native":
        from .engines.native import NativeEngine

        return await NativeEngine.load(
            Path(store.base), manifest, variant=variant, threads=threads, on_progress=on_progress
        )
    from .engines.page import PageEngine

    return await PageEngine.load(store.base, text, variant=variant, threads=threads, on_progress=on_progress)
