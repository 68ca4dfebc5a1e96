"""What is asked of an engine. A scenario is plain numbers; run.py asks, measures.py makes metrics of what came back."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from inpage.errors import InvalidRequest
from inpage.text.tokenizer import Tokenizer

from . import prompts


@dataclass(frozen=True, slots=True)
class Short:
    """What is asked of an engine for which the whole would take longer than ``after_s`` seconds: fewer new tokens, or
    the first of the requests. Rates and the time to a first token stay what they are."""

    after_s: float
    new_tokens: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Scenario:
    """``kind``: "load" (nothing is asked but one token), "answer" (one request at a time), "serve" (many), or of models
    that make vectors "embed": ``requests`` texts, ``together`` in one call or one after another.

    ``form`` is the shortest form of the run that has it: "quick", "usual" or "long"; a named scenario runs in any.
    ``distinct``: prompts differ in so many ways (0: all unique), asked as often as Zipf's law says. ``prefix_tokens``
    of each prompt are the same for all. ``together``: all requests start at once and decode side by side; only the
    time in which all decode counts. ``most``: iterations, at most, unless more are asked for by number. ``memory``: it
    is about what our engines hold in a page, soon after loading: asked once, and of nobody else. ``cut``: what of the
    scenario was left out, in words. ``least``: iterations, a visit each, whatever the budget, where none takes long."""

    name: str
    kind: str
    title: str
    form: str
    prompt_tokens: int = 0
    new_tokens: int = 0
    requests: int = 1
    clients: int = 1
    distinct: int = 0
    prefix_tokens: int = 0
    together: bool = False
    most: int = 6
    least: int = 1
    memory: bool = False
    short: Short | None = None
    cut: str = ""

    @property
    def params(self) -> dict[str, Any]:
        """As in results.json."""
        if self.kind == "load":
            return {}
        if self.kind == "embed":
            return {"texts": self.requests, "together": self.together}
        found: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "concurrency": self.clients,
            "depth": self.prompt_tokens,
        }
        if self.kind == "serve":
            found["requests"] = self.requests
        if self.distinct:
            found["distinct"] = self.distinct
        if self.prefix_tokens:
            found["prefix_tokens"] = self.prefix_tokens
        return found

    def suits(self, *, embeds: bool) -> bool:
        """A model that answers, or one that ``embeds``."""
        return self.kind == "load" or (self.kind == "embed") == embeds

    @property
    def tokens(self) -> int:
        """The longest sequence that it makes."""
        return self.prompt_tokens + self.new_tokens

    def shortened(self) -> Scenario:
        """As `short` says; itself where that says nothing."""
        if self.short is None:
            return self
        new, requests = self.short.new_tokens or self.new_tokens, self.short.requests or self.requests
        parts = [f"{new} of {self.new_tokens} new tokens"] if new != self.new_tokens else []
        parts += [f"the first {requests} of {self.requests} requests"] if requests != self.requests else []
        return replace(self, new_tokens=new, requests=requests, short=None, cut=" and ".join(parts))

    def prompts(self, tokenizer: Tokenizer, iteration: int) -> list[list[int]]:
        """The requests of one iteration: another text for each iteration, the same for every engine, so that caches
        show where the scenario wants them to and nowhere else."""
        places = prompts.zipf(self.requests, self.distinct) if self.distinct else range(self.requests)
        prefix = (
            prompts.prompt(tokenizer, f"{self.name}/prefix/{iteration}", self.prefix_tokens)
            if self.prefix_tokens
            else []
        )
        rest = self.prompt_tokens - self.prefix_tokens
        texts = {place: prompts.prompt(tokenizer, f"{self.name}/{iteration}/{place}", rest) for place in set(places)}
        return [[*prefix, *texts[place]] for place in places]

    def texts(self, iteration: int) -> list[str]:
        """What is embedded in one iteration: other texts in each, of the same lengths."""
        words = itertools.islice(itertools.cycle(_WORDS), self.requests)
        return [prompts.text(f"{self.name}/{iteration}/{i}", count) for i, count in enumerate(words)]


# Of texts that are embedded: questions, sentences, paragraphs.
_WORDS = (6, 24, 12, 90, 9, 40, 16, 140)
LOAD_PROMPT = 16  # tokens of what is asked right after loading


def _answer(name: str, prompt: int, new: int, form: str, **more: Any) -> Scenario:
    return Scenario(name, "answer", f"{prompt:,} prompt tokens, {new:,} new", form, prompt, new, **more)


def _crowd(clients: int, form: str, requests: int, short: Short | None = None) -> Scenario:
    title = (
        f"{clients:,} at once, 34 prompt tokens each, 16 new"
        if clients > 1
        else "one after another, 34 prompt tokens, 16 new"
    )
    return Scenario(
        f"concurrency-{clients}", "serve", title, form, 34, 16, requests=requests, clients=clients, most=3, short=short
    )


def _repeats(requests: int, over: int, form: str) -> Scenario:
    title = f"{requests:,} requests over {over} prompts, Zipf s = 1, 8 at once, 34 prompt tokens, 16 new"
    return Scenario(
        f"zipf-{requests}", "serve", title, form, 34, 16, requests=requests, clients=8, distinct=over, most=1,
        short=Short(40, requests=32),
    )  # fmt: skip


ALL = (
    Scenario("load-cold", "load", "first visit: nothing is cached", "quick"),
    Scenario("load-cached", "load", "second visit: from the browser's storage", "quick"),
    Scenario(
        "context-1024", "answer", "memory with a context of 1,024 tokens", "quick", 1008, 16, most=1, memory=True
    ),
    _answer("prompt-short", 34, 128, "quick", short=Short(20, 32)),
    _answer("prompt-medium", 512, 128, "usual", short=Short(15, 32)),
    _answer("prompt-long", 2048, 128, "usual", most=3, least=3, short=Short(20, 32)),
    _answer("stream-long", 34, 512, "usual", most=3, short=Short(15, 256)),
    Scenario(
        "decode-batch-8", "serve", "8 sequences decode together, 34 prompt tokens each, 64 new", "quick", 34, 64,
        requests=8, clients=8, together=True, most=4, least=3, short=Short(15, 48),
    ),
    Scenario("decode-deep", "answer", "decode at depth 2,048: 32 new", "long", 2048, 32),
    _crowd(1, "usual", 8, Short(8, requests=3)),
    _crowd(8, "usual", 16, Short(20, requests=8)),
    _crowd(32, "usual", 32),
    _crowd(100, "usual", 100),
    _crowd(1000, "long", 1000),
    _repeats(100, 10, "usual"),
    _repeats(1000, 100, "long"),
    Scenario(
        "embed-batch-64", "embed", "64 texts of 6 to 140 words in one call", "quick", requests=64, together=True,
        least=3,
    ),
    Scenario("embed-single", "embed", "16 texts of 6 to 140 words, one after another", "quick", requests=16, least=3),
    Scenario(
        "shared-prefix", "serve", "8 conversations behind one prefix of 512 tokens, 16 more each, 16 new", "usual",
        528, 16, requests=8, clients=1, prefix_tokens=512, most=3, short=Short(30, requests=3),
    ),
)  # fmt: skip

# Which form of a peer's weights counts: run for each, before anything else, where a peer has several.
HEAT = Scenario(
    "heat", "answer", "34 prompt tokens, 32 new: the fastest form of a peer goes on", "quick", 34, 32, most=1
)

EMBEDDING_HEAT = Scenario(
    HEAT.name, "embed", "64 texts: the fastest form of a peer goes on", "quick", requests=64, together=True, most=1
)

_FORMS = ("quick", "usual", "long")


def select(names: Sequence[str] | None, form: str) -> list[Scenario]:
    """The scenarios of a form of the run, or those named. A name may end in ``*``. Raises `InvalidRequest`."""
    if names is None:
        return [s for s in ALL if _FORMS.index(s.form) <= _FORMS.index(form)]
    chosen: set[str] = set()
    for name in names:
        found = {s.name for s in ALL if s.name == name or (name.endswith("*") and s.name.startswith(name[:-1]))}
        if not found:
            known = ", ".join(s.name for s in ALL)
            raise InvalidRequest(f"there is no scenario {name!r}; there are {known}", field="scenarios")
        chosen |= found
    return [s for s in ALL if s.name in chosen]


def shard(pairs: Sequence[tuple[str, Scenario]], part: int, parts: int) -> list[tuple[str, Scenario]]:
    """Part ``part`` (from 1) of ``parts`` of the matrix of (model, scenario): engines stay together, so that they are
    always compared on one machine. The two loads stay together, being one visit, and so do texts in one call and one by
    one, being judged together."""
    groups: dict[tuple[str, str], list[tuple[str, Scenario]]] = {}
    for model, scenario in pairs:
        group = scenario.kind if scenario.kind in ("load", "embed") else scenario.name
        groups.setdefault((model, group), []).append((model, scenario))
    return [pair for i, group in enumerate(groups.values()) if i % parts == part - 1 for pair in group]
