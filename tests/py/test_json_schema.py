"""JSON schemas through the real matcher: what they allow and refuse, whatever it says by them, and what is refused by
name. `jsonschema` is the witness."""

from __future__ import annotations

import itertools
import json
import os
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from inpage.errors import InvalidRequest
from inpage.json_schema import compile_schema
from inpage.json_schema.automata import Dfa, both, complement, lengths, words
from inpage.json_schema.formats import NAMES, named
from inpage.json_schema.regex import NotRegular, pattern
from inpage.requests.grammar import asked_grammar
from inpage.requests.tools import asked_tools
from support.calling import HERMES
from support.matching import CASES, matched, source
from support.random_schemas import SchemaMaker, documents

SLOW = bool(os.environ.get("INPAGE_SLOW"))
RANDOM = 5000 if SLOW else 100


def validator(schema: Any) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def test_what_schemas_allow_and_refuse() -> None:
    followed = [case for case in CASES if "refused" not in case]
    assert len(CASES) - len(followed) == 2
    jobs = [{"source": source(c["schema"]), "texts": c["ok"] + c["bad"], "walks": 2, "seed": 7} for c in followed]
    wrong = []
    for case, found in zip(followed, matched(jobs), strict=True):
        if found.get("accepted") != [True] * len(case["ok"]) + [False] * len(case["bad"]):
            wrong.append((case, found))
        nullable = "nullable" in case["schema"]  # which is OpenAPI's
        for said in (text for text in found.get("said", ()) if text is not None and not nullable):
            if not validator(case["schema"]).is_valid(json.loads(said)):
                wrong.append((case, said))
    assert not wrong


@pytest.mark.parametrize("case", [case for case in CASES if "refused" in case], ids=lambda c: c["refused"])
def test_what_cannot_be_followed_names_its_keyword(case: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked_grammar({"schema": case["schema"]})
    assert caught.value.field == case["refused"]
    assert " at #" in str(caught.value)


def test_random_schemas() -> None:
    """Whatever the matcher says by a schema follows it, and it takes every document that does."""
    jobs, asked = [], []
    for seed in range(RANDOM):
        schema = SchemaMaker(seed).schema()
        check = validator(schema)
        try:
            jobs.append({
                "source": compile_schema(json.loads(json.dumps(schema))), "texts": documents(schema, check, seed, 4),
                "walks": 3, "seed": seed,
            })  # fmt: skip
            asked.append((seed, schema, check))
        except InvalidRequest as error:
            assert error.field  # noqa: PT017
    assert len(jobs) > 0.85 * RANDOM  # the others contradict themselves, most of them
    assert sum(len(job["texts"]) for job in jobs) > 3 * len(jobs)
    wrong: list[Any] = []
    ended = 0
    for (seed, schema, check), job, found in zip(asked, jobs, matched(jobs), strict=True):
        if "error" in found:
            wrong.append((seed, schema, found))
            continue
        wrong += [(seed, schema, t) for t, ok in zip(job["texts"], found["accepted"], strict=True) if not ok]
        ended += sum(text is not None for text in found["said"])
        wrong += [(seed, schema, t) for t in found["said"] if t is not None and not check.is_valid(json.loads(t))]
    assert not wrong
    assert ended > 0.9 * 3 * len(jobs)


def test_calls_of_tools_are_held_to_their_parameters() -> None:
    parameters = {
        "type": "object",
        "properties": {"n": {"type": "number", "minimum": 1, "maximum": 10}},
        "required": ["n"],
    }
    tools = [{"type": "function", "function": {"name": name, "parameters": parameters}} for name in ("f", "g")]
    call = '<tool_call>\n{"name": "%s", "arguments": {"n": %s}}\n</tool_call>'
    jobs = []
    for choice in ("required", {"type": "function", "function": {"name": "g"}}):
        grammar = asked_tools(tools, choice, False, HERMES, True).grammar
        assert grammar and grammar.kind == "tag"
        texts = [call % ("f", 2.5), call % ("g", 10), call % ("g", 10.5), call % ("h", 1)]
        jobs.append({"kind": "tag", "source": grammar.source, "texts": texts})
    either, one = matched(jobs)
    assert either == {"accepted": [True, True, False, False], "said": []}
    assert one == {"accepted": [False, True, False, False], "said": []}


@pytest.mark.parametrize(
    ("schema", "field", "why"),
    [
        ({"properties": {"a": {"unknown": 1}}}, "schema.properties.a.unknown", "#/properties/a cannot"),
        ({"items": {"dependencies": {}}}, "schema.items.dependencies", "dependentRequired"),
        ({"format": "phone"}, "schema.format", "it can be date"),
        ({"type": "string", "pattern": "(?=a)b"}, "schema.pattern", "lookahead"),
        ({"pattern": r"(a)\1"}, "schema.pattern", "name the characters"),
        ({"pattern": "a{2,1}"}, "schema.pattern", "out of order"),
        ({"pattern": "["}, "schema.pattern", "without its ]"),
        ({"pattern": r"\ud800"}, "schema.pattern", "surrogate"),
        ({"type": "array", "uniqueItems": True}, "schema.uniqueItems", "leave it out"),
        ({"type": "integer", "minimum": 5, "maximum": 2}, "schema.minimum", "no value"),
        ({"properties": {"a": {"$ref": "#"}}, "required": ["a"], "type": "object"}, "schema.required", "without end"),
        ({"$ref": "#"}, "schema.$ref", "circle"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}, "schema.$defs.a.allOf", "circle"),
        ({"$ref": "#/properties", "properties": {}}, "schema.$ref", "no schema is"),
        ({"oneOf": [{"uniqueItems": True}, {"type": "array"}]}, "schema.oneOf[0].uniqueItems", "denied"),
        ({"allOf": 5}, "schema.allOf", "a list"),
        ({"patternProperties": 5}, "schema.patternProperties", "an object"),
        ({"exclusiveMinimum": True}, "schema.exclusiveMinimum", "a number"),
        ({"minimum": 10**400}, "schema.minimum", "digits"),
        ({"type": "integer", "not": {"const": 10**400}}, "schema.not.const", "digits"),
        ({"type": "number", "not": {"multipleOf": 1e-200}}, "schema.not.multipleOf", "digits"),
        ({"const": 5, "minimum": 10**60}, "schema.minimum", "digits"),
        ({"enum": [1, 10**60]}, "schema.enum", "digits"),
        ({"maxLength": 10**400}, "schema.maxLength", "more than"),
        ({"minItems": 1.5}, "schema.minItems", "whole number"),
        ({"const": "\ud800"}, "schema", "JSON"),
        (False, "schema", "nothing"),
    ],
)
def test_refused_by_name(schema: Any, field: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        asked_grammar({"schema": schema})
    assert caught.value.field == field


def nested(keyword: str, depth: int, *, twice: bool) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {keyword: [schema, schema] if twice else schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "bounded"),
    [
        (nested("anyOf", 10, twice=True), "anyOf"),
        (nested("oneOf", 9, twice=True), "anyOf"),
        (nested("allOf", 10, twice=True), ""),
        (nested("not", 40, twice=False), ""),
        (nested("items", 60, twice=False), ""),
        ({"type": "string", "pattern": "(((((a{1,9}){1,9}){1,9}){1,9}){1,9}){1,9}"}, "pattern"),
        ({"type": "string", "pattern": "(a|b)*a(a|b){14}"}, "pattern"),
        ({"type": "string", "pattern": "^(a?){500}a{500}$"}, "pattern"),
        ({"type": "string", "pattern": "(" * 500 + "a" + ")" * 500}, "pattern"),
        ({"type": "string", "pattern": "a{1," + "9" * 5000 + "}"}, "pattern"),
        ({"type": "string", "format": "email", "maxLength": 4000}, "format"),
        ({"type": "string", "format": "email", "maxLength": 254}, "maxLength"),
        ({"properties": {f"p{i}": {"pattern": f"^a{{1,{i + 1}}}b"} for i in range(300)}}, "pattern"),
        ({"properties": {f"p{i}": {"pattern": f"^[a-z]{{{i}}}$"} for i in range(60)}}, "schema"),
        ({"allOf": [{"anyOf": [{"minimum": i}, {"maxLength": i}]} for i in range(12)]}, "anyOf"),
        ({"properties": {f"p{i}": {} for i in range(200)}, "maxProperties": 100}, "maxProperties"),
        ({"type": "array", "contains": {"const": 1}, "maxItems": 4000}, "contains"),
        (
            {"$ref": "#/$defs/0", "$defs": {str(i): {"allOf": [{"$ref": f"#/$defs/{i + 1}"}] * 2} for i in range(60)}},
            "allOf",
        ),
    ],
)
def test_large_ones_are_refused_within_bounds(schema: Any, bounded: str) -> None:
    """``bounded``: the keyword that is refused; none where the schema is small when it is looked at."""
    if not bounded:
        assert len(source(schema)) < 1 << 15
        return
    with pytest.raises(InvalidRequest) as caught:
        source(schema)
    assert str(caught.value.field).endswith(bounded)


@pytest.mark.parametrize(
    "source", ["^a$|^b$", "a|b", "^(a|b)*c?$", "x{2,3}y", "(?:ab)+?c", "^", "$", "^$", "a.b", "a(b$|c)"]
)
def test_patterns_are_what_python_takes_them_for(source: str) -> None:
    automaton = pattern(source)
    for n in range(5):
        for chars in itertools.product("abcxy.", repeat=n):
            text = "".join(chars)
            assert automaton.accepts(text) == bool(re.search(source, text)), text


def test_automata_are_as_small_as_can_be() -> None:
    some = both(lengths(0, 900), pattern("^[a-z]*$"))
    assert len(some.final) == 901
    assert both(some, complement(some)) == Dfa(((),), (False,))
    names = words(["ab", "cb", "b"])
    assert len(names.final) == 3
    assert complement(complement(names)) == names
    with pytest.raises(NotRegular, match="too large"):
        pattern("(a|b)*a(a|b){14}")


def test_formats_are_known() -> None:
    for name in NAMES:
        assert any(named(name).final)
