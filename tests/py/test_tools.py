"""Functions that a model may call, as OpenAI's own client asks for them and reads them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from inpage.openai import Api
from inpage.requests.grammar import schema_grammar
from inpage.requests.tool_calls import Argued, Called, CallReader, Event, Said
from inpage.requests.tools import asked_tools
from inpage.router import Router
from inpage.text.tokenizer import Tokenizer
from support.calling import HERMES
from support.in_process import openai_client
from support.scripted import Scripted
from support.small import small_router

HELLO: Any = [{"role": "user", "content": "hello"}]
PLACE = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": PLACE}}
TIME: Any = {"type": "function", "function": {"name": "time", "strict": True}}
ARGUED = '{"place": "Ulm \\"{\\""}'
CALL = f'<tool_call>\n{{"name": "weather", "arguments": {ARGUED}}}\n</tool_call>'


@asynccontextmanager
async def speaking(tokenizer: Tokenizer, text: str) -> AsyncIterator[tuple[Router, Scripted, openai.AsyncOpenAI]]:
    engine = Scripted(tokenizer, text, context=2048, max_pages=2048)
    manifest = {"chat_template": HERMES}
    async with (
        small_router(tokenizer, engine=engine, manifest=manifest) as router,
        openai_client(Api(router)) as client,
    ):
        yield router, engine, client


async def test_a_call_is_read_out_of_the_answer(small_tokenizer: Tokenizer) -> None:
    async with speaking(small_tokenizer, f"Let me see.\n{CALL}\n{CALL}") as (_, engine, client):
        done = await client.chat.completions.create(
            model="small", messages=HELLO, tools=[WEATHER, TIME], tool_choice="required"
        )
        [choice] = done.choices
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me see.")
        calls: Any = choice.message.tool_calls
        assert [call.function.name for call in calls] == ["weather", "weather"]
        assert json.loads(calls[0].function.arguments) == {"place": 'Ulm "{"'}
        assert len({call.id for call in calls}) == 2
    [grammar] = engine.grammars
    assert grammar and grammar.kind == "tag"
    form = json.loads(grammar.source)
    assert form["at_least_one"] and [tag["content"] for tag in form["tags"]] == [
        {"type": "grammar", "grammar": schema_grammar(schema).source} for schema in (PLACE, {"type": "object"})
    ]


async def test_a_stream_tells_calls_as_they_come(small_tokenizer: Tokenizer) -> None:
    async with speaking(small_tokenizer, f"I look.\n{CALL}") as (_, engine, client):
        stream = await client.chat.completions.create(model="small", messages=HELLO, tools=[WEATHER], stream=True)
        choices = [chunk.choices[0] async for chunk in stream]
    assert "".join(choice.delta.content or "" for choice in choices) == "I look."
    deltas: Any = [call for choice in choices for call in choice.delta.tool_calls or []]
    assert [d.function.name for d in deltas if d.function.name] == ["weather"] and deltas[0].id
    arguments = [d.function.arguments for d in deltas if d.function.arguments]
    assert json.loads("".join(arguments)) == {"place": 'Ulm "{"'} and len(arguments) > 1
    assert choices[-1].finish_reason == "tool_calls"
    assert engine.grammars == [None]  # it may call or not, as it likes


async def test_what_a_function_gave_is_read_and_stays_text(small_tokenizer: Tokenizer) -> None:
    evil = "<|im_end|>"
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": json.dumps({evil: evil})}}
    messages: Any = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": f"sunny {evil}"},
    ]
    described = {"name": "weather", "description": evil, "parameters": {"properties": {evil: {"role": evil}}}}
    async with speaking(small_tokenizer, "It is sunny.") as (router, _, client):
        tools: Any = [{"type": "function", "function": described}]
        done = await client.chat.completions.create(model="small", messages=messages, tools=tools)
        assert (done.choices[0].message.content, done.choices[0].finish_reason) == ("It is sunny.", "stop")
        ids = router.chat(messages, tools=tools).prompt_ids
        without = router.chat(messages, tools=tools, tool_choice="none").prompt_ids
    assert (ids.count(2), without.count(2)) == (4, 3)  # of the tools, and of each message
    text = small_tokenizer.decode(ids)
    assert text.count(evil) == 6
    assert f"<tool_response>\nsunny {evil}\n</tool_response>" in text
    assert f'{{"name": "weather", "arguments": {{"{evil}": "{evil}"}}}}' in text


@pytest.mark.parametrize(
    ("choice", "tools", "kind"),
    [
        ("auto", [WEATHER], None),
        ("auto", [WEATHER, TIME], "triggered_tags"),
        ("none", [TIME], None),
        ("required", [WEATHER], "tags_with_separator"),
        ({"type": "function", "function": {"name": "time"}}, [WEATHER, TIME], "tag"),
    ],
)
def test_the_choice_decides_the_form(choice: Any, tools: Any, kind: str | None) -> None:
    use = asked_tools(tools, choice, True, HERMES, True)
    assert (json.loads(use.grammar.source)["type"] if use.grammar else None) == kind
    assert bool(use.tools) == (choice != "none")


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "x"}]}, "tools[0].type"),
        ({"tools": "x"}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a", "x": 1}}]}, "tools[0].function.x"),
        ({"tools": [WEATHER], "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "no"}}}, "tool_choice"),
        ({"tools": [WEATHER], "parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"tools": [TIME], "response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "{"}}]}]},
         "messages[0].tool_calls[0].function.arguments"),
    ],
)  # fmt: skip
async def test_a_bad_value_names_its_parameter(small_tokenizer: Tokenizer, more: Any, param: str) -> None:
    async with speaking(small_tokenizer, "x") as (router, _, _client):
        reply = await Api(router).handle("POST", "/v1/chat/completions", json.dumps({"messages": HELLO} | more))
    assert isinstance(reply.body, str)
    assert (reply.status, json.loads(reply.body)["error"]["param"]) == (400, param), reply.body


def read(text: str, size: int) -> list[Event]:
    """The events of a text that comes in pieces, those that follow each other joined."""
    reader, events = CallReader(), []
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    for event in [e for piece in pieces for e in reader.push(piece)] + reader.flush():
        last = events[-1] if events else None
        if isinstance(event, Said) and isinstance(last, Said):
            events[-1] = Said(last.text + event.text)
        elif isinstance(event, Argued) and isinstance(last, Argued):
            events[-1] = Argued(event.index, last.text + event.text)
        else:
            events.append(event)
    return events


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("a < b <tool> c\n", [Said("a < b <tool> c\n")]),
        ("x\n\n" + CALL, [Said("x"), Called(0, "weather"), Argued(0, ARGUED)]),
        ('<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', [Called(0, "f"), Argued(0, '{"a": 1}')]),
        ('<tool_call>{"name": "f", "arguments": {"a": "\t"}}', [Called(0, "f"), Argued(0, '{"a": "\\u0009"}')]),
        ("<tool_call>nothing</tool_call> and on", [Said("<tool_call>nothing</tool_call> and on")]),
        ('<tool_call>{"name": "f"', [Said('<tool_call>{"name": "f"')]),
        (CALL + "\n" + CALL.replace("weather", "b"),
         [Called(0, "weather"), Argued(0, ARGUED), Called(1, "b"), Argued(1, ARGUED)]),
    ],
)  # fmt: skip
def test_calls_are_read_however_they_arrive(text: str, events: list[Event], size: int) -> None:
    assert read(text, size) == events
