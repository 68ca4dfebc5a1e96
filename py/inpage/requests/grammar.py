"""What an answer may be held to: a JSON schema, a regular expression or an EBNF grammar, checked before anybody waits.

The engine worker follows grammars with XGrammar. A JSON schema is made into one here, as XGrammar's own reading of
schemas passes over much of them; what would not hold is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..engines.guided_decoding import FIELDS
from ..engines.protocol import EngineInfo, Grammar
from ..engines.registry import engine_kind
from ..errors import InvalidRequest, Unsupported, said
from ..format import bounded
from ..host.jobs import imported, job

SOURCE_BYTES = 64 << 10

_REPEATS = 1000  # of one bound; compiling takes milliseconds for each repetition
_ALL_REPEATS = 2000
_KEPT = 16  # schemas that were compiled
_compiled: dict[str, str] = {}  # the one used last is last
_BOUND = re.compile(r"\{(\d++)?,?(\d++)?\}")  # runs of digits are taken whole: giving some back is quadratic


def asked_grammar(given: Mapping[str, Any]) -> Grammar | None:
    """From the parameters ``schema`` (a mapping, or JSON text), ``regex`` and ``grammar``, of which one may be given.
    Raises `InvalidRequest`."""
    named = [name for name in ("schema", "regex", "grammar") if given.get(name) is not None]
    if len(named) > 1:
        raise InvalidRequest(f"{named[0]} and {named[1]} cannot both be followed: give one", field=named[1])
    if not named:
        return None
    if named == ["schema"]:
        return schema_grammar(given["schema"])
    text = given[named[0]]
    if not isinstance(text, str) or not text:
        raise InvalidRequest(f"{named[0]} must be a text that is not empty", field=named[0])
    _check_size(text, named[0])
    _check_repeats([(int(n[:9]), named[0]) for pair in _BOUND.findall(text) for n in pair if n])
    return Grammar("regex" if named == ["regex"] else "ebnf", text)


def one_grammar(grammar: Grammar | None, calls: Grammar | None) -> Grammar | None:
    """What was asked for, or the form of ``calls``. Raises `InvalidRequest` for both."""
    if grammar is not None and calls is not None:
        field = FIELDS[grammar.kind]
        raise InvalidRequest(f"{field} does not go with tools that must be called, or are strict", field=field)
    return grammar or calls


def unmet_need(
    grammar: Grammar | None, top: int | None, info: EngineInfo, can: Callable[[str], bool] | None = None
) -> Unsupported | None:
    """What a request needs that this engine has not; it names the caller's parameter. ``can``: whether the engine or
    another that could take its place has a flag."""
    can = can or info.has
    if grammar is not None and not can("grammars"):
        field = FIELDS[grammar.kind]
        help = engine_kind(info.backend).lacks().get("grammars", "ask in the page")
        return Unsupported(f"{field} cannot be followed by the {info.backend} engine: {help}", field=field)
    if top is not None and not can("logprobs"):
        return Unsupported(f"logprobs are not told by the {info.backend} engine: leave them out", field="logprobs")
    return None


def schema_grammar(schema: Any, field: str = "schema") -> Grammar:
    """A checked JSON schema, compiled; the answer will be one line of JSON. An object has the properties that are named
    and no others, unless ``additionalProperties`` allows them; see `inpage.json_schema`."""
    if isinstance(schema, str):
        try:
            schema = bounded.read(schema, SOURCE_BYTES)
        except ValueError as error:
            raise InvalidRequest(f"{field} is not JSON: {said(error)}", field=field) from error
    bounded.check(schema, field)
    try:
        text = json.dumps(schema, allow_nan=False, ensure_ascii=False)
        text.encode()  # no half of a surrogate pair
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{field} cannot be written as JSON: {said(error)}", field=field) from error
    _check_size(text, field)
    return Grammar("schema", _grammar_text(text, field))


def _grammar_text(schema: str, field: str) -> str:
    """Kept, as a request's schema is checked where the request is read, and made into its grammar further on, where its
    field has another name: only an error depends on that."""
    text = _compiled.pop(schema, None)
    if text is None:
        compiler = imported("inpage.json_schema")  # with the first schema: see worker/kept_memory.py
        with job("schema", len(schema)):
            text = str(compiler.compile_schema(bounded.read(schema), field))
    _compiled[schema] = text
    if len(_compiled) > _KEPT:
        del _compiled[next(iter(_compiled))]
    return text


def _check_repeats(repeats: list[tuple[int, str]]) -> None:
    total = 0
    for count, field in repeats:
        total += min(count, 200)  # beyond that a longer one costs no more
        if count > _REPEATS:
            raise InvalidRequest(f"{field}: {count} repetitions, at most {_REPEATS}", field=field)
        if total > _ALL_REPEATS:
            raise InvalidRequest(
                f"{field}: the bounds on lengths would take too long to prepare: have fewer", field=field
            )


def _check_size(text: str, field: str) -> None:
    if len(text.encode("utf-8", "replace")) > SOURCE_BYTES:
        raise InvalidRequest(f"{field} is larger than {SOURCE_BYTES} bytes", field=field)
