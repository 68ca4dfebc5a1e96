"""OpenAI's own client and its Responses API: answers, events, tools, formats, errors."""

from __future__ import annotations

import inspect
import json
from typing import Any

import openai
import pytest
from openai.resources.responses import AsyncResponses
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from inpage.openai import Api
from inpage.requests.grammar import schema_grammar
from inpage.text.tokenizer import Tokenizer
from support.calling import CALL, HERMES, BrokenStream
from support.in_process import openai_client
from support.scripted import Scripted
from support.small import small_router

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
LOOK: Any = {
    "type": "function",
    "name": "look",
    "description": "Looks.",
    "parameters": {"type": "object"},
    "strict": False,
}


async def test_a_response_is_the_routers_answer_to_the_same_conversation(small_tokenizer: Tokenizer) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    async with small_router(small_tokenizer) as router, openai_client(Api(router)) as client:
        expected = await router.chat(messages, temperature=0, max_tokens=20)
        given: list[Any] = [
            "hello",
            [{"role": "user", "content": "hello"}],
            [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hel"},
                                                             {"type": "input_text", "text": "lo"}]}],
        ]  # fmt: skip
        for asked in given:
            ask: Any = {"model": "small", "instructions": "Be brief.", "input": asked, "temperature": 0,
                        "max_output_tokens": 20, "metadata": {"a": "b"}, "store": False}  # fmt: skip
            done = await client.responses.create(**ask)
            assert done.output_text == expected.text
            assert (done.status, done.temperature, done.metadata) == ("incomplete", 0, {"a": "b"})
            assert done.incomplete_details and done.incomplete_details.reason == "max_output_tokens"
            assert done.usage and (done.usage.input_tokens, done.usage.output_tokens) == (len(expected.prompt_ids), 20)
            async with client.responses.stream(**ask) as stream:
                events = [event async for event in stream]
            assert events[-1].type == "response.incomplete"
            last: Any = events[-1].response
            assert last.output_text == expected.text and last.usage and last.usage.output_tokens == 20


async def test_what_a_stream_tells_makes_the_whole_response(small_tokenizer: Tokenizer) -> None:
    engine = Scripted(small_tokenizer, CALL, context=2048, max_pages=2048)
    async with small_router(small_tokenizer, engine=engine, manifest={"chat_template": HERMES}) as router:
        body = {"input": "hello", "tools": [LOOK], "seed": 1, "temperature": 0}
        whole = json.loads(str((await Api(router).handle("POST", "/v1/responses", json.dumps(body))).body))
        reply = await Api(router).handle("POST", "/v1/responses", json.dumps(body | {"stream": True}))
        assert not isinstance(reply.body, str)
        told = "".join([chunk async for chunk in reply.body])
    # Strict: the types of OpenAI's package, which say what each event must have.
    assert TypeAdapter(Response).validate_python(whole, strict=True).status == "completed"
    events = [dict(line.split(": ", 1) for line in event.split("\n")) for event in told.split("\n\n") if event]
    parsed = [json.loads(event["data"]) for event in events]
    for event, data in zip(events, parsed, strict=True):
        assert event["event"] == data["type"]
        TypeAdapter(ResponseStreamEvent).validate_json(event["data"])
    assert [data["sequence_number"] for data in parsed] == list(range(len(parsed)))
    kinds = [data["type"].removeprefix("response.") for data in parsed]
    once = [kind for i, kind in enumerate(kinds) if not i or kinds[i - 1] != kind]
    assert once == [
        *("created", "in_progress", "output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done", "output_item.added"),
        *("function_call_arguments.delta", "function_call_arguments.done", "output_item.done", "completed"),
    ]
    output = parsed[-1]["response"]["output"]
    message, call = output
    assert message["content"][0]["text"] == "I look." and call["name"] == "look"
    assert json.loads(call["arguments"]) == {"where": "é", "n": [1, 2]}
    deltas = [data for data in parsed if data["type"] == "response.function_call_arguments.delta"]
    assert "".join(data["delta"] for data in deltas) == call["arguments"]
    assert {data["item_id"] for data in deltas} == {call["id"]} and {data["output_index"] for data in deltas} == {1}
    assert [item["type"] for item in whole["output"]] == [item["type"] for item in output]
    assert whole["output"][1]["arguments"] == call["arguments"]


async def test_a_stream_of_events_goes_on_at_another_router(small_tokenizer: Tokenizer) -> None:
    stream = BrokenStream(small_tokenizer, "/v1/responses", {"input": "hello", "tools": [LOOK], "stream": True})
    whole, _ = await stream.run()
    for cut in range(1, 40, 3):
        first, position = await stream.run(cut)
        if "response.completed" in first:
            break
        told = first + (await stream.run(-1, position))[0]
        got, expected = ([json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: ")]
                         for text in (told, whole))  # fmt: skip
        assert [event["sequence_number"] for event in got] == list(range(len(got)))
        assert [event["type"] for event in got if "delta" not in event] == [
            event["type"] for event in expected if "delta" not in event
        ]
        message, call = got[-1]["response"]["output"]
        assert {event["item_id"] for event in got if "item_id" in event} == {message["id"], call["id"]}
        deltas = {item["id"]: "" for item in (message, call)}
        for event in got:
            if "delta" in event:
                deltas[event["item_id"]] += event["delta"]
        assert list(deltas.values()) == [message["content"][0]["text"], call["arguments"]]
        assert call["arguments"] == expected[-1]["response"]["output"][1]["arguments"]
    else:
        raise AssertionError("the last cut is to be at the end")


async def test_a_call_is_answered_by_its_output(small_tokenizer: Tokenizer) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "nothing"},
    ]
    async with small_router(small_tokenizer, manifest={"chat_template": HERMES}) as router:
        expected = await router.chat(messages, temperature=0, max_tokens=5)
        async with openai_client(Api(router)) as client:
            items: Any = [
                {"role": "user", "content": "hello"},
                {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"a": 1}'},
                {"type": "function_call_output", "call_id": "c1", "output": "nothing"},
            ]
            done = await client.responses.create(model="small", input=items, temperature=0, max_output_tokens=5)
    assert done.output_text == expected.text
    assert done.usage and done.usage.input_tokens == len(expected.prompt_ids)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_text_format_becomes_a_grammar(small_tokenizer: Tokenizer, stream: bool) -> None:
    engine = Scripted(small_tokenizer, '{"a": 5}')
    form = {"type": "json_schema", "name": "it", "schema": SCHEMA, "strict": True}
    async with small_router(small_tokenizer, engine=engine) as router, openai_client(Api(router)) as client:
        ask: Any = {"model": "small", "input": "hello", "text": {"format": form}}
        if stream:
            async with client.responses.stream(**ask) as events:
                done: Any = await events.get_final_response()
        else:
            done = await client.responses.create(**ask)
    assert (done.output_text, done.status) == ('{"a": 5}', "completed")
    assert engine.grammars == [schema_grammar(SCHEMA)]


_WORKS: dict[str, Any] = {
    "background": False, "include": [], "instructions": "x", "max_output_tokens": 5, "metadata": {}, "store": False,
    "parallel_tool_calls": True, "prompt_cache_key": "k", "prompt_cache_options": {"ttl": "1h"},
    "prompt_cache_retention": "24h", "safety_identifier": "u", "service_tier": "auto", "temperature": 0.5,
    "text": {"format": {"type": "text"}}, "tool_choice": "none", "tools": [], "top_logprobs": 0, "top_p": 0.5,
    "truncation": "disabled", "user": "u", "input": "x", "model": "small", "stream": False,
}  # fmt: skip
_REFUSED: dict[str, Any] = {
    "background": True, "context_management": [{}], "conversation": "c", "include": ["reasoning.encrypted_content"],
    "max_tool_calls": 1, "moderation": {"model": "x"}, "previous_response_id": "resp_1", "prompt": {"id": "x"},
    "reasoning": {"effort": "low"}, "store": True, "top_logprobs": 2, "truncation": "auto", "service_tier": "flex",
    "model": 5, "max_output_tokens": 0, "input": 5, "temperature": 3, "tools": [LOOK], "unknown": 1,
}  # fmt: skip


async def test_every_parameter_works_or_is_refused_by_name(small_tokenizer: Tokenizer) -> None:
    names = set(inspect.signature(AsyncResponses.create).parameters)
    names -= {"self", "extra_headers", "extra_query", "extra_body", "timeout", "stream_options"}
    assert not names - set(_WORKS) - set(_REFUSED), "parameters that are missing here"
    async with small_router(small_tokenizer) as router:
        for name, value in _WORKS.items():
            reply = await Api(router).handle("POST", "/v1/responses", json.dumps({"input": "hi", name: value}))
            assert reply.status == 200, (name, reply.body)
        for name, value in _REFUSED.items():
            reply = await Api(router).handle("POST", "/v1/responses", json.dumps({"input": "hi", name: value}))
            assert (reply.status, json.loads(str(reply.body))["error"]["param"]) == (400, name), (name, reply.body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": "x" * 5000}, "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input[0].arguments"),
        ({"input": "x", "text": {"verbosity": "low"}}, "text.verbosity"),
        ({"input": "x", "text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"input": "x", "text": {"format": {"type": "json_schema", "name": "n", "schema": {"not": {}}}}},
         "text.format.schema.not"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
    ],
)  # fmt: skip
async def test_a_bad_value_names_its_parameter(small_tokenizer: Tokenizer, body: dict[str, Any], param: str) -> None:
    async with small_router(small_tokenizer) as router, openai_client(Api(router)) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.post("/responses", body=body, cast_to=object)
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")
