"""Text to token ids and back, the same in CPython (PyPI ``tokenizers``) and in the page (``@huggingface/tokenizers``).

Both libraries turn a text that spells a control token into that token. Here they never do: they are given the
tokenizer without its control tokens, and only `Tokenizer.encode_rendered`, meant for what a chat template wrote,
puts them in. So nothing that a user types can end a turn or begin one.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Container, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Protocol, TypeAlias

from ..errors import ArtifactInvalid, InvalidRequest, Unsupported, foreign
from ..format import bounded
from ..format.limits import ASIDE_CHARS, FILE_BYTES, VOCAB
from ..host.browser import IN_PAGE, host, settle
from .pieces import Pieces, pieces_of
from .text_growth import check_growth
from .token_bounds import longest_token

ITEMS = 1 << 24  # a vocabulary of 256,000 tokens has two million entries, merges included
_HALF = "\ufffd"  # how a decoder shows bytes that are not (yet) a character
_DROPPED = "\ufdd0dropped"  # a byte without a token, which is left out; no text holds this noncharacter


def _byte_letters() -> dict[str, int]:
    """GPT-2's letter of each byte: itself where it can be seen, else one from U+0100 on, in order."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


_BYTES = _byte_letters()


class Codec(Protocol):
    """One library's tokenizer, without control tokens."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        ...

    async def encode_aside(self, texts: Sequence[str]) -> list[list[int]]:
        """The same beside the event loop, which goes on meanwhile."""
        ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def piece(self, token: int) -> str | None:
        """A token as the vocabulary has it."""
        ...


Encoding: TypeAlias = Generator[list[str], list[list[int]], list[int]]  # asks for texts to be encoded


class Tokenizer:
    """``control``: the text and id of every token that text must not become; ``flags`` of those that swallow the blanks
    ``lstrip`` before or ``rstrip`` behind them; ``longest``: characters that one token can stand for, None for any
    number; ``pieces``: decodes instead of the codec; ``dropped``: what the codec writes for a byte without a token;
    ``letters``: the vocabulary writes a byte as a letter, but for these tokens. Made by `load_tokenizer`."""

    def __init__(
        self,
        codec: Codec,
        control: Mapping[str, int],
        flags: Mapping[str, Mapping[str, Any]] | None = None,
        longest: int | None = None,
        pieces: Pieces | None = None,
        dropped: int | None = None,
        letters: Container[int] | None = None,
    ) -> None:
        self._codec = codec
        self._pieces = pieces
        self._dropped = dropped
        self._letters = letters
        self._flags = flags or {}
        self.control = dict(control)
        self.control_ids = frozenset(self.control.values())
        self.longest = longest
        self._spelled = re.compile(_alternatives(self.control)) if self.control else None

    def encode(self, text: str) -> list[int]:
        """Ids of a text, none of them a control token, whatever the text spells."""
        return self._run(self._encoding([text]))

    async def encode_aside(self, text: str) -> list[int]:
        """`encode` beside the event loop: for a text that takes long."""
        return await self._run_aside(self._encoding([text]))

    async def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, in one call of the library; beside the event loop where that takes long."""
        short = sum(map(len, texts)) <= ASIDE_CHARS
        found = self._kept(self._codec.encode(texts) if short else await self._codec.encode_aside(texts))
        for i, (text, ids) in enumerate(zip(texts, found, strict=True)):
            if not self.control_ids.isdisjoint(ids):
                found[i] = self.encode(text) if short else await self.encode_aside(text)
        return found

    def encode_rendered(self, text: str, stand_ins: Mapping[int, str]) -> list[int]:
        """Ids of a rendered chat template: control tokens that it spells become control tokens. ``stand_ins`` (see
        `template`) are turned back into the user's characters where no control token can come of them."""
        return self._run(self._encoding(self.cut(text, stand_ins)))

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        """Ids of what `cut` gave."""
        return self._run(self._encoding(parts))

    async def encode_parts_aside(self, parts: Sequence[str | int]) -> list[int]:
        return await self._run_aside(self._encoding(parts))

    def cut(self, text: str, stand_ins: Mapping[int, str]) -> list[str | int]:
        """A rendered text in order: ids of the control tokens that it spells, and the texts between them, without the
        blanks that those swallow. Takes time in proportion to the text, whatever it holds."""
        parts: list[str | int] = []
        start = 0
        behind = False  # a token that swallows the blanks behind it
        for match in self._spelled.finditer(text) if self._spelled else ():
            flags = self._flags.get(match[0], {})
            between = text[start : match.start()]
            between = between.lstrip() if behind else between
            between = between.rstrip() if flags.get("lstrip") else between
            parts += (between.translate(stand_ins) if stand_ins else between, self.control[match[0]])
            start, behind = match.end(), bool(flags.get("rstrip"))
        rest = text[start:].lstrip() if behind else text[start:]
        parts.append(rest.translate(stand_ins) if stand_ins else rest)
        return [part for part in parts if part != ""]

    def least(self, parts: Iterable[str | int]) -> int:
        """How many tokens these have at least, known without tokenizing: 1 a text where one token may stand for any
        number of characters."""
        longest = self.longest
        return sum(1 if isinstance(p, int) or longest is None else -(-len(p) // longest) for p in parts)

    def _encoding(self, parts: Sequence[str | int]) -> Encoding:
        texts = [part for part in parts if isinstance(part, str) and part]
        encoded = iter((yield texts) if texts else ())
        ids: list[int] = []
        for part in parts:
            if isinstance(part, int):
                ids.append(part)
            elif part:
                found = next(encoded)
                ids += found if self.control_ids.isdisjoint(found) else (yield from self._apart(part))
        return ids

    def _apart(self, text: str) -> Encoding:
        """For a model whose vocabulary itself holds the token's spelling: take the spelling apart. One that shows only
        in the normalized text is found by halving what becomes it."""
        cuts = [match.start() + 1 for match in re.finditer(f"(?={_alternatives(self.control)})", text)]
        parts: list[str | list[int]] = [text[a:b] for a, b in pairwise([0, *cuts, len(text)]) if a < b]
        while texts := [part for part in parts if isinstance(part, str)]:
            encoded, done = iter((yield texts)), list[str | list[int]]()
            for part in parts:
                ids = next(encoded) if isinstance(part, str) else part
                if isinstance(part, list) or self.control_ids.isdisjoint(ids):
                    done.append(ids)
                elif len(part) == 1:
                    raise Unsupported("this text cannot be written without a control token of this model")
                else:
                    done += (part[: len(part) // 2], part[len(part) // 2 :])
            parts = done
        return [token for part in parts if isinstance(part, list) for token in part]

    def _run(self, encoding: Encoding) -> list[int]:
        try:
            texts = next(encoding)
            while True:
                texts = encoding.send(self._kept(self._codec.encode(texts)))
        except StopIteration as end:
            return list(end.value)

    async def _run_aside(self, encoding: Encoding) -> list[int]:
        try:
            texts = next(encoding)
            while True:
                texts = encoding.send(self._kept(await self._codec.encode_aside(texts)))
        except StopIteration as end:
            return list(end.value)

    def _kept(self, lists: list[list[int]]) -> list[list[int]]:
        dropped = self._dropped
        return [[t for t in ids if t != dropped] if dropped in ids else ids for ids in lists]

    def decode(self, ids: Sequence[int], *, inner: bool = False) -> str:
        """The text of ids; control tokens are left out, bytes that are no character become U+FFFD. ``inner``: they
        stand behind other text; where tokenizing puts a blank in front of a text, only then is one shown."""
        shown = [token for token in ids if token not in self.control_ids]
        if self._pieces is not None:
            return self._pieces.decode(shown, inner)
        return self._codec.decode(shown) if shown else ""

    def bytes_of(self, token: int) -> bytes:
        """What a token that is no control token adds to a text, which may be a part of a character."""
        if self._pieces is not None:
            return self._pieces.bytes_of(token)
        if self._letters is not None and token not in self._letters:
            found = [_BYTES.get(letter) for letter in self._codec.piece(token) or ""]
            if None not in found:
                return bytes(byte for byte in found if byte is not None)
        return self._codec.decode([token]).encode()


class Detokenizer:
    """Text as it arrives: `push` gives what is certain by now, `flush` the rest. The pieces together are the text
    of all ids, no piece ends inside a character, and what was given never changes.

    It decodes a window that starts at a settled place, so the cost does not grow with the answer. ``inner`` as in
    `Tokenizer.decode`."""

    def __init__(self, tokenizer: Tokenizer, *, inner: bool = False) -> None:
        self._tokenizer = tokenizer
        self._inner = inner
        self._window: list[int] = []
        self._settled = 0  # how many ids of the window were decoded to whole characters before
        self._given = 0  # how many characters of the window's text were given

    def push(self, ids: Sequence[int]) -> str:
        self._window += [token for token in ids if token not in self._tokenizer.control_ids]
        text = self._decode(self._window)
        sure = text.rstrip(_HALF)
        piece = sure[self._given :]
        self._given = max(self._given, len(sure))
        if len(sure) == len(text):
            # Keep the tokens that came last: some decoders look at a token's neighbour before it.
            kept = self._window[self._settled :]
            if kept and len(self._window) > len(kept):
                self._window = kept
                self._given = len(self._decode(kept))
            self._settled = len(self._window)
        return piece

    def flush(self) -> str:
        piece = self._decode(self._window)[self._given :]
        self._window, self._settled, self._given = [], 0, 0
        return piece

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, inner=self._inner)


def load_tokenizer(file: Any, special: Mapping[str, int], vocab: int = VOCAB) -> Tokenizer:
    """From the text of a tokenizer.json, or what an artifact's store gives in the page (inpage.host.artifact_store),
    the manifest's control tokens and how many ids the model knows, which bounds what the page makes room for. Raises
    `ArtifactInvalid` for a file that the library refuses, `Unsupported` where the library is not installed."""
    with foreign(ArtifactInvalid, "tokenizer.json cannot be used", "tokenizer.file"):
        source = _PageSource(file, vocab) if IN_PAGE else _NativeSource(file)
        description = source.outline
        check_growth(description)
        if '"prepend_scheme": "first"' in json.dumps(description.get("pre_tokenizer")):
            raise Unsupported("a tokenizer that prepends a space to the first word only is not supported yet")
        added: list[dict[str, Any]] = description.get("added_tokens") or []
        marked = {str(token["content"]): token for token in added if token.get("special")}
        control = {content: int(token["id"]) for content, token in marked.items()} | dict(special)
        description["added_tokens"] = [t for t in added if t["content"] not in control]
        description["post_processor"] = None  # it would add a beginning-of-text token; the template does that
        longest = longest_token(description, control)
        dropped = _mark_dropped(description["model"])
        plain = {int(token["id"]) for token in description["added_tokens"]}
        letters = plain if '"ByteLevel"' in json.dumps(description.get("decoder")) else None
        codec = source.codec(description)
        pieces = pieces_of(description, codec.piece)
    return Tokenizer(codec, control, marked, longest, pieces, dropped, letters)


def _mark_dropped(model: dict[str, Any]) -> int | None:
    """Bytes without a token are left out. One library does it before it merges, so that what stood around them grows
    together, and the other behind: with a token for them, which `Tokenizer` takes out again, both do it behind."""
    if model.get("type", "BPE") != "BPE" or model.get("unk_token") is not None or model.get("byte_fallback"):
        return None
    dropped = 1 + max(model["vocab"].values(), default=0)
    model |= {"vocab": model["vocab"] | {_DROPPED: dropped}, "unk_token": _DROPPED, "fuse_unk": False}
    return dropped


def _alternatives(texts: Mapping[str, Any] | set[str]) -> str:
    return "|".join(re.escape(text) for text in sorted(texts, key=lambda t: (-len(t), t)))


class _Source(Protocol):
    """A tokenizer.json. ``outline``: what stands in it; in the page JavaScript has read it, and keeps vocabulary and
    merges, so that megabytes are neither parsed twice nor written again: of the vocabulary here is only the longest
    text with the largest id."""

    outline: dict[str, Any]

    def codec(self, description: Mapping[str, Any]) -> Codec:
        """By ``description``, the outline with changes; of the vocabulary, with what was added."""
        ...


class _NativeSource:
    def __init__(self, text: str) -> None:
        self.outline = bounded.read(text, FILE_BYTES["tokenizer"], items=ITEMS, keys=ITEMS)

    def codec(self, description: Mapping[str, Any]) -> Codec:
        return _NativeCodec(json.dumps(description, ensure_ascii=False))


class _PageSource:
    """Over web/router/texts.js."""

    def __init__(self, file: Any, vocab: int) -> None:
        self._read = host().readTokenizer(file, FILE_BYTES["tokenizer"], ITEMS, bounded.DEPTH, vocab)
        self.outline = bounded.read(str(self._read.outline), FILE_BYTES["tokenizer"], items=ITEMS, keys=ITEMS)

    def codec(self, description: Mapping[str, Any]) -> Codec:
        return _PageCodec(self._read.make(json.dumps(description, ensure_ascii=False)))


@contextmanager
def _library(texts: Sequence[str] = ()) -> Iterator[None]:
    """Round its calls. Half characters cannot be given to it; what else it cannot do is the fault of the file."""
    for text in texts:
        if not bounded.encodable(text):
            raise InvalidRequest("the text holds half a character (a lone surrogate); remove it", field="prompt")
    with foreign(ArtifactInvalid, "tokenizer.json cannot be used on this text", "tokenizer.file"):
        yield


class _NativeCodec:
    def __init__(self, description: str) -> None:
        try:
            from tokenizers import Tokenizer as Library
        except ImportError:
            raise Unsupported("tokenizing needs the tokenizers package: pip install 'inpage[cli]'") from None
        self._library = Library.from_str(description)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        # Of the library's calls only those for several texts let other threads run, which `encode_aside` counts on.
        with _library(texts):
            return [encoded.ids for encoded in self._library.encode_batch_fast(list(texts), add_special_tokens=False)]

    async def encode_aside(self, texts: Sequence[str]) -> list[list[int]]:
        return await asyncio.to_thread(self.encode, texts)

    def decode(self, ids: Sequence[int]) -> str:
        with _library():
            return str(self._library.decode(list(ids), skip_special_tokens=False))

    def piece(self, token: int) -> str | None:
        with _library():
            found = self._library.id_to_token(token)
        return None if found is None else str(found)


class _PageCodec:
    """Over web/router/texts.js: one call for all texts, never one a token."""

    def __init__(self, library: Any) -> None:
        from pyodide.ffi import to_js

        self._library = library
        self._to_js = to_js

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        with _library(texts):
            return _lists(self._library.encode(self._to_js(list(texts))))

    async def encode_aside(self, texts: Sequence[str]) -> list[list[int]]:
        with _library(texts):
            return _lists(await settle(self._library.encodeAside(self._to_js(list(texts)))))

    def decode(self, ids: Sequence[int]) -> str:
        with _library():
            return str(self._library.decode(self._to_js(list(ids))))

    def piece(self, token: int) -> str | None:
        with _library():
            found = self._library.piece(token)
        return None if found is None else str(found)


def _lists(encoded: Any) -> list[list[int]]:
    """``encoded``: the ids of all texts behind each other, and how many each has."""
    ids, at, lists = encoded.ids.to_py().tolist(), 0, []
    for count in encoded.counts.to_py().tolist():
        lists.append(ids[at : at + count])
        at += count
    return lists
