"""The tokenizer of a model's folder: tokenizer.json with what the files beside it say of its tokens.

Taken are byte-level BPE, BPE over characters with bytes to fall back on (SentencePiece's vocabularies, converted) and,
of models that answer with vectors, WordPiece and Unigram.
How text is cut is written anew, in steps that PyPI's ``tokenizers`` and npm's ``@huggingface/tokenizers`` take alike;
what they do not is refused by name. Control tokens are found by the rules for GGUF files (`control`): a token that the
files declare as text and that ends a turn is none the less no text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from inpage.errors import SourceInvalid, brief, foreign, quoted
from inpage.format.schema import ARCHITECTURE_LIMITS

from ..gguf.metadata import Metadata
from .control import Control, read_control
from .pieces import pieces
from .tokenizer import Tokenizer
from .unigram import read_unigram
from .vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Vocabulary, document
from .wordpiece import read_wordpiece

FILE = "tokenizer.json"
_NAMED = ("bos", "eos", "unk", "pad", "sep", "cls", "mask")
_GGUF = {"unk": "unknown", "pad": "padding", "sep": "seperator"}  # how GGUF spells it
_FLAGS = ("lstrip", "rstrip")


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """Each file's object; {} where it is not there."""

    tokenizer: Mapping[str, Any]
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)
    special_tokens_map: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    generation_config: Mapping[str, Any] = field(default_factory=dict)


def read_tokenizer(files: TokenizerFiles, size: int, embeds: bool = False) -> tuple[Tokenizer, list[str]]:
    """``size``: rows of the embedding; ``embeds``: of a model that answers with vectors, where a text may end with a
    token. Beside it what was left out, a line each. Raises `SourceInvalid`."""
    if size > ARCHITECTURE_LIMITS["vocab"]:
        raise wrong("model.vocab", f"an embedding of {size} rows")
    if _kind(files.tokenizer) == "WordPiece":
        made, notes = read_wordpiece(files.tokenizer, _texts(files), size)
        _try(made)
        return made, notes
    around = _around(files)
    if embeds and _kind(files.tokenizer) == "Unigram":
        made, notes = read_unigram(files.tokenizer, _texts(files), around, size)
        _try(made)
        return made, notes
    notes = []
    model = _model(files.tokenizer)
    added = _added(files.tokenizer.get("added_tokens"))
    for token in [token for token in added if token >= size]:
        notes.append(f"{FILE}: token {quoted(added.pop(token)['content'])} has no row of the embedding and is left out")
    steps = pieces(files.tokenizer, bool(model.get("byte_fallback")))
    notes += steps.notes
    vocabulary = _vocabulary(model, added, size)
    control = _control(files, vocabulary)
    shown = sorted({*vocabulary.of(USER_DEFINED), *control.ids})
    entries = [_entry(i, vocabulary.tokens[i], i in control.ids, added.get(i, {})) for i in shown]
    add_bos = _adds_bos(files, around, vocabulary, control.bos)
    behind = _behind(files, around, vocabulary, control.ends) if embeds else None
    if around[1] is not None and not embeds:
        notes.append(f"{FILE}: post_processor puts {quoted(around[1])} behind a text, which is left out")
    made = Tokenizer(
        json=document(
            entries,
            normalizer=steps.normalizer,
            pre_tokenizer=steps.pre_tokenizer,
            decoder=steps.decoder,
            byte_fallback=not steps.byte_level,
            ignore_merges=model.get("ignore_merges") is True,
            vocab=vocabulary.ids,
            merges=_merges(model.get("merges"), vocabulary.ids),
        ),
        bos=control.bos,
        eos=control.ends if behind is None else tuple(dict.fromkeys((behind, *control.ends))),
        add_bos=add_bos,
        special={vocabulary.tokens[i]: i for i in sorted(control.ids)},
        add_eos=behind is not None,
    )
    _try(made)
    return made, notes


def _kind(tokenizer: Mapping[str, Any]) -> Any:
    model = tokenizer.get("model")
    return model.get("type") if isinstance(model, Mapping) else None


def _texts(files: TokenizerFiles) -> dict[str, str]:
    """Of special tokens that the files name, by what they are."""
    found: dict[str, str] = {}
    for name in _NAMED:
        for table in (files.special_tokens_map, files.tokenizer_config):
            value = table.get(f"{name}_token")
            text = value.get("content") if isinstance(value, Mapping) else value
            if isinstance(text, str) and text:
                found[name] = text
    return found


def wrong(what: str, why: str) -> SourceInvalid:
    return SourceInvalid(f"{FILE}: {what}: {why}", field=f"{FILE}.{what}")


def _model(tokenizer: Mapping[str, Any]) -> Mapping[str, Any]:
    model = tokenizer.get("model")
    if not isinstance(model, Mapping):
        raise SourceInvalid(f"{FILE}: model is missing", field=f"{FILE}.model")
    kind = model.get("type", "BPE")
    if kind != "BPE":
        raise wrong("model.type", f"{quoted(kind)} is not supported; only BPE is")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise wrong(f"model.{name}", f"{quoted(model[name])} is not supported")
    return model


def _added(entries: Any) -> dict[int, Mapping[str, Any]]:
    """By id."""
    out: dict[int, Mapping[str, Any]] = {}
    for i, entry in enumerate(entries if isinstance(entries, list) else [] if entries is None else [None]):
        at = f"added_tokens[{i}]"
        token = entry.get("id") if isinstance(entry, Mapping) else None
        if type(token) is not int or token < 0 or not isinstance(entry.get("content"), str) or not entry["content"]:
            raise wrong(at, "must have an id and a content")
        if entry.get("single_word"):
            raise wrong(at, f"{quoted(entry['content'])} as a single word is not supported")
        if out.setdefault(token, entry)["content"] != entry["content"]:
            raise wrong(at, f"token {token} is {quoted(out[token]['content'])} already")
    return out


def _vocabulary(model: Mapping[str, Any], added: Mapping[int, Mapping[str, Any]], size: int) -> Vocabulary:
    """With a name for each row of the embedding that has no token, which no text becomes."""
    vocab = model.get("vocab")
    if not isinstance(vocab, Mapping) or not all(type(i) is int for i in vocab.values()):
        raise wrong("model.vocab", "must map tokens to ids")
    texts: dict[int, str] = {}
    for text, i in [*vocab.items(), *((entry["content"], token) for token, entry in added.items())]:
        if not 0 <= i < size:
            raise wrong("model.vocab", f"token {quoted(text)} is {i}, but the embedding has {size} rows")
        if texts.setdefault(i, text) != text:
            raise wrong("model.vocab", f"token {i} is {quoted(texts[i])} and {quoted(text)}")
    ids = {text: i for i, text in texts.items()}
    if len(ids) != len(texts):
        twice = next(text for i, text in texts.items() if ids[text] != i)
        raise wrong("model.vocab", f"{quoted(twice)} stands twice")
    kinds = [NORMAL] * size
    for i in range(size):
        if i not in texts:
            name = f"[PAD{i}]"
            texts[i] = name if name not in ids else f"[PAD{i}_]"
            ids[texts[i]], kinds[i] = i, UNUSED
    if len(ids) != size:
        raise wrong("model.vocab", "names like [PAD0] are taken")
    if model.get("byte_fallback"):
        for byte in range(256):
            text = f"<0x{byte:02X}>"
            if text not in ids:
                raise wrong("model.vocab", f"byte token {text} is missing, so that some characters cannot be encoded")
            kinds[ids[text]] = BYTE
    unknown = model.get("unk_token")
    if isinstance(unknown, str) and unknown in ids:
        kinds[ids[unknown]] = UNKNOWN
    for token, entry in added.items():
        kinds[token] = CONTROL if entry.get("special") else USER_DEFINED
    return Vocabulary([texts[i] for i in range(size)], kinds, {texts[i]: i for i in range(size)})


class _Named(Metadata):
    """What the files name, under GGUF's keys."""

    def __init__(self, values: Mapping[str, int]) -> None:
        self._values = {f"tokenizer.ggml.{_GGUF.get(key, key)}_token_id": value for key, value in values.items()}

    def names(self) -> list[str]:
        return list(self._values)

    def get(self, key: str) -> Any:
        return self._values.get(key)


def _control(files: TokenizerFiles, vocabulary: Vocabulary) -> Control:
    size = len(vocabulary.tokens)
    named = {name: token for name in _NAMED if (token := _named(files, name, vocabulary)) is not None}
    ends = _ids(files.generation_config, "generation_config.json", "eos", size)
    ends = ends or _ids(files.config, "config.json", "eos", size)
    if "eos" not in named and ends:
        named["eos"] = ends[0]
    # A folder names every token that it means: GGUF's defaults for files that name none are not for it.
    control = read_control(_Named(named), vocabulary)
    ends = [token for token in ends if not vocabulary.is_letter(token)]
    own = [named["eos"]] if "eos" in named else []
    return replace(control, ends=tuple(dict.fromkeys([*own, *ends, *control.ends])), ids=control.ids | frozenset(ends))


def _named(files: TokenizerFiles, name: str, vocabulary: Vocabulary) -> int | None:
    for table in (files.tokenizer_config, files.special_tokens_map):
        value = table.get(f"{name}_token")
        text = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(text, str) and text in vocabulary.ids:
            return vocabulary.ids[text]
    found = _ids(files.config, "config.json", name, len(vocabulary.tokens))
    return found[0] if found else None


def _ids(table: Mapping[str, Any], file: str, name: str, size: int) -> list[int]:
    """One id or several."""
    key = f"{name}_token_id"
    value = table.get(key)
    found = value if isinstance(value, list) else [] if value is None else [value]
    for token in found:
        if type(token) is int and token < 0:
            return []  # how some files say that there is none
        if type(token) is not int or token >= size:
            raise SourceInvalid(f"{file}: {key}: {quoted(token)} is not a token", field=f"{file}.{key}")
    return list(found)


def _around(files: TokenizerFiles) -> tuple[str | None, str | None]:
    """The tokens that a post-processor puts in front of a text and behind it."""
    named = [text for step in _steps(files.tokenizer.get("post_processor"), "processors") for text in _written(step)]
    return (named[0], named[-1] if len(named) > 1 else None) if named else (None, None)


def _adds_bos(
    files: TokenizerFiles, around: tuple[str | None, str | None], vocabulary: Vocabulary, bos: int | None
) -> bool:
    """Whether texts begin with BOS: said in words, or by how texts are put together behind the tokenizer."""
    said = files.tokenizer_config.get("add_bos_token")
    adds = said if isinstance(said, bool) else around[0] is not None and vocabulary.ids.get(around[0]) == bos
    return adds and bos is not None


def _behind(
    files: TokenizerFiles, around: tuple[str | None, str | None], vocabulary: Vocabulary, ends: Sequence[int]
) -> int | None:
    """The token that a text to embed ends with, said in the same ways."""
    if around[1] is not None:
        if around[1] not in vocabulary.ids:
            raise wrong("post_processor", f"{quoted(around[1])} is not in the vocabulary")
        return vocabulary.ids[around[1]]
    return ends[0] if files.tokenizer_config.get("add_eos_token") is True and ends else None


def _written(step: Mapping[str, Any]) -> list[str | None]:
    """What a step writes for a text: tokens, and None in the place of the text."""
    kind = step.get("type")
    if kind == "ByteLevel":
        return []  # it moves offsets only
    if kind in ("BertProcessing", "RobertaProcessing"):
        front, behind = (_first(step.get(name)) for name in ("cls", "sep"))
        if front is None or behind is None:
            raise wrong("post_processor", f"{kind} must have cls and sep, each a token and its id")
        return [front, None, behind]
    if kind != "TemplateProcessing":
        known = "TemplateProcessing, BertProcessing, RobertaProcessing and ByteLevel"
        raise wrong("post_processor", f"{quoted(kind)} is not supported; {known} are")
    single = step.get("single")
    items = [item for item in single if isinstance(item, Mapping)] if isinstance(single, list) else []
    tokens = [item.get("SpecialToken") for item in items]
    texts = [token.get("id") if isinstance(token, Mapping) else None for token in tokens]
    return [text if isinstance(text, str) else None for text in texts]


def _first(pair: Any) -> str | None:
    return pair[0] if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) else None


def _steps(found: Any, inner: str) -> Iterator[Mapping[str, Any]]:
    """A step, or those of a sequence; the reader has bounded how deep they nest."""
    if isinstance(found, Mapping):
        if found.get("type") == "Sequence":
            nested = found.get(inner)
            for each in nested if isinstance(nested, list) else ():
                yield from _steps(each, inner)
        else:
            yield found


def _merges(found: Any, ids: Mapping[str, int]) -> list[list[str]]:
    """As pairs; older files have them as text with a blank between."""
    if not isinstance(found, list):
        raise wrong("model.merges", "must be a list")
    out: dict[tuple[str, str], None] = {}
    for i, entry in enumerate(found):
        pair: Sequence[Any] = entry.split(" ") if isinstance(entry, str) else entry if isinstance(entry, list) else ()
        if len(pair) != 2 or not all(isinstance(part, str) and part in ids for part in pair):
            raise wrong(f"model.merges[{i}]", f"{quoted(entry)} joins no tokens")
        if pair[0] + pair[1] not in ids:
            raise wrong(f"model.merges[{i}]", f"{quoted(entry)} makes no token")
        out.setdefault((pair[0], pair[1]))
    return [list(pair) for pair in out]


def _entry(token: int, content: str, special: bool, given: Mapping[str, Any]) -> dict[str, Any]:
    """Texts of tokens are looked for before anything is normalized."""
    flags = {name: given.get(name) is True for name in _FLAGS}
    return {"id": token, "content": content, "single_word": False, **flags, "normalized": False, "special": special}


def _try(tokenizer: Tokenizer) -> None:
    """Whether the library takes it: an expression that it cannot read shows only there."""
    import json

    from tokenizers import Tokenizer as Library

    with foreign(SourceInvalid, f"{FILE} cannot be used", FILE):
        Library.from_str(json.dumps(tokenizer.json, ensure_ascii=False)).encode("a text, 123", add_special_tokens=False)


def chat_template(
    tokenizer_config: Mapping[str, Any], file: str | None, named: Iterable[str] = ()
) -> tuple[str | None, list[str]]:
    """The template, and what is to be said of others. ``file``: the text of chat_template.jinja, which counts first;
    ``named``: names of more files of the kind."""
    found = file if file is not None else tokenizer_config.get("chat_template")
    templates: dict[str, str] = {}
    if isinstance(found, str):
        templates["default"] = found
    elif isinstance(found, list):
        for entry in found:
            if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
                if not isinstance(entry.get("template"), str):
                    raise _template_error(f"{brief(entry['name'])} must be a text")
                templates[entry["name"]] = entry["template"]
    elif found is not None:
        raise _template_error("must be a text, or a list of named ones")
    chosen = "default" if "default" in templates or len(templates) != 1 else next(iter(templates))
    others = sorted({*templates, *named} - {chosen})
    listed = ", ".join(map(quoted, others[:8]))
    notes = [f"tokenizer_config.json: of the chat templates only {chosen!r} is taken, not {listed}"] if others else []
    return templates.get(chosen) or None, notes


def _template_error(why: str) -> SourceInvalid:
    key = "tokenizer_config.json.chat_template"
    return SourceInvalid(f"{key}: {why}", field=key)
