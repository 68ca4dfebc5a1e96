"""What answers behind the API: the registry's models, or one router as if it were a registry of one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from ..engines.protocol import Logprob
from ..format.schema import Manifest
from ..observe.health import Health
from ..responses.stream import Stream
from ..router.embedding import Embeddings, Ranking
from ..text.tokenizer import Tokenizer


class Answers(Protocol):
    """What is needed of a router."""

    manifest: Manifest
    tokenizer: Tokenizer

    def chat(self, messages: Any, **params: Any) -> Stream: ...
    def complete(self, prompt: Any, **params: Any) -> Stream: ...
    async def prompt_logprobs(self, ids: Sequence[int], top: int) -> list[Logprob | None]: ...
    async def embed(self, texts: Any, **params: Any) -> Embeddings: ...
    async def rerank(self, query: Any, documents: Any, **params: Any) -> Ranking: ...
    def metrics(self) -> str: ...
    def health(self) -> Health: ...


class Backend(Protocol):
    """What is needed of `inpage.models.Models`."""

    @property
    def names(self) -> list[str]: ...
    def use(self, name: str | None = None) -> AbstractAsyncContextManager[Answers]: ...
    async def embeds(self, name: str | None = None) -> bool: ...
    def metrics(self) -> str: ...
    def health(self) -> Health: ...


class OneModel:
    """A router alone. Its model is the one of the artifact."""

    def __init__(self, router: Answers) -> None:
        self._router = router
        self.metrics, self.health = router.metrics, router.health

    @property
    def names(self) -> list[str]:
        return [self._router.manifest.id]

    async def embeds(self, name: str | None = None) -> bool:
        return self._router.manifest.embedding is not None

    @asynccontextmanager
    async def use(self, name: str | None = None) -> AsyncIterator[Answers]:
        yield self._router
