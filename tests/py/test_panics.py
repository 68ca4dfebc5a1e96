"""What libraries written in Rust raise for a fault of their own is no `Exception`: no request is lost over one, while
cancellations, interrupts and exits go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, cast

import pytest

from inpage.engines.protocol import SequenceInput
from inpage.errors import ArtifactInvalid, InpageError, foreign
from inpage.openai import Api, Reply
from inpage.text.tokenizer import Tokenizer
from inpage.worker.messages import RouterWorker
from support.paged_double import PagedDouble
from support.small import small_router
from support.tiny import VOCAB

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 6, "temperature": 0},
    "/v1/completions": {"prompt": "hi", "max_tokens": 6, "temperature": 0},
    "/v1/responses": {"input": "hi", "max_output_tokens": 6, "temperature": 0},
}


class PanicException(BaseException):
    """Named as that of Rust's libraries."""


PANIC = PanicException("called `Option::unwrap()` on a `None` value")


class _Fails:
    """A backend that raises whatever it is asked."""

    names = ("small",)

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def _raise(self, *_: Any) -> Any:
        raise self._error

    use = metrics = health = _raise


class _Panics(PagedDouble):
    """Once, after so many good choices."""

    def __init__(self, after: int) -> None:
        super().__init__(vocab=VOCAB)
        self._left = after

    def _choose(self, feed: SequenceInput, position: int, history: Sequence[int]) -> int:
        self._left -= 1
        if self._left == -1:
            raise PANIC
        return super()._choose(feed, position, history)


def _told(reply: Reply) -> Any:
    assert isinstance(reply.body, str)
    return json.loads(reply.body)["error"]


def _at_once(backend: _Fails, method: str, path: str, body: str) -> Reply:
    """Nothing is waited for."""
    handling = Api(cast("Any", backend)).handle(method, path, body)
    with pytest.raises(StopIteration) as caught:
        handling.send(None)
    return cast("Reply", caught.value.value)


ASKED = [
    *(("POST", path, json.dumps(body)) for path, body in BODIES.items()),
    *(("GET", path, "") for path in ("/metrics", "/health")),
]
NO_FAULTS = [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(3), GeneratorExit()]


@pytest.mark.parametrize("error", [PANIC, RecursionError("x"), MemoryError()], ids=type)
@pytest.mark.parametrize(("method", "path", "body"), ASKED, ids=[path for _, path, _ in ASKED])
def test_the_api_never_raises(error: BaseException, method: str, path: str, body: str) -> None:
    reply = _at_once(_Fails(error), method, path, body)
    assert reply.status == 500 and _told(reply)["type"] == "server_error"
    assert type(error).__name__ in _told(reply)["message"]


@pytest.mark.parametrize("error", NO_FAULTS, ids=type)
def test_what_is_no_fault_goes_on(error: BaseException) -> None:
    path = "/v1/completions"
    with pytest.raises(type(error)) as caught:
        _at_once(_Fails(error), "POST", path, json.dumps(BODIES[path]))
    assert caught.value is error


@pytest.mark.parametrize("path", BODIES)
async def test_an_engine_that_panics_fails_its_request_alone(small_tokenizer: Tokenizer, path: str) -> None:
    for stream in (False, True):
        router = small_router(small_tokenizer, engine=_Panics(0))
        asked = json.dumps(BODIES[path] | {"stream": stream})
        async with asyncio.timeout(5):
            reply = await Api(router).handle("POST", path, asked)
        assert reply.status == 500 and "PanicException" in _told(reply)["message"]
        again = await Api(router).handle("POST", path, json.dumps(BODIES[path]))
        assert again.status == 200
        await router.unload()


@pytest.mark.parametrize("path", BODIES)
async def test_a_stream_that_has_begun_says_it(small_tokenizer: Tokenizer, path: str) -> None:
    router = small_router(small_tokenizer, engine=_Panics(4))
    reply = await Api(router).handle("POST", path, json.dumps(BODIES[path] | {"stream": True}))
    assert reply.status == 200 and not isinstance(reply.body, str)
    async with asyncio.timeout(5):
        told = "".join([chunk async for chunk in reply.body])
    assert "PanicException" in told.split("data: ")[-1]
    await router.unload()


async def test_a_message_of_the_page_is_answered() -> None:
    sent: list[dict[str, Any]] = []
    worker = RouterWorker(lambda text: sent.append(json.loads(text)))

    def panics() -> Any:
        raise PANIC

    worker._known = panics  # type: ignore[method-assign]
    worker.handle(json.dumps({"id": 5, "op": "metrics"}))
    await asyncio.gather(*worker._tasks)
    assert [(one["id"], one["error"]["code"]) for one in sent if "error" in one] == [(5, "error")]


def test_what_javascript_raises_untyped_is_the_file_at_fault() -> None:
    """In the page a library's error comes as one of ours without a code of its own."""
    with pytest.raises(ArtifactInvalid, match="it fails: TypeError: x"), foreign(ArtifactInvalid, "it fails", "f"):
        raise InpageError("TypeError: x")
