"""Arrays: first items, all others, how many, one among them that must be there, each but once where they are few."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .branches import Branch, Goal
from .facts import Facts, extent
from .negation import denied
from .rules import Alternative, Ref, Rules, literal
from .tree import Node
from .values import key, prefix

_STATES = 4000
_UNIQUE = 8  # values of which each may come once, in any order
_WRITTEN = 16  # items with rules of their own


def arrays(
    rules: Rules,
    facts: Facts,
    branch: Branch,
    values: Callable[[Goal], Ref | None],
    mark: object,
    constant: Callable[[Any], Ref],
) -> Iterator[Alternative]:
    """``values``: the rule of what follows a goal, None where nothing does; ``constant``: that of a value."""
    least, most = extent(branch, "Items")
    if most is not None and least > most:
        return
    nodes = [plain.node for plain in branch]
    first = max((len(prefix(facts.tree, node)[0]) for node in nodes), default=0)
    needs = [node for node in nodes if "contains" in node and node.get("minContains", 1) > 0]
    limited = [node for node in nodes if "contains" in node and "maxContains" in node]
    if len(needs) + len(limited) > 1 and (len(needs) > 1 or needs != limited):
        raise nodes[0].refused("contains", "cannot be followed twice: have one of them")
    unique = [node for node in nodes if node.get("uniqueItems")]
    if unique and (most is None or most > 1):
        if needs or limited or first:
            raise unique[0].refused("uniqueItems", "cannot be followed beside contains or prefixItems: leave it out")
        yield from _unique(rules, facts, branch, mark, constant, unique[0])
        return
    if needs or limited:
        yield from _containing(rules, facts, branch, values, mark, (needs or limited)[0])
        return
    most = _filled(facts, branch, values, first, most)
    if most is not None and least > most:
        return
    rest = values(facts.item(branch, first))
    if most == 0 or (first == 0 and rest is None):
        if least == 0:
            yield (literal("[]"),)
        return

    def items(i: int) -> Ref:
        def make() -> Iterator[Alternative]:
            comma = (literal(", "),) if i else ()
            if i >= least:
                yield (literal("]"),)
            if most is not None and i >= most:
                return
            if i < first:
                ref = values(facts.item(branch, i))
                if ref:
                    yield *comma, ref, items(i + 1)
            elif rest is None:
                return
            elif i and (i >= least and most is None):
                yield *comma, rest, items(i)
            elif i and max(least, most or 0) - i > _WRITTEN:
                more = rules.ask(("more", rest.name), lambda: [(literal(", "), rest)])
                low = max(least - i, 1)
                yield Ref(more.name, low, None if most is None else most - i), literal("]")
            else:
                yield *comma, rest, items(i + 1)

        return rules.ask(("items", mark, i), make)

    yield literal("["), items(0)


def _filled(
    facts: Facts, branch: Branch, values: Callable[[Goal], Ref | None], first: int, most: int | None
) -> int | None:
    """At most so many items, as nothing follows the schema of the next."""
    for i in range(first + 1):
        if (most is None or i < most) and values(facts.item(branch, i)) is None:
            return i
    return most


def _containing(
    rules: Rules, facts: Facts, branch: Branch, values: Callable[[Goal], Ref | None], mark: object, node: Node
) -> Iterator[Alternative]:
    least, most = extent(branch, "Items")
    low, high = node.get("minContains", 1), node.get("maxContains")
    if high is not None and low > high:
        return
    first = max((len(prefix(facts.tree, plain.node)[0]) for plain in branch), default=0)
    cap = max(first, least, most or 0)
    found_cap = low if high is None else high
    if (cap + 2) * (found_cap + 2) > _STATES:
        raise node.refused("contains", "cannot be followed beside bounds so large: have smaller ones")
    wanted = facts.tree.child(node, "contains")
    # Without an upper bound, one more that is wanted does no harm among the others.
    unwanted = [()] if high is None else [(way,) for way in denied(facts.tree, wanted)]

    def items(i: int, found: int) -> Ref:
        def make() -> Iterator[Alternative]:
            comma = (literal(", "),) if i else ()
            if i >= least and found >= low:
                yield (literal("]"),)
            if most is not None and i >= most:
                return
            goal, after = facts.item(branch, i), min(i + 1, max(cap, 1))
            for more in unwanted:
                ref = values((*goal, *more))
                if ref:
                    yield *comma, ref, items(after, found)
            if found < found_cap:
                ref = values((*goal, wanted))
                if ref:
                    yield *comma, ref, items(after, found + 1)

        return rules.ask(("containing", mark, i, found), make)

    yield literal("["), items(0, 0)


def _unique(
    rules: Rules, facts: Facts, branch: Branch, mark: object, constant: Callable[[Any], Ref], node: Node
) -> Iterator[Alternative]:
    least, most = extent(branch, "Items")
    found: dict[str, Any] = {}
    for item in facts.splitter.branches(facts.item(branch, 0)):
        constants = facts.constants(item)
        if constants is None:
            raise node.refused(
                "uniqueItems",
                "can be followed only for items of an enum, as a grammar does not keep others apart: leave it out",
            )
        found.update({key(value): value for value in constants})
    if len(found) > _UNIQUE:
        raise node.refused("uniqueItems", f"can be followed for at most {_UNIQUE} values: leave it out")
    refs = [constant(value) for value in found.values()]

    def items(left: frozenset[int]) -> Ref:
        count = len(refs) - len(left)

        def make() -> Iterator[Alternative]:
            if count >= least:
                yield (literal("]"),)
            if most is None or count < most:
                for i in sorted(left):
                    yield *((literal(", "),) if count else ()), refs[i], items(left - {i})

        return rules.ask(("unique", mark, left), make)

    yield literal("["), items(frozenset(range(len(refs))))
