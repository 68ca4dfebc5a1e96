"""Schemas, regular expressions and grammars: what cannot be followed is refused by name before anybody waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from inpage.engines.protocol import Grammar
from inpage.errors import InvalidRequest, Unsupported
from inpage.requests.grammar import asked_grammar, schema_grammar
from inpage.responses import AnswerCache
from inpage.text.tokenizer import Tokenizer
from support.small import small_router

_NODE = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"schema": "{"}, "schema"),
        ({"schema": 5}, "schema"),
        ({"schema": {"a": object()}}, "schema"),
        ({"schema": {"type": "obj"}}, "schema.type"),
        ({"schema": {"type": "object", "properties": {"a": {"nope": {}}}}}, "schema.properties.a.nope"),
        ({"schema": {"type": "array", "items": {"multipleOf": 0.123457}}}, "schema.items.multipleOf"),
        ({"schema": {"anyOf": [{"uniqueItems": True}]}}, "schema.anyOf[0].uniqueItems"),
        ({"schema": {"allOf": [{}, 5]}}, "schema.allOf[1]"),
        ({"schema": {"$ref": "#/$defs/none"}}, "schema.$ref"),
        ({"schema": {"$ref": "other.json"}}, "schema.$ref"),
        ({"schema": {"enum": []}}, "schema.enum"),
        ({"schema": {"properties": []}}, "schema.properties"),
        ({"schema": {"required": "a"}}, "schema.required"),
        ({"schema": {"type": "string", "maxLength": 5000}}, "schema.maxLength"),
        ({"schema": {"type": "string", "pattern": "^(?!a)"}}, "schema.pattern"),
        ({"schema": {"title": "x" * 70_000}}, "schema"),
        ({"regex": ""}, "regex"),
        ({"regex": "a{1,9999}"}, "regex"),
        ({"regex": "a{1," + "9" * 5000 + "}"}, "regex"),
        ({"grammar": 7}, "grammar"),
        ({"schema": {}, "regex": "a"}, "regex"),
    ],
)
def test_refused(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked_grammar(given)
    assert caught.value.field == field


def test_nested_too_deep() -> None:
    schema: dict[str, Any] = {}
    for _ in range(70):
        schema = {"type": "array", "items": schema}
    with pytest.raises(InvalidRequest, match="deep"):
        asked_grammar({"schema": schema})


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        '{"type": "object"}',
        {"$defs": {"node": _NODE}, "$ref": "#/$defs/node"},
        {"type": "string", "pattern": r"^[A-Z]{2}-\d{1,3}\.$", "description": 'a . and a " do no harm here'},
        {"type": ["string", "null"], "enum": ["a", None]},
    ],
)
def test_accepted(schema: Any) -> None:
    found = asked_grammar({"schema": schema})
    assert found is not None and found.kind == "schema"


def test_of_each_kind() -> None:
    assert asked_grammar({}) is None
    assert asked_grammar({"regex": "a|b"}) == Grammar("regex", "a|b")
    assert asked_grammar({"grammar": 'root ::= "a"'}) == Grammar("ebnf", 'root ::= "a"')


async def test_an_engine_that_cannot_says_so(small_tokenizer: Tokenizer) -> None:
    async with small_router(small_tokenizer) as router:
        with pytest.raises(Unsupported, match="in the page") as caught:
            router.chat("hello", regex="a")
        assert caught.value.field == "regex"


async def test_answers_are_kept_apart_by_grammar(small_tokenizer: Tokenizer) -> None:
    async with small_router(small_tokenizer, answers=AnswerCache(), grammars=True) as router:
        asked: list[dict[str, Any]] = [
            {},
            {"schema": {"type": "object"}},
            {"regex": "a"},
            {"schema": {"type": "object"}},
        ]
        done = await asyncio.gather(*(router.chat("hello", temperature=0, max_tokens=4, **more) for more in asked))
        assert [one.source for one in done] == ["engine", "engine", "engine", "shared"]
        fed = {feed.request: feed for _, feeds in router.engine.calls for feed in feeds if feed.grammar}  # type: ignore[attr-defined]
        assert {feed.grammar for feed in fed.values()} == {
            schema_grammar({"type": "object"}),
            Grammar("regex", "a"),
        }
