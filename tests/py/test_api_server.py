"""`inpage serve --api`: OpenAI's own Python client over sockets, and what else may call a server of this machine."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families

from inpage.cli import main
from inpage.cli.api.app import Access, application
from inpage.cli.api.server import Serving, _config, bound
from inpage.cli.api.workers import Workers
from inpage.cli.http_request import Hosts
from inpage.engines.protocol import OnTokens, RunOutput, SequenceInput
from inpage.openai import Api
from inpage.openai.api import BODY_BYTES
from inpage.text.tokenizer import Tokenizer
from support.calling import CALL, HERMES, LOOK
from support.paged_double import PagedDouble
from support.scripted import Scripted
from support.small import small_router

HELLO: Any = [{"role": "user", "content": "hello"}]
ASK: Any = {"model": "small", "messages": HELLO, "temperature": 0, "max_tokens": 20}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
DEADLINE = 60  # seconds after which something hangs


class Held(PagedDouble):
    """Decodes a little, then waits until somebody interrupts it."""

    def __init__(self) -> None:
        super().__init__(vocab=320)
        self.freed = asyncio.Event()

    async def run(
        self, feeds: Sequence[SequenceInput], max_steps: int, on_tokens: OnTokens | None = None
    ) -> list[RunOutput]:
        if len(self.calls) > 2:
            await self.freed.wait()
        return await super().run(feeds, min(max_steps, 2), on_tokens)

    async def interrupt(self) -> None:
        self.freed.set()
        await super().interrupt()


@asynccontextmanager
async def served(api: Any, *origins: str) -> AsyncIterator[str]:
    """The URL below which it answers."""
    listener, url = bound("127.0.0.1", 0)
    app = application(lambda: api, Access(Hosts({"127.0.0.1"}), origins))
    server = uvicorn.Server(_config(app, Serving((), "127.0.0.1"), lifespan="off"))
    listener.listen()
    serving = asyncio.create_task(server.serve([listener]))
    try:
        async with asyncio.timeout(DEADLINE):
            yield url
    finally:
        server.should_exit = True
        await serving
        listener.close()


def client_of(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="-", base_url=url, max_retries=0)


async def test_openais_client_gets_the_routers_answers_and_errors(small_tokenizer: Tokenizer) -> None:
    async with small_router(small_tokenizer) as router, served(Api(router)) as url, client_of(url) as client:
        expected = await router.chat("hello", temperature=0, max_tokens=20)
        assert [model.id async for model in client.models.list()] == ["small"]
        done = await client.chat.completions.create(**ASK)
        assert done.choices[0].message.content == expected.text
        assert done.usage and (done.usage.prompt_tokens, done.usage.completion_tokens) == (len(expected.prompt_ids), 20)
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                **ASK, stream=True, stream_options={"include_usage": True}
            )
        ]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == expected.text
        assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 20
        for kind, status, param, code, wrong in (
            (openai.NotFoundError, 404, "model", "model_not_found", {"model": "gpt-5"}),
            (openai.BadRequestError, 400, "temperature", None, {"temperature": 9}),
            (openai.BadRequestError, 400, "messages[0].role", None, {"messages": [{"role": "x", "content": "y"}]}),
            (openai.BadRequestError, 400, "response_format", "unsupported",
             {"response_format": {"type": "json_object"}}),  # the double has no grammars
        ):  # fmt: skip
            with pytest.raises(kind) as caught:
                await client.chat.completions.create(**ASK | wrong)
            found = caught.value
            assert isinstance(found, openai.APIStatusError)
            assert (found.status_code, found.param, found.code) == (status, param, code)  # type: ignore[attr-defined]
        with pytest.raises(openai.NotFoundError) as none:
            await client.embeddings.create(model="small", input="x")
        assert none.value.code == "model_not_found"


async def test_what_several_workers_say(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    async with small_router(small_tokenizer) as router:
        app = application(
            lambda: Api(router), Access(Hosts({"127.0.0.1"})), status=lambda: Workers(tmp_path, 2, router)
        )
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
        for path in ("/health", "/health/"):  # as of one worker
            health = await client.get(path)
            assert (health.status_code, health.json()["reasons"]) == (200, ["1 of 2 workers answer"])
        for path in ("/metrics", "/metrics/"):
            metrics = await client.get(path)
            assert 'worker="' in metrics.text and metrics.headers["content-type"].startswith("text/plain")
        assert (await client.post("/health")).status_code == 405


async def test_tools_and_schemas(small_tokenizer: Tokenizer) -> None:
    calling = Scripted(small_tokenizer, CALL, context=2048, max_pages=2048)
    async with (
        small_router(small_tokenizer, engine=calling, manifest={"chat_template": HERMES}) as router,
        served(Api(router)) as url,
        client_of(url) as client,
    ):
        asked: Any = {"model": "small", "messages": HELLO, "tools": LOOK}
        (choice,) = (await client.chat.completions.create(**asked)).choices
        assert choice.finish_reason == "tool_calls" and choice.message.content == "I look."
        (call,) = choice.message.tool_calls or []
        assert call.type == "function" and json.loads(call.function.arguments) == {"where": "é", "n": [1, 2]}
        deltas = [chunk.choices[0].delta async for chunk in await client.chat.completions.create(**asked, stream=True)]
        pieces = [piece.function for delta in deltas for piece in delta.tool_calls or [] if piece.function]
        assert [piece.name for piece in pieces if piece.name] == ["look"]
        assert "".join(piece.arguments or "" for piece in pieces) == call.function.arguments
    async with (
        small_router(small_tokenizer, engine=Scripted(small_tokenizer, '{"a": 5}')) as router,
        served(Api(router)) as url,
        client_of(url) as client,
    ):
        form: Any = {"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA, "strict": True}}
        formatted = await client.chat.completions.create(model="small", messages=HELLO, response_format=form)
        assert json.loads(formatted.choices[0].message.content or "") == {"a": 5}


async def test_a_client_that_leaves_ends_its_answer(small_tokenizer: Tokenizer) -> None:
    for streamed in (True, False):
        engine = Held()
        async with small_router(small_tokenizer, engine=engine) as router, served(Api(router)) as url:
            metrics, client = router.scheduler.metrics, client_of(url)
            asking = asyncio.create_task(client.chat.completions.create(**ASK | {"max_tokens": 150}, stream=streamed))
            if streamed:
                stream: Any = await asking
                await anext(aiter(stream))
                await stream.close()
            else:
                while len(engine.calls) < 3:
                    await asyncio.sleep(0)
                asking.cancel()
            while not metrics.requests.value(finish="cancelled"):
                await asyncio.sleep(0)
            assert not router.scheduler.active and metrics.requests.total == 1
            await client.close()


async def test_bodies_are_bounded_and_packed_both_ways(small_tokenizer: Tokenizer) -> None:
    async with (
        small_router(small_tokenizer) as router,
        served(Api(router)) as url,
        httpx.AsyncClient(base_url=url.removesuffix("/v1")) as http,
    ):
        path, packed = "/v1/chat/completions", {"content-encoding": "gzip"}
        body = json.dumps(ASK).encode()
        plain = await http.post(path, content=body)
        unpacked = await http.post(path, content=gzip.compress(body), headers=packed)
        assert unpacked.json()["choices"] == plain.json()["choices"]
        assert "content-encoding" not in plain.headers  # it is small

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(BODY_BYTES // (1 << 20) + 1):
                yield b" " * (1 << 20)

        bomb = gzip.compress(b" " * (BODY_BYTES + 1))
        for status, content, headers in (
            (415, body, {"content-encoding": "br"}),
            (400, body, packed),
            (400, gzip.compress(body)[:-9], packed),
            (400, gzip.compress(body) + b"more", packed),
            (400, b"\xff", {}),
            (400, b"[" * 5000, {}),
            (413, bomb, packed),
            (413, b" " * (BODY_BYTES + 1), {}),
            (413, pieces(), {}),
        ):
            refused = await http.post(path, content=content, headers=headers)
            assert refused.status_code == status, refused.text
            assert set(refused.json()["error"]) == {"message", "type", "param", "code"}
        metrics = await http.get("/metrics")
        assert metrics.headers["content-encoding"] == "gzip" and "inpage_tokens_total" in metrics.text
        head = await http.head("/health")
        assert (head.status_code, head.content) == (200, b"")
        stream = await http.post(path, json=ASK | {"stream": True})
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in stream.headers  # each event is to arrive when it is sent


async def test_other_names_and_other_sites_get_nothing(small_tokenizer: Tokenizer) -> None:
    ours = "http://localhost:5173"
    async with (
        small_router(small_tokenizer) as router,
        served(Api(router), ours) as url,
        httpx.AsyncClient(base_url=url.removesuffix("/v1")) as http,
    ):
        own = url.removesuffix("/v1")
        for status, headers in (
            (200, {}),
            (200, {"origin": own}),
            (200, {"origin": ours}),
            (200, {"sec-fetch-site": "same-origin"}),
            (403, {"origin": "http://evil.example"}),
            (403, {"origin": "null"}),
            (403, {"sec-fetch-site": "cross-site"}),
            (421, {"host": "evil.example"}),
            (400, {"host": "a b"}),
        ):
            asked = await http.get("/v1/models", headers=headers)
            assert asked.status_code == status, (headers, asked.text)
            assert status == 200 or asked.json()["error"]["message"]
            allowed = ours if headers.get("origin") == ours else None
            assert asked.headers.get("access-control-allow-origin") == allowed
        preflight = {"origin": ours, "access-control-request-method": "POST", "access-control-request-headers": "a"}
        assert (await http.options("/v1/chat/completions", headers=preflight)).status_code == 200
        preflight["origin"] = "http://evil.example"
        assert (await http.options("/v1/chat/completions", headers=preflight)).status_code == 403


async def test_what_breaks_is_an_error_in_their_shape(small_tokenizer: Tokenizer) -> None:
    class Broken:
        async def handle(self, method: str, path: str, body: bytes) -> Any:
            raise RuntimeError("a bug")

    async with served(Broken()) as url, client_of(url) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(**ASK)
        assert caught.value.type == "server_error" and "a bug" in str(caught.value)
    async with small_router(small_tokenizer) as router, served(Api(router)) as url:
        for _ in range(5):
            router.scheduler.metrics.health.ended(RuntimeError("x"))
        async with httpx.AsyncClient() as http:
            health = await http.get(url.replace("/v1", "/health"))
        assert (health.status_code, health.json()["status"]) == (503, "unhealthy")


@pytest.mark.parametrize("wrong", [["--api", "--csp", ""], ["--api", "folder"], ["--workers", "2"], ["--model", "x"]])
def test_what_belongs_to_the_other_kind_of_server_is_refused(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", *wrong])
    assert ended.value.code == 2
    assert "for --api" in capsys.readouterr().err


@pytest.fixture
def two_workers(artifact: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "inpage.cli", "serve", "--api", "--port", "0", "--workers", "2"]
    with subprocess.Popen([*command, "--model", str(artifact)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield server.stdout.readline().strip()
        server.send_signal(signal.SIGTERM)
        assert server.wait(DEADLINE) == 0


@pytest.mark.model
def test_the_real_model_in_two_processes(
    two_workers: str, reference: dict[str, Any], real_tokenizer: Tokenizer
) -> None:
    """The server's answer is that of float32 in PyTorch, or follows a schema, and each worker's figures are there
    whichever is asked."""
    asked = reference["prompts"]["p32"]
    with openai.OpenAI(api_key="-", base_url=two_workers) as client, httpx.Client(timeout=DEADLINE) as http:
        health: dict[str, Any] = {"workers": {}}
        while len(health["workers"]) < 2:
            health = http.get(two_workers.replace("/v1", "/health")).json()
        assert (health["status"], health["reasons"]) == ("healthy", [])
        told = client.completions.create(
            model="smollm2-135m-instruct", prompt=asked["ids"], temperature=0, max_tokens=12, stream=True
        )
        text = "".join(chunk.choices[0].text for chunk in told)
        assert text == real_tokenizer.decode(asked["greedy_f32"][:12])
        metrics = http.get(two_workers.replace("/v1", "/metrics")).text
        schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
        held = client.chat.completions.create(
            model="smollm2-135m-instruct", messages=[{"role": "user", "content": "Are you well?"}], max_tokens=20,
            response_format={"type": "json_schema", "json_schema": {"name": "state", "schema": schema, "strict": True}},
        )  # fmt: skip
        assert Draft202012Validator(schema).is_valid(json.loads(held.choices[0].message.content or ""))
    families = {family.name: family for family in text_string_to_metric_families(metrics)}
    samples = families["inpage_tokens"].samples
    assert {s.labels["worker"] for s in families["inpage_model_loads"].samples} == set(health["workers"])
    assert sum(s.value for s in samples if s.labels["kind"] == "answer") == 12
