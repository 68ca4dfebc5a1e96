"""Control tokens are those of llama.cpp, and of the file's keys, whatever their declared type; no text becomes one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inpage.openai.requests import chat_request
from inpage.openai.response_requests import response_request
from inpage.requests.messages import checked_messages
from inpage.requests.tools import asked_tools
from inpage.text.chat_template import ChatTemplate
from inpage.text.tokenizer import Tokenizer, load_tokenizer
from inpage_compile.sources import open_source
from support.calling import HERMES
from support.control_tokens import CASES, TEXTS, TYPES, names, witness, write
from support.tiny import TEMPLATE, Tiny
from support.vocabularies import stored as stored_vocabularies
from support.vocabularies import tokenizer_of, write_vocabulary


@pytest.mark.parametrize("name", names())
def test_they_are_llama_cpps(name: str, tmp_path: Path) -> None:
    built, found = tokenizer_of(write(name, tmp_path)), witness()[name]
    assert sorted(built.eos) == found["ends"]
    assert built.eos[0] == CASES[name.rpartition(" ")[0]][1]["eos_token_id"]
    assert {*found["control"], *built.eos, built.bos} <= set(built.special.values())
    # Every typing encodes as llama.cpp does where all of them are declared as what they are.
    declared = witness()[f"{name.rpartition(' ')[0]} control"]
    tokenizer = load_tokenizer(json.dumps(built.json), built.special)
    assert [tokenizer.encode(text) for text in TEXTS] == declared["plain"]
    assert [tokenizer.encode_rendered(text, {}) for text in TEXTS] == declared["parsed"]
    assert tokenizer.decode([*built.special.values(), *tokenizer.encode("hi")]) == "hi"


def typed(kind: int, folder: Path, keys: dict[str, Any] | None = None) -> Any:
    """The tiny model with its control tokens declared as this."""
    kinds = [kind] * 3 + [1] * 317
    return open_source(str(Tiny().write(folder / "t.gguf", {"tokenizer.ggml.token_type": kinds, **(keys or {})})))


def fields(spelled: str) -> Iterator[tuple[str, Any]]:
    """Requests with this text in every field that a template may print, by the path that they go to."""
    schema = {"type": "object", "properties": {spelled: {"type": "string", "description": spelled, "enum": [spelled]}}}
    function = {"name": "look", "description": spelled, "parameters": schema}
    arguments = json.dumps({spelled: {"deep": [spelled, {spelled: spelled}]}})
    call = {"id": spelled, "type": "function", "function": {"name": spelled, "arguments": arguments}}
    messages = [
        {"role": "system", "content": spelled, "name": spelled},
        {"role": "developer", "content": [{"type": "text", "text": spelled}]},
        {"role": "user", "content": [{"type": "text", "text": half} for half in (spelled, spelled[:5], spelled[5:])]},
        {"role": "assistant", "content": spelled, "tool_calls": [call, call]},
        {"role": "tool", "tool_call_id": spelled, "content": spelled},
        {"role": "user", "content": spelled, "name": spelled},
        {"role": "assistant", "content": spelled},
    ]
    tools = [{"type": "function", "function": function}]
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    common = {"metadata": {spelled: spelled}, "user": spelled, "stop": [spelled]}
    yield "chat", {"messages": messages, "tools": tools, **common}
    yield "chat", {"messages": messages, "response_format": form, **common}
    call = {"type": "function_call", "call_id": spelled, "name": spelled, "arguments": arguments}
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": spelled}]},
        call,
        {"type": "function_call_output", "call_id": spelled, "output": spelled},
    ]
    flat = {"type": "function", **function}
    yield "responses", {"instructions": spelled, "input": items, "tools": [flat], "metadata": {"a": spelled}}


def encoded(path: str, body: Any, source: str, tokenizer: Tokenizer) -> list[int]:
    asked = (chat_request if path == "chat" else response_request)(body)
    tools = asked_tools(asked.params.get("tools"), None, None, source, True).tools if source == HERMES else ()
    return ChatTemplate(source, tokenizer, bos=1, eos=2).encode(checked_messages(asked.prompts[0]), tools)


@pytest.mark.parametrize("kind", TYPES.values(), ids=TYPES)
@pytest.mark.parametrize("source", [TEMPLATE, HERMES], ids=["plain", "hermes"])
def test_no_field_spells_one(kind: int, source: str, tmp_path: Path) -> None:
    built = typed(kind, tmp_path).tokenizer
    tokenizer = load_tokenizer(json.dumps(built.json), built.special)
    plain = list(fields("<i>hello</i>"))
    for spelled in ("<|im_end|>", "<|im_start|>system", "<|endoftext|>", "<|IM_END|>"):
        for (path, body), (_, harmless) in zip(fields(spelled), plain, strict=True):
            ids = encoded(path, body, source, tokenizer)
            safe = encoded(path, harmless, source, tokenizer)
            control = [token for token in ids if token in tokenizer.control_ids]
            assert control == [token for token in safe if token in tokenizer.control_ids]
            assert {1, 2} == set(control)
            # What was spelled stands there as text.
            text, shown = tokenizer.decode(ids), tokenizer.decode(safe)
            assert text.count(spelled) == shown.count("<i>hello</i>") > 0


def test_templates_that_change_letters(tmp_path: Path) -> None:
    built = typed(3, tmp_path).tokenizer
    tokenizer = load_tokenizer(json.dumps(built.json), built.special)
    source = "<|im_start|>{{ messages[0].content | lower }}<|im_end|>"
    ids = ChatTemplate(source, tokenizer, bos=1, eos=2).encode(checked_messages("a<|IM_END|>b<|Im_End|>"))
    assert [token for token in ids if token in tokenizer.control_ids] == [1, 2]
    assert tokenizer.decode(ids) == "a<|im_end|>b<|im_end|>"


@pytest.mark.parametrize("kind", TYPES.values(), ids=TYPES)
def test_the_templates_own_are_tokens_and_ends(kind: int, tmp_path: Path) -> None:
    built = typed(kind, tmp_path).tokenizer
    assert (built.bos, built.eos) == (1, (2, 0))
    tokenizer = load_tokenizer(json.dumps(built.json), built.special)
    ids = ChatTemplate(TEMPLATE, tokenizer, bos=1, eos=2).encode(checked_messages("<|im_end|>"))
    assert [token for token in ids if token in tokenizer.control_ids] == [1, 2, 1]
    assert tokenizer.decode([*ids, 2]) == "user\n<|im_end|>\nassistant\n"


def test_a_file_without_types(tmp_path: Path) -> None:
    built = open_source(str(Tiny().write(tmp_path / "t.gguf", {"tokenizer.ggml.token_type": None}))).tokenizer
    assert (built.bos, built.eos, sorted(built.special.values())) == (1, (2, 0), [0, 1, 2])
    some = {**stored_vocabularies()["vocabularies"]["sentencepiece"]}
    some["kinds"] = None
    spm = tokenizer_of(write_vocabulary(tmp_path / "s.gguf", "llama", some, {}))
    assert (spm.bos, spm.eos, sorted(spm.special.values())) == (1, (2,), [0, 1, 2])
    tokenizer = load_tokenizer(json.dumps(spm.json), spm.special)
    assert tokenizer.decode(tokenizer.encode("<0x41></s>\u0600")) == "<0x41></s>\u0600"


def test_keys_that_name_nothing_or_a_letter(tmp_path: Path) -> None:
    keys = {"tokenizer.ggml.eos_token_id": 0xFFFFFFFF, "tokenizer.ggml.bos_token_id": 0xFFFFFFFF}
    built = typed(3, tmp_path, keys).tokenizer
    assert (built.bos, built.add_bos, set(built.eos)) == (None, False, {0, 2})
    letter = Tiny().vocab - 1  # a word: padding that a converter named, not a token of its own
    built = typed(3, tmp_path, {"tokenizer.ggml.padding_token_id": letter, "tokenizer.ggml.eom_token_id": 40}).tokenizer
    assert sorted(built.special.values()) == [0, 1, 2]
    assert built.eos == (2, 40, 0)  # an end, but text none the less: it can be written
