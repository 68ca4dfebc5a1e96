"""Prompts on their way to token ids: bounded first, then tokenized, beside the event loop where that takes long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequest, Unsupported
from ..format.limits import ASIDE_CHARS, ASIDE_MESSAGES, REQUEST_CHARS
from ..format.schema import Manifest
from ..host.jobs import job
from ..text.chat_template import ChatTemplate, check_fits
from ..text.tokenizer import Tokenizer
from .messages import checked_messages
from .params import checked_ids, checked_text

_DROPPED = 4  # a template may leave out most of what it is given, such as earlier reasoning; so many times the context


@dataclass(frozen=True, slots=True)
class Prompt:
    """``now`` and ``aside`` give the same ids and errors; the latter lets the event loop go on meanwhile. ``long``:
    whether that is worth it. ``continued``: the answer goes on with its text."""

    now: Callable[[], list[int]]
    aside: Callable[[], Awaitable[list[int]]]
    long: bool
    continued: bool = False


class Prompts:
    """``work`` measures what tokenizing takes."""

    def __init__(
        self, manifest: Manifest, tokenizer: Tokenizer, work: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self._manifest, self._tokenizer, self._work = manifest, tokenizer, work
        self._template: ChatTemplate | None = None

    def text(self, prompt: str | Iterable[int], vocab: int, most: int | None, field: str = "prompt") -> Prompt:
        """Of a text, or of ids. ``most``: tokens that there is room for; None for any number. `InvalidRequest` at once
        where its length alone says that it cannot fit."""
        if not isinstance(prompt, str):
            ids = checked_ids(prompt, vocab, field, most=most)
            return Prompt(lambda: ids, _given(ids), False, True)
        _check_chars(len(prompt), REQUEST_CHARS, field)
        check_fits(self._tokenizer.least([prompt]), most, field)
        text = checked_text(prompt, field, empty=True)
        ref = self._manifest.tokenizer
        start = [ref.bos] if ref.add_bos and ref.bos is not None else []
        if not text and not start:
            start = [self._beginning(field)]

        def now() -> list[int]:
            with self._work(), job("prompt", len(text)):
                return [*start, *self._tokenizer.encode(text)]

        async def aside() -> list[int]:
            return [*start, *await self._tokenizer.encode_aside(text)]

        return Prompt(now, aside, len(text) > ASIDE_CHARS, True)

    def chat(
        self, messages: Any, most: int, tools: Sequence[Mapping[str, Any]] = (), *, answer: bool | None = True
    ) -> Prompt:
        """Of a conversation, for its answer; without ``answer`` for the next message, with None for what its last
        message is followed by. `InvalidRequest` at once as for `text`: a message takes at least a token."""
        checked = checked_messages(messages, most)
        chars = text_chars(checked) + text_chars(tools)
        longest = self._tokenizer.longest
        _check_chars(chars, min(REQUEST_CHARS, _DROPPED * most * longest if longest else REQUEST_CHARS), "messages")
        template, ends = self._chat_template(), checked[-1]["role"] == "user" if answer is None else answer

        def now() -> list[int]:
            with self._work(), job("prompt", chars):
                return template.encode(checked, tools, answer=ends, most=most)

        async def aside() -> list[int]:
            return await template.encode_aside(checked, tools, answer=ends, most=most)

        return Prompt(now, aside, chars > ASIDE_CHARS or len(checked) > ASIDE_MESSAGES)

    def _beginning(self, field: str) -> int:
        """What stands for no text at all: the start of a document, as OpenAI has it."""
        ref = self._manifest.tokenizer
        found = [ref.special.get("<|endoftext|>"), ref.bos, *ref.eos]
        first = next((token for token in found if token is not None), None)
        if first is None:
            raise InvalidRequest(
                f"{field} is empty, and this model has no token for that: write something", field=field
            )
        return first

    def _chat_template(self) -> ChatTemplate:
        check_writes(self._manifest)
        source = self._manifest.chat_template
        if source is None:
            raise Unsupported(
                f"{self._manifest.id} is a base model: it has no chat template, and so no chat. It continues texts: "
                "use complete, or POST /v1/completions",
                field="messages",
            )
        if self._template is None:
            ref = self._manifest.tokenizer
            eos = ref.eos[0] if ref.eos else None
            self._template = ChatTemplate(source, self._tokenizer, bos=ref.bos, eos=eos)
        return self._template


def check_writes(manifest: Manifest) -> None:
    """Raise `Unsupported` for an encoder."""
    if manifest.architecture.encoder:
        raise Unsupported(
            f"{manifest.id} makes embeddings or ranks texts: it does not write. Use embed or rerank", field="model"
        )


def text_chars(value: Any) -> int:
    """Characters of all strings in something of JSON's kind."""
    total, left = 0, [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            total += len(item)
        elif isinstance(item, Mapping):
            left += item.keys()
            left += item.values()
        elif isinstance(item, Sequence):
            left += item
    return total


def _check_chars(chars: int, most: int, field: str) -> None:
    if chars > most:
        raise InvalidRequest(f"{field} has {chars} characters; at most {most} are read: shorten it", field=field)


def _given(ids: list[int]) -> Callable[[], Awaitable[list[int]]]:
    async def aside() -> list[int]:
        return ids

    return aside
