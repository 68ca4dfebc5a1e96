"""OpenAI's own client sends back what it was given: each message is taken, and read as what it says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessage

from inpage.openai import Api
from inpage.openai.requests import chat_request
from inpage.requests.messages import checked_messages
from inpage.text.tokenizer import Tokenizer
from support.in_process import openai_client
from support.scripted import Scripted
from support.small import small_manifest, small_router

PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}
TOOL: Any = {"type": "function", "function": {"name": "look", "strict": True, "parameters": PARAMETERS}}
ASK: list[Any] = [{"role": "user", "content": "hello"}]
SAID = 'well\n<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'


@pytest.fixture
async def client(small_tokenizer: Tokenizer) -> AsyncIterator[openai.AsyncOpenAI]:
    template = small_manifest().chat_template or ""
    more = (
        template
        + "{# <tool_call> tools #}{% for m in messages %}{{ m.tool_calls | tojson if m.tool_calls }}{% endfor %}"
    )
    engine = Scripted(small_tokenizer, SAID)
    async with (
        small_router(small_tokenizer, manifest={"chat_template": more}, engine=engine) as router,
        openai_client(Api(router)) as client,
    ):
        yield client


async def test_every_message_that_was_returned_can_be_sent_back(client: openai.AsyncOpenAI) -> None:
    done = await client.chat.completions.create(model="small", messages=ASK, tools=[TOOL])
    answered = done.choices[0].message
    assert answered.tool_calls and answered.content == "well"
    parsed = (await client.chat.completions.parse(model="small", messages=ASK)).choices[0].message
    async with client.chat.completions.stream(model="small", messages=ASK, tools=[TOOL]) as stream:
        streamed = (await stream.get_final_completion()).choices[0].message
    for message in (answered, parsed, streamed):
        forms: list[Any] = [message, message.model_dump(), message.model_dump(exclude_unset=True), message.to_dict()]
        for form in forms:
            calls = message.tool_calls or []
            results: list[Any] = [{"role": "tool", "tool_call_id": call.id, "content": "a door"} for call in calls]
            again = await client.chat.completions.create(model="small", messages=[*ASK, form, *results], tools=[TOOL])
            assert again.choices[0].message.content == "well"


async def test_a_response_can_be_sent_back(client: openai.AsyncOpenAI) -> None:
    flat: Any = {"type": "function", **TOOL["function"]}
    done = await client.responses.create(model="small", input=ASK, tools=[flat])
    results = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "a door"}
        for item in done.output
        if item.type == "function_call"
    ]
    assert len(results) == 1 and len(done.output) == 2
    for output in (done.output, [item.model_dump() for item in done.output]):
        again: Any = [*ASK, *output, *results]
        assert (await client.responses.create(model="small", input=again, tools=[flat])).output_text == "well"


EMPTY: dict[str, Any] = {"role": "assistant", "content": None}


@pytest.mark.parametrize(
    ("message", "read"),
    [
        ({**EMPTY, "tool_calls": []}, {"content": ""}),
        ({**EMPTY, "refusal": None, "annotations": [], "audio": None, "function_call": None}, {"content": ""}),
        ({**EMPTY, "refusal": "no"}, {"content": "no"}),
        ({**EMPTY, "content": [{"type": "refusal", "refusal": "no"}]}, {"content": "no"}),
        ({"role": "assistant", "content": "a", "annotations": [{"type": "url_citation"}], "parsed": {"a": 1}},
         {"content": "a"}),
        ({"role": "assistant", "function_call": {"name": "f", "arguments": ""}}, {"content": "", "calls": [("f", {})]}),
        ({**EMPTY, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
         {"content": "", "calls": [("f", {})]}),
        (ChatCompletionMessage(role="assistant", content="a").model_dump(), {"content": "a"}),
    ],
)  # fmt: skip
async def test_what_clients_put_into_messages(
    small_tokenizer: Tokenizer, message: dict[str, Any], read: dict[str, Any]
) -> None:
    _, checked = checked_messages(chat_request({"messages": [*ASK, json.loads(json.dumps(message))]}).prompts[0])
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in checked.get("tool_calls", ())]
    assert {"content": checked["content"], **({"calls": calls} if calls else {})} == read


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("completions", {"prompt": ""}),
        ("completions", {"prompt": " \n"}),
        ("completions", {"prompt": ["", "a"]}),
        ("completions", {"prompt": "a", "max_tokens": 0}),
        ("completions", {"prompt": "a", "max_tokens": 0, "echo": True, "logprobs": 0, "stream": True}),
        ("completions", {"prompt": "a", "seed": -1, "top_p": 0, "temperature": 1}),
        ("chat/completions", {"messages": [{"role": "user", "content": ""}]}),
        ("chat/completions", {"messages": [{"role": "user", "content": " "}], "max_tokens": 0}),
        ("chat/completions", {"messages": ASK, "top_p": 0, "seed": -(2**63)}),
        ("responses", {"input": ""}),
    ],
)
async def test_what_openai_takes(small_tokenizer: Tokenizer, path: str, body: dict[str, Any]) -> None:
    async with small_router(small_tokenizer) as router:
        reply = await Api(router).handle("POST", f"/v1/{path}", json.dumps(body))
        assert reply.status == 200, reply.body
        if not isinstance(reply.body, str):
            assert [event async for event in reply.body][-1].endswith("data: [DONE]\n\n")
        elif body.get("max_tokens") == 0:
            done = json.loads(reply.body)
            assert done["choices"][0]["finish_reason"] == "length" and done["usage"]["completion_tokens"] == 0


async def test_top_p_0_is_the_likeliest_and_a_seed_with_a_sign_repeats(small_tokenizer: Tokenizer) -> None:
    async with small_router(small_tokenizer) as router:
        seeded = [await router.complete("hello", seed=-5, max_tokens=9, temperature=1) for _ in range(2)]
    assert seeded[0].token_ids == seeded[1].token_ids


async def test_two_equal_prompts_count_twice_and_choices_once(small_tokenizer: Tokenizer) -> None:
    async with small_router(small_tokenizer) as router, openai_client(Api(router)) as client:
        length = len(router.encode("hello"))
        for prompts, n in ((["hello", "hello"], 1), (["hello", "hello"], 2), (["hello"], 2)):
            ask: Any = {"model": "small", "prompt": prompts, "n": n, "max_tokens": 3}
            done = await client.completions.create(**ask)
            assert done.usage and done.usage.prompt_tokens == length * len(prompts)
            assert done.usage.completion_tokens == 3 * n * len(prompts)
            stream = await client.completions.create(**ask, stream=True, stream_options={"include_usage": True})
            chunks = [chunk async for chunk in stream]
            assert chunks[-1].usage and chunks[-1].usage.prompt_tokens == length * len(prompts)
