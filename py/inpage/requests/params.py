"""What a caller may ask, checked: each problem is one `InvalidRequest` that names the field and what mends it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ..engines.guided_decoding import MAX_TOP
from ..engines.protocol import Grammar, Sampling
from ..errors import InvalidRequest, brief, quoted
from ..format import bounded
from ..format.abi import MAX_BIAS
from ..format.schema import SamplingDefaults
from ..settings import SamplingSettings
from .grammar import asked_grammar
from .openai_names import NAMES, translated

SEEDS = 1 << 53  # exact in JavaScript too, so that a reported seed can be sent back

# Where nobody says anything: the model's own probabilities.
_NONE: Mapping[str, float] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}


@dataclass(frozen=True, slots=True)
class Options:
    """A checked request: ``max_tokens`` None means up to the end of the context, ``timeout`` None (seconds) no end."""

    sampling: Sampling
    max_tokens: int | None
    stop: tuple[str, ...] = ()
    client: str = ""
    priority: int = 0
    timeout: float | None = None
    determined: bool = False  # greedy, or with a seed that the caller gave: the answer is always the same
    cache: bool = True
    tags: tuple[str, ...] = ()
    grammar: Grammar | None = None
    top: int | None = None  # report each token with so many of the likeliest
    max_repeats: int | None = None  # copies of a block of tokens that end the answer


_MOST = {"temperature": 2.0, "top_p": 1.0, "min_p": 1.0, "repetition_penalty": 10.0}


def sampling_defaults(settings: SamplingSettings, model: SamplingDefaults | None) -> dict[str, float]:
    """Of requests: as the settings say, else the model's makers, else none. A manifest may say anything: what is more
    than a request may ask for counts as the most that it may."""
    said = ((name, [getattr(settings, name), getattr(model, name, None), none]) for name, none in _NONE.items())
    found = {name: next(value for value in values if value is not None) for name, values in said}
    return {name: min(value, _MOST.get(name, value)) for name, value in found.items()}


def options(params: Mapping[str, Any], vocab: int, defaults: Mapping[str, float] = _NONE) -> Options:
    """Check keyword parameters, by our names or OpenAI's. ``defaults``: see `sampling_defaults`. A random answer
    without a ``seed`` gets one, which the result reports; seeds beyond `SEEDS`, such as negative ones, mean the
    remainder."""
    unknown = sorted(map(str, set(params) - _KNOWN - NAMES))
    if unknown:
        import difflib  # only for the mistaken

        near = difflib.get_close_matches(unknown[0][:80], _KNOWN | NAMES, 1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise InvalidRequest(
            f"unknown parameter {quoted(unknown[0])}; {meant}known are {', '.join(sorted(_KNOWN))}",
            field=brief(unknown[0]),
        )
    for name, value in params.items():
        bounded.check(value, name)
    given = translated(params)
    temperature = _number(given, "temperature", defaults["temperature"], 0, 2)
    seed = _integer(given, "seed", None, -_SEEDS64, _SEEDS64 - 1)
    seed = None if seed is None else seed % SEEDS
    determined = temperature == 0 or seed is not None
    if seed is None:
        seed = secrets.randbelow(SEEDS) if temperature > 0 else 0
    return Options(
        sampling=Sampling(
            temperature=temperature,
            top_k=_integer(given, "top_k", min(int(defaults["top_k"]), vocab), 0, vocab) or 0,
            top_p=_number(given, "top_p", defaults["top_p"], 0, 1),
            min_p=_number(given, "min_p", defaults["min_p"], 0, 1),
            repetition_penalty=_number(given, "repetition_penalty", defaults["repetition_penalty"], 0, 10, above=True),
            presence_penalty=_number(given, "presence_penalty", 0.0, -2, 2),
            frequency_penalty=_number(given, "frequency_penalty", 0.0, -2, 2),
            seed=seed,
            logit_bias=_logit_bias(given.get("logit_bias"), vocab),
        ),
        max_tokens=_integer(given, "max_tokens", None, 0, SEEDS),
        stop=_texts(given.get("stop"), "stop"),
        client=checked_text(given.get("client", ""), "client", empty=True),
        priority=_integer(given, "priority", 0, -100, 100) or 0,
        timeout=None if "timeout" not in given else _number(given, "timeout", 0.0, 0, 1e9, above=True),
        determined=determined,
        cache=_flag(given, "cache", True),
        tags=_texts(given.get("tags"), "tags"),
        grammar=asked_grammar(given),
        top=_integer(given, "logprobs", None, 0, MAX_TOP),
        max_repeats=_integer(given, "max_repeats", None, 0, _REPEATS) or None,
    )


_KNOWN = frozenset(Sampling.__dataclass_fields__) | {
    "max_tokens",
    "stop",
    "client",
    "priority",
    "timeout",
    "cache",
    "tags",
    "schema",
    "regex",
    "grammar",
    "logprobs",
    "max_repeats",
}
_REPEATS = 1 << 20
_SEEDS64 = 1 << 63
_TEXTS = 16
_IDS = 1 << 24  # far beyond any context


def _texts(value: Any, field: str) -> tuple[str, ...]:
    """A text, or several."""
    if value is None:
        return ()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or isinstance(texts, bytes) or not all(isinstance(s, str) and s for s in texts):
        raise InvalidRequest(f"{field} must be a text or a list of texts, none of them empty", field=field)
    if len(texts) > _TEXTS:
        raise InvalidRequest(f"{field} has {len(texts)} texts; at most {_TEXTS} can be given", field=field)
    return tuple(texts)


def _flag(given: Mapping[str, Any], name: str, default: bool) -> bool:
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false, not {quoted(value)}", field=name)
    return value


def checked_text(text: Any, field: str, *, empty: bool = False) -> str:
    """A string that can be encoded: not blank (unless ``empty``) and without half characters."""
    if not isinstance(text, str):
        raise InvalidRequest(f"{field} must be a string, not {type(text).__name__}", field=field)
    if not empty and not text.strip():
        raise InvalidRequest(f"{field} is empty: write something to answer", field=field)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{field} holds half a character (a lone surrogate) at {error.start}; remove it", field=field
        ) from None
    return text


def checked_ids(ids: Any, vocab: int, field: str, *, empty: bool = False, most: int | None = None) -> list[int]:
    """Token ids given directly: whole numbers of the vocabulary, at least one (unless ``empty``) and at most ``most``:
    more are not even counted."""
    if not isinstance(ids, Iterable):
        raise InvalidRequest(f"{field} must be a text or token ids, not {type(ids).__name__}", field=field)
    checked = list(ids if most is None else islice(ids, most + 1))
    if most is not None and len(checked) > most:
        raise InvalidRequest(
            f"{field} has more than {most} token ids, and there is room for no more: shorten it", field=field
        )
    bounded.check(checked, field, items=_IDS)
    if not checked and not empty:
        raise InvalidRequest(f"{field} is empty: give at least one token id", field=field)
    for i, token in enumerate(checked):
        if not _whole(token) or not 0 <= token < vocab:
            raise InvalidRequest(
                f"{field}[{i}] is {quoted(token)}; token ids are whole numbers of 0..{vocab - 1}", field=f"{field}[{i}]"
            )
    return checked


def answer_room(prompt: int, max_tokens: int | None, capacity: int, field: str) -> int:
    """How many tokens the answer may have when ``capacity`` is what prompt and answer can take together."""
    room = capacity - prompt
    if room < (max_tokens != 0):
        raise InvalidRequest(
            f"the prompt has {prompt} tokens; at most {capacity - 1} fit with an answer: shorten it", field=field
        )
    if max_tokens is not None and max_tokens > room:
        raise InvalidRequest(
            f"max_tokens {max_tokens} does not fit after a prompt of {prompt} tokens; ask for at most {room}",
            field="max_tokens",
        )
    return room if max_tokens is None else max_tokens


def _number(
    given: Mapping[str, Any], name: str, default: float, low: float, high: float, *, above: bool = False
) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(f"{name} must be a number, not {type(value).__name__}", field=name)
    if not bounded.finite(value) or not low <= value <= high or (above and value == low):
        least = f"above {low}" if above else f"at least {low}"
        raise InvalidRequest(f"{name} is {quoted(value)}; it must be {least} and at most {high}", field=name)
    return float(value)


def _integer(given: Mapping[str, Any], name: str, default: int | None, low: int, high: int) -> int | None:
    value = given.get(name, default)
    if value is None:
        return None
    if not _whole(value):
        raise InvalidRequest(f"{name} must be a whole number, not {quoted(value)}", field=name)
    if not low <= value <= high:
        raise InvalidRequest(f"{name} is {quoted(value)}; it must be at least {low} and at most {high}", field=name)
    return int(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _logit_bias(value: Any, vocab: int) -> tuple[tuple[int, float], ...]:
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise InvalidRequest("logit_bias must map token ids to numbers of -100..100", field="logit_bias")
    if len(value) > MAX_BIAS:
        raise InvalidRequest(f"logit_bias names {len(value)} tokens; at most {MAX_BIAS} can be", field="logit_bias")
    pairs = []
    for key, bias in value.items():
        field = f"logit_bias[{brief(key)}]"
        token = bounded.whole(key) if isinstance(key, str) else key  # JSON keys are strings
        if token is None or not _whole(token) or not 0 <= token < vocab:
            raise InvalidRequest(f"{field}: token ids are whole numbers of 0..{vocab - 1}", field=field)
        pairs.append((token, _number({field: bias}, field, 0.0, -100, 100)))
    return tuple(sorted(pairs))
