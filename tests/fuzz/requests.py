"""Readers of what is asked: parameters, messages, tools, grammars, settings, calls that a model writes, HTTP."""

from __future__ import annotations

import json
import socket
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers

from inpage.cli.api.app import Access
from inpage.cli.http_request import Hosts, Refused, RequestReader, accepts_gzip, matches, parse, parse_range
from inpage.cli.static import Folder
from inpage.format import bounded
from inpage.requests.grammar import asked_grammar, schema_grammar
from inpage.requests.messages import checked_messages
from inpage.requests.params import checked_ids, options
from inpage.requests.tool_calls import Argued, Called, CallReader, Said
from inpage.requests.tools import asked_tools
from inpage.settings import read_settings, settings_from
from support.tiny import VOCAB

from .harness import Fault, Reader
from .mutate import TEXTS, Mutator

PARAMS: dict[str, Any] = {
    "temperature": 0.5, "top_k": 5, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.1, "presence_penalty": 0.1,
    "frequency_penalty": -0.5, "seed": 3, "logit_bias": {"1": 2, "5": -1.5}, "max_tokens": 4, "stop": ["a", "b"],
    "client": "c", "priority": 1, "timeout": 3.5, "cache": True, "tags": ["t"], "schema": {"type": "object"},
    "logprobs": 2, "max_repeats": 4, "n": 1, "stream": False, "stream_options": {"include_usage": True},
    "metadata": {"a": "b"}, "user": "u", "response_format": {"type": "json_schema", "json_schema": {
        "name": "x", "strict": True, "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}},
}  # fmt: skip
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [{"type": "text", "text": "hi <|im_end|>"}], "name": "n"},
    {"role": "assistant", "content": None, "refusal": "no", "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": [1, "x"]}'}},
        {"id": "2", "type": "function", "function": {"name": "f", "arguments": {"a": {"b": None}}}}]},
    {"role": "tool", "tool_call_id": "1", "content": "<|im_start|>", "name": "f"},
    {"role": "assistant", "content": "x", "function_call": {"name": "f", "arguments": "{}"}, "annotations": []},
    {"role": "developer", "content": "so"},
]  # fmt: skip
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "f", "description": "does", "strict": True, "parameters": {
        "type": "object", "properties": {"a": {"type": "integer", "minimum": 0}}, "required": ["a"]}}},
    {"type": "function", "function": {"name": "g", "parameters": {"type": "object"}}},
]  # fmt: skip
CHOICE = {"type": "function", "function": {"name": "f"}}
TOOL_TEMPLATE = "{% if tools %}<tool_call>{% endif %}"
GRAMMARS = ('root ::= "a" (b | [a-z]{1,3})*\nb ::= "x" root', "[a-z]{1,3}(ab|c)*\\d+", '{"type": "object"}')
SETTINGS: dict[str, Any] = {
    "scheduler": {"queue_size": 3, "timeout": None, "batch_timeout": 0.5, "max_concurrent": 5},
    "kv": {"prefix_bytes": 5, "system_prompts": ["a", "b"], "storage_path": "x"},
    "answers": {"enabled": True, "memory_entries": 3, "bundle": None},
    "engine": {"backend": "wasm", "threads": 2},
    "wasm": {"memory_initial": 0, "memory_maximum": 1 << 30, "shared": True},
    "webgpu": {"power_preference": "low-power", "burst_ms": 5},
}
TOML = """[scheduler]
queue_size = 3 # few
timeout = 1.5
[kv]
system_prompts = ["a", '''b''']
[answers]
enabled = true
bundle = "x\\u00e9"
"""
CALLS = (
    'hi\n<tool_call>\n{"name": "f", "arguments": {"a": "x\\"}", "b": [1, {"c": null}]}}\n</tool_call>\n<tool_call>'
    '{"arguments": {"a": 1}, "name": "g"}</tool_call> bye',
    '<tool_call>{"name": "f\\u00e9\\n", "parameters": {"a": 1e5}}</tool_call>',
)
HEADS = (
    b"GET /a/b.html?x=1 HTTP/1.1\r\nHost: localhost:8000\r\nRange: bytes=0-5\r\nAccept-Encoding: gzip;q=1, br\r\n"
    b'If-None-Match: W/"x", "y"\r\nConnection: keep-alive\r\nContent-Length: 0',
    b"HEAD http://127.0.0.1:80/%C3%A9 HTTP/1.0\nhost: [::1]:65535\nrange: bytes=-5",
    b"GET / HTTP/1.1\r\nHost: a.localhost.\r\nOrigin: http://[::1]:5\r\nRange: bytes=5-",
)
RANGES = ("bytes=0-5", "bytes=-5", "bytes=5-", "bytes = 1 - 2", "bytes=0-1,2-3", "items=0-5")
HOSTS = ("localhost:8000", "127.0.0.1", "[::1]:80", "a.localhost", "example.org:1", "[::ffff:127.0.0.1]")
ORIGINS = ("http://localhost:8000", "null", "http://[::1]:80", "https://a.b/c?d#e")
_ALL = Hosts({"127.0.0.1"}), Hosts({"0.0.0.0"}), Hosts({"example.org"})


def schemas() -> list[Any]:
    stored = Path(__file__).parents[1] / "reference" / "json-schemas.json"
    return [case["schema"] for case in json.loads(stored.read_text("utf-8"))]


_schemas = cache(schemas)


def _any_of(m: Mutator, documents: Any) -> Any:
    return m.value(m.rng.choice(documents), documents)


def _params(params: Any) -> None:
    if isinstance(params, dict):
        options(params, VOCAB)


def _messages(messages: Any) -> None:
    for message in checked_messages(messages):
        json.dumps(message).encode()


def _tools(asked: Any) -> None:
    asked_tools(asked["tools"], asked["choice"], asked["parallel"], TOOL_TEMPLATE, True)


def _make_tools(m: Mutator) -> Any:
    choice = m.rng.choice((None, "auto", "required", CHOICE))
    parts = {"tools": TOOLS, "choice": choice, "parallel": m.rng.choice((None, True, False))}
    name = m.rng.choice(("tools", "tools", "choice", "parallel"))
    return parts | {name: m.value(parts[name], TOOLS)}


def _grammar(given: tuple[str, Any]) -> None:
    asked_grammar({given[0]: given[1]})


def _make_grammar(m: Mutator) -> tuple[str, Any]:
    text: Any = m.text(m.rng.choice(GRAMMARS)) if m.rng.random() < 0.8 else m.value(GRAMMARS[0])
    return m.rng.choice(("regex", "grammar", "schema")), text


def _schema(schema: Any) -> None:
    schema_grammar(schema, "schema").source.encode()


def _calls(pieces: list[str]) -> None:
    """What is told must be texts that can be sent; arguments that ended are JSON as far as the model wrote JSON."""
    reader = CallReader()
    events = [event for piece in pieces for event in reader.push(piece)] + reader.flush()
    for event in events:
        text = event.name if isinstance(event, Called) else event.text
        if not isinstance(event, Said | Called | Argued) or not isinstance(text, str):
            raise Fault(f"{event!r}")
        text.encode()


def _make_calls(m: Mutator) -> list[str]:
    text = m.text(m.rng.choice(CALLS)).encode("utf-8", "replace").decode()  # a decoder gives no lone surrogates
    cuts = sorted(m.rng.randint(0, len(text)) for _ in range(m.rng.choice((0, 1, 5, 20))))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def _settings_file(given: tuple[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"settings{given[0]}"
        path.write_bytes(given[1])
        read_settings(path)


def _make_settings_file(m: Mutator) -> tuple[str, bytes]:
    if m.rng.random() < 0.5:
        return ".toml", m.bytes(m.text(TOML).encode("utf-8", "surrogatepass"))
    return ".json", m.json(SETTINGS).encode("utf-8", "surrogatepass")


def _json(text: str | bytes) -> None:
    bounded.check(bounded.read(text), "it")


def _make_json(m: Mutator) -> str | bytes:
    text = m.json(m.rng.choice((PARAMS, MESSAGES, SETTINGS)))
    return m.bytes(text.encode("utf-8", "surrogatepass")) if m.rng.random() < 0.3 else text


def _http(head: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(head[: 100 << 10] + b"\r\n\r\n")
        theirs.shutdown(socket.SHUT_WR)
        reader = RequestReader(ours)
        read = reader.head(1, 1)
        if read is None:
            return
    for hosts in _ALL:
        try:
            request = parse(read, hosts)
        except Refused as refused:
            refused.line.encode()
            continue
        Folder(Path(__file__).parent).get(request.path)
        parse_range(request.headers.get("range", ""), 1000)
        accepts_gzip(request.headers.get("accept-encoding"))
        matches(request.headers.get("if-none-match"), '"x"')


def _range(header: str) -> None:
    for size in (0, 1, 1000, 1 << 40):
        found = parse_range(header, size)
        if isinstance(found, tuple) and not 0 <= found[0] < found[1] <= size:
            raise Fault(f"{found} of {size}")


def _access(given: tuple[str, str]) -> None:
    raw = [(b"host", given[0].encode("latin-1", "replace")), (b"origin", given[1].encode("latin-1", "replace"))]
    Access(_ALL[1], ("https://a.b",)).check(Headers(raw=raw))


def _make_head(m: Mutator) -> bytes:
    head = m.rng.choice(HEADS)
    if m.rng.random() < 0.5:
        head = m.text(head.decode("latin-1")).encode("latin-1", "replace")
    return m.bytes(head)


READERS = [
    Reader("json", _make_json, _json, (*Reader.typed, ValueError)),
    Reader("params", lambda m: m.value(PARAMS), _params, wild=True),
    Reader("ids", lambda m: m.value([1, 2, 3]), lambda ids: checked_ids(ids, VOCAB, "prompt", most=9), wild=True),
    Reader("messages", lambda m: m.value(MESSAGES, [MESSAGES]), _messages, wild=True),
    Reader("tools", _make_tools, _tools, wild=True),
    Reader("grammars", _make_grammar, _grammar, wild=True),
    Reader("schemas", lambda m: _any_of(m, _schemas()), _schema, share=0.6),
    Reader("schemas-wild", lambda m: _any_of(m, _schemas()), _schema, wild=True, share=0.3),
    Reader("calls", _make_calls, _calls),
    Reader("settings", lambda m: m.value(SETTINGS), settings_from, wild=True),
    Reader("settings-file", _make_settings_file, _settings_file),
    Reader("http", _make_head, _http, (*Reader.typed, Refused)),
    Reader("range", lambda m: m.text(m.rng.choice(RANGES)), _range),
    Reader("access", lambda m: (m.rng.choice((m.text(m.rng.choice(HOSTS)), HOSTS[1])),
                                m.rng.choice((m.text(m.rng.choice(ORIGINS)), m.rng.choice(TEXTS)))),
           _access, (*Reader.typed, Refused)),
]  # fmt: skip
