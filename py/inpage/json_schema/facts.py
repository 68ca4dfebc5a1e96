"""Of a branch: which texts its strings have, between which bounds its numbers are, and whether nothing follows it."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from ..errors import quoted
from .automata import EVERYTHING, Dfa, TooLarge, both, complement, lengths, words
from .branches import Branch, Goal, Splitter, kinds
from .formats import NAMES, named
from .numbers import Interval, Step
from .regex import NotRegular, pattern
from .tree import BOUNDS, Node, Tree
from .values import Judge, exact_in, is_kind, key, prefix

_DEPTH = 3  # of properties that are looked at to tell schemas apart


class Facts:
    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.judge = Judge(tree, self.texts)
        self.splitter = Splitter(tree, self.empty)
        self._patterns: dict[str, Dfa] = {}

    def texts(self, node: Node, keyword: str, source: str) -> Dfa:
        """Of a pattern or a format. Raises `InvalidRequest`."""
        if keyword == "format":
            if source not in NAMES:
                raise node.refused("format", f"is {quoted(source)}, which is not known; it can be {', '.join(NAMES)}")
            return named(source)
        found = self._patterns.get(source)
        if found is None:
            try:
                found = self._patterns[source] = pattern(source)
            except NotRegular as error:
                raise node.refused(keyword, f"cannot be followed: {error}") from None
        return found

    def constants(self, branch: Branch) -> list[Any] | None:
        """The values of ``enum`` and ``const`` that the branch allows; None where it names none."""
        lists = [n["enum"] if "enum" in n else [n["const"]] for n in _nodes(branch) if "enum" in n or "const" in n]
        if not lists:
            return None
        unlike = {key(value): value for value in min(lists, key=len)}
        return [value for value in unlike.values() if all(self.judge.holds(value, n) for n in _nodes(branch))]

    def excluded(self, branch: Branch, kind: str) -> list[Any]:
        return [value for _, value in _excluded(branch, kind)]

    def string(self, branch: Branch) -> tuple[int, int | None, Dfa]:
        """Least and most characters, and the texts: those of the lengths too where there is anything else."""
        least, most = extent(branch, "Length")
        texts = EVERYTHING
        node = branch[0].node if branch else self.tree.root
        try:
            for node in _nodes(branch):
                for keyword in ("pattern", "format"):
                    if keyword in node:
                        texts = both(texts, self.texts(node, keyword, node[keyword]))
                    other = f"\0not{keyword.title()}"
                    if other in node:
                        texts = both(texts, complement(self.texts(node, keyword, node[other])))
            barred = self.excluded(branch, "string")
            if barred:
                texts = both(texts, complement(words(barred)))
            if texts != EVERYTHING and (least or most is not None):
                texts = both(texts, lengths(least, most))
                least, most = 0, None
        except TooLarge:
            word = next((w for w in ("pattern", "format", "not") if w in node), "pattern")
            raise node.refused(word, "is too large together with what stands beside it: have smaller bounds") from None
        return least, most, texts

    def number(self, branch: Branch) -> tuple[list[Interval], bool, tuple[Step, ...]]:
        """Intervals, whether whole, and of what a multiple or none."""
        within, steps, whole = Interval(), [], False
        for node in _nodes(branch):
            for keyword in (*BOUNDS, "\0notMultiple"):
                if keyword not in node:
                    continue
                value = exact_in(node, keyword, node[keyword])
                is_open = keyword.startswith("exclusive")
                if keyword in ("multipleOf", "\0notMultiple"):
                    steps.append((value, keyword == "multipleOf"))
                else:
                    within = (within.above if "inimum" in keyword else within.below)(value, is_open)
            given = node.get("type", ())
            types = [given] if isinstance(given, str) else given
            whole = whole or ("integer" in types and "number" not in types)
        intervals = [] if within.empty else [within]
        for node, value in _excluded(branch, "number"):
            point = exact_in(node, "const", value)
            intervals = [part for each in intervals for part in each.around(point)]
        return intervals, whole, tuple(dict.fromkeys(steps))

    def empty(self, branch: Branch, depth: int) -> bool:
        """Whether it is certain that no value follows it."""
        found = self.constants(branch)
        if found is not None:
            return not found
        return all(self._empty_kind(branch, kind, depth) for kind in kinds(branch))

    def _empty_kind(self, branch: Branch, kind: str, depth: int) -> bool:
        if kind == "null":
            return bool(self.excluded(branch, "null"))
        if kind == "boolean":
            return len(set(self.excluded(branch, "boolean"))) == 2
        if kind == "number":
            intervals, whole, steps = self.number(branch)
            return not intervals or (whole and (Fraction(1), False) in steps)
        if kind == "string":
            least, most, texts = self.string(branch)
            return texts.empty or (most is not None and least > most)
        if kind == "array":
            least, most = extent(branch, "Items")
            return (most is not None and least > most) or (
                depth < _DEPTH
                and any(self.splitter.disjoint(self.item(branch, i), depth + 1) for i in range(min(least, 8)))
            )
        least, most = extent(branch, "Properties")
        names = required(branch)
        if (most is not None and max(least, len(names)) > most) or any(
            name in n.get("\0absent", ()) for n in _nodes(branch) for name in names
        ):
            return True
        return depth < _DEPTH and any(self.splitter.disjoint(self.member(branch, name), depth + 1) for name in names)

    def item(self, branch: Branch, i: int) -> Goal:
        """What the array's ``i``-th item must follow."""
        goal = []
        for node in _nodes(branch):
            first, rest = prefix(self.tree, node)
            schema = first[i] if i < len(first) else rest
            if schema is not None:
                goal.append(schema)
        for plain in branch:
            if "unevaluatedItems" in plain.node and not self._item_known(branch, plain.node, i):
                goal.append(self.tree.child(plain.node, "unevaluatedItems"))
        return tuple(goal)

    def _item_known(self, branch: Branch, outer: Node, i: int) -> bool:
        for plain in branch:
            if outer in plain.within and not plain.node.made:
                first, rest = prefix(self.tree, plain.node)
                if i < len(first) or rest is not None or ("unevaluatedItems" in plain.node and plain.node is not outer):
                    return True
                if "contains" in plain.node:
                    raise outer.refused("unevaluatedItems", "beside contains cannot be followed: use items")
        return False

    def member(self, branch: Branch, name: str) -> Goal:
        """What the object's property of this name must follow."""
        goal = [schema for node in _nodes(branch) for schema in self.judge.member(node, name)]
        for plain in branch:
            if "unevaluatedProperties" in plain.node and not self._member_known(branch, plain.node, name):
                goal.append(self.tree.child(plain.node, "unevaluatedProperties"))
        return tuple(goal)

    def _member_known(self, branch: Branch, outer: Node, name: str) -> bool:
        return any(
            self.judge.member(plain.node, name) or ("unevaluatedProperties" in plain.node and plain.node is not outer)
            for plain in branch
            if outer in plain.within and not plain.node.made
        )


def required(branch: Branch) -> list[str]:
    return list(dict.fromkeys(name for node in _nodes(branch) for name in node.get("required", ())))


def extent(branch: Branch, of: str) -> tuple[int, int | None]:
    least = max((node["min" + of] for node in _nodes(branch) if "min" + of in node), default=0)
    return least, min((node["max" + of] for node in _nodes(branch) if "max" + of in node), default=None)


def _nodes(branch: Branch) -> Iterator[Node]:
    return (plain.node for plain in branch)


def _excluded(branch: Branch, kind: str) -> Iterator[tuple[Node, Any]]:
    """Each value of that kind that none may be, with the node that says so."""
    return ((n, value) for n in _nodes(branch) for value in n.get("\0notIn", ()) if is_kind(value, kind))
