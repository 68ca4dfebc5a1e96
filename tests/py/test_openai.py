"""OpenAI's own client against the API: what it sends is understood, what it gets it can read."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai.resources.chat.completions import AsyncCompletions
from openai.resources.completions import AsyncCompletions as AsyncTextCompletions
from prometheus_client.parser import text_string_to_metric_families

from inpage.errors import OutOfMemory
from inpage.openai import Api
from inpage.router import Router
from inpage.text.tokenizer import Tokenizer
from support.in_process import openai_client
from support.shelf import Shelf
from support.small import small_router

HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def router(small_tokenizer: Tokenizer) -> AsyncIterator[Router]:
    async with small_router(small_tokenizer) as router:
        yield router
        assert not router.scheduler.active and not router.scheduler.waiting


@pytest.fixture
def api(router: Router) -> Api:
    return Api(router)


@pytest.fixture
async def client(api: Api) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai_client(api) as client:
        yield client


async def test_a_chat_answer_is_the_routers(client: openai.AsyncOpenAI, router: Router) -> None:
    expected = await router.chat("hello", temperature=0, max_tokens=12)
    done = await client.chat.completions.create(model="small", messages=HELLO, temperature=0, max_completion_tokens=12)
    assert done.choices[0].message.content == expected.text
    assert done.choices[0].finish_reason == expected.finish_reason == "length"
    assert done.usage and done.usage.completion_tokens == 12
    assert done.usage.prompt_tokens == len(expected.prompt_ids)
    details = done.usage.prompt_tokens_details
    assert details and details.cached_tokens == len(expected.prompt_ids) // 4 * 4  # the first had computed them


async def test_a_stream_says_the_same_piece_by_piece(client: openai.AsyncOpenAI, router: Router) -> None:
    expected = await router.chat("hello", temperature=0, max_tokens=20)
    stream = await client.chat.completions.create(
        model="small", messages=HELLO, temperature=0, max_tokens=20, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == expected.text
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 20
    assert len({chunk.id for chunk in chunks}) == 1


async def test_several_choices_differ_by_seed(client: openai.AsyncOpenAI, router: Router) -> None:
    alone = [await router.chat("hello", temperature=1, seed=7 + i, max_tokens=9) for i in range(3)]
    done = await client.chat.completions.create(model="small", messages=HELLO, temperature=1, seed=7, n=3, max_tokens=9)
    assert [choice.message.content for choice in done.choices] == [one.text for one in alone]
    assert done.usage and done.usage.completion_tokens == 27
    assert done.usage.prompt_tokens == len(alone[0].prompt_ids)
    stream = await client.chat.completions.create(
        model="small", messages=HELLO, temperature=1, seed=7, n=3, max_tokens=9, stream=True
    )
    texts = [""] * 3
    async for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [one.text for one in alone]


async def test_completions_take_texts_ids_and_lists_of_both(client: openai.AsyncOpenAI, router: Router) -> None:
    ids = router.encode("hello")
    for prompt in ("hello", ids, ["hello"], [ids]):
        done = await client.completions.create(model="small", prompt=prompt, temperature=0)
        assert done.choices[0].text == (await router.complete("hello", temperature=0, max_tokens=16)).text
    two = await client.completions.create(model="small", prompt=["hello", "hello!"], temperature=0, echo=True)
    assert [choice.text.startswith(p) for choice, p in zip(two.choices, ("hello", "hello!"), strict=True)] == [True] * 2


async def test_an_answer_ends_before_a_stop_string(client: openai.AsyncOpenAI, router: Router) -> None:
    whole = (await router.chat("hello", temperature=0, max_tokens=30)).text
    stop = whole[9:13]
    for streamed in (False, True):
        done: Any = await client.chat.completions.create(
            model="small", messages=HELLO, temperature=0, max_tokens=30, stop=[stop, "never said"], stream=streamed
        )
        if streamed:
            chunks = [chunk.choices[0] async for chunk in done]
            text, reason = "".join(c.delta.content or "" for c in chunks), chunks[-1].finish_reason
        else:
            text, reason = done.choices[0].message.content, done.choices[0].finish_reason
        assert (text, reason) == (whole[: whole.index(stop)], "stop")


async def test_leaving_a_stream_cancels_the_answer(client: openai.AsyncOpenAI, router: Router) -> None:
    stream = await client.chat.completions.create(model="small", messages=HELLO, max_tokens=150, stream=True)
    async for _ in stream:
        break
    await stream.close()
    while router.scheduler.active:
        await asyncio.sleep(0)


async def test_several_models_answer_by_name(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, {"a": (1,), "b": (1,)}, max_loaded=1)
    api = Api(shelf.models)
    async with openai_client(api) as client:
        assert [model.id async for model in client.models.list()] == ["a", "b"]
        assert not shelf.loads  # listing loads nothing
        done = await client.chat.completions.create(model="b", messages=HELLO, temperature=0, max_tokens=9)
        assert done.model == "b" and shelf.loads == {"b": 1}
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="c", messages=HELLO)
        assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
        stream = await client.chat.completions.create(
            model="b", messages=HELLO, temperature=0, max_tokens=9, stream=True
        )
        (state,) = shelf.models.loaded()
        assert state.requests == 1  # it stays as long as the stream is open
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == done.choices[0].message.content
        left = await client.chat.completions.create(model="b", messages=HELLO, max_tokens=100, stream=True)
        await left.close()  # unread
        assert shelf.models.loaded()[0].requests == 0
        await client.completions.create(model="a", prompt="hello")
        assert shelf.loads == {"a": 1, "b": 1}
    families = {f.name: f for f in text_string_to_metric_families(shelf.models.metrics())}
    assert {s.labels["model"] for s in families["inpage_tokens"].samples} == {"a"}
    assert [s.labels for s in families["inpage_model_unloads"].samples] == [{"why": "evicted"}]
    assert "Not loaded: b." in shelf.models.explain()
    await shelf.close()


async def test_health_of_several_models(small_tokenizer: Tokenizer) -> None:
    shelf = Shelf(small_tokenizer, {"a": (1,), "b": (1,)}, target_memory=10**8)
    api = Api(shelf.models)
    await shelf.models.preload("a")
    health = json.loads(str((await api.handle("GET", "/health")).body))
    assert (health["status"], health["models"], health["memory_budget"]) == ("healthy", {"a": "healthy"}, 10**8)
    shelf.refuse = OutOfMemory("no room")
    with pytest.raises(OutOfMemory):
        await shelf.models.preload("b")
    health = shelf.models.health()
    assert (health.status, health.reasons) == ("degraded", ("b could not be loaded: out_of_memory: no room",))
    shelf.refuse = None
    await shelf.models.preload("b")
    router = shelf.models.routers()["a"]
    info = router.engine.info
    router.engine.info = dataclasses.replace(info, weight_bytes=91_000_000)  # type: ignore[misc]
    health = shelf.models.health()
    assert (health.status, health.reasons) == ("degraded", ("91 MB of the budget of 100 MB are in use",))
    await shelf.close()


async def test_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["small"]
    assert (await client.models.retrieve("small")).owned_by == "inpage"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("gpt-5")
    assert caught.value.code == "model_not_found"


# What each parameter of OpenAI's client does here: a value that works, or one that is refused by its name.
_WORKS: dict[str, Any] = {
    "frequency_penalty": 0.5, "logit_bias": {"5": 1.0}, "logprobs": True, "max_completion_tokens": 3, "max_tokens": 3,
    "metadata": {"a": "b"}, "modalities": ["text"], "n": 2, "parallel_tool_calls": True, "presence_penalty": 0.5,
    "prompt_cache_key": "k", "prompt_cache_retention": "24h", "response_format": {"type": "text"}, "seed": 1,
    "safety_identifier": "u", "service_tier": "auto", "stop": "x", "store": False, "temperature": 1.0,
    "tool_choice": "none", "tools": [], "top_logprobs": 0, "top_p": 0.5, "user": "u", "functions": [],
    "function_call": "none", "echo": True, "best_of": 1, "suffix": "", "prompt_cache_options": {"ttl": "1h"},
}  # fmt: skip
_REFUSED: dict[str, Any] = {
    "audio": {"voice": "x", "format": "wav"}, "prediction": {"type": "content", "content": "x"}, "verbosity": "low",
    "reasoning_effort": "low", "web_search_options": {}, "top_logprobs": 2, "tool_choice": "auto",
    "tools": [{"type": "function", "function": {"name": "f"}}], "functions": [{"name": "f"}], "function_call": "auto",
    "response_format": {"type": "json_object"}, "modalities": ["text", "audio"], "store": True, "service_tier": "flex",
    "best_of": 5, "suffix": "x", "moderation": {"model": "x"},
}  # fmt: skip
_OURS = {
    "self",
    "messages",
    "prompt",
    "model",
    "stream",
    "stream_options",
    "extra_headers",
    "extra_query",
    "extra_body",
    "timeout",
}


def _parameters(create: Any) -> set[str]:
    return set(inspect.signature(create).parameters) - _OURS


@pytest.mark.parametrize("chat", [True, False])
async def test_every_parameter_works_or_is_refused_by_name(api: Api, chat: bool) -> None:
    create = AsyncCompletions.create if chat else AsyncTextCompletions.create
    path = "/v1/chat/completions" if chat else "/v1/completions"
    base: dict[str, Any] = {"messages": HELLO} if chat else {"prompt": "hello"}
    names = _parameters(create)
    assert not names - set(_WORKS) - set(_REFUSED), "parameters that nobody thought of"
    for name in names & set(_WORKS):
        value = 5 if name == "logprobs" and not chat else _WORKS[name]
        reply = await api.handle("POST", path, json.dumps({**base, name: value}))
        assert reply.status == 200, (name, reply.body)
    for name in names & set(_REFUSED):
        reply = await api.handle("POST", path, json.dumps({**base, name: _REFUSED[name]}))
        assert isinstance(reply.body, str)
        assert (reply.status, json.loads(reply.body)["error"]["param"]) == (400, name), (name, reply.body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": HELLO, "temperature": 3}, "temperature"),
        ({"messages": HELLO, "temperature": "warm"}, "temperature"),
        ({"messages": HELLO, "max_tokens": -1}, "max_tokens"),
        ({"messages": HELLO, "max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"messages": HELLO, "n": 0}, "n"),
        ({"messages": HELLO, "n": True}, "n"),
        ({"messages": HELLO, "stop": ["a"] * 5}, "stop"),
        ({"messages": HELLO, "stop": ""}, "stop"),
        ({"messages": HELLO, "stream": "yes"}, "stream"),
        ({"messages": HELLO, "stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": HELLO, "stream": True, "stream_options": {"x": True}}, "stream_options.x"),
        ({"messages": HELLO, "logit_bias": {"x": 1}}, "logit_bias[x]"),
        ({"messages": HELLO, "top_k": -1}, "top_k"),
        ({"messages": HELLO, "logprobs": 1}, "logprobs"),
        ({"messages": HELLO, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"messages": HELLO, "response_format": {"type": "xml"}}, "response_format.type"),
        ({"messages": HELLO, "response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {
                "messages": HELLO,
                "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"not": {}}}},
            },
            "response_format.json_schema.schema.not",
        ),
        ({"messages": HELLO, "frequency_penality": 1}, "frequency_penality"),
    ],
)
async def test_a_bad_value_names_its_parameter(api: Api, body: dict[str, Any], param: str) -> None:
    reply = await api.handle("POST", "/v1/chat/completions", json.dumps(body))
    assert isinstance(reply.body, str)
    error = json.loads(reply.body)["error"]
    assert (reply.status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["message"]


async def test_a_full_queue_says_when_to_come_back(api: Api, client: openai.AsyncOpenAI) -> None:
    body = json.dumps({"messages": HELLO, "max_tokens": 40})
    replies = await asyncio.gather(*(api.handle("POST", "/v1/chat/completions", body) for _ in range(20)))
    refused = [reply for reply in replies if reply.status == 429]
    assert refused and all(int(reply.headers["Retry-After"]) >= 1 for reply in refused)
    assert sum(reply.status == 200 for reply in replies) == 20 - len(refused)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/chat/completions", "", 405),
        ("POST", "/v1/models", "{}", 405),
        ("GET", "/v2/models", "", 404),
        ("POST", "/v1/chat/completions", "{", 400),
        ("POST", "/v1/chat/completions", "[]", 400),
        ("POST", "/v1/chat/completions", '{"model": "other", "messages": []}', 404),
    ],
)
async def test_what_is_no_request_is_an_error_in_their_shape(
    api: Api, method: str, path: str, body: str, status: int
) -> None:
    reply = await api.handle(method, path, body)
    assert isinstance(reply.body, str)
    assert reply.status == status and set(json.loads(reply.body)["error"]) == {"message", "type", "param", "code"}
