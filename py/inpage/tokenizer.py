"""Text to token ids and back, the same in CPython (PyPI ``tokenizers``) and in the page (``@huggingface/tokenizers``).

Both libraries turn a text that spells a control token into that token. Here they never do: they are given the
tokenizer without its control tokens, and only `Tokenizer.encode_rendered`, meant for what a chat template wrote,
puts them in. So nothing that a user types can end a turn or begin one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

from .browser import IN_PAGE, host
from .errors import ArtifactInvalid, Unsupported

_HALF = "\ufffd"  # how a decoder shows bytes that are not (yet) a character


class Codec(Protocol):
    """One library's tokenizer, without control tokens."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class Tokenizer:
    """``control``: the text and id of every token that text must not become. Made by `load_tokenizer`."""

    def __init__(self, codec: Codec, control: Mapping[str, int], pattern: re.Pattern[str] | None) -> None:
        self._codec = codec
        self._pattern = pattern
        self.control = dict(control)
        self.control_ids = frozenset(self.control.values())

    def encode(self, text: str) -> list[int]:
        """Ids of a text, none of them a control token, whatever the text spells."""
        if not text:
            return []
        ids = self._codec.encode(text)
        if self.control_ids.isdisjoint(ids):
            return ids
        # A model whose vocabulary itself holds the token's spelling: take the spelling apart.
        cuts = [match.start() + 1 for match in re.finditer(f"(?={_alternatives(self.control)})", text)]
        parts = [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]
        ids = [token for part in parts if part for token in self._codec.encode(part)]
        if not self.control_ids.isdisjoint(ids):
            raise Unsupported("this text cannot be written without a control token of this model")
        return ids

    def encode_rendered(self, text: str, stand_ins: Mapping[int, str]) -> list[int]:
        """Ids of a rendered chat template: control tokens that it spells become control tokens. ``stand_ins`` (see
        `template`) are turned back into the user's characters where no control token can come of them."""
        ids: list[int] = []
        start = 0
        for match in self._pattern.finditer(text) if self._pattern else ():
            ids += self.encode(text[start : match.start()].translate(stand_ins))
            ids.append(self.control[match[1]])
            start = match.end()
        return ids + self.encode(text[start:].translate(stand_ins))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; control tokens are left out, bytes that are no character become U+FFFD."""
        shown = [token for token in ids if token not in self.control_ids]
        return self._codec.decode(shown) if shown else ""


class Detokenizer:
    """Text as it arrives: `push` gives what is certain by now, `flush` the rest. The pieces together are the text
    of all ids, no piece ends inside a character, and what was given never changes.

    It decodes a window that starts at a settled place, so the cost does not grow with the answer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._settled = 0  # how many ids of the window were decoded to whole characters before
        self._given = 0  # how many characters of the window's text were given

    def push(self, ids: Sequence[int]) -> str:
        self._window += [token for token in ids if token not in self._tokenizer.control_ids]
        text = self._tokenizer.decode(self._window)
        sure = text.rstrip(_HALF)
        piece = sure[self._given :]
        self._given = max(self._given, len(sure))
        if len(sure) == len(text):
            # Keep the tokens that came last: some decoders look at a token's neighbour before it.
            kept = self._window[self._settled :]
            if kept and len(self._window) > len(kept):
                self._window = kept
                self._given = len(self._tokenizer.decode(kept))
            self._settled = len(self._window)
        return piece

    def flush(self) -> str:
        piece = self._tokenizer.decode(self._window)[self._given :]
        self._window, self._settled, self._given = [], 0, 0
        return piece


def load_tokenizer(text: str, special: Mapping[str, int]) -> Tokenizer:
    """From the text of a tokenizer.json and the manifest's control tokens. Raises `ArtifactInvalid` for a file that
    the library refuses, `Unsupported` where the library is not installed."""
    try:
        description = json.loads(text)
        if '"prepend_scheme": "first"' in json.dumps(description.get("pre_tokenizer")):
            raise Unsupported("a tokenizer that prepends a space to the first word only is not supported yet")
        added: list[dict[str, Any]] = description.get("added_tokens") or []
        marked = {str(token["content"]): token for token in added if token.get("special")}
        control = {content: int(token["id"]) for content, token in marked.items()} | dict(special)
        description["added_tokens"] = [t for t in added if t["content"] not in control]
        description["post_processor"] = None  # it would add a beginning-of-text token; the template does that
        codec = _codec(json.dumps(description, ensure_ascii=False))
    except (ArtifactInvalid, Unsupported):
        raise
    except Exception as error:
        raise ArtifactInvalid(f"tokenizer.json cannot be used: {error}", field="tokenizer.file") from error
    return Tokenizer(codec, control, _pattern(control, marked))


def _pattern(control: Mapping[str, int], marked: Mapping[str, Mapping[str, Any]]) -> re.Pattern[str] | None:
    """Finds control tokens, the longest first, with the blanks around them that they swallow; group 1 is the text."""
    if not control:
        return None
    lstrip = {content for content, token in marked.items() if token.get("lstrip")}
    rstrip = {content for content, token in marked.items() if token.get("rstrip")}
    before = f"(?:\\s*(?={_alternatives(lstrip)}))?" if lstrip else ""
    after = f"(?:(?:{'|'.join(f'(?<={re.escape(t)})' for t in rstrip)})\\s*)?" if rstrip else ""
    return re.compile(f"{before}({_alternatives(control)}){after}")


def _alternatives(texts: Mapping[str, Any] | set[str]) -> str:
    return "|".join(re.escape(text) for text in sorted(texts, key=lambda t: (-len(t), t)))


def _codec(description: str) -> Codec:
    return _PageCodec(description) if IN_PAGE else _NativeCodec(description)


class _NativeCodec:
    def __init__(self, description: str) -> None:
        try:
            from tokenizers import Tokenizer as Library
        except ImportError:
            raise Unsupported("tokenizing needs the tokenizers package: pip install 'inpage[cli]'") from None
        self._library = Library.from_str(description)

    def encode(self, text: str) -> list[int]:
        return list(self._library.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._library.decode(list(ids), skip_special_tokens=False))


class _PageCodec:
    """Over web/router/host.js: one call a text, never one a token."""

    def __init__(self, description: str) -> None:
        from pyodide.ffi import to_js

        self._library = host().makeTokenizer(description)
        self._to_js = to_js

    def encode(self, text: str) -> list[int]:
        return list(self._library.encode(text).to_py())

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._library.decode(self._to_js(list(ids))))
