"""ECMAScript's regular expressions, those that are regular, as automata over code points."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from .automata import ANY, Dfa, Ranges, TooLarge, common, explore, spend, union, without

NODES = 20_000  # of one automaton with repetitions written out
_DEPTH = 40  # groups in one another
_BOUND = re.compile(r"\{(\d+)(,(\d*))?\}")
_DIGIT: Ranges = ((0x30, 0x39),)
_WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE: Ranges = (
    (9, 13), (32, 32), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F),
    (0x205F, 0x205F), (0x3000, 0x3000),
)  # fmt: skip
# No part of a word and no digit for any reader: punctuation, currencies, arrows, mathematics, emoji.
_SYMBOLS: Ranges = (
    (0x80, 0xA9), (0xAB, 0xB1), (0xD7, 0xD7), (0xF7, 0xF7), (0x2000, 0x206F), (0x20A0, 0x20BF), (0x2190, 0x245F),
    (0x2500, 0x2775), (0x2794, 0x2BFF), (0x3000, 0x3004), (0x3008, 0x3020), (0x1F300, 0x1F64F), (0x1F680, 0x1F6FF),
)  # fmt: skip
_DOT = without(ANY, ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029)))
# What ECMAScript and Python both have in a class, and what either has: where they differ (is é a part of a word?), a
# text must not depend on who validates it.
_CLASSES = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_AT_MOST = {
    "d": _DIGIT,
    "w": union(_WORD, without(ANY, union(((0, 0x7F),), _SYMBOLS))),
    "s": union(_SPACE, ((0x1C, 0x1F), (0x85, 0x85), (0xFEFF, 0xFEFF))),
}
_CONTROL = {"n": 10, "t": 9, "r": 13, "f": 12, "v": 11}
_START, _END, _FREE = 0, 1, 2  # edges taken at the start, at the end, anywhere without a character


_Nodes = tuple[frozenset[int], bool]  # those where it may be, and whether at the start


class NotRegular(ValueError):
    """What cannot be followed, and why."""


@dataclass(slots=True)
class _Part:
    """Of the automaton in the making: where it is entered and left."""

    enter: int
    leave: int


class _Parser:
    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0
        self.free: list[list[tuple[int, int]]] = []  # by node: (kind, target)
        self.sets: list[tuple[Ranges, int] | None] = []  # by node: the characters that lead on

    def node(self) -> int:
        if len(self.free) >= NODES:
            raise NotRegular("its repetitions are too many: have smaller bounds")
        self.free.append([])
        self.sets.append(None)
        return len(self.free) - 1

    def edge(self, a: int, b: int, kind: int = _FREE) -> None:
        self.free[a].append((kind, b))

    def chars(self, ranges: Ranges) -> _Part:
        if any(0xD800 <= low == high < 0xE000 for low, high in ranges):
            raise NotRegular("half of a surrogate pair")
        part = _Part(self.node(), self.node())
        self.sets[part.enter] = common(ranges, ANY), part.leave
        return part

    def peek(self) -> str:
        return self.source[self.at : self.at + 1]

    def take(self, text: str) -> bool:
        if self.source.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def alternatives(self, depth: int) -> _Part:
        if depth > _DEPTH:
            raise NotRegular(f"groups are nested more than {_DEPTH} deep")
        whole = _Part(self.node(), self.node())
        while True:
            part = self.sequence(depth)
            self.edge(whole.enter, part.enter)
            self.edge(part.leave, whole.leave)
            if not self.take("|"):
                return whole

    def sequence(self, depth: int) -> _Part:
        start = self.node()
        last = start
        while self.peek() not in ("", "|", ")"):
            begin = self.at
            part = self.atom(depth)
            end = self.at
            least, most = self.quantifier()
            if (least, most) != (1, 1):
                if self.source[begin] in "^$":
                    raise NotRegular("an anchor cannot be repeated")
                part = self.repeated(part, begin, end, least, most, depth)
            self.edge(last, part.enter)
            last = part.leave
        return _Part(start, last)

    def repeated(self, first: _Part, begin: int, end: int, least: int, most: int | None, depth: int) -> _Part:
        """Each repetition is read anew from the source, as the nodes of one cannot serve another."""
        after = self.at
        copies = [first]

        def copy() -> _Part:
            if len(copies) == 1 and copies[0] is first and not used:
                return first
            self.at = begin
            part = self.atom(depth)
            if self.at != end:
                raise NotRegular("a repetition that cannot be read")
            return part

        used: list[_Part] = []
        whole = _Part(self.node(), self.node())
        last = whole.enter
        for _ in range(least):
            part = copy()
            used.append(part)
            self.edge(last, part.enter)
            last = part.leave
        if most is None:
            part = copy()
            used.append(part)
            joint = self.node()
            self.edge(last, joint)
            self.edge(joint, part.enter)
            self.edge(part.leave, joint)
            last = joint
        else:
            for _ in range(most - least):
                self.edge(last, whole.leave)
                part = copy()
                used.append(part)
                self.edge(last, part.enter)
                last = part.leave
        self.edge(last, whole.leave)
        self.at = after
        return whole

    def quantifier(self) -> tuple[int, int | None]:
        bounds: tuple[int, int | None]
        if self.take("*"):
            bounds = 0, None
        elif self.take("+"):
            bounds = 1, None
        elif self.take("?"):
            bounds = 0, 1
        else:
            found = _BOUND.match(self.source, self.at)
            if not found:
                return 1, 1
            self.at = found.end()
            if max(len(found[1]), len(found[3] or "")) > 6:
                raise NotRegular("its repetitions are too many: have smaller bounds")
            least = int(found[1])
            bounds = least, least if found[2] is None else int(found[3]) if found[3] else None
        self.take("?")  # a lazy one matches the same texts
        if self.peek() in ("*", "+", "?") and self.peek():
            raise NotRegular(f"{self.peek()!r} repeats nothing")
        if bounds[1] is not None and bounds[1] < bounds[0]:
            raise NotRegular("bounds of a repetition are out of order")
        return bounds

    def atom(self, depth: int) -> _Part:
        char = self.source[self.at]
        self.at += 1
        if char == "(":
            if self.take("?"):
                if self.take("<") and self.peek() not in ("=", "!"):
                    name_end = self.source.find(">", self.at)
                    if name_end < 0:
                        raise NotRegular("a group's name has no end")
                    self.at = name_end + 1
                elif not self.take(":"):
                    raise NotRegular("lookahead and lookbehind are not followed: write out what may come")
            part = self.alternatives(depth + 1)
            if not self.take(")"):
                raise NotRegular("a ( without its )")
            return part
        if char in "^$":
            part = _Part(self.node(), self.node())
            self.edge(part.enter, part.leave, _START if char == "^" else _END)
            return part
        if char == ".":
            return self.chars(_DOT)
        if char == "[":
            return self.chars(self.bracket())
        if char == "\\":
            return self.chars(self.escape(False))
        if char in "*+?" or char == ")":
            raise NotRegular(f"{char!r} stands where it means nothing")
        return self.chars(((ord(char), ord(char)),))

    def bracket(self) -> Ranges:
        negative = self.take("^")
        parts: list[Ranges] = []
        while not self.take("]"):
            low = self.member(negative)
            if self.peek() == "-" and self.source[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self.member(negative)
                if len(low) != 1 or len(high) != 1 or low[0][0] != low[0][1] or high[0][0] != high[0][1]:
                    raise NotRegular("a range from or to a class of characters")
                if low[0][0] > high[0][0]:
                    raise NotRegular("a range that is out of order")
                low = ((low[0][0], high[0][0]),)
            parts.append(low)
        found = union(*parts)
        return without(ANY, found) if negative else found

    def member(self, negative: bool) -> Ranges:
        char = self.peek()
        if not char:
            raise NotRegular("a [ without its ]")
        self.at += 1
        if char == "\\":
            return self.escape(True, negative)
        return ((ord(char), ord(char)),)

    def escape(self, inside: bool, negative: bool = False) -> Ranges:
        char = self.peek()
        self.at += 1
        if char in _CLASSES:
            return (_AT_MOST if negative else _CLASSES)[char]
        if char and char.lower() in _CLASSES:
            return without(ANY, (_CLASSES if negative else _AT_MOST)[char.lower()])
        if char in _CONTROL:
            return ((_CONTROL[char], _CONTROL[char]),)
        if char == "b" and inside:
            return ((8, 8),)
        if char == "0" and not self.peek().isdigit():
            return ((0, 0),)
        if char == "c" and re.fullmatch("[A-Za-z]", self.peek()):
            self.at += 1
            code = ord(self.source[self.at - 1]) % 32
            return ((code, code),)
        if char in ("x", "u"):
            code = self.hexadecimal(char)
            return ((code, code),)
        if not char or char.isalnum():
            raise NotRegular(f"'\\{char}' is not followed: name the characters that are meant")
        return ((ord(char), ord(char)),)

    def hexadecimal(self, kind: str) -> int:
        forms = {"x": r"([0-9A-Fa-f]{2})", "u": r"([0-9A-Fa-f]{4})|\{0*([0-9A-Fa-f]{1,6})\}"}
        found = re.compile(forms[kind]).match(self.source, self.at)
        if not found:
            raise NotRegular(f"'\\{kind}' without its hexadecimal digits")
        self.at = found.end()
        code = int(found[found.lastindex or 1], 16)
        if 0xD800 <= code < 0xDC00:
            low = re.compile(r"\\u([Dd][C-Fc-f][0-9A-Fa-f]{2})").match(self.source, self.at)
            if low:
                self.at = low.end()
                code = 0x10000 + (code - 0xD800 << 10) + int(low[1], 16) - 0xDC00
        if 0xD800 <= code < 0xE000 or code > 0x10FFFF:
            raise NotRegular("half of a surrogate pair")
        return code


def pattern(source: str, *, whole: bool = False) -> Dfa:
    """The texts in which ``source`` is found; ``whole``: those that it is. Raises `NotRegular`."""
    parser = _Parser(source)
    part = parser.alternatives(0)
    if parser.at < len(source):
        raise NotRegular("a ) without its (")
    first, last = part.enter, part.leave
    if not whole:
        first = parser.node()
        parser.sets[first] = ANY, first
        parser.edge(first, part.enter)
        last = parser.node()
        parser.sets[last] = ANY, last
        parser.edge(part.leave, last)
    try:
        return _determined(parser, first, last)
    except TooLarge:
        raise NotRegular("it is too large: have smaller bounds, or fewer of them") from None


def _determined(parser: _Parser, first: int, last: int) -> Dfa:
    def closure(nodes: set[int], kinds: tuple[int, ...]) -> frozenset[int]:
        found, queue = set(nodes), list(nodes)
        while queue:
            for kind, target in parser.free[queue.pop()]:
                if kind in kinds and target not in found:
                    found.add(target)
                    queue.append(target)
        spend(len(found) // 8)
        return frozenset(found)

    start = closure({first}, (_FREE, _START))

    def step(state: _Nodes) -> tuple[bool, list[tuple[int, int, _Nodes]]]:
        nodes, begins = state
        kinds = (_FREE, _END, _START) if begins else (_FREE, _END)
        moves = [move for node in sorted(nodes) if (move := parser.sets[node])]
        cuts = sorted({cut for ranges, _ in moves for low, high in ranges for cut in (low, high + 1)})
        spend((len(cuts) + 1) * (len(moves) + 1))
        out: list[tuple[int, int, _Nodes]] = []
        for low, beyond in pairwise(cuts):
            reached = {to for ranges, to in moves if any(a <= low <= b for a, b in ranges)}
            if reached and not 0xD800 <= low < 0xE000:
                out.append((low, beyond - 1, (closure(reached, (_FREE,)), False)))
        return last in closure(set(nodes), kinds), out

    return explore((start, True), step)
