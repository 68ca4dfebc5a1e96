"""Hostile values that once ended in an exception of Python's own, by where they come in."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers

from inpage.cli.api.app import Access
from inpage.cli.http_request import Hosts, Refused
from inpage.errors import ArtifactInvalid, InpageError, InvalidRequest
from inpage.format import bounded
from inpage.host.artifact_store import open_store
from inpage.openai import Api
from inpage.openai.requests import chat_request
from inpage.openai.response_requests import response_request
from inpage.requests.grammar import schema_grammar
from inpage.requests.messages import checked_messages
from inpage.requests.params import checked_ids, options
from inpage.requests.tool_calls import Argued, Called, CallReader, Said
from inpage.responses import Answer, Bundle
from inpage.settings import settings_from
from inpage.text.chat_template import ChatTemplate
from inpage.text.tokenizer import Tokenizer, load_tokenizer
from inpage.worker.messages import RouterWorker
from support.scripted import Scripted
from support.small import small_router, small_tokenizer_json
from support.tiny import TEMPLATE

HUGE, LONG = 10**400, 10**5000
_HI = [{"role": "user", "content": "hi"}]


def _called(**more: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}, **more}]}]


def _deep() -> Any:
    """One list too many, the innermost empty."""
    value: Any = []
    for _ in range(100):
        value = [value]
    return value


CASES: list[tuple[Callable[[], Any], str]] = [
    (lambda: options({"temperature": HUGE}, 10), "temperature"),
    (lambda: options({"top_p": -HUGE}, 10), "top_p"),
    (lambda: options({"timeout": LONG}, 10), "timeout"),
    (lambda: options({"seed": LONG}, 10), "seed"),
    (lambda: options({"logit_bias": {"9" * 5000: 1}}, 10), f"logit_bias[{'9' * 60}…]"),
    (lambda: options({"logit_bias": {"٣": 1}}, 10), "logit_bias[٣]"),
    (lambda: options({"x" * 5000: 1}, 10), "x" * 60 + "…"),
    (lambda: options({5: 1, "nope": 1}, 10), "5"),  # type: ignore[dict-item]
    (lambda: checked_ids([1, LONG], 10, "prompt"), "prompt[1]"),
    (lambda: chat_request({"messages": _HI, "response_format": "json_schema"}), "response_format.type"),
    (lambda: response_request({"input": [{"role": "user", "content": ["input_text"]}]}), "input[0].content[0].type"),
    (lambda: response_request({"input": "hi", "tools": ["function"]}), "tools[0].type"),
    (lambda: checked_messages([{"role": "user", "content": ["text"]}]), "messages[0].content[0].type"),
    (
        lambda: checked_messages([{"role": "assistant", "tool_calls": 5, "function_call": {"name": "f"}}]),
        "messages[0].tool_calls",
    ),
    (lambda: checked_messages(_called(id=LONG)), "messages[0].tool_calls[0].id"),
    (lambda: checked_messages(_called(id="\ud800")), "messages[0].tool_calls[0].id"),
    (lambda: settings_from({"scheduler": {"timeout": HUGE}}), "scheduler.timeout"),
    (lambda: settings_from({"scheduler": {"queue_size": -LONG}}), "scheduler.queue_size"),
    (lambda: settings_from({"wasm": {"memory_initial": LONG}}), "wasm.memory_maximum"),
    (lambda: settings_from({"scheduler": {"9" * 5000: 1}}), f"scheduler.{'9' * 60}…"),
    (lambda: response_request({"input": [{"role": "user", "content": [["x"]]}]}), "input[0].content[0].type"),
    (lambda: schema_grammar({"const": _deep()}), "schema"),
]


@pytest.mark.parametrize(("call", "field"), CASES, ids=range(len(CASES)))
def test_a_hostile_value_is_refused_by_name(call: Callable[[], Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        call()
    assert caught.value.field == field and len(str(caught.value)) < 1000


def test_depth_counts_the_same_in_memory_and_as_text() -> None:
    with pytest.raises(InvalidRequest, match="deep"):
        bounded.check(_deep(), "x")
    with pytest.raises(bounded.Excessive, match="deep"):
        bounded.read(json.dumps(_deep()))
    bounded.check(_deep()[0], "x")
    assert bounded.read(json.dumps(_deep()[0])) == _deep()[0]


async def test_an_answer_that_expires_beyond_every_number_is_absent() -> None:
    parts = [2, "k", [5], "stop", [], HUGE]
    digest = hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()
    packed = zlib.compress(json.dumps([2, [5], "stop", [], digest, HUGE]).encode())
    assert Answer.unpack(packed, "k") is None
    text = json.dumps({"version": 1, "answers": {"k": base64.b64encode(packed).decode()}})
    assert await Bundle(text).get("k") is None


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http://]", "//[x]/"])
def test_an_origin_that_is_none_is_refused(origin: str) -> None:
    headers = Headers(raw=[(b"host", b"localhost"), (b"origin", origin.encode())])
    with pytest.raises(Refused) as caught:
        Access(Hosts({"localhost"})).check(headers)
    assert caught.value.status == 403


@pytest.mark.parametrize("where", ["x" * 5000, "a\0b", "/" + "x/" * 5000])
async def test_a_place_that_can_be_none_has_no_artifact(where: str) -> None:
    with pytest.raises(ArtifactInvalid, match="cannot be read"):
        await open_store(where).manifest()


# -- what a model writes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ['"f\\a"', '"\\ud800"', '"\\u12"'])
def test_a_call_whose_name_is_no_json_is_text(name: str) -> None:
    text = f'<tool_call>{{"name": {name}, "arguments": {{"a": 1}}}}</tool_call> more'
    for pieces in ([text], list(text)):
        reader = CallReader()
        events = [event for piece in pieces for event in reader.push(piece)] + reader.flush()
        assert all(isinstance(event, Said) for event in events)
        assert "".join(event.text for event in events if isinstance(event, Said)) == text


def test_half_a_character_in_arguments_stays_an_escape() -> None:
    reader = CallReader()
    events = reader.push('<tool_call>{"arguments": {"a": "\\ud800é"}, "name": "f"}</tool_call>')
    assert [type(event) for event in events] == [Called, Argued]
    assert isinstance(events[1], Argued)
    events[1].text.encode()
    assert json.loads(events[1].text) == {"a": "\ud800é"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_a_stream_ends_whatever_call_the_model_writes(small_tokenizer: Tokenizer, path: str) -> None:
    says = '<tool_call>{"name": "f\\a", "arguments": {}}</tool_call>'
    template = TEMPLATE + "{% if tools %}<tool_call>{% endif %}"
    router = small_router(small_tokenizer, engine=Scripted(small_tokenizer, says), manifest={"chat_template": template})
    function = {"name": "f", "parameters": {"type": "object"}}
    body: dict[str, Any] = {"stream": True, "temperature": 0}
    if path == "/v1/responses":
        body |= {"input": "hi", "tools": [{"type": "function", **function}]}
    else:
        body |= {"messages": [{"role": "user", "content": "hi"}], "tools": [{"type": "function", "function": function}]}
    reply = await Api(router).handle("POST", path, json.dumps(body))
    assert reply.status == 200 and not isinstance(reply.body, str)
    told = "".join([chunk async for chunk in reply.body])
    lines = [json.loads(line[6:]) for line in told.split("\n") if line.startswith("data: {")]
    if path == "/v1/responses":
        text = "".join(line["delta"] for line in lines if line["type"] == "response.output_text.delta")
    else:
        text = "".join(choice["delta"].get("content") or "" for line in lines for choice in line.get("choices", ()))
    assert text == says and not any(line.get("error") for line in lines if "choices" in line)
    await router.unload()


# -- other libraries -----------------------------------------------------------------------------------------------


def test_what_the_tokenizer_library_raises_on_a_text_is_typed() -> None:
    description = json.loads(small_tokenizer_json())
    description["model"] |= {"unk_token": "none of them", "vocab": {"a": 5}, "merges": []}
    tokenizer = load_tokenizer(json.dumps(description), {})
    with pytest.raises(ArtifactInvalid, match="on this text") as caught:
        tokenizer.encode("b")
    assert caught.value.field == "tokenizer.file"


def test_a_panic_of_the_tokenizer_library_is_typed() -> None:
    description = json.loads(small_tokenizer_json())
    description["model"] |= {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
    description["model"]["continuing_subword_prefix"] = "####"  # longer than what it is taken from
    with pytest.raises(ArtifactInvalid, match=r"tokenizer\.json cannot be used: .*range"):
        load_tokenizer(json.dumps(description), {})


def test_half_a_character_is_no_text(small_tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="half a character"):
        small_tokenizer.encode("a\ud800")
    with pytest.raises(InpageError):
        ChatTemplate("{{ '\\ud800' }}", small_tokenizer, bos=1, eos=2).encode([{"role": "user", "content": "hi"}])


def test_what_a_template_says_is_shortened(small_tokenizer: Tokenizer) -> None:
    with pytest.raises(ArtifactInvalid) as caught:
        ChatTemplate("{% " + "x" * 9000 + " %}", small_tokenizer, bos=1, eos=2)
    assert "x" * 30 in str(caught.value) and "x" * 61 not in str(caught.value)


# -- the page's messages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"op": "unload", "model": {"a": 1}}, "model"),
        ({"op": "chat", "model": ["a"], "messages": "hi"}, "model"),
        ({"op": "complete", "prompt": "hi", "params": {"prompt": "hi"}}, "prompt"),
        ({"op": "chat", "messages": "hi", "params": {"self": 1}}, "self"),
        ({"op": "load"}, "artifact"),
        ({"op": "load", "artifact": 5}, "artifact"),
        ({"op": "load", "artifact": "a", "models": 5}, "models"),
        ({"op": "load", "artifact": "a", "models": [{"model": "b"}]}, "artifact"),
        ({"op": "add", "artifact": "a", "replicas": 1.5}, "replicas"),
        ({"op": "add", "artifact": "a", "threads": True}, "threads"),
        ({"op": "pin", "pinned": True}, "model"),
        ({"op": "load", "artifact": "a", "backend": {}}, "backend"),
    ],
)
async def test_a_message_of_another_shape_is_refused_by_name(message: dict[str, Any], field: str) -> None:
    sent: list[Any] = []
    worker = RouterWorker(lambda text: sent.append(json.loads(text)))
    worker.handle(json.dumps({"id": 3, **message}))
    while worker._tasks:
        await asyncio.sleep(0)
    assert [(one["id"], one["error"]["code"], one["error"]["field"]) for one in sent] == [(3, "invalid_request", field)]


def test_no_one_else_quotes() -> None:
    """Messages repeat what came from outside by `quoted`, which bounds it, whatever it is."""
    package = Path(bounded.__file__).parents[1]
    own = ("errors.py", "bench/", "cli/", "observe/", "json_schema/regex.py")
    found = [
        f"{path.relative_to(package).as_posix()}: {line.strip()}"
        for path in package.rglob("*.py")
        if not path.relative_to(package).as_posix().startswith(own)
        for line in path.read_text("utf-8").splitlines()
        if "!r}" in line or "!r:" in line
    ]
    assert found == []
