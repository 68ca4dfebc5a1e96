"""JSON from outside: bounded in depth and size before anything recurses over it, wherever it comes in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inpage.errors import ArtifactInvalid, InpageError, InvalidRequest
from inpage.format import bounded
from inpage.requests.grammar import schema_grammar
from inpage.requests.messages import checked_messages
from inpage.requests.params import checked_ids, options
from inpage.requests.tool_calls import CallReader, Said
from inpage.requests.tools import asked_tools
from inpage.responses import Answer
from inpage.responses.bundle import Bundle
from inpage.settings import settings_from
from inpage.text.tokenizer import load_tokenizer
from inpage.worker.messages import RouterWorker

PACKAGE = Path(bounded.__file__).parents[1]
DEEP = "[" * 3000 + "]" * 3000


def nested(depth: int = 3000, kind: str = "list") -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


def test_what_is_within_the_bounds_is_read_as_json_reads_it() -> None:
    texts = ['{"a": [1, 2.5, "x[[[[", null, true]}', '"\\u00e9 \\ud83d\\ude00"', "[" * 100 + "]" * 100, " 1 "]
    texts += [json.dumps(["[" * 500 + '"\\' * 99]), json.dumps({"{" * 200: "]" * 200})]
    for text in texts:
        assert bounded.read(text) == bounded.read(text.encode()) == json.loads(text)
    assert bounded.read("\ufeff1".encode()) == 1


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (DEEP, None),
        ("[" * 101 + "]" * 101, None),
        ("[" * 3000, None),
        ('{"a":' * 3000 + "1" + "}" * 3000, "a"),
        ('[{"a":' * 60 + "1" + "}]" * 60, None),
        (f'{{"id": 1, "op": "chat", "params": {{"seed": 1, "tags": {DEEP}}}}}', "tags"),
        (f'{{"messages": [{{"content": "x"}}], "tools": [{{"function": {DEEP}}}]}}', "tools"),
        (f'{{"a\\"[": {{"b": 1}}, "schema": {{"p": {DEEP}}}}}', "schema"),
        ("[" + "1," * (1 << 20) + "1]", None),
        ("[" + "[]," * (1 << 20) + "1]", None),
        ("[" * 8_000_000, None),
    ],
)
def test_what_is_too_deep_or_too_much_is_refused_before_it_is_parsed(
    text: str, field: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("it was parsed"))
    with pytest.raises(bounded.Excessive) as caught:
        bounded.read(text)
    assert caught.value.field == field


@pytest.mark.parametrize("text", ["", "{", "NaN", "[Infinity]", '"\\' * 9, "1" * 5000, "[1,]", '"' + '\\"' * 500_000])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        bounded.read(text)


def test_values_in_memory_are_walked_without_recursion() -> None:
    bounded.check({"a": [1, (2, {"b": {3}})]}, "x")
    bounded.check(nested(100), "x")
    cycle: list[Any] = []
    cycle.append(cycle)
    wide: Any = 1
    for _ in range(60):
        wide = [wide, wide]
    for bad in (nested(), nested(kind="dict"), (nested(),), cycle, wide, {"a": nested(101)}):
        with pytest.raises(InvalidRequest) as caught:
            bounded.check(bad, "tags")
        assert caught.value.field == "tags"


MANY = json.dumps({f"key {i}": 0 for i in range(bounded.KEYS + 1)})


def test_keys_that_could_be_made_to_collide_are_counted_before_they_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    most = {f"key {i}": i for i in range(bounded.KEYS)}
    again = [{"a": i, "a:b": '"c":'} for i in range(2 * bounded.KEYS)]
    for value in (most, again, [":" * 3 * bounded.KEYS, '"x": ' * bounded.KEYS, most]):
        assert bounded.read(json.dumps(value)) == value
    more = json.loads(MANY)
    assert bounded.read(MANY, keys=len(more)) == more
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("it was parsed"))
    apart = json.dumps([{key: 0} for key in more])  # the parser has one table for all of a text
    for text in (MANY, apart, MANY.replace(":", " \n:"), MANY[:-1]):
        with pytest.raises(bounded.Excessive, match="more than 10000 different keys"):
            bounded.read(text)


CALLS: list[tuple[Callable[[], Any], type[InpageError], str]] = [
    (lambda: options({"tags": nested()}, 10), InvalidRequest, "tags"),
    (lambda: options({"seed": nested()}, 10), InvalidRequest, "seed"),
    (lambda: options({"logit_bias": {"1": nested()}}, 10), InvalidRequest, "logit_bias"),
    (lambda: options({"schema": nested(kind="dict")}, 10), InvalidRequest, "schema"),
    (lambda: options({"schema": DEEP}, 10), InvalidRequest, "schema"),
    (lambda: options({"schema": {"const": nested()}}, 10), InvalidRequest, "schema"),
    (lambda: schema_grammar({"enum": [nested()]}, "here"), InvalidRequest, "here"),
    (lambda: checked_messages([{"role": "user", "content": nested()}]), InvalidRequest, "messages"),
    (lambda: checked_messages(nested()), InvalidRequest, "messages"),
    (lambda: checked_messages([_called(DEEP)]), InvalidRequest, "messages[0].tool_calls[0].function.arguments"),
    (lambda: checked_ids([1, nested()], 10, "prompt"), InvalidRequest, "prompt"),
    (lambda: asked_tools([_tool(nested(kind="dict"))], None, None, "tools", True), InvalidRequest, "tools"),
    (lambda: asked_tools(None, nested(kind="dict"), None, "tools", True), InvalidRequest, "tool_choice"),
    (lambda: settings_from({"kv": nested(kind="dict")}), InvalidRequest, "settings"),
    (lambda: Bundle(DEEP), ArtifactInvalid, "answers"),
    (lambda: options({"schema": MANY}, 10), InvalidRequest, "schema"),
    (lambda: checked_messages([_called(MANY)]), InvalidRequest, "messages[0].tool_calls[0].function.arguments"),
    (lambda: load_tokenizer(DEEP, {}), ArtifactInvalid, "tokenizer.file"),
]


def _called(arguments: str) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}


def _tool(parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


@pytest.mark.parametrize(("call", "kind", "field"), CALLS)
def test_each_way_in_is_bounded(call: Callable[[], Any], kind: type[InpageError], field: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.field == field


def test_a_call_that_the_model_nests_too_deeply_is_text() -> None:
    reader = CallReader()
    text = f'<tool_call>{{"arguments": {{"a": {DEEP}}}, "name": "f"}}</tool_call>'
    events = reader.push(text) + reader.flush()
    assert "".join(event.text for event in events if isinstance(event, Said)) == text


def test_a_kept_answer_that_is_too_deep_counts_as_absent() -> None:
    import zlib

    assert Answer.unpack(zlib.compress(DEEP.encode())) is None


def test_the_page_refuses_a_message_by_its_id() -> None:
    sent: list[Any] = []
    page = RouterWorker(lambda text: sent.append(json.loads(text)))
    page.handle(f'{{"id": 7, "op": "chat", "params": {{"tags": {DEEP}}}}}')
    assert [(one["id"], one["error"]["code"], one["error"]["field"]) for one in sent] == [
        (7, "invalid_request", "tags")
    ]
    page.handle(f'{{"id": 8, "op": "chat", "params": {{"logit_bias": {MANY}}}}}')
    assert (sent[1]["id"], sent[1]["error"]["code"]) == (8, "invalid_request")
    assert "different keys" in sent[1]["error"]["message"]
    for text in ("", "[]", "{}", DEEP, '{"id": "x", "op": "chat"}', '{"id": 1}', "nonsense"):
        page.handle(text)
    assert len(sent) == 2


def test_nothing_else_parses_json() -> None:
    """What the package ships itself, and what its own processes say, is not from outside."""
    own = ("bench/", "cli/vendor.py", "cli/scripts.py", "cli/snapshot.py", "cli/profile.py", "format/bounded.py")
    found = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r"\bjson\.loads?\(", path.read_text("utf-8"))
    ]
    assert [name for name in found if not name.startswith(own)] == []
