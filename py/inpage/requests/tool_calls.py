"""Calls of functions, read out of an answer as it arrives; a call's arguments are told while they come."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from ..format import bounded

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')


@dataclass(frozen=True, slots=True)
class Said:
    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """A call begins. ``index``: of the answer's calls."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class Argued:
    """More of the JSON text of a call's arguments."""

    index: int
    text: str


Event = Said | Called | Argued


class CallReader:
    """`push` text as it comes, `flush` at its end. What looks like a call and is none is told as text."""

    def __init__(self) -> None:
        self.calls = 0
        self._text = ""  # not told yet
        self._inside = False
        self._arguments: _Arguments | None = None  # of the call whose name is known

    def push(self, text: str) -> list[Event]:
        self._text += text
        events: list[Event] = []
        while self._step(events):
            pass
        return events

    def flush(self) -> list[Event]:
        events: list[Event] = []
        if self._inside and self._arguments is None:
            self._whole(self._text, "", events)  # a call that nothing closed
        elif not self._inside:
            self._say(self._text, events)
        self._text = ""
        return events

    def _step(self, events: list[Event]) -> bool:
        """Whether there may be more to tell."""
        if not self._inside:
            before, opened, after = self._text.partition(OPEN)
            if opened:
                self._say(before.rstrip("\n"), events)
                self._text, self._inside = after, True
                return True
            kept = next((n for n in range(len(OPEN) - 1, 0, -1) if self._text.endswith(OPEN[:n])), 0)
            kept += len(self._text[: len(self._text) - kept]) - len(self._text[: len(self._text) - kept].rstrip("\n"))
            self._say(self._text[: len(self._text) - kept], events)
            self._text = self._text[len(self._text) - kept :]
            return False
        if self._arguments is None:
            head = _HEAD.match(self._text)
            name = _name(head[1]) if head else None
            if head and name is not None:
                events.append(Called(self.calls, name))
                self._text, self._arguments = self._text[head.end() :], _Arguments()
                self.calls += 1
                return True
        elif not self._arguments.done:
            told, self._text = self._arguments.take(self._text)
            if told:
                events.append(Argued(self.calls - 1, told))
            if not self._arguments.done:
                return False
        inner, closed, after = self._text.partition(CLOSE)
        if not closed:
            return False
        if self._arguments is None:
            self._whole(inner, CLOSE, events)
        self._text, self._inside, self._arguments = after.removeprefix("\n"), False, None
        return True

    def _whole(self, inner: str, end: str, events: list[Event]) -> None:
        """A call whose parts come in another order, or none at all."""
        try:
            call = bounded.read(inner, strict=False)
            name, arguments = call["name"], call.get("arguments", call.get("parameters", {}))
        except (ValueError, TypeError, KeyError, AttributeError):
            name = arguments = None
        if not isinstance(name, str) or not bounded.encodable(name) or not isinstance(arguments, dict):
            events.append(Said(OPEN + inner + end))
            return
        text = json.dumps(arguments, ensure_ascii=False)
        text = text if bounded.encodable(text) else json.dumps(arguments)
        events += [Called(self.calls, name), Argued(self.calls, text)]
        self.calls += 1

    def _say(self, text: str, events: list[Event]) -> None:
        if text and (text.strip() or not self.calls):
            events.append(Said(text))


def _name(quoted: str) -> str | None:
    """A function's name as JSON has it; None where the model wrote an escape that JSON does not have, or half a
    character: then it is no call."""
    try:
        name = bounded.read(quoted, strict=False)
    except ValueError:
        return None
    return name if isinstance(name, str) and bounded.encodable(name) else None


class _Arguments:
    """Follows a JSON object to its end."""

    def __init__(self) -> None:
        self.done = False
        self._depth = 0
        self._quoted = self._escaped = False

    def take(self, text: str) -> tuple[str, str]:
        """What of it belongs to the object, and what comes after."""
        told = []
        for i, c in enumerate(text):
            if self._quoted:
                told.append(c if c >= " " else f"\\u{ord(c):04x}")  # which JSON does not allow as it is
                if self._escaped:
                    self._escaped = False
                elif c == "\\":
                    self._escaped = True
                elif c == '"':
                    self._quoted = False
                continue
            told.append(c)
            self._quoted = c == '"'
            self._depth += (c in "{[") - (c in "}]")
            if self._depth == 0:
                self.done = True
                return "".join(told), text[i + 1 :]
        return "".join(told), ""
