"""OpenAI's own client: answers in a format, and logprobs. That a format is followed is for the page's tests to show."""

from __future__ import annotations

from typing import Any

import pytest

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
    assert [token.token for token in logprobs.content] == [small_tokenizer.decode([i]) for i in ids]
    whole = [token for token in logprobs.content if token.bytes is not None]
    assert bytes(b for token in whole for b in token.bytes or []).decode() == "what light "
    assert len(logprobs.content) - len(whole) == 2  # the two bytes of é
    assert streamed == logprobs.content
    assert older.logprobs and older.logprobs.token_logprobs == [-i / 100 for i in ids]
    assert older.logprobs.tokens and older.logprobs.text_offset
    for text, at in zip(older.logprobs.tokens[:-2], older.logprobs.text_offset, strict=False):
        assert older.text[at : at + len(text)] == text


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
