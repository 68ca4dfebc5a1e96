"""What answers of the native engine are held to: as grammar.js and grammars.js in web/engine/grammar, which see, with
threads where the page has workers."""

from __future__ import annotations

import json
import re
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ArtifactInvalid, InvalidRequest, Unsupported, said
from ..format import bounded
from ..format.abi import SEQUENCE, SEQUENCE_WORDS
from ..format.limits import FILE_BYTES
from ..format.schema import FileRef, Manifest
from ..text.tokenizer import ITEMS
from .guided_decoding import FIELDS, Held
from .native_library import read_file
from .native_needs import library
from .native_xgrammar import Handle, Library, LibraryFailed, Program, program
from .protocol import Grammar

T = TypeVar("T")
_MOST = 2  # copies of the library: one compiles while the other serves
_COMPILED = 32  # grammars that each keeps compiled
_KNOWN = 32  # grammars whose copy is remembered
_CHECK = re.compile(r"^.*?\.cc:\d+: (Check failed: .*? is false: )?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """``kind``: as XGrammar calls how tokens stand for bytes; ``texts``: by id, "" for what no answer may hold."""

    kind: str
    texts: list[str]
    stops: tuple[int, ...]


@dataclass(slots=True)
class _Matching:
    grammar: Grammar
    matcher: Handle
    tokens: list[int] = field(default_factory=list)


def read_vocabulary(folder: Path, manifest: Manifest) -> Vocabulary:
    """Raises `ArtifactInvalid`, `Unsupported` where tokens do not stand for bytes."""
    entry, size = manifest.tokenizer, manifest.architecture.vocab
    data = read_file(folder, FileRef(entry.file, entry.bytes, entry.sha256), "tokenizer")
    try:
        description = bounded.read(data, FILE_BYTES["tokenizer"], items=ITEMS, keys=ITEMS)
        texts = [""] * size
        for text, i in description["model"]["vocab"].items():
            texts[i] = text
        for added in description.get("added_tokens") or ():
            texts[added["id"]] = "" if added.get("special") else added["content"]
        for i in entry.special.values():
            texts[i] = ""
        kind = _kind(description.get("decoder") or {})
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ArtifactInvalid(f"tokenizer.json cannot be used: {said(error)}", field="tokenizer") from error
    return Vocabulary(kind, texts, entry.eos)


def _kind(decoder: dict[str, Any]) -> str:
    if decoder.get("type") == "ByteLevel":
        return "byte_level"
    if any(step["type"] == "ByteFallback" for step in decoder.get("decoders") or ()):
        return "byte_fallback"
    why = "answers can be held to a grammar only where the tokenizer is byte-level BPE or SentencePiece with bytes"
    raise Unsupported(why, field="tokenizer.decoder")


class Grammars:
    """With a copy of the library. What fails leaves it unusable, and another takes its place: nothing is lost, as a
    matcher is made anew from the tokens of the answer so far. ``most``: requests whose matchers are kept."""

    def __init__(self, loaded: Program, vocabulary: Vocabulary, most: int) -> None:
        self._program, self._vocabulary, self._most = loaded, vocabulary, most
        self._library: Library | None = None
        self._compiler: Handle | None = None
        self._compiled: OrderedDict[Grammar, Handle] = OrderedDict()
        self._matchings: OrderedDict[str, _Matching] = OrderedDict()

    def prepare(self, grammar: Grammar) -> None:
        """Compile it, if it is not. Raises `InvalidRequest` where it is none."""
        self._guarded(grammar, lambda: self._ready(grammar))

    def mask(self, held: Held) -> bytes:
        """Which tokens may follow, a bit each, in words of 32. Raises `InvalidRequest` where the grammar is none, the
        tokens do not follow it, or nothing may follow."""
        field = FIELDS[held.grammar.kind]
        bits = self._guarded(held.grammar, lambda: self._bits(held))
        if bits is None:
            raise InvalidRequest(f"the answer so far does not follow {field}", field=field)
        if not any(bits):
            raise InvalidRequest(f"{field} leaves nothing that could be said next", field=field)
        return bits

    def forget(self, request: str) -> None:
        """The request has ended."""
        matching = self._matchings.pop(request, None)
        if matching is not None and self._library is not None:
            self._guarded(matching.grammar, lambda: self._opened()[0].delete(matching.matcher))

    def _guarded(self, grammar: Grammar, work: Callable[[], T]) -> T:
        try:
            return work()
        except LibraryFailed as error:
            printed = "".join(self._library.complaints if self._library else ()).splitlines()
            if self._library is not None:
                self._library.close()
            fatal = next((line for line in reversed(printed) if "[FATAL]" in line), str(error))
            self._library = self._compiler = None
            self._compiled.clear()
            self._matchings.clear()
            name = FIELDS[grammar.kind]
            raise InvalidRequest(
                f"{name} cannot be followed: {_CHECK.sub('', fatal).strip()[:300]}", field=name
            ) from error

    def _opened(self) -> tuple[Library, Handle]:
        if self._library is None or self._compiler is None:
            self._library = Library(self._program)
            words = self._vocabulary
            self._compiler = self._library.compiler(self._library.tokenizer(words.texts, words.kind, words.stops))
        return self._library, self._compiler

    def _ready(self, grammar: Grammar) -> Handle:
        lib, compiler = self._opened()
        found = self._compiled.get(grammar)
        if found is None:
            lib.complaints.clear()
            if grammar.kind in ("ebnf", "schema"):
                found = lib.compile_grammar(compiler, grammar.source)
            else:
                regex = grammar.kind == "regex"
                form = {"type": "regex", "pattern": grammar.source} if regex else bounded.read(grammar.source)
                found = lib.compile_tag(compiler, json.dumps({"type": "structural_tag", "format": form}))
        for old in _keep(self._compiled, grammar, found, _COMPILED):
            lib.delete(old)
        return found

    def _bits(self, held: Held) -> bytes | None:
        lib, _ = self._opened()
        matching = self._matchings.get(held.request)
        if matching is None or matching.grammar != held.grammar:
            self.forget(held.request)
            matching = _Matching(held.grammar, lib.matcher(self._ready(held.grammar)))
        for old in _keep(self._matchings, held.request, matching, self._most):
            lib.delete(old.matcher)
        seen, tokens = matching.tokens, held.tokens
        same = next(
            (i for i, (a, b) in enumerate(zip(seen, tokens, strict=False)) if a != b), min(len(seen), len(tokens))
        )
        if same < len(seen):
            lib.roll_back(matching.matcher, len(seen) - same)
            del seen[same:]
        for token in tokens[same:]:
            if not lib.accept(matching.matcher, token):
                return None
            seen.append(token)
        return lib.mask(matching.matcher, len(self._vocabulary.texts))


@dataclass(slots=True)
class _Copy:
    """``waiting``: threads that compile with it, or want to."""

    grammars: Grammars
    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: int = 0


class GrammarPool:
    """Those of an engine, for any thread: opened with the first request that needs them. A grammar stays with one copy,
    a new one goes to that which no running answer needs."""

    def __init__(self, folder: Path, manifest: Manifest, most: int) -> None:
        self._folder, self._manifest, self._most = folder, manifest, most
        self._words = -(-manifest.architecture.vocab // 32)
        self._lock = threading.Lock()
        self._vocabulary: Vocabulary | None = None
        self._copies: list[_Copy] = []
        self._homes: OrderedDict[Grammar, int] = OrderedDict()
        self._serving: set[Grammar] = set()

    def prepare(self, grammar: Grammar) -> None:
        """Compile it. Raises `InvalidRequest` where it is none, `Unsupported`, `ArtifactInvalid`."""
        copy = self._home(grammar, compiling=True)
        try:
            with copy.lock:
                copy.grammars.prepare(grammar)
        finally:
            with self._lock:
                copy.waiting -= 1

    def serve(self, grammars: Iterable[Grammar]) -> None:
        """What whatever runs is held to, from now on."""
        self._serving = set(grammars)

    def mask(self, held: Mapping[int, Held], sequences: array[int]) -> array[int] | None:
        """The masks of these structs, behind each other, and in each struct where its own begins. None for none."""
        masks = array("I")
        for i, each in held.items():
            copy = self._home(each.grammar)
            sequences[i * SEQUENCE_WORDS + SEQUENCE["mask"]] = len(masks)
            with copy.lock:
                masks.frombytes(copy.grammars.mask(each)[: 4 * self._words])
        return masks or None

    def forget(self, held: Held) -> None:
        copy = self._home(held.grammar)
        with copy.lock:
            copy.grammars.forget(held.request)

    def _home(self, grammar: Grammar, compiling: bool = False) -> _Copy:
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = read_vocabulary(self._folder, self._manifest)
            home = self._homes.get(grammar)
            if home is None:
                home = self._choose()
            _keep(self._homes, grammar, home, _KNOWN)
            copy = self._copies[home]
            copy.waiting += compiling
            return copy

    def _choose(self) -> int:
        serving = {self._homes.get(grammar) for grammar in self._serving}
        loads = [2 * (i in serving) + (copy.waiting > 0) for i, copy in enumerate(self._copies)]
        if min(loads, default=1) > 0 and len(loads) < _MOST:
            assert self._vocabulary is not None
            self._copies.append(_Copy(Grammars(program(*library()), self._vocabulary, self._most)))
            loads.append(0)
        return loads.index(min(loads))


def _keep(held: OrderedDict[Any, T], key: Any, value: T, most: int) -> list[T]:
    """Put last. What goes first where there are too many."""
    held[key] = value
    held.move_to_end(key)
    return [held.popitem(last=False)[1]] if len(held) > most else []
