"""Grammars in the native engine: the masks that a page has, answers of the real model that follow, what is refused."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import re
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator

from inpage.engines import native_needs
from inpage.engines.guided_decoding import Held
from inpage.engines.native_grammar import Grammars, Vocabulary
from inpage.engines.native_needs import library
from inpage.engines.native_xgrammar import program
from inpage.engines.protocol import Grammar
from inpage.errors import InvalidRequest, Unsupported
from inpage.requests.grammar import asked_grammar
from inpage.requests.tools import asked_tools
from inpage.router import Router
from support.calling import HERMES
from support.matching import CASES, matched, source

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

SLOW = bool(os.environ.get("INPAGE_SLOW"))
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 1, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def router(artifact: Path) -> AsyncIterator[Router]:
    async with await Router.load(artifact) as router:
        yield router


async def test_masks_are_those_of_the_page() -> None:
    followed = [case for case in CASES if "refused" not in case][:: 1 if SLOW else 12]
    jobs: list[dict[str, Any]] = [{"source": source(case["schema"])} for case in followed]
    tools = [{"type": "function", "function": {"name": "f", "parameters": PERSON, "strict": True}}]
    tag = asked_tools(tools, "required", False, HERMES, True).grammar
    assert tag
    jobs += [{"kind": "regex", "source": r"[a-c]{2,5}é|\d+"}, {"kind": "tag", "source": tag.source}]
    jobs = [job | {"walks": 2, "seed": 3, "trace": True} for job in jobs]
    words, *found = matched([{"vocabulary": True}, *jobs])
    own = Grammars(program(*library()), Vocabulary("byte_level", words["texts"], tuple(words["stops"])), 4)
    size = 4 * -(-len(words["texts"]) // 32)
    compared = 0
    for i, (job, page) in enumerate(zip(jobs, found, strict=True)):
        grammar = Grammar(job.get("kind", "schema"), job["source"])
        own.prepare(grammar)
        for trace in page["traces"]:
            held = Held(grammar, str(i), [])  # the second goes back to where it parts from the first
            masks = hashlib.sha256(own.mask(held)[:size])
            for token in trace["ids"]:
                held.tokens.append(token)
                masks.update(own.mask(held)[:size])
            assert masks.hexdigest() == trace["masks"], job["source"]
            compared += 1
    assert compared > len(jobs)


async def test_what_is_no_grammar_is_refused_and_the_next_works() -> None:
    own = Grammars(program(*library()), Vocabulary("byte_level", [*map(chr, range(33, 127)), "<end>"], (94,)), 4)
    own.prepare(Grammar("ebnf", 'root ::= "a"'))
    freed = weakref.ref(own._library)
    with pytest.raises(InvalidRequest, match=r"grammar cannot be followed: .*nothing") as caught:
        own.prepare(Grammar("ebnf", "root ::= nothing"))
    assert caught.value.field == "grammar"
    del caught
    gc.collect()
    assert freed() is None  # each has memory of its own
    good = Grammar("ebnf", 'root ::= "a"+ "b"')
    own.prepare(good)
    first = own.mask(Held(good, "r", []))
    assert int.from_bytes(first, "little") == 1 << ord("a") - 33
    after = own.mask(Held(good, "r", [ord("a") - 33] * 3))
    assert int.from_bytes(after, "little") == 1 << ord("a") - 33 | 1 << ord("b") - 33
    assert int.from_bytes(own.mask(Held(good, "r", [ord("a") - 33])), "little") == int.from_bytes(after, "little")
    with pytest.raises(InvalidRequest, match="does not follow"):
        own.mask(Held(good, "r", [ord("b") - 33]))


async def test_answers_follow_what_they_are_held_to_and_change_no_other(router: Router) -> None:
    plain = {"temperature": 0, "max_tokens": 24}
    alone = await router.chat("What is gravity?", **plain)
    person = Draft202012Validator(PERSON)
    heard: list[str] = []

    async def streamed() -> str:
        async for delta in router.chat("Name a person.", schema=PERSON, temperature=1.2, seed=5, max_tokens=60):
            heard.append(delta.text)
        return "".join(heard)

    beside, said, regex, ebnf = await asyncio.gather(
        router.chat("What is gravity?", **plain),
        streamed(),
        router.chat(
            "Say something", regex=r"(yes|no), [a-z]{3}\.", temperature=1, seed=1, max_tokens=30, logprobs=True
        ),
        router.chat("2+3", grammar='root ::= [1-9] " + " [1-9]', temperature=1, seed=2, max_tokens=30),
    )
    assert beside.token_ids == alone.token_ids
    assert person.is_valid(json.loads(said)), said
    assert re.fullmatch(r"(yes|no), [a-z]{3}\.", regex.text)
    assert len(regex.logprobs or ()) == len(regex.token_ids)
    assert re.fullmatch(r"[1-9] \+ [1-9]", ebnf.text) and ebnf.finish_reason == "stop"
    again = await router.chat("Name a person.", schema=PERSON, temperature=1.2, seed=5, max_tokens=60)
    assert again.text == said
    with pytest.raises(InvalidRequest, match="cannot be followed") as caught:
        await router.chat("x", grammar="root ::= nothing")
    assert caught.value.field == "grammar"


async def test_a_machine_without_wasmtime_says_what_it_lacks(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_needs, "find_spec", lambda _: None)
    async with await Router.load(artifact) as router:
        assert asked_grammar({"schema": PERSON})
        with pytest.raises(Unsupported, match="install wasmtime") as caught:
            router.chat("x", schema=PERSON)
        assert caught.value.field == "schema"
