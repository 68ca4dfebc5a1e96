"""Makes requests of what callers ask: prompts and parameters, checked, and where an answer may be kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

from ..engines.protocol import EngineInfo, Grammar
from ..errors import InvalidRequest
from ..format.limits import REQUEST_CHARS
from ..format.schema import Manifest
from ..requests.grammar import one_grammar, unmet_need
from ..requests.params import Options, answer_room, checked_ids, options, sampling_defaults
from ..requests.prompts import Prompt, Prompts, check_writes
from ..requests.request import Request
from ..requests.tools import asked_tools
from ..responses import AnswerCache, answer_key, weights_digest
from ..responses.sharing import SharedRuns
from ..responses.stream import Facts, Kept, Later, Stream
from ..settings import SamplingSettings
from ..text.tokenizer import Tokenizer
from .prefixes import Prompt as Prefix
from .replicas import Replicas


class Asking:
    """``facts``: what an answer reports of the engine that made it."""

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: Tokenizer,
        replicas: Replicas,
        facts: Callable[[], Facts],
        answers: AnswerCache | None,
        sampling: SamplingSettings,
    ) -> None:
        self._manifest, self._tokenizer, self._replicas, self._facts = manifest, tokenizer, replicas, facts
        self._defaults = sampling_defaults(sampling, manifest.sampling)
        self._runs = SharedRuns(answers, replicas.submit, replicas.cancel) if answers else None
        self._weights = weights_digest(manifest)
        self._prompts = Prompts(manifest, tokenizer, lambda: replicas.schedulers[0].metrics.work("encode"))

    @property
    def _info(self) -> EngineInfo:
        return self._replicas.schedulers[0].engine.info

    @property
    def _capacity(self) -> int:
        return self._replicas.schedulers[0].capacity

    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        tool_choice: str | Mapping[str, Any] | None,
        parallel_tool_calls: bool | None,
        resume: Iterable[int],
        params: Mapping[str, Any],
    ) -> Stream:
        grammars = self._replicas.can("grammars")
        use = asked_tools(tools, tool_choice, parallel_tool_calls, self._manifest.chat_template, grammars)
        prompt = self._prompts.chat(messages, self._capacity - 1, use.tools)
        return self._ask(prompt, params, "messages", resume, use.grammar)

    def complete(self, prompt: str | Iterable[int], resume: Iterable[int], params: Mapping[str, Any]) -> Stream:
        return self._ask(self.text(prompt, self._capacity - 1), params, "prompt", resume)

    def text(self, prompt: str | Iterable[int], most: int | None) -> Prompt:
        return self._prompts.text(prompt, self._info.vocab, most)

    async def count(self, messages: str | Sequence[Mapping[str, Any]]) -> int:
        """How many tokens the prompt of `chat` has for these messages, also where they do not fit."""
        found = self._prompts.chat(messages, REQUEST_CHARS)
        return len(await found.aside() if found.long else found.now())

    async def prefix_ids(self, prompt: Prefix) -> list[int]:
        """The ids that a prompt of `Prefixes` begins with."""
        most = self._capacity - 1
        first = prompt[0] if isinstance(prompt, Sequence) and prompt else None
        if not isinstance(prompt, str) and not isinstance(first, Mapping):
            return checked_ids(prompt, self._info.vocab, "prompt", most=most)
        found = self._prompts.chat(prompt, most, answer=None)
        return await found.aside() if found.long else found.now()

    def _ask(self, prompt: Prompt, params: Mapping[str, Any], field: str, resume: Iterable[int],
             calls: Grammar | None = None) -> Stream:  # fmt: skip
        check_writes(self._manifest)
        asked = options(params, self._info.vocab, self._defaults)
        grammar = one_grammar(asked.grammar, calls)
        unmet = unmet_need(grammar, asked.top, self._info, self._replicas.can)
        if unmet is not None:
            raise unmet
        given = checked_ids(resume, self._info.vocab, "resume", empty=True, most=self._capacity)
        began = time.perf_counter()

        def made(ids: list[int]) -> tuple[Request, Kept | None]:
            return self._request(ids, asked, grammar, given, field, began)

        async def aside() -> tuple[Request, Kept | None]:
            return made(await prompt.aside())

        if prompt.long:
            later = Later(asked.sampling.seed, lambda: made(prompt.now()), aside)
            return Stream(self._replicas, later, self._tokenizer, self._facts, asked.stop, None, prompt.continued)
        request, kept = made(prompt.now())
        return Stream(self._replicas, request, self._tokenizer, self._facts, asked.stop, kept, prompt.continued)

    def _request(self, prompt: list[int], asked: Options, grammar: Grammar | None, given: list[int], field: str,
                 began: float) -> tuple[Request, Kept | None]:  # fmt: skip
        room = answer_room(len(prompt), asked.max_tokens, self._capacity, field)
        if len(given) > room:
            raise InvalidRequest(f"resume has {len(given)} tokens, the answer at most {room}", field="resume")
        request = Request(
            prompt,
            room,
            asked.sampling,
            stop_ids=self._manifest.tokenizer.eos,
            client=asked.client,
            priority=asked.priority,
            deadline=None if asked.timeout is None else began + asked.timeout,
            tokens=list(given),
            grammar=grammar,
            top=asked.top,
            max_repeats=asked.max_repeats,
        )
        keepable = asked.cache and asked.determined and asked.timeout is None and asked.top is None and room > 0
        if self._runs is None or not keepable or given or not self._info.deterministic:
            return request, None
        held = {} if grammar is None else {"grammar": astuple(grammar)}
        # The model's context, not this device's memory: an answer made elsewhere is as good.
        most = asked.max_tokens or self._info.context - len(prompt)
        key = answer_key(self._weights, prompt, asked.sampling, most, request.stop_ids, **held)
        return request, Kept(self._runs, key, (f"model:{self._manifest.id}", *asked.tags))
