"""Numbers between bounds and multiples, digit by digit. A bounded one is written without an exponent, or with one that
leaves no doubt; a whole one has neither fraction nor exponent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

from .automata import Dfa, TooLarge, both, complement, explore, lengths
from .rules import Alternative, Ref, Rules, byte_class, literal

DIGITS = 40  # of a bound
_STEPS = 1000  # remainders that are kept apart
_EXACT = 15  # characters of a number that must be a multiple: readers that take it for a float64 keep those digits
_EXPONENT = '[eE] [+\\-]? ("0"? [0-9]{1,2} | [12] [0-9]{2} | "30" [0-7])'


Step = tuple[Fraction, bool]  # a multiple of it, or none


class NotFinite(ValueError):
    """What is wrong with a bound."""


@dataclass(frozen=True, slots=True)
class Interval:
    low: Fraction | None = None
    high: Fraction | None = None
    low_open: bool = False
    high_open: bool = False

    @property
    def empty(self) -> bool:
        if self.low is None or self.high is None:
            return False
        return self.low > self.high or (self.low == self.high and (self.low_open or self.high_open))

    def above(self, low: Fraction, is_open: bool) -> Interval:
        if self.low is not None and (low, is_open) <= (self.low, self.low_open):
            return self
        return replace(self, low=low, low_open=is_open)

    def below(self, high: Fraction, is_open: bool) -> Interval:
        if self.high is not None and (-high, is_open) <= (-self.high, self.high_open):
            return self
        return replace(self, high=high, high_open=is_open)

    def around(self, point: Fraction) -> list[Interval]:
        """Without that point."""
        return [part for part in (self.below(point, True), self.above(point, True)) if not part.empty]


def exact(value: float | int) -> Fraction:
    """Raises `NotFinite`."""
    if isinstance(value, int) and value.bit_length() > 4 * DIGITS:
        raise NotFinite(f"has more than {DIGITS} digits")
    number = Decimal(repr(value))
    if not number.is_finite():
        raise NotFinite("is not finite")
    _sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    if len(digits) + abs(exponent) > DIGITS and number:
        raise NotFinite(f"has more than {DIGITS} digits")
    return Fraction(number)


def number(rules: Rules, within: Interval, whole: bool, steps: tuple[Step, ...]) -> Iterator[Alternative]:
    """Raises `TooLarge`."""
    if within == Interval() and not steps:
        fraction = "" if whole else f'("." [0-9]+)? ({_EXPONENT})?'
        head = '"0" | "-"? [1-9] [0-9]*' if whole else '"-"? ("0" | [1-9] [0-9]*)'
        yield (f"({head}) {fraction}".rstrip(),)
        return
    zero = Fraction(0)
    if not within.above(zero, False).below(zero, False).empty and all(multiple for _, multiple in steps):
        yield ('"0"' if whole else '"-"? "0" ("." "0"+)?',)
    positive = within.above(zero, True)
    if not positive.empty:
        yield from _magnitudes(rules, positive, whole, steps)
    negative = Interval(_minus(within.high), _minus(within.low), within.high_open, within.low_open).above(zero, True)
    if not negative.empty:
        yield from ((literal("-"), *rest) for rest in _magnitudes(rules, negative, whole, steps))


def _minus(bound: Fraction | None) -> Fraction | None:
    return None if bound is None else -bound


def _magnitudes(rules: Rules, within: Interval, whole: bool, steps: tuple[Step, ...]) -> Iterator[Alternative]:
    """Positive ones."""
    low, high = within.low or Fraction(0), within.high
    if not (low or high is not None or steps):
        if whole:
            yield ("[1-9] [0-9]*",)
            return
        # Smaller exponents would be read as 0.
        exponent = _EXPONENT.replace(' | "30" [0-7]', "")
        yield (f'([1-9] [0-9]* ("." [0-9]+)? | "0." "0"* [1-9] [0-9]*) ({exponent})?',)
        return
    texts = _between(within, whole)
    for step, multiple in steps:
        found = _multiples(step)
        texts = both(texts, found if multiple else complement(found))
    if steps and not whole:
        texts = both(texts, lengths(1, _EXACT))
    if not texts.empty:
        yield (_digits(rules, texts, 0),)
    if whole or steps:
        return
    mantissa = '[1-9] ("." [0-9]+)? [eE]'
    if high is None:
        least = Fraction(len(str(int(low))))  # of an exponent: 10 to it is beyond the bound
        texts = _between(Interval(least, Fraction(307)), True)
        yield mantissa, '"+"? "0"?', _digits(rules, texts, 0)
    if low == 0:
        least = Fraction(1)
        while high is not None and Fraction(10) ** int(1 - least) > high:
            least += 1
        yield mantissa, '"-" "0"?', _digits(rules, _between(Interval(least, Fraction(99)), True), 0)


def _digits(rules: Rules, texts: Dfa, state: int) -> Ref:
    def make() -> Iterator[Alternative]:
        if texts.final[state]:
            yield ()
        by_target: dict[int, list[tuple[int, int]]] = {}
        for low, high, target in texts.edges[state]:
            by_target.setdefault(target, []).append((low, high))
        for target, ranges in by_target.items():
            yield byte_class(ranges), _digits(rules, texts, target)

    return rules.ask(("digits", texts, state), make)


_Place = tuple[bool, int, int]  # whether in the fraction, digits so far, how they compare to the bound's
_Reading = tuple[str, _Place, _Place]  # what was read last, and how it compares to the bounds


class _Bound:
    def __init__(self, bound: Fraction) -> None:
        scaled, digits = bound, 0
        while scaled.denominator > 1:
            scaled, digits = scaled * 10, digits + 1
        text = str(scaled.numerator).rjust(digits + 1, "0")
        self.whole, self.fraction = text[: len(text) - digits], text[len(text) - digits :]

    def digit(self, place: _Place, digit: int) -> _Place:
        beyond, n, order = place
        bound = self.fraction if beyond else self.whole
        if order == 0 and (beyond or n < len(bound)):
            other = int(bound[n]) if n < len(bound) else 0
            order = (digit > other) - (digit < other)
        return beyond, min(n + 1, len(bound) + (not beyond)), order

    def point(self, place: _Place) -> _Place:
        return True, 0, self._order(place)

    def compare(self, place: _Place) -> int:
        order = self._order(place)
        return -1 if order == 0 and self.fraction[place[1] if place[0] else 0 :] else order

    def _order(self, place: _Place) -> int:
        beyond, n, order = place
        if beyond or n == len(self.whole):
            return order
        return 1 if n > len(self.whole) else -1


def _between(within: Interval, whole: bool) -> Dfa:
    """The decimal texts of positive numbers in it."""
    low = _Bound(within.low or Fraction(0))
    high = None if within.high is None else _Bound(within.high)
    begin: _Place = (False, 0, 0)

    def step(state: _Reading) -> tuple[bool, list[tuple[int, int, _Reading]]]:
        syntax, a, b = state
        ends = syntax in ("0", "1", "f")
        if ends:
            under = low.compare(a)
            over = high.compare(b) if high else -1
            ends = (under > 0 or (under == 0 and not within.low_open)) and (
                over < 0 or (over == 0 and not within.high_open)
            )
        after = {"": "1", "1": "1", ".": "f", "f": "f"}.get(syntax, "")
        out: list[tuple[int, int, _Reading]] = []
        for digit in range(10) if after else ():
            kind = "0" if syntax == "" and digit == 0 else after
            if kind == "0" and whole:
                continue
            place = high.digit(b, digit) if high else b
            if high and place[1] > len(high.whole) and not place[0]:
                continue
            out.append((0x30 + digit, 0x30 + digit, (kind, low.digit(a, digit), place)))
        if syntax in ("0", "1") and not whole:
            out.append((0x2E, 0x2E, (".", low.point(a), high.point(b) if high else b)))
        return ends, out

    return explore(("", begin, begin), step)


def _multiples(step: Fraction) -> Dfa:
    """The decimal texts of its multiples."""
    places = 0
    while (step * 10**places).denominator > 1:
        places += 1
    size = int(step * 10**places)
    if size > _STEPS:
        raise TooLarge

    def move(state: tuple[int, int]) -> tuple[bool, list[tuple[int, int, tuple[int, int]]]]:
        rest, after = state
        if after < 0:
            ends = rest * 10**places % size == 0
            out = [(0x30 + d, 0x30 + d, ((rest * 10 + d) % size, -1)) for d in range(10)]
            return ends, [*out, (0x2E, 0x2E, (rest, 0))]
        if after == places:  # nothing but zeros more
            return rest == 0, [(0x30, 0x30, (rest, after))]
        ends = rest * 10 ** (places - after) % size == 0
        return ends, [(0x30 + d, 0x30 + d, ((rest * 10 + d) % size, after + 1)) for d in range(10)]

    return explore((0, -1), move)
