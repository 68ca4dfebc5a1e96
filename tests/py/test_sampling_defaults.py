"""How tokens are chosen where a request does not say: as the settings have it, else as the model's makers mean it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, replace
from typing import Any

import pytest

from inpage.engines.protocol import Sampling, SequenceInput
from inpage.errors import InvalidRequest, Unsupported
from inpage.format.schema import SamplingDefaults
from inpage.openai import Api
from inpage.requests.params import options, sampling_defaults
from inpage.router import Router
from inpage.settings import SamplingSettings, settings_from
from inpage.text.tokenizer import Tokenizer
from support.paged_double import PagedDouble
from support.small import VOCAB, small_router

MAKERS = SamplingDefaults(temperature=0.6, top_p=0.9, top_k=20, min_p=0.05, repetition_penalty=1.1)


class Watched(PagedDouble):
    """Keeps how each sequence is to be sampled."""

    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.seen: list[Sampling] = []

    async def step(self, feeds: Any) -> Any:
        self._note(feeds)
        return await super().step(feeds)

    async def run(self, feeds: Any, *args: Any, **more: Any) -> Any:
        self._note(feeds)
        return await super().run(feeds, *args, **more)

    def _note(self, feeds: list[SequenceInput]) -> None:
        self.seen += [feed.sampling for feed in feeds]


def chosen(sampling: Sampling) -> tuple[float, ...]:
    return (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p, sampling.repetition_penalty)


def a_router(
    tokenizer: Tokenizer, engine: PagedDouble, made: SamplingDefaults | None, settings: Mapping[str, Any]
) -> Router:
    router = small_router(tokenizer, engine=engine, settings={"sampling": settings})
    return Router(
        replace(router.manifest, sampling=made), router.choice, engine, tokenizer, load_ms=1.0,
        settings=settings_from({"sampling": settings}),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("made", "settings", "asked", "expected"),
    [
        (None, {}, {}, (1.0, 1.0, 0, 0.0, 1.0)),
        (MAKERS, {}, {}, astuple(MAKERS)),
        (MAKERS, {"temperature": 0.3, "top_k": 0}, {}, (0.3, 0.9, 0, 0.05, 1.1)),
        (MAKERS, {"temperature": 0.3}, {"temperature": 0.8, "repetition_penalty": 1}, (0.8, 0.9, 20, 0.05, 1.0)),
        (MAKERS, {}, {"temperature": 0, "top_p": None}, (0, 0.9, 20, 0.05, 1.1)),
        (SamplingDefaults(top_k=1 << 20), {}, {}, (1.0, 1.0, VOCAB, 0.0, 1.0)),
        (None, {"temperature": 0}, {}, (0, 1.0, 0, 0.0, 1.0)),
    ],
)
async def test_requests_win_then_settings_then_the_model(
    made: SamplingDefaults | None, settings: dict[str, Any], asked: dict[str, Any], expected: tuple[float, ...],
    small_tokenizer: Tokenizer,
) -> None:  # fmt: skip
    """What reaches the engine, by the router and by OpenAI's interface."""
    engine = Watched(vocab=VOCAB)
    engine.info = replace(engine.info, variant="native")
    async with a_router(small_tokenizer, engine, made, settings) as router:
        await router.chat("hello", max_tokens=2, seed=1, **asked)
        body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2, "seed": 1, **asked}
        response = await Api(router).handle("POST", "/v1/chat/completions", json.dumps(body))
        assert response.status == 200
    assert {chosen(sampling) for sampling in engine.seen} == {expected}
    assert len(engine.seen) >= 2


def test_a_model_that_is_greedy_by_settings_is_determined() -> None:
    greedy = sampling_defaults(SamplingSettings(temperature=0), MAKERS)
    assert options({}, VOCAB, greedy).determined
    assert not options({"temperature": 1}, VOCAB, greedy).determined


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"temperature": 3}, "sampling.temperature must be at most 2"),
        ({"top_p": -1}, "sampling.top_p must be at least 0"),
        ({"repetition_penalty": 0}, "sampling.repetition_penalty must be above 0"),
        ({"top_k": 1.5}, "sampling.top_k must be int or null"),
        ({"heat": 1}, "unknown setting sampling.heat"),
    ],
)
def test_wrong_settings(values: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        settings_from({"sampling": values})


def test_a_manifest_may_say_anything() -> None:
    wild = SamplingDefaults(temperature=1e9, top_p=7.0, min_p=3.0, repetition_penalty=1e300)
    assert chosen(options({}, VOCAB, sampling_defaults(SamplingSettings(), wild)).sampling) == (2, 1, 0, 1, 10)


async def test_a_base_model_says_that_it_has_no_chat(small_tokenizer: Tokenizer) -> None:
    router = small_router(small_tokenizer, manifest={"chat_template": None})
    with pytest.raises(Unsupported, match=r"small is a base model: it has no chat template.*use complete") as e:
        await router.chat("hello")
    assert e.value.field == "messages"
    body = {"messages": [{"role": "user", "content": "hello"}]}
    response = await Api(router).handle("POST", "/v1/chat/completions", json.dumps(body))
    assert response.status == 400 and "/v1/completions" in str(response.body)
    assert (await router.complete("hello", temperature=0, max_tokens=2)).text is not None
