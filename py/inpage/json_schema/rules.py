"""Rules of an EBNF grammar as XGrammar reads it: made one after the other on demand, pruned, written."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

GRAMMAR_CHARS = 512 << 10
RULES = 20_000
WIDE = 1000  # places where nearly any token may come; XGrammar takes some 20 ms for each


class TooLong(Exception):
    """The grammar is larger than `RULES` or `GRAMMAR_CHARS` allow, or would take too long to compile."""


@dataclass(frozen=True, slots=True)
class Ref:
    """A rule, ``least`` to ``most`` times."""

    name: str
    least: int = 1
    most: int | None = 1


Alternative = tuple["str | Ref", ...]  # one after the other; a string is EBNF already


class Rules:
    """Grammar rules by key. `ask` names a rule, which is made later: nothing recurses, however deep a schema is."""

    def __init__(self) -> None:
        self._names: dict[Hashable, str] = {}
        self._queue: list[tuple[str, Callable[[], Iterable[Alternative]]]] = []
        self._rules: dict[str, list[Alternative]] = {}
        self._ahead: dict[str, str] = {}
        self._wide = 0

    def ask(self, key: Hashable, make: Callable[[], Iterable[Alternative]], ahead: str = "") -> Ref:
        """The rule of this key, which ``make`` makes where it is new. ``ahead``: an assertion of what follows it."""
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = f"r{len(self._names)}"
            self._queue.append((name, make))
            if ahead:
                self._ahead[name] = ahead
            if len(self._names) > RULES:
                raise TooLong
        return Ref(name)

    def wide(self) -> None:
        """Count a place where nearly any token may come."""
        self._wide += 1
        if self._wide > WIDE:
            raise TooLong

    def run(self) -> None:
        size = 0
        for name, make in self._queue:  # grows meanwhile
            made = self._rules[name] = list(make())
            size += sum(len(item) if isinstance(item, str) else 8 for one in made for item in one)
            if size > GRAMMAR_CHARS:
                raise TooLong

    def text(self, root: Ref) -> str | None:
        """The grammar; None where nothing follows it."""
        good = self._productive()
        if root.name not in good:
            return None
        lines = [f"root ::= {root.name}"]
        reached, queue = {root.name}, [root.name]
        for name in queue:
            kept = []
            for one in self._rules[name]:
                items = [item for item in one if isinstance(item, str) or item.name in good or item.least > 0]
                if not all(isinstance(item, str) or item.name in good for item in items):
                    continue
                kept.append(" ".join(_written(item) for item in items) or '""')
                for item in items:
                    if isinstance(item, Ref) and item.name not in reached:
                        reached.add(item.name)
                        queue.append(item.name)
            body = " | ".join(dict.fromkeys(kept))
            ahead = self._ahead.get(name)
            lines.append(f"{name} ::= ({body}) {ahead}" if ahead else f"{name} ::= {body}")
        return "\n".join(lines)

    def barren(self, root: Ref) -> list[str]:
        """Of a rule that nothing follows, those that are to blame, the nearest to it last."""
        good = self._productive()
        reached, queue = {root.name}, [root.name]
        for name in queue:
            for one in self._rules[name]:
                for item in one:
                    if isinstance(item, Ref) and item.name not in good and item.name not in reached:
                        reached.add(item.name)
                        queue.append(item.name)
        first = [name for name in queue if not self._rules[name]]
        return [*first, *(name for name in reversed(queue) if name not in first)] if first else []

    def _productive(self) -> set[str]:
        """The rules that some text follows."""
        users: dict[str, list[tuple[str, int]]] = {}
        missing: dict[tuple[str, int], int] = {}
        good: set[str] = set()
        queue: list[str] = []
        for name, alternatives in self._rules.items():
            for i, one in enumerate(alternatives):
                needs = {item.name for item in one if isinstance(item, Ref) and item.least > 0}
                missing[name, i] = len(needs)
                for need in needs:
                    users.setdefault(need, []).append((name, i))
                if not needs and name not in good:
                    good.add(name)
                    queue.append(name)
        for name in queue:
            for user in users.get(name, ()):
                missing[user] -= 1
                if missing[user] == 0 and user[0] not in good:
                    good.add(user[0])
                    queue.append(user[0])
        return good


def literal(text: str) -> str:
    """As a string of the grammar."""
    return '"' + "".join(_quoted(char) for char in text) + '"' if text else '""'


def byte_class(ranges: Iterable[tuple[int, int]], *, negative: bool = False) -> str:
    """Of bytes, which is what XGrammar's classes match; a negative one of ASCII matches whole characters. A class of
    one byte alone would be taken as a character: it is written twice."""
    inner = "".join(_byte(low) * (2 if low > 0x7F else 1) if low == high else f"{_byte(low)}-{_byte(high)}"
                    for low, high in ranges)  # fmt: skip
    return f"[{'^' if negative else ''}{inner}]"


def _byte(code: int) -> str:
    char = chr(code)
    return char if char.isascii() and char.isalnum() else f"\\u{code:04x}"


def _quoted(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return f"\\u{ord(char):04x}" if char < " " or char == "\x7f" else char


def _written(item: str | Ref) -> str:
    if isinstance(item, str) or (item.least, item.most) == (1, 1):
        return item if isinstance(item, str) else item.name
    return f"{item.name}{{{item.least},{'' if item.most is None else item.most}}}"
