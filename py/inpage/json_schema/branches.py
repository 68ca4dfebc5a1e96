"""What must hold at one place, as alternatives of plain schemas: references followed, `allOf` joined, `anyOf`, `oneOf`,
`if`, `not` and what depends on a property taken apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .negation import denied
from .tree import TYPES, Node, Tree

BRANCHES = 256  # of one place
_NESTED = 48  # references, allOf and the like in one another
BASE = frozenset(kind for kind in TYPES if kind != "integer")
_WORK = 50_000


@dataclass(frozen=True, slots=True)
class Plain:
    """One schema's own keywords hold. ``within``: the schemas whose keywords brought it here, itself first."""

    node: Node
    within: tuple[Node, ...]


Branch = tuple[Plain, ...]  # all of them hold
Goal = tuple[Node, ...]  # so do all of these


class Splitter:
    """``empty``: whether it is certain, after a bounded search, that no value follows a branch."""

    def __init__(self, tree: Tree, empty: Callable[[Branch, int], bool]) -> None:
        self._tree = tree
        self._empty = empty
        self._work = 0

    def branches(self, goal: Goal, depth: int = 0) -> list[Branch]:
        found: list[Branch] = [()]
        for node in goal:
            found = self._joined(node, found, self._split(node, (), 0, depth))
        return found

    def disjoint(self, goal: Goal, depth: int) -> bool:
        """Whether it is certain that no value follows all of them."""
        return all(self._empty(branch, depth) for branch in self.branches(goal, depth))

    def _split(self, node: Node, within: tuple[Node, ...], nested: int, depth: int) -> list[Branch]:
        if isinstance(node.schema, bool):
            return [()] if node.schema else []
        word = "$ref" if "$ref" in node else "allOf"
        if any(node is outer for outer in within):
            raise node.refused(word, "leads round in a circle: name what it stands for")
        if nested > _NESTED:
            raise node.refused(word, f"and its like are more than {_NESTED} in one another: have fewer")
        tree = self._tree
        within = (node, *within)
        found: list[Branch] = [(Plain(node, within),)]

        def split(inner: Node) -> list[Branch]:
            return self._split(inner, within, nested + 1, depth)

        def join(more: list[Branch]) -> None:
            nonlocal found
            found = self._joined(node, found, more)

        if "$ref" in node:
            join(split(tree.target(node)))
        for inner in tree.children(node, "allOf") if "allOf" in node else ():
            join(split(inner))
        if "anyOf" in node:
            join([branch for inner in tree.children(node, "anyOf") for branch in split(inner)])
        if "oneOf" in node:
            join([branch for way in self._one_of(node, within, depth) for branch in self._all(node, way, split)])
        if "not" in node:
            join(self._denied(tree.child(node, "not"), split))
        if "if" in node and ("then" in node or "else" in node):
            test = tree.child(node, "if")
            then = [tree.child(node, "then")] if "then" in node else []
            other = [tree.child(node, "else")] if "else" in node else []
            ways = self._all(node, [test, *then], split)
            for branch in self._denied(test, split):
                ways += self._joined(node, [branch], self._all(node, other, split))
            join(ways)
        for name, needs in self._dependent(node):
            absent = tree.made({"type": "object", "\0absent": [name]}, node)
            others = tree.made({"type": sorted(BASE - {"object"})}, node)
            join([*split(absent), *split(others), *self._all(node, needs, split)])
        return found

    def _dependent(self, node: Node) -> Iterator[tuple[str, list[Node]]]:
        tree = self._tree
        for name, names in node.get("dependentRequired", {}).items():
            yield name, [tree.made({"type": "object", "required": [name, *names]}, node)]
        for name in node.get("dependentSchemas", {}):
            has = tree.made({"type": "object", "required": [name]}, node)
            yield name, [has, tree.child(node, "dependentSchemas", name)]

    def _denied(self, node: Node, split: Callable[[Node], list[Branch]]) -> list[Branch]:
        return [branch for way in denied(self._tree, node) for branch in split(way)]

    def _one_of(self, node: Node, within: tuple[Node, ...], depth: int) -> list[list[Node]]:
        """Ways, each of nodes that all hold, of which a value goes one: beside each schema those others denied that
        are not known to exclude it."""
        ways = self._tree.children(node, "oneOf")
        own = [self._tree.made({k: v for k, v in node.schema.items() if k not in ("oneOf", "$ref")}, node)]
        if depth > 2:  # where it is only asked whether any value follows, and more may pass
            return [[way] for way in ways]
        out = []
        for i, one in enumerate(ways):
            rivals = [
                other for j, other in enumerate(ways)
                if i != j and not self.disjoint((*own, one, other), depth + 1)
            ]  # fmt: skip
            out.append([one, *(self._tree.made({"not": rival.schema}, rival) for rival in rivals)])
        return out

    def _all(self, node: Node, goal: Iterable[Node], split: Callable[[Node], list[Branch]]) -> list[Branch]:
        found: list[Branch] = [()]
        for inner in goal:
            found = self._joined(node, found, split(inner))
        return found

    def _joined(self, node: Node, some: list[Branch], others: list[Branch]) -> list[Branch]:
        self._work += len(some) * len(others)
        if self._work > _WORK:
            raise node.refused("anyOf", "and its like ask for too much work: have fewer alternatives")
        joined = [merged for a in some for b in others if compatible(merged := _merged(a, b))]
        if len(joined) > BRANCHES:
            raise node.refused("anyOf", f"and its like make more than {BRANCHES} alternatives: have fewer")
        return joined


def _merged(a: Branch, b: Branch) -> Branch:
    known = {id(plain.node): plain for plain in a}
    for plain in b:
        if id(plain.node) in known:
            before = known[id(plain.node)]
            plain = Plain(plain.node, tuple(dict.fromkeys((*before.within, *plain.within))))
        known[id(plain.node)] = plain
    return tuple(known.values())


def compatible(branch: Branch) -> bool:
    """Whether there is a type that all allow."""
    return bool(kinds(branch))


def kinds(branch: Branch) -> frozenset[str]:
    """The types that a value may have, integers among numbers."""
    found = BASE
    for plain in branch:
        if "type" in plain.node:
            found &= allowed(plain.node)
    return found


def allowed(node: Node) -> frozenset[str]:
    given: Any = node["type"]
    types = set(given if isinstance(given, list) else [given])
    if node.get("nullable"):
        types.add("null")
    return frozenset("number" if kind == "integer" else kind for kind in types)
