"""How a tokenizer.json cuts texts and puts them together again, in steps that both libraries take alike.

PyPI's ``tokenizers`` cuts by Rust's character classes where npm's library has expressions of its own: every cut is
written as an expression here, as for GGUF files. A step that has no such form is refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from inpage.errors import SourceInvalid, quoted

from .pre_tokenizers import GPT2

_BLANK = "\u2581"
_EXPRESSION = 20_000  # characters; a script's letters, written out, take some thousand
_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
_DECODERS = ("Replace", "ByteFallback", "Fuse", "Strip", "Metaspace")
_PUNCTUATION = r"[\p{P}!-/:-@\[-`{-~]"


@dataclass(frozen=True, slots=True)
class Steps:
    """Parts of a tokenizer.json. ``byte_level``: tokens are letters of bytes. ``notes``: what is done otherwise."""

    byte_level: bool
    normalizer: dict[str, Any] | None
    pre_tokenizer: dict[str, Any] | None
    decoder: dict[str, Any]
    notes: tuple[str, ...] = ()


def pieces(tokenizer: Mapping[str, Any], byte_fallback: bool) -> Steps:
    """Raises `SourceInvalid` naming the step at fault."""
    cuts = list(flat(tokenizer.get("pre_tokenizer"), "pretokenizers", "pre_tokenizer"))
    normal = [_normal(step) for step in flat(tokenizer.get("normalizer"), "normalizers", "normalizer")]
    kinds = [step["type"] for step in flat(tokenizer.get("decoder"), "decoders", "decoder")]
    byte_level = any(step["type"] == "ByteLevel" for step in cuts)
    unknown = [kind for kind in kinds if kind not in _DECODERS and not (kind == "ByteLevel" and byte_level)]
    if unknown:
        raise _wrong("decoder", f"{quoted(unknown[0])} is not supported; supported: ByteLevel, {', '.join(_DECODERS)}")
    if byte_level:
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        made = [cut for step in cuts for cut in _cut(step)]
        return Steps(True, _sequence(normal, "normalizers"), _sequence([*made, level], "pretokenizers"), level)
    if not byte_fallback:
        raise _wrong("model", "neither byte-level nor with bytes to fall back on: what has no token would be lost")
    notes: list[str] = []
    made = []
    for step in cuts:
        if step["type"] == "Metaspace":
            made.append(_metaspace(step, notes))
        elif step["type"] != "Split" or step.get("pattern") != {"String": " "} or not _replaces_blanks(normal):
            raise _wrong("pre_tokenizer", f"{quoted(step['type'])} is not supported where tokens hold blanks")
    prefix = any(step["type"] == "Prepend" for step in normal) or any(
        step["prepend_scheme"] == "always" for step in made
    )
    spaces = {"type": "Replace", "pattern": {"String": _BLANK}, "content": " "}
    stripped = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    decoders = [spaces, {"type": "ByteFallback"}, {"type": "Fuse"}, *stripped]
    decoder = {"type": "Sequence", "decoders": decoders}
    cut = _sequence(made, "pretokenizers")
    return Steps(False, _sequence(normal, "normalizers"), cut, decoder, tuple(notes))


def _wrong(what: str, why: str) -> SourceInvalid:
    return SourceInvalid(f"tokenizer.json: {what}: {why}", field=f"tokenizer.json.{what}")


def flat(found: Any, inner: str, what: str) -> Iterator[Mapping[str, Any]]:
    """A step, or those of a sequence in order; the reader has bounded how deep they nest."""
    if found is None:
        return
    if not isinstance(found, Mapping) or not isinstance(found.get("type"), str):
        raise _wrong(what, "must be an object with a type")
    if found["type"] != "Sequence":
        yield found
        return
    nested = found.get(inner)
    if not isinstance(nested, list):
        raise _wrong(what, f"a sequence must have {inner}")
    for each in nested:
        yield from flat(each, inner, what)


def _sequence(steps: list[dict[str, Any]], inner: str) -> dict[str, Any] | None:
    return {"type": "Sequence", inner: steps} if steps else None


def _normal(step: Mapping[str, Any]) -> dict[str, Any]:
    kind = step["type"]
    if kind in _FORMS:
        return {"type": kind}
    if kind == "Prepend" and step.get("prepend") == _BLANK:
        return {"type": kind, "prepend": _BLANK}
    pattern = step.get("pattern")
    text = pattern.get("String") if isinstance(pattern, Mapping) else None
    if kind == "Replace" and isinstance(text, str) and text and isinstance(step.get("content"), str):
        return {"type": kind, "pattern": {"String": text}, "content": step["content"]}
    supported = f"{', '.join(_FORMS)}, Prepend of {_BLANK}, Replace of a text"
    raise _wrong("normalizer", f"{quoted(kind)} is not supported so; supported: {supported}")


def _replaces_blanks(normal: list[dict[str, Any]]) -> bool:
    """So that a cut at blanks finds none."""
    return any(step["type"] == "Replace" and step["pattern"] == {"String": " "} for step in normal)


def _cut(step: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A step of a byte-level tokenizer as expressions."""
    kind = step["type"]
    if kind == "ByteLevel":
        if step.get("add_prefix_space"):
            raise _wrong("pre_tokenizer", "ByteLevel with add_prefix_space is not supported")
        if step.get("use_regex", True):
            yield _split(GPT2)
    elif kind == "Digits":
        yield _split(r"\p{N}" if step.get("individual_digits") else r"\p{N}+")
    elif kind == "Punctuation" and step.get("behavior", "Isolated") in ("Isolated", "Contiguous"):
        yield _split(_PUNCTUATION + ("+" if step.get("behavior") == "Contiguous" else ""))
    elif kind == "Split":
        yield _own_split(step)
    else:
        raise _wrong(
            "pre_tokenizer", f"{quoted(kind)} is not supported so; supported: ByteLevel, Digits, Punctuation, Split"
        )


def _own_split(step: Mapping[str, Any]) -> dict[str, Any]:
    pattern, behavior, invert = step.get("pattern"), step.get("behavior"), step.get("invert") is True
    if not isinstance(pattern, Mapping) or len(pattern) != 1 or not {"Regex", "String"} >= set(pattern):
        raise _wrong("pre_tokenizer", "Split must have a pattern: Regex or String")
    ((kind, text),) = pattern.items()
    if not isinstance(text, str) or not 0 < len(text) <= _EXPRESSION:
        raise _wrong("pre_tokenizer", f"Split: the {kind} must be a text of at most {_EXPRESSION} characters")
    if (behavior, invert) not in (("Isolated", False), ("Removed", True)):
        how = f"Split with behavior {quoted(behavior)}" + (", inverted," if invert else "")
        raise _wrong("pre_tokenizer", f"{how} is not supported; Isolated is, or Removed inverted")
    return {"type": "Split", "pattern": {kind: text}, "behavior": behavior, "invert": invert}


def _split(expression: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


def _metaspace(step: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    if step.get("replacement", _BLANK) != _BLANK or step.get("split", True) is not False:
        raise _wrong("pre_tokenizer", f"Metaspace is only supported with {_BLANK} and without split")
    scheme = step.get("prepend_scheme", "always")
    if scheme not in ("always", "first", "never"):
        raise _wrong("pre_tokenizer", f"Metaspace: prepend_scheme {quoted(scheme)} is unknown")
    if scheme == "first":
        scheme = "always"  # a text between control tokens is encoded by itself
        notes.append("tokenizer.json: text behind a control token gets a blank in front, as in llama.cpp")
    return {"type": "Metaspace", "replacement": _BLANK, "prepend_scheme": scheme, "split": False}
