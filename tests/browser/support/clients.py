"""OpenAI's Python client in the page's Pyodide: clients.spec.js runs it and reads ``seen``."""

import asyncio
import json
from typing import Annotated, Any, Literal

import httpx
import openai
from js import inpage
from pydantic import BaseModel, Field

from inpage.openai.client import http_client

MODEL, ASK = "with-tools", {"temperature": 0, "max_tokens": 12}
HELLO: Any = [{"role": "user", "content": "What is gravity?"}]


class Weather(BaseModel):
    place: Literal["Ulm", "Bonn"]
    days: Annotated[int, Field(ge=1, le=9)]


async def ask() -> dict[str, Any]:
    client = openai.AsyncOpenAI(
        api_key="-", base_url="http://inpage/v1", http_client=http_client(inpage.fetch), max_retries=0
    )
    chat = client.chat.completions
    seen: dict[str, Any] = {"models": [model.id async for model in client.models.list()]}
    whole = await chat.create(model=MODEL, messages=HELLO, **ASK)
    seen["whole"] = [whole.choices[0].message.content, whole.choices[0].finish_reason]
    chunks = [
        chunk
        async for chunk in await chat.create(
            model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}, **ASK
        )
    ]
    seen["streamed"] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    seen["chunks"], seen["usage"] = len(chunks), [whole.usage.to_dict(), chunks[-1].usage.to_dict()]
    parsed = await chat.parse(
        model=MODEL, messages=[{"role": "user", "content": "The weather in Ulm as JSON."}], response_format=Weather,
        temperature=0,
    )  # fmt: skip
    seen["parsed"] = parsed.choices[0].message.parsed.model_dump()
    tools = [openai.pydantic_function_tool(Weather, name="weather")]
    called = await chat.create(
        model=MODEL, messages=HELLO, tools=tools, tool_choice="required", parallel_tool_calls=False, temperature=0
    )
    (call,) = called.choices[0].message.tool_calls
    seen["called"] = [called.choices[0].finish_reason, call.function.name, json.loads(call.function.arguments)]
    seen["errors"] = [
        await failure(chat.create(model="gpt-5", messages=HELLO)),
        await failure(chat.create(model=MODEL, messages=HELLO, temperature=9)),
        await failure(client.embeddings.create(model=MODEL, input="x")),
        await failure(chat.create(model=MODEL, messages=HELLO, timeout=0.001)),
    ]
    story: Any = [{"role": "user", "content": "Write a long story."}]
    stream = await chat.create(model=MODEL, messages=story, stream=True)
    async for _ in stream:
        break
    await stream.close()
    task = asyncio.ensure_future(chat.create(model=MODEL, messages=story))
    await asyncio.sleep(0)
    while not (await inpage.refresh()).requests.active:
        pass
    task.cancel()
    seen["cancelled"] = (await asyncio.gather(task, return_exceptions=True))[0].__class__.__name__
    seen["unreachable"] = await failure(http_client().get("http://localhost:1/v1/models"), httpx.HTTPError)
    while (await inpage.refresh()).requests.active:
        pass
    seen["left"] = inpage.info.kv_pages.used
    return seen


async def failure(asked: Any, kind: type[Exception] = openai.OpenAIError) -> list[Any]:
    try:
        await asked
    except kind as error:
        return [type(error).__name__, *(getattr(error, name, None) for name in ("status_code", "param", "code"))]
    return ["no error"]


seen = json.dumps(await ask())  # noqa: F704
