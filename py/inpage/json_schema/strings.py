"""Strings as JSON writes them: the texts of an automaton, or any of some length, in UTF-8 with JSON's escapes.

A string's rules run to the right, one for each state, with its closing quote: so nearly every token is decided when the
grammar is compiled, which a repeated rule would leave to each step.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from .automata import ANY, EVERYTHING, Dfa, Ranges, common, union, without
from .rules import Alternative, Ref, Rules, byte_class, literal

QUOTE = literal('"')
# Characters whose rules are written out; longer strings repeat a block of them.
BLOCK = 16
TAIL = 64  # the block's and a long token's
_SPELLED = 16  # states of free names whose rules are written out
_MANY = 20  # characters of a place where many tokens may come
_PLAIN: Ranges = ((0x20, 0x21), (0x23, 0x5B), (0x5D, 0x7F))  # ASCII that stands for itself
_ASCII: Ranges = ((0, 0x7F),)
_PRINTABLE: Ranges = ((0x20, 0x7F),)
_BEYOND = without(ANY, _ASCII)
_SHORT = {0x22: '"', 0x5C: "\\", 0x2F: "/", 8: "b", 12: "f", 10: "n", 13: "r", 9: "t"}


def string(rules: Rules, least: int, most: int | None, texts: Dfa) -> Alternative:
    """Strings of ``least`` to ``most`` characters, or, where these are 0 and None, the ``texts``."""
    if texts == EVERYTHING:
        return QUOTE, _counted(rules, least, most)
    return QUOTE, _state(rules, texts, 0)


def name_of(rules: Rules, texts: Dfa) -> Alternative:
    """A property's name. Where ``texts`` are all but some, the rules for those end with the first character that no
    such name has: else each of their characters would be a place where any token may come."""
    whole = [i for i, row in enumerate(texts.edges) if texts.final[i] and row == tuple((a, b, i) for a, b in ANY)]
    if texts == EVERYTHING or not whole or len(texts.final) <= _SPELLED:
        return string(rules, 0, None, texts)
    rest = _counted(rules, 0, None)
    ways = rules.ask(("name", texts), lambda: [
        (_state(rules, texts, 0, whole[0]), rest),
        (_state(rules, _short_of(texts, whole[0]), 0),),
    ])  # fmt: skip
    return QUOTE, ways


def _short_of(texts: Dfa, state: int) -> Dfa:
    """Those that do not reach ``state``."""
    edges = tuple(tuple(edge for edge in row if edge[2] != state) for row in texts.edges)
    return Dfa(edges, tuple(end and i != state for i, end in enumerate(texts.final)))


def _state(rules: Rules, texts: Dfa, state: int, leave: int | None = None) -> Ref:
    """What may come in ``state``, to the closing quote; with ``leave`` up to where that state is reached."""

    def make() -> Iterator[Alternative]:
        if state == leave:
            yield ()
            return
        if leave is None:
            if sum(high - low for low, high, _ in texts.edges[state]) > _MANY:
                rules.wide()
            if texts.final[state]:
                yield (QUOTE,)
        by_target: dict[int, list[tuple[int, int]]] = {}
        for low, high, target in texts.edges[state]:
            by_target.setdefault(target, []).append((low, high))
        for target, ranges in by_target.items():
            yield from _char(rules, union(tuple(ranges)), _state(rules, texts, target, leave))

    return rules.ask(("state", texts, state, leave), make)


def _counted(rules: Rules, least: int, most: int | None) -> Ref:
    """The rest of a string of any characters, so many, with its closing quote."""

    def make() -> Iterator[Alternative]:
        if least > TAIL or (least == 0 and most is not None and most > TAIL):
            rest = _counted(rules, max(least - BLOCK, 0), None if most is None else most - BLOCK)
            yield _block(rules, BLOCK, least == 0), rest
            if least == 0:
                yield (_counted(rules, 0, TAIL),)
            return
        if least == 0:
            yield (QUOTE,)
        if most != 0:
            rules.wide()
            after = max(least - 1, 0), None if most is None else most - 1
            yield from _char(rules, ANY, _counted(rules, *after))

    return rules.ask(("counted", least, most), make)


def _block(rules: Rules, count: int, beside: bool) -> Ref:
    """So many characters, without a quote. ``beside``: a tail stands beside it, whose rules allow every token that goes
    beyond the block's end. So the block need not: what it asserts to follow, which XGrammar looks at for masks alone,
    never does. Else each such token would be looked at in each step."""

    def make() -> Iterator[Alternative]:
        if count == 0:
            yield ()
        else:
            rules.wide()
            yield from _char(rules, ANY, _block(rules, count - 1, beside))

    return rules.ask(("block", count, beside), make, '(="\\u0000")' if beside and count else "")


def _char(rules: Rules, ranges: Ranges, then: Ref) -> Iterator[Alternative]:
    """A character of ``ranges``, as it is or escaped."""
    plain = common(ranges, _PLAIN)
    beyond = common(ranges, _BEYOND)
    if plain:
        yield byte_class(plain), then
    for low, high in beyond:
        for sequence in utf8(low, high):
            yield (*(byte_class([pair]) for pair in sequence), then)
    escaped = ranges if ranges == ANY else without(ranges, _PRINTABLE)
    short = [mark for code, mark in _SHORT.items() if common(ranges, ((code, code),))]
    if escaped or short:
        yield literal("\\"), rules.ask(("escape", escaped, tuple(short)), partial(_escapes, escaped, short)), then


def _escapes(ranges: Ranges, short: list[str]) -> Iterator[Alternative]:
    """What follows a backslash."""
    if short:
        yield (" | ".join(map(literal, short)).join("()"),)
    for low, high in ranges:
        if low <= 0xFFFF:
            for sequence in _split(low, min(high, 0xFFFF), 16, 4):
                yield (literal("u"), *map(_hex, sequence))
        if high > 0xFFFF:
            first, last = (max(low, 0x10000) - 0x10000), high - 0x10000
            for (a, b), (c, d) in _split(first, last, 1024, 2):
                for head in _split(0xD800 + a, 0xD800 + b, 16, 4):
                    for tail in _split(0xDC00 + c, 0xDC00 + d, 16, 4):
                        yield (literal("u"), *map(_hex, head), literal("\\u"), *map(_hex, tail))


def _hex(digits: tuple[int, int]) -> str:
    low, high = digits
    parts = []
    if low < 10:
        parts.append((0x30 + low, 0x30 + min(high, 9)))
    if high > 9:
        parts += [(start + max(low, 10) - 10, start + high - 10) for start in (0x41, 0x61)]
    return byte_class(parts)


def _split(low: int, high: int, base: int, digits: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """The numbers from ``low`` to ``high`` as products of ranges of digits."""
    if digits == 1:
        yield ((low, high),)
        return
    unit = base ** (digits - 1)
    first, last = low // unit, high // unit
    if first == last:
        for rest in _split(low % unit, high % unit, base, digits - 1):
            yield ((first, first), *rest)
        return
    if low % unit:
        for rest in _split(low % unit, unit - 1, base, digits - 1):
            yield ((first, first), *rest)
        first += 1
    full = last if high % unit == unit - 1 else last - 1
    if first <= full:
        yield ((first, full), *((0, base - 1),) * (digits - 1))
    if full < last:
        for rest in _split(0, high % unit, base, digits - 1):
            yield ((last, last), *rest)


def utf8(low: int, high: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """The bytes of the characters from ``low`` to ``high``, all beyond ASCII, as products of ranges."""
    for start, end, lead, count in ((0x80, 0x7FF, 0xC0, 2), (0x800, 0xFFFF, 0xE0, 3), (0x10000, 0x10FFFF, 0xF0, 4)):
        if max(low, start) <= min(high, end):
            for first, *rest in _split(max(low, start), min(high, end), 64, count):
                yield ((lead + first[0], lead + first[1]), *((0x80 + a, 0x80 + b) for a, b in rest))
