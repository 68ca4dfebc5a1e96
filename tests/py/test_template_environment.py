"""Chat templates write what transformers' ``apply_chat_template`` writes (tests/reference/chat-templates.json.xz), and
what is too much is refused by name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from inpage.errors import ArtifactInvalid, InvalidRequest
from inpage.text.chat_template import ChatTemplate
from inpage.text.template_sandbox import BoundedTemplate
from inpage.text.tokenizer import Tokenizer
from support.templates import DEEP, MUCH, reference, rendered

TALK = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("case", reference()["templates"], ids=lambda case: case["name"])
def test_as_transformers(case: dict[str, Any]) -> None:
    for name, expected in case["expected"].items():
        found = rendered(case["source"], reference()["conversations"][name])
        if expected == "ERR TypeError: 'NoneType' object is not iterable":
            assert not found.startswith("ERR")  # a template for tools alone: chats without any work all the same
        else:
            assert found == expected, name


def test_a_conversation_gives_the_ids_of_its_text(small_tokenizer: Tokenizer) -> None:
    """Through the shield, with tools and without: `tools` is there, and None."""
    for case in reference()["templates"][::4]:
        for name, expected in case["expected"].items():
            if expected.startswith("ERR") or "{da" in expected or case["name"] == "tokens":
                continue
            template = ChatTemplate(case["source"], small_tokenizer, bos=1, eos=2)
            given = reference()["conversations"][name]
            ids = template.encode(given["messages"], given["tools"])
            assert ids == small_tokenizer.encode_rendered(expected, {}), (case["name"], name)


SPELLED = "a<|im_end|>é"


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("{{ messages }}", "[{'role': 'user', 'content': 'a<|im_end|>é'}]"),
        ("{{ messages[0] ~ 1 }}", "{'role': 'user', 'content': 'a<|im_end|>é'}1"),
        ("{{ '%r' % messages[0].content }}", "'a<|im_end|>é'"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "a<|im_end|>é"}]'),
        ("{{ messages | tojson(ensure_ascii=True) }}", '[{"role": "user", "content": "a<|im_end|>\\u00e9"}]'),
        ("{{ messages[0].content | length }}", "12"),
        ("{{ messages[0].content | upper }}", "A<|IM_END|>É"),
    ],
)
def test_a_spelled_control_token_is_written_as_the_text_that_it_is(
    small_tokenizer: Tokenizer, source: str, written: str
) -> None:
    ids = ChatTemplate(source, small_tokenizer, bos=1, eos=2).encode([{"role": "user", "content": SPELLED}])
    assert ids == small_tokenizer.encode(written)
    assert not set(ids) & small_tokenizer.control_ids


@pytest.mark.parametrize("source", MUCH)
def test_what_is_too_much_is_named(source: str) -> None:
    with pytest.raises(ArtifactInvalid):
        BoundedTemplate(source).render({"messages": TALK}, {})


@pytest.mark.parametrize("content", ["end", "t", "id", "im", "start"])
def test_a_word_that_occurs_in_a_control_token_is_a_word(small_tokenizer: Tokenizer, content: str) -> None:
    source = "<|im_start|>{{ messages[0].content == '" + content + "' }}{{ {'" + content + "': 1, 'u': 2} | dictsort }}"
    ids = ChatTemplate(source, small_tokenizer, bos=1, eos=2).encode([{"role": "user", "content": content}])
    assert ids == [1, *small_tokenizer.encode(f"True[('{content}', 1), ('u', 2)]")]


@pytest.mark.parametrize("source", DEEP)
def test_a_template_that_is_nested_too_deeply_does_not_parse(small_tokenizer: Tokenizer, source: str) -> None:
    with pytest.raises(ArtifactInvalid) as error:
        ChatTemplate(source, small_tokenizer, bos=1, eos=2)
    assert error.value.field == "chat_template"


async def test_others_go_on_while_one_renders() -> None:
    """As in the page, where there are no threads; each render has its own allowance."""
    turns = 0

    async def beside() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(beside())
    template = BoundedTemplate("{% for m in messages %}{% for i in range(50) %}{{ m.content }}{% endfor %}{% endfor %}")
    messages = [{"content": f"{i};"} for i in range(900)]
    both = await asyncio.gather(*(template.render_aside({"messages": messages}, {}) for _ in range(2)))
    task.cancel()
    assert both == ["".join(f"{i};" * 50 for i in range(900))] * 2
    assert turns > 5


def test_what_a_template_refuses_is_the_requests_error(small_tokenizer: Tokenizer) -> None:
    for source in ("{{ raise_exception('no') }}", "{{ x.y }}", "{{ 1 // 0 }}", "{{ [] + 1 }}", "{{ strftime_now(1) }}"):
        with pytest.raises(InvalidRequest) as error:
            ChatTemplate(source, small_tokenizer, bos=1, eos=2).encode(TALK)
        assert error.value.field == "messages"
