"""Answers made ahead of time: requests in a JSON Lines file become the bundle that a site carries.

    {"messages": [{"role": "user", "content": "What is gravity?"}], "temperature": 0, "max_tokens": 100}
    {"prompt": "Once upon a time", "temperature": 0.7, "seed": 1, "tags": ["story"]}
    {"messages": "Who made you?", "temperature": 0, "answer": "The people of the museum."}

A line is what `Router.chat` or `Router.complete` takes; its answer must be determined (temperature 0, or a seed).
``answer`` gives it; else the native engine computes it. ``model`` names one of several models, the first if left out.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import InpageError, InvalidRequest, quoted, said
from ..format import bounded
from ..format.manifest import parse_manifest
from ..responses import Answer, pack_bundle
from ..router import Router

_SETTINGS = {"answers": {"enabled": True}, "scheduler": {"queue_size": 1_000_000, "timeout": None}}
_LINE_BYTES = 1 << 20


def bundle(file: Path, artifacts: Sequence[Path], *, trust: bool = False) -> bytes:
    """The bundle for the requests in ``file``. ``trust``: see `Router.load`. Raises `InvalidRequest` naming the
    line."""
    names = [parse_manifest((folder / "manifest.json").read_bytes()).id for folder in artifacts]
    asked: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for number, line in _lines(file):
        model = line.pop("model", names[0])
        if model not in names:
            raise _wrong(file, number, f"there is no model {quoted(model)}; there is {', '.join(names)}", "model")
        asked.setdefault(model, []).append((number, line))
    answers: list[tuple[str, Answer]] = []
    for model, lines in asked.items():
        answers += asyncio.run(_answer(file, artifacts[names.index(model)], lines, trust))
    print(f"  {len(dict(answers))} answers made ahead, from {file}", file=sys.stderr)
    return pack_bundle(answers).encode()


def _lines(file: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{file} cannot be read: {said(error)}", field="answers") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = bounded.read(line) if len(line) <= _LINE_BYTES else None
        except ValueError as error:
            raise _wrong(file, number, f"is no JSON: {said(error)}", "answers") from error
        if not isinstance(value, dict):
            raise _wrong(file, number, f"must be an object of at most {_LINE_BYTES} bytes", "answers")
        yield number, value


async def _answer(
    file: Path, artifact: Path, lines: Sequence[tuple[int, dict[str, Any]]], trust: bool
) -> list[tuple[str, Answer]]:
    async with await Router.load(artifact, backend="native", settings=_SETTINGS, trust=trust) as router:
        tasks = [asyncio.ensure_future(_one(router, file, number, line)) for number, line in lines]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()


async def _one(router: Router, file: Path, number: int, line: dict[str, Any]) -> tuple[str, Answer]:
    kinds = [kind for kind in ("messages", "prompt") if kind in line]
    if len(kinds) != 1:
        raise _wrong(file, number, 'must have either "messages" or "prompt"', "messages")
    given = line.pop("answer", None)
    asked = line.pop(kinds[0])
    line.pop("stop", None)  # the page ends an answer there; what is kept goes on
    try:
        stream = (router.chat if kinds[0] == "messages" else router.complete)(asked, **line)
        if stream.kept is None:
            raise InvalidRequest("the answer is not determined: give temperature 0 or a seed", field="temperature")
        key, tags = stream.kept.key, stream.kept.tags
        if given is None:
            done = await stream
            return key, Answer(tuple(done.token_ids), done.finish_reason, tags)
        if not isinstance(given, str) or not given:
            raise InvalidRequest("answer must be a text", field="answer")
    except InpageError as error:
        raise _wrong(file, number, str(error), error.field) from error
    eos = router.manifest.tokenizer.eos[:1]
    return key, Answer((*router.tokenizer.encode(given), *eos), "stop", tags)


def _wrong(file: Path, number: int, why: str, field: str | None) -> InvalidRequest:
    return InvalidRequest(f"{file}, line {number}: {why}", field=field)
