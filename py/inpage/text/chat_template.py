"""Chat messages to prompt ids by the model's own Jinja template, in the environment of transformers'
``apply_chat_template``: jinja2, in CPython as in the page.

A message that spells ``<|im_end|>`` must stay text. So before the template runs, in everything that a user wrote the
first character of each spelled control token is replaced by a stand-in, a rare ideograph that occurs nowhere else;
after the rendered text was cut at the control tokens that are still there, the template's own, the stand-ins become the
user's characters again. A text that spells none is not touched: its ids are those of the rendered text.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..errors import ArtifactInvalid, InvalidRequest, Unsupported, said
from ..host.browser import IN_PAGE
from ..host.jobs import imported, job
from .slices import at_once, in_slices
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from .template_sandbox import BoundedTemplate


# Ideographs of Extension B. Unlike private-use characters they are printable: a template that writes a list as Python
# does leaves them as they are.
_STAND_INS = range(0x20000, 0x2A6D7)


class ChatTemplate:
    """Raises `ArtifactInvalid` for a template that does not parse."""

    def __init__(self, source: str, tokenizer: Tokenizer, *, bos: int | None, eos: int | None) -> None:
        texts = {token: text for text, token in tokenizer.control.items()}
        self._source = source
        self._tokenizer = tokenizer
        self._tokens = {"bos_token": texts.get(bos, ""), "eos_token": texts.get(eos, "")}  # type: ignore[arg-type]
        try:
            self._template = _compiled(source)
        except Unsupported:
            raise
        except Exception as error:
            raise ArtifactInvalid(f"the chat template does not parse: {said(error)}", field="chat_template") from error
        self._spellings = Spellings(tokenizer.control, self._template.texts)

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        answer: bool = True,
        most: int | None = None,
    ) -> list[int]:
        """Prompt ids of checked messages, ending where the assistant's answer begins, or (without ``answer``) before
        the next message. ``tools``: as OpenAI's, for a template that takes them. ``most``: tokens that there is room
        for; what must have more is refused before it is tokenized. `InvalidRequest` where the template refuses the
        conversation (an order of roles that the model does not know), `ArtifactInvalid` where it does not end."""
        variables, shield = at_once(self._prepare(messages, tools, answer))
        try:
            text = self._template.render(variables, shield.stand_ins)
        except Exception as error:
            raise _refused(error) from error
        return self._tokenizer.encode_parts(self._parts(text, shield, most))

    async def encode_aside(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        answer: bool = True,
        most: int | None = None,
    ) -> list[int]:
        """`encode` beside the event loop: for a conversation that takes long."""
        variables, shield = await in_slices(self._prepare(messages, tools, answer))
        try:
            if IN_PAGE:  # no threads
                text = await self._template.render_aside(variables, shield.stand_ins)
            else:
                text = await asyncio.to_thread(self._template.render, variables, shield.stand_ins)
        except Exception as error:
            raise _refused(error) from error
        return await self._tokenizer.encode_parts_aside(self._parts(text, shield, most))

    def _prepare(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], answer: bool
    ) -> Generator[None, None, tuple[dict[str, Any], Shield]]:
        """The template's variables, with every text behind the shield."""
        occurring = chain([self._source], _texts([messages, tools]), self._tokens.values())
        shield = Shield(self._spellings, occurring)
        safe = []
        for message in messages:
            safe.append({**_with(message, shield), "role": message["role"]})
            yield
        offered = _with(tools, shield)
        more = {"tools": offered or None, "documents": None, "add_generation_prompt": answer}
        return {"messages": safe, **more, **self._tokens}, shield

    def _parts(self, text: str, shield: Shield, most: int | None) -> list[str | int]:
        parts = self._tokenizer.cut(text, shield.stand_ins)
        check_fits(self._tokenizer.least(parts), most, "messages")
        return parts


def check_fits(least: int, most: int | None, field: str) -> None:
    """Refuse what has at least so many tokens where there is room for fewer."""
    if most is not None and least > most:
        raise InvalidRequest(
            f"the prompt has at least {least} tokens; at most {most} fit with an answer: shorten it", field=field
        )


def _refused(error: Exception) -> Exception:
    if isinstance(error, ArtifactInvalid):
        return error
    return InvalidRequest(f"the model's chat template refuses these messages: {said(error)}", field="messages")


def _texts(value: Any) -> Iterator[str]:
    """All strings in something of JSON's kind."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _texts(item)


def _with(value: Any, shield: Shield, keys: bool = False) -> Any:
    """The same with every string behind the shield. ``keys``: those of mappings too, where they are a caller's own and
    not the template's."""
    if isinstance(value, str):
        return shield(value)
    if isinstance(value, Mapping):
        own = ("arguments", "parameters")
        return {shield(k) if keys else k: _with(item, shield, keys or k in own) for k, item in value.items()}
    if isinstance(value, Sequence):
        return [_with(item, shield, keys) for item in value]
    return value


class Spellings:
    """What control tokens look like in a text, found out once. ``heads`` and ``tails``: parts that could complete one
    that the template's own text around a message had begun; ``middles``: those between two of its ``own`` texts."""

    def __init__(self, control: Iterable[str], own: Sequence[str]) -> None:
        self.texts = texts = sorted((text for text in control if text), key=len, reverse=True)
        # The first character stands outside of the lookahead: searching then skips to where one begins.
        starts = sorted({text[0] for text in texts})
        after = {start: [re.escape(text[1:]) for text in texts if text[0] == start] for start in starts}
        spelled = "|".join(f"{re.escape(start)}(?={'|'.join(after[start])})" for start in starts)
        # Whatever the case of its letters: a template may write all of them small.
        self.pattern = re.compile(spelled or r"(?!)", re.IGNORECASE)
        self.heads = tuple({text[:n] for text in texts for n in range(1, len(text))})
        self.tails = tuple({text[n:] for text in texts for n in range(1, len(text))})
        begun = {head for head in self.heads if any(text.rstrip().endswith(head) for text in own)}
        ended = tuple(tail for tail in self.tails if any(text.lstrip().startswith(tail) for text in own))
        rests = {text[len(head) :] for text in texts for head in begun if text.startswith(head)}
        self.middles = {rest[: -len(tail)] for rest in rests for tail in ended if rest.endswith(tail)}


class Shield:
    """Makes spelled control tokens unrecognisable. ``occurring``: the texts whose characters are taken; ``stand_ins``
    undoes it (for `str.translate`)."""

    def __init__(self, spellings: Spellings, occurring: Iterable[str]) -> None:
        self._spellings = spellings
        self._free = _free_characters(occurring)
        self._by_character: dict[str, str] = {}
        self.stand_ins: dict[int, str] = {}

    def __call__(self, text: str) -> str:
        known = self._spellings
        text = known.pattern.sub(lambda match: self._stand_in(match[0]), text)
        body = text.strip()
        if not body:
            return text
        start = text.index(body)
        end = start + len(body)
        if body.startswith(known.tails) or body in known.middles:
            text = text[:start] + self._stand_in(text[start]) + text[start + 1 :]
        if body.endswith(known.heads):
            text = text[: end - 1] + self._stand_in(text[end - 1]) + text[end:]
        return text

    def _stand_in(self, character: str) -> str:
        if ord(character) in self.stand_ins:
            return character
        if character not in self._by_character:
            stand_in = next(self._free, None)
            if stand_in is None:
                raise InvalidRequest("the messages use every character that could stand in", field="messages")
            self._by_character[character] = stand_in
            self.stand_ins[ord(stand_in)] = character
        return self._by_character[character]


def _free_characters(occurring: Iterable[str]) -> Iterator[str]:
    """Stand-ins that no text has; nothing is looked through before the first is needed."""
    taken = set("".join(occurring))
    yield from (chr(code) for code in _STAND_INS if chr(code) not in taken)


def _compiled(source: str) -> BoundedTemplate:
    """Imports jinja2 with the first template: in the page that takes longer than all else of a chat, see
    web/router/python.js."""
    try:
        sandbox = imported(f"{__package__}.template_sandbox")
    except ImportError:
        raise Unsupported("chat templates need the jinja2 package: pip install 'inpage[cli]'") from None
    with job("template", len(source)):
        return sandbox.BoundedTemplate(source)  # type: ignore[no-any-return]
