"""OpenAI's embeddings, and ranks as Jina's, Cohere's and vLLM's interfaces have them: bodies in, bodies out."""

from __future__ import annotations

import base64
import secrets
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequest, brief, quoted
from ..requests.openai_names import HINTS
from ..router.embedding import Embeddings, Ranking, check_one_message
from .backend import Answers
from .requests import Body

PATHS = ("/v1/embeddings", "/v1/rerank")


@dataclass(frozen=True, slots=True)
class VectorRequest:
    """``given``: the texts, or query and documents. ``written``: how the reply is written."""

    model: str | None
    path: str
    given: tuple[Any, ...]
    params: Mapping[str, Any]
    base64: bool = False
    documents: bool = False

    async def answer(self, router: Answers, model: str) -> dict[str, Any]:
        """The reply's body. ``model``: as it is called in it."""
        if self.path == "/v1/embeddings":
            check_one_message(self.given[0], self.params.get("dimensions"), router.manifest.width, "input")
            return _vectors(await router.embed(*self.given, field="input", **self.params), model, self.base64)
        ranking = await router.rerank(*self.given, **self.params)
        return _ranks(ranking, model, self.given[1] if self.documents else None)


def vector_request(path: str, body: Any) -> VectorRequest:
    """Check a body. Raises `InvalidRequest` whose field is OpenAI's ``param``."""
    b = Body(body, {})
    if path == "/v1/embeddings":
        given = (_input(b.take("input")),)
        form = b.take("encoding_format")
        if form not in (None, "float", "base64"):
            raise InvalidRequest(
                f"encoding_format is {quoted(form)}; it must be float or base64", field="encoding_format"
            )
        _pass(b, "dimensions", int, "a whole number")
        _pass(b, "prompt_name", str, "a string")
        return _asked(b, path, given, base64=form == "base64")
    query = b.typed("query", str, "a string")
    if query is None:
        raise InvalidRequest("query is missing: send a text", field="query")
    documents = b.typed("documents", list, "a list")
    if not documents:
        raise InvalidRequest("documents is missing: send at least one text", field="documents")
    texts = [each.get("text") if isinstance(each, dict) else each for each in documents]
    _pass(b, "top_n", int, "a whole number")
    return _asked(b, path, (query, texts), documents=b.flag("return_documents"))


def _input(given: Any) -> Any:
    if given is None:
        raise InvalidRequest("input is missing: send a text, token ids, or a list of these", field="input")
    for i, text in enumerate(given if isinstance(given, list) else [given]):
        if text == "" or text == []:
            field = f"input[{i}]" if isinstance(given, list) else "input"
            raise InvalidRequest(f"{field} is empty: send a text", field=field)
    return given


def _pass(b: Body, name: str, kind: type, what: str) -> None:
    value = b.typed(name, kind, what)
    if value is not None:
        b.params[name] = value


def _asked(b: Body, path: str, given: tuple[Any, ...], **written: bool) -> VectorRequest:
    b.params["truncate"] = b.flag("truncate")
    _pass(b, "priority", int, "a whole number")
    user = b.typed("user", str, "a string")
    if user:
        b.params["client"] = user
    model = b.typed("model", str, "a string")
    for name in HINTS:
        b.take(name)
    if b.body:
        name = next(iter(b.body))
        raise InvalidRequest(f"unknown parameter {quoted(name)}", field=brief(name))
    return VectorRequest(model, path, given, b.params, **written)


def _vectors(found: Embeddings, model: str, packed: bool) -> dict[str, Any]:
    def written(vector: array[float]) -> Any:
        return base64.b64encode(bytes(vector)).decode() if packed else vector.tolist()

    data = [{"object": "embedding", "index": i, "embedding": written(v)} for i, v in enumerate(found.vectors)]
    return {"object": "list", "data": data, "model": model, "usage": _usage(found.prompt_tokens)}


def _ranks(found: Ranking, model: str, documents: list[Any] | None) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    for rank in found.results:
        result: dict[str, Any] = {"index": rank.index, "relevance_score": rank.score}
        if documents is not None:
            result["document"] = {"text": documents[rank.index]}
        results.append(result)
    usage = _usage(found.prompt_tokens)
    return {"id": f"rerank-{secrets.token_hex(12)}", "model": model, "usage": usage, "results": results}


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": tokens, "total_tokens": tokens}
