"""What is read, rendered and tokenized is bounded first, and what takes long lets other requests go on."""

from __future__ import annotations

import asyncio
import json
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from inpage.errors import ArtifactInvalid, InpageError, InvalidRequest, QueueFull
from inpage.format import limits
from inpage.host.artifact_store import FolderStore
from inpage.openai import Api
from inpage.responses.answer import Answer
from inpage.router import Completion, Router
from inpage.settings import read_settings
from inpage.text.chat_template import ChatTemplate
from inpage.text.tokenizer import Tokenizer, load_tokenizer
from support.small import small_router, small_tokenizer_json
from support.tiny import CONTROL

ROOT = Path(__file__).resolve().parents[2]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 5}


# -- tokenizing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [{}, {"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}])
def test_blanks_take_time_in_proportion(flags: dict[str, bool]) -> None:
    """Quadratic patterns would take days over these."""
    tokenizer = load_tokenizer(small_tokenizer_json(**flags), {})
    blanks, token = " \n" * 1_000_000, CONTROL[2]
    left = 0 if flags.get("lstrip") else len(blanks)
    right = 0 if flags.get("rstrip") else len(blanks)
    parts = tokenizer.cut(f"a{blanks}{token}{blanks}b{blanks}", {})
    assert [part if isinstance(part, int) else len(part) for part in parts] == [1 + left, 2, 1 + right + len(blanks)]
    many = tokenizer.cut(f"{token} " * 100_000, {})
    assert sum(part == 2 for part in many) == 100_000
    assert len(tokenizer.cut(blanks, {})) == 1


class Counting:
    """A codec that counts what it is given, and lets through only when it may."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.inner, self.texts, self.aside = tokenizer._codec, 0, 0
        self.gate = threading.Event()
        tokenizer._codec = self

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        self.texts += len(texts)
        return self.inner.encode(texts)

    async def encode_aside(self, texts: Sequence[str]) -> list[list[int]]:
        self.aside += len(texts)
        return await asyncio.to_thread(self._held, texts)

    def decode(self, ids: Sequence[int]) -> str:
        return self.inner.decode(ids)

    def _held(self, texts: Sequence[str]) -> list[list[int]]:
        assert self.gate.wait(60), "nothing went on meanwhile"
        return self.inner.encode(texts)


@pytest.fixture
def counting() -> tuple[Tokenizer, Counting]:
    tokenizer = load_tokenizer(small_tokenizer_json(), {})
    return tokenizer, Counting(tokenizer)


async def test_what_cannot_fit_is_refused_before_it_is_tokenized(counting: tuple[Tokenizer, Counting]) -> None:
    tokenizer, codec = counting
    router = small_router(tokenizer)
    long = "x" * 10_000_000
    bad: list[tuple[Any, str]] = [
        (lambda: router.complete(long), "prompt"),
        (lambda: router.complete(5 for _ in iter(int, 1)), "prompt"),  # ids without an end
        (lambda: router.complete("a", resume=(5 for _ in iter(int, 1))), "resume"),
        (lambda: router.chat(long), "messages"),
        (lambda: router.chat([{"role": "user", "content": "x" * 100}] * 200), "messages"),
        (lambda: router.chat([{"role": "user", "content": "x"}] * 100_000), "messages"),
        (lambda: router.chat([{"role": "tool", "content": "x", "name": long}]), "messages"),
        (lambda: router.chat([{"role": "assistant", "content": "", "tool_calls": [
            {"function": {"name": "f", "arguments": {"a": [long]}}}]}]), "messages"),
        (lambda: router.encode("x" * (limits.REQUEST_CHARS + 1)), "prompt"),
    ]  # fmt: skip
    for call, field in bad:
        with pytest.raises(InvalidRequest) as error:
            call()
        assert error.value.field == field
    for prompt in (long, [{"role": "user", "content": "x"}] * 100_000):
        with pytest.raises(InvalidRequest):
            await router.prefetch([prompt])
    assert (codec.texts, codec.aside) == (0, 0)
    reply = await Api(router).handle("POST", "/v1/completions", json.dumps({"prompt": "x" * 1_000_000}))
    assert reply.status == 400
    assert (codec.texts, codec.aside) == (0, 0)
    await router.unload()


async def test_a_long_prompt_is_tokenized_beside_others(counting: tuple[Tokenizer, Counting]) -> None:
    tokenizer, codec = counting
    sizes = {"context": 60_000, "max_pages": 16_000, "max_rows": 60_000}
    router = small_router(tokenizer, **sizes)
    text = "the light " * 2000
    for ask in (router.complete, router.chat):
        codec.gate.clear()
        before = codec.aside
        long = asyncio.ensure_future(_whole(ask(text, **GREEDY)))
        while codec.aside == before:
            await asyncio.sleep(0)
        for _ in range(3):  # what holds the tokenizer up is opened by others' answers only
            assert (await router.complete("hello", **GREEDY)).finish_reason == "length"
        assert not long.done()
        codec.gate.set()
        done = await long
        assert done.prompt_ids == ask(text, **GREEDY).prompt_ids
        assert len(done.token_ids) == 5
    stream = router.complete(text, **GREEDY)
    stream.cancel()
    assert (await stream).finish_reason == "cancelled"
    with pytest.raises(InvalidRequest, match="tokens") as error:
        await router.complete("x" * 100_000, **GREEDY)
    assert error.value.field == "prompt"
    await router.unload()


async def _whole(stream: Any) -> Completion:
    result: Completion = await stream
    return result


@pytest.mark.model
async def test_the_library_lets_the_loop_run(real_tokenizer: Tokenizer) -> None:
    turns, text = 0, "x" * 300_000
    task = asyncio.ensure_future(real_tokenizer.encode_aside(text))
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    assert task.result() == real_tokenizer.encode(text)
    assert turns > 10


@pytest.mark.parametrize(
    ("change", "longest"),
    [
        ({}, 13),  # the longest control token
        ({"normalizer": {"type": "NFC"}}, 52),
        ({"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}}, None),
        ({"normalizer": {"type": "Replace", "pattern": {"String": "  "}, "content": " "}}, None),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}}, 13),
        ({"pre_tokenizer": {"type": "WhitespaceSplit"}}, None),
    ],
)
def test_what_one_token_can_stand_for(change: dict[str, Any], longest: int | None) -> None:
    description = json.loads(small_tokenizer_json()) | change
    assert load_tokenizer(json.dumps(description), {}).longest == longest


# -- templates -----------------------------------------------------------------------------------------------------

ENDLESS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(9) %}{% endfor %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}"
    "{% set n.x = y %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% for i in range(10) recursive %}{{ loop([i]) }}{% endfor %}",
    "{% set n = namespace(n=2) %}{% for i in range(99) %}{% set n.n = n.n * n.n %}{% endfor %}",
    "{{ 'a' * 9999999999 }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ [1] * 9999999999 }}",
    "{{ 'a'.center(9999999999) }}",
    "{{ 'a' | center(9999999999) }}",
    "{{ '%9999999999d' % 1 }}",
    "{{ '%*d' % (9999999999, 1) }}",
    "{{ '{:9999999999}'.format(1) }}",
    "{{ '{:{}}'.format(1, 9999999999) }}",
    "{{ '%9999999999d' | format(1) }}",
    "{% set x = 'a' * 1000000 %}{{ x.replace('a', x) }}",
    "{% set x = 'a' * 1000000 %}{{ x | replace('a', x) }}",
    "{{ ('a' * 1000000).join([''] * 100000) }}",
    "{{ messages | tojson(indent=9999999999) }}",
    "{{ 'a\nb' | indent(9999999999) }}",
]


@pytest.mark.parametrize("source", ENDLESS)
def test_a_template_without_an_end_is_ended(small_tokenizer: Tokenizer, source: str) -> None:
    template = ChatTemplate(source, small_tokenizer, bos=1, eos=2)
    with pytest.raises(ArtifactInvalid) as error:
        template.encode([{"role": "user", "content": "hi"}])
    assert error.value.field == "chat_template"


def test_what_a_template_may_do_grows_with_the_messages(small_tokenizer: Tokenizer) -> None:
    source = "{% for m in messages %}{% for i in range(40) %}{{ m.role ~ 'x' }}{% endfor %}{% endfor %}"
    template = ChatTemplate(source, small_tokenizer, bos=1, eos=2)
    messages = [{"role": "user", "content": "hi"}] * 2000
    assert template.encode(messages) == small_tokenizer.encode("userx" * 80_000)


# -- files ---------------------------------------------------------------------------------------------------------


async def test_a_file_beyond_its_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "manifest.json").open("wb") as file:
        file.truncate(1 << 40)  # a hole: reading it whole would take all memory
    with pytest.raises(ArtifactInvalid, match="larger than 16777216 bytes") as error:
        await FolderStore(tmp_path).manifest()
    assert error.value.field == "manifest.json"
    settings = tmp_path / "settings.json"
    with settings.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InvalidRequest, match="larger than 1048576 bytes"):
        read_settings(settings)


def test_an_answer_that_unpacks_without_an_end_is_none() -> None:
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(32)) + packer.flush()
    assert len(bomb) < 40_000
    assert Answer.unpack(bomb) is None
    answer = Answer((1, 2), "stop", ("a",))
    assert Answer.unpack(answer.pack()) == answer
    assert Answer.unpack(answer.pack()[:-3]) is None


# -- crowds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1000, 1500])
async def test_none_of_a_crowd_is_lost(small_tokenizer: Tokenizer, count: int) -> None:
    settings = {"scheduler": {"queue_size": 1000, "timeout": None}}
    router = small_router(small_tokenizer, settings=settings, max_pages=2000, max_sequences=8)
    streams = [router.complete(f"request {i}", temperature=0, max_tokens=2) for i in range(count)]
    found = await asyncio.gather(*(_outcome(stream) for stream in streams))
    refused = [one for one in found if isinstance(one, InpageError)]
    assert all(isinstance(one, QueueFull) for one in refused)
    assert len(refused) == max(0, count - 1000)
    alone = await router.complete("request 7", temperature=0, max_tokens=2)
    assert isinstance(found[7], Completion)
    assert found[7].token_ids == alone.token_ids
    assert _at_rest(router)
    await router.unload()


async def _outcome(stream: Any) -> Completion | InpageError:
    try:
        return await _whole(stream)
    except InpageError as error:
        return error


def _at_rest(router: Router) -> bool:
    info = router.info
    return info["requests"] == {"active": 0, "waiting": 0} and info["kv_pages"]["used"] == 0
