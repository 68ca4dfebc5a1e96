"""Objects: the named properties in the schema's order, those that have no place in it between them.

An object whose schema names properties, or patterns of them, has no others unless a schema says so
(``additionalProperties``, ``unevaluatedProperties``), as is usual where answers are held to schemas.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from .automata import EVERYTHING, Dfa, TooLarge, both, complement, lengths, words
from .branches import Branch, Goal, Plain
from .facts import Facts, extent, required
from .rules import Alternative, Ref, Rules, literal
from .strings import name_of
from .tree import Node

_STATES = 8000
_UNORDERED = 5  # names that stand in no order in the schema, which may come in any
_PATTERNS = 4
_LISTED = 64  # names of a finite set


@dataclass(frozen=True, slots=True)
class _Named:
    name: str
    goal: Goal
    required: bool
    ordered: bool  # it has a place in the schema's order


@dataclass(frozen=True, slots=True)
class _Other:
    """Names that the schema does not spell out."""

    names: Dfa
    goal: Goal


def objects(
    rules: Rules, facts: Facts, branch: Branch, values: Callable[[Goal], Ref | None], mark: object
) -> Iterator[Alternative]:
    """``values``: the rule of what follows a goal, None where nothing does. ``mark``: names the branch."""
    shape = _Shape(facts, branch)
    least, most = extent(branch, "Properties")
    if most is not None and least > most:
        return
    own = [(each, ref) for each in shape.named if (ref := values(each.goal)) or each.required]
    others = [(each, ref) for each in shape.others if (ref := values(each.goal))]
    if any(ref is None for _, ref in own):
        return
    unordered = len(own) - sum(each.ordered for each, _ in own) <= _UNORDERED
    named = [(_key(each.name), ref, each.required) for each, ref in own if ref and (each.ordered or not unordered)]
    loose = [(_key(each.name), ref, each.required) for each, ref in own if ref and unordered and not each.ordered]
    must = sum(each.required for each, _ in own)
    if least > 1 and others and must + 1 < least:
        node = next(plain.node for plain in branch if plain.node.get("minProperties") == least)
        raise node.refused(
            "minProperties",
            "cannot be followed where names are free, as a grammar does not keep them apart: list them in required, or "
            "leave it out",
        )
    cap = most if most is not None else max(least, 1)
    if (len(named) + 1) * (cap + 1) * 2 << len(loose) > _STATES:
        node = next((p.node for p in branch if "maxProperties" in p.node or "minProperties" in p.node), branch[0].node)
        bounds = ("maxProperties", "minProperties", "properties", "required")
        word = next((word for word in bounds if word in node), "properties")
        raise node.refused(word, "is too large beside so many properties: leave it out")
    frees = [(*name_of(rules, each.names), literal(": "), ref) for each, ref in others if ref]

    def members(state: _State) -> Ref:
        at, count, apart, free, used, left = state

        def make() -> Iterator[Alternative]:
            comma = ", " if count else ""
            more = most is None or count < most
            after, distinct = min(count + 1, cap), min(apart + 1, least)
            if free and more:
                rest = _State(at, after, apart if used else distinct, True, used or least > 1, left)
                yield from ((*((literal(comma),) if comma else ()), *each, members(rest)) for each in frees)
                for i in sorted(left):
                    rest = _State(at, after, distinct, True, used, left - {i})
                    yield from ((literal(f"{comma}{key}: "), loose[i][1], members(rest)) for key in loose[i][0])
            if at == len(named):
                if apart >= least and not any(loose[i][2] for i in left):
                    yield (literal("}"),)
                return
            keys, ref, needed = named[at]
            if more:
                rest = _State(at + 1, after, distinct, True, used, left)
                yield from ((literal(f"{comma}{key}: "), ref, members(rest)) for key in keys)
            if not needed:
                yield (members(_State(at + 1, count, apart, False, used, left)),)

        return rules.ask(("members", mark, state._replace(free=free and bool(frees or left))), make)

    yield literal("{"), members(_State(0, 0, 0, True, False, frozenset(range(len(loose)))))


class _State(NamedTuple):
    """Of an object that is being written. ``at``: the next property in order; ``size``: members so far; ``apart``:
    those that are sure to have names of their own; ``free``: whether one without a place in the order may come, as none
    may after a property was passed over; ``used``: whether a free name was counted; ``left``: those that may come.
    """

    at: int
    size: int
    apart: int
    free: bool
    used: bool
    left: frozenset[int]


class _Shape:
    def __init__(self, facts: Facts, branch: Branch) -> None:
        self._facts = facts
        self._branch = branch
        names: dict[str, None] = {}
        for plain in branch:
            names.update(dict.fromkeys(plain.node.get("properties", ())))
        ordered = set(names)
        must = required(branch)
        names.update(dict.fromkeys(must))
        absent = {name for plain in branch for name in plain.node.get("\0absent", ())}
        self._checks = [plain.node for plain in branch if "propertyNames" in plain.node]
        texts, listed = self._texts_of_names()
        if listed is not None:
            names.update(dict.fromkeys(listed))
        self.named: list[_Named] = []
        for name in names:
            goal = facts.member(branch, name)
            bad = name in absent or not self._named_well(name) or (goal == () and not self._may(name, must))
            if bad:
                goal = (facts.tree.node(False, branch[0].node),)
            self.named.append(_Named(name, goal, name in must, name in ordered))
        self.others = [] if listed is not None else list(self._others([*names, *absent], texts))

    def _may(self, name: str, must: list[str]) -> bool:
        """Whether a property that no schema describes may be there."""
        spelled = any(name in plain.node.get("properties", ()) for plain in self._branch)
        return spelled or name in must or not _closed(self._branch)

    def _named_well(self, name: str) -> bool:
        judge, tree = self._facts.judge, self._facts.tree
        return all(judge.holds(name, tree.child(node, "propertyNames")) for node in self._checks)

    def _texts_of_names(self) -> tuple[Dfa, list[str] | None]:
        """The texts of all names, and the names themselves where they are few."""
        facts, texts = self._facts, EVERYTHING
        goal = tuple(facts.tree.child(node, "propertyNames") for node in self._checks)
        if not goal:
            return texts, None
        node = self._checks[0]
        parts: list[Dfa] = []
        listed: list[str] | None = []
        for branch in facts.splitter.branches(goal):
            constants = facts.constants(branch)
            if constants is not None:
                found = [value for value in constants if isinstance(value, str)]
                listed = None if listed is None else [*listed, *found]
                parts.append(words(found))
                continue
            listed = None
            if not any("type" in p.node and "string" not in _types(p.node) for p in branch):
                parts.append(_names(facts, branch))
        if listed is not None and len(listed) <= _LISTED:
            return texts, list(dict.fromkeys(listed))
        try:
            # One of the parts: not none of them.
            none = EVERYTHING
            for part in parts:
                none = both(none, complement(part))
            return complement(none), None
        except TooLarge:
            raise node.refused("propertyNames", "is too large: have smaller bounds") from None

    def _others(self, names: list[str], texts: Dfa) -> Iterator[_Other]:
        """Free names, by which of the patterns they match."""
        facts, branch = self._facts, self._branch
        nodes = [plain.node for plain in branch]
        patterns = list(dict.fromkeys((node, p) for node in nodes for p in node.get("patternProperties", ())))
        if len(patterns) > _PATTERNS:
            raise patterns[-1][0].refused("patternProperties", f"has more than {_PATTERNS} patterns: have fewer")
        node = patterns[0][0] if patterns else nodes[0] if nodes else facts.tree.root
        automata = [facts.texts(node, "patternProperties", pattern) for node, pattern in patterns]
        try:
            if names:
                texts = both(texts, complement(words(names)))
            for chosen in product((True, False), repeat=len(patterns)):
                some = texts
                for matches, automaton in zip(chosen, automata, strict=True):
                    some = both(some, automaton if matches else complement(automaton))
                if some.empty:
                    continue
                matched = [pair for pair, matches in zip(patterns, chosen, strict=True) if matches]
                goal = self._free_goal(matched)
                if matched or goal or not _closed(branch):
                    yield _Other(some, goal)
        except TooLarge:
            word = "patternProperties" if patterns else "properties"
            raise node.refused(word, "make too many names to keep apart: set additionalProperties to false") from None

    def _free_goal(self, matched: list[tuple[Node, str]]) -> Goal:
        tree = self._facts.tree
        goal = []
        known: set[Node] = set()
        for plain in self._branch:
            node = plain.node
            mine = [tree.child(node, "patternProperties", pattern) for owner, pattern in matched if owner is node]
            if not mine and "additionalProperties" in node:
                mine = [tree.child(node, "additionalProperties")]
            if mine:
                known.update(plain.within)
            goal += mine
        for plain in self._branch:
            if "unevaluatedProperties" in plain.node:
                inner = any(
                    "unevaluatedProperties" in other.node and plain.node in other.within and other is not plain
                    for other in self._branch
                )
                if plain.node not in known and not inner:
                    goal.append(tree.child(plain.node, "unevaluatedProperties"))
        return tuple(goal)


def _names(facts: Facts, branch: Branch) -> Dfa:
    least, most, texts = facts.string(branch)
    return both(texts, lengths(least, most)) if least or most is not None else texts


def _types(node: Node) -> list[str]:
    return [node["type"]] if isinstance(node["type"], str) else node["type"]


def _closed(branch: Branch) -> bool:
    said: list[Plain] = [plain for plain in branch if not plain.node.made]
    if any(word in plain.node for plain in said for word in ("additionalProperties", "unevaluatedProperties")):
        return False
    return any(word in plain.node for plain in said for word in ("properties", "patternProperties"))


def _key(name: str) -> list[str]:
    """As JSON writes it, with and without characters beyond ASCII."""
    return list(dict.fromkeys((json.dumps(name, ensure_ascii=False), json.dumps(name))))
