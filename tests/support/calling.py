"""A model that calls a function as Hermes does, and its streams, broken off and gone on with at another router."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inpage.openai import Api
from inpage.text.tokenizer import Tokenizer

from .scripted import Scripted
from .small import small_router

HERMES = (Path(__file__).parent / "hermes.jinja").read_text("utf-8")
CALL = 'I look.\n<tool_call>\n{"name": "look", "arguments": {"where": "é", "n": [1, 2]}}\n</tool_call>'
LOOK = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


class BrokenStream:
    """One streamed request, whose answer is `CALL`; `run` first without arguments."""

    def __init__(self, tokenizer: Tokenizer, path: str, body: Any) -> None:
        self._tokenizer, self._path, self._body = tokenizer, path, json.dumps(body)
        self._starts: dict[int, int] = {}

    async def run(self, cut: int = -1, resume: Any = None) -> tuple[str, Any]:
        """The events, up to chunk number ``cut``, and the position after them, as another router is given it."""
        engine = Scripted(self._tokenizer, CALL, context=2048, max_pages=2048)
        engine._starts = self._starts  # where the answer begins: an engine that goes on with one does not see it
        async with small_router(self._tokenizer, engine=engine, manifest={"chat_template": HERMES}) as router:
            reply = await Api(router).handle("POST", self._path, self._body, resume)
            assert reply.status == 200 and not isinstance(reply.body, str) and reply.position, reply.body
            text, seen = "", 0
            async for chunk in reply.body:
                text, seen = text + chunk, seen + 1
                if seen == cut:
                    break
            position = json.loads(json.dumps(asdict(reply.position)))
            await reply.body.aclose()
        if not isinstance(self._starts, defaultdict):
            (beginning,) = self._starts.values()
            self._starts = defaultdict(lambda: beginning)
        return text, position
