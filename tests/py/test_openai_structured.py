"""OpenAI's own client: answers in a format, and logprobs. That a format is followed is for the page's tests to show."""

from __future__ import annotations

from typing import Any

import pytest

from inpage import json_schema
from inpage.errors import InvalidRequest
from inpage.json_schema import compile_schema
from inpage.openai import Api
from inpage.requests.grammar import schema_grammar
from inpage.text.tokenizer import Tokenizer
from support.in_process import openai_client
from support.scripted import Scripted
from support.small import small_router

HELLO: Any = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("form", "grammar"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, schema_grammar({"type": "object"})),
        (
            {"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA, "strict": True}},
            schema_grammar(SCHEMA),
        ),
    ],
)
async def test_a_response_format_becomes_a_grammar(small_tokenizer: Tokenizer, form: Any, grammar: Any) -> None:
    engine = Scripted(small_tokenizer, '{"a": 5}')
    async with small_router(small_tokenizer, engine=engine) as router, openai_client(Api(router)) as client:
        done = await client.chat.completions.create(model="small", messages=HELLO, response_format=form)
        assert (done.choices[0].message.content, done.choices[0].finish_reason) == ('{"a": 5}', "stop")
    assert engine.grammars == [grammar]


async def test_a_format_is_compiled_once(small_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it is checked as ``response_format`` and followed as ``schema``; and an error names what was sent."""
    fields: list[str] = []

    def counted(schema: Any, field: str) -> str:
        fields.append(field)
        return compile_schema(schema, field)

    monkeypatch.setattr(json_schema, "compile_schema", counted)
    schemas = [{"type": "object", "properties": {f"p{i}": {"type": "null"}}} for i in range(20)]
    async with small_router(small_tokenizer, engine=Scripted(small_tokenizer, "x")) as router:
        for schema in [*schemas, schemas[-1], schemas[0]]:
            form = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
            await router.chat(HELLO, response_format=form)
        assert len(fields) == 21  # the first had made room for others
        form = {"type": "json_schema", "json_schema": {"name": "it", "schema": {"enum": []}}}
        wrong: dict[str, Any] = {"schema": {"enum": []}, "response_format": form}
        for name, given in wrong.items():
            with pytest.raises(InvalidRequest) as raised:
                router.chat(HELLO, **{name: given})
            assert raised.value.field and raised.value.field.startswith(name)


async def test_logprobs_are_the_engines_by_text(small_tokenizer: Tokenizer) -> None:
    engine = Scripted(small_tokenizer, "what light é")
    async with small_router(small_tokenizer, engine=engine) as router, openai_client(Api(router)) as client:
        ask: Any = {"model": "small", "messages": HELLO, "logprobs": True, "top_logprobs": 2}
        done = await client.chat.completions.create(**ask)
        streamed = [
            token
            async for chunk in await client.chat.completions.create(**ask, stream=True)
            if chunk.choices[0].logprobs
            for token in chunk.choices[0].logprobs.content or []
        ]
        older = (await client.completions.create(model="small", prompt="hello", logprobs=2, echo=True)).choices[0]
    logprobs = done.choices[0].logprobs
    assert logprobs and logprobs.content
    ids = small_tokenizer.encode("what light é")
    assert [token.logprob for token in logprobs.content] == [-i / 100 for i in ids]  # what ends the answer is not told
    assert [[top.logprob for top in token.top_logprobs] for token in logprobs.content] == [
        [-i / 100, -(i + 1) / 100] for i in ids
    ]
    told = [token.token for token in logprobs.content]
    assert told == [*(small_tokenizer.decode([i]) for i in ids[:-2]), "\\xc3", "\\xa9"]
    assert bytes(b for token in logprobs.content for b in token.bytes or []).decode() == "what light é"
    assert streamed == logprobs.content
    # The prompt is told as well, first: nothing stands before its first token.
    assert older.text == "hellowhat light é"
    places = older.logprobs
    assert places and places.tokens and places.text_offset and places.token_logprobs and places.top_logprobs
    prompt = small_tokenizer.encode("hello")
    assert places.token_logprobs[: len(prompt)] == [None, *([-0.3] * (len(prompt) - 1))]
    assert places.token_logprobs[len(prompt) :] == [-i / 100 for i in ids]
    assert places.top_logprobs[0] is None and len(places.top_logprobs[1]) == 2
    for text, at in zip(places.tokens[:-2], places.text_offset, strict=False):
        assert older.text[at : at + len(text)] == text
    assert places.text_offset[-2:] == [len(older.text) - 1] * 2 and places.tokens[-2:] == ["bytes:\\xc3", "bytes:\\xa9"]


@pytest.mark.parametrize("params", [{}, {"stop": "gh"}, {"stop": "t é"}, {"stop": ["at l", "zzz"]}, {"max_tokens": 0}])
@pytest.mark.parametrize("echo", [True, False])
async def test_places_are_the_same_streamed_and_whole(small_tokenizer: Tokenizer, params: Any, echo: bool) -> None:
    """And within the text, also where a stop string is cut off in the middle of a token."""
    engine = Scripted(small_tokenizer, "what the light é")
    async with small_router(small_tokenizer, engine=engine) as router, openai_client(Api(router)) as client:
        ask: Any = {"model": "small", "prompt": ["the world", "é"], "logprobs": 1, "echo": echo, **params}
        whole = await client.completions.create(**ask)
        places: Any = [{"tokens": [], "token_logprobs": [], "text_offset": [], "top": []} for _ in range(2)]
        texts = ["", ""]
        async for chunk in await client.completions.create(**ask, stream=True):
            for choice in chunk.choices:
                at, found = choice.index, choice.logprobs
                texts[at] += choice.text
                if found:
                    for name in ("tokens", "token_logprobs", "text_offset"):
                        places[at][name] += getattr(found, name)
                    places[at]["top"] += found.top_logprobs or []
    for choice, text, told in zip(whole.choices, texts, places, strict=True):
        found = choice.logprobs
        assert choice.text == text
        if found is None:
            assert not text and not told["tokens"]
            continue
        assert [found.tokens, found.token_logprobs, found.text_offset] == list(told.values())[:3]
        assert all(at < len(text) for at in found.text_offset or [])
        said = b"".join(_bytes_of(token) for token in found.tokens or [])
        assert said.startswith(text.encode())
        cut = any(stop in said.decode() for stop in ("gh", "t é", "at l"))
        assert said == text.encode() or (cut and "stop" in params)


def _bytes_of(token: str) -> bytes:
    return bytes.fromhex(token[6:].replace("\\x", "")) if token.startswith("bytes:") else token.encode()


async def test_choices_of_one_prompt_share_its_prefill(small_tokenizer: Tokenizer) -> None:
    long: Any = [{"role": "user", "content": "hello world " * 8}]
    async with small_router(small_tokenizer, max_sequences=8) as router, openai_client(Api(router)) as client:
        prompt = len(router.chat(long).prompt_ids)
        done = await client.chat.completions.create(
            model="small", messages=long, n=4, seed=1, temperature=1, max_tokens=3
        )
        calls: list[Any] = router.engine.calls  # type: ignore[attr-defined]
        read = sum(len(feed.tokens) for kind, feeds in calls if kind == "step" for feed in feeds)
        assert read < prompt + 4 * 5  # whole pages once, what does not fill one by each
        assert len({choice.message.content for choice in done.choices}) == 4
        assert done.usage and done.usage.prompt_tokens == prompt
