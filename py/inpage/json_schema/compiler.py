"""From a JSON schema to a grammar with the rule ``root``, of JSON in one line with ``", "`` and ``": "``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from ..errors import InvalidRequest
from .arrays import arrays
from .automata import WORK, TooLarge, limited
from .branches import Branch, Goal, Plain, kinds
from .facts import Facts
from .numbers import number
from .objects import objects
from .rules import Alternative, Ref, Rules, TooLong, literal
from .strings import string
from .tree import Node, Tree

_STATES = 600  # of one string's texts: XGrammar takes some 20 ms for each where most tokens may come

# Keywords that may leave nothing, by type, those first that most likely do.
_DECISIVE = {
    "number": ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "array": ("minItems", "maxItems", "contains", "items", "prefixItems"),
    "object": ("required", "minProperties", "maxProperties", "propertyNames"),
}


def compile_schema(schema: Any, field: str = "schema") -> str:
    """``schema`` as `inpage.format.bounded.read` gives it; ``field``: what the caller calls it. Raises
    `InvalidRequest`, which names the keyword, its JSON pointer and what to do instead."""
    try:
        with limited(WORK):
            return _Compiler(Tree.of(schema, field)).text()
    except (TooLong, TooLarge):
        raise InvalidRequest(
            f"{field}: its grammar would be too large: have fewer properties, alternatives or bounds on lengths",
            field=field,
        ) from None
    except RecursionError:
        raise InvalidRequest(f"{field}: its references and alternatives are nested too deep", field=field) from None


class _Compiler:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._facts = Facts(tree)
        self._rules = Rules()
        self._about: dict[str, tuple[str, tuple[Node, ...]]] = {}  # what a rule is for: its kind, and schemas

    def text(self) -> str:
        root = self._values((self._tree.root,))
        if root is None:
            raise InvalidRequest(f"{self._tree.root.at}: false allows nothing", field=self._tree.root.at)
        self._rules.run()
        text = self._rules.text(root)
        if text is None:
            raise self._contradiction(root)
        return text

    def _contradiction(self, root: Ref) -> InvalidRequest:
        for name in self._rules.barren(root):
            kind, nodes = self._about.get(name, ("", ()))
            for word in (*_DECISIVE.get(kind, ()), "const", "enum", "not", "type"):
                for node in nodes:
                    if word in node:
                        return node.refused(
                            word, "leaves no value, together with what else holds there: mend one of them"
                        )
        node = self._tree.root
        return node.refused(
            "$ref" if "$ref" in node else "required", "leads on without end: have a way out, as with anyOf"
        )

    def _values(self, goal: Goal) -> Ref | None:
        """The rule of the values that follow all of these."""
        unlike = {id(node): node for node in goal if node.schema is not True and node.schema != {}}
        if any(node.schema is False for node in unlike.values()):
            return None
        wanted = tuple(unlike.values())
        ref = self._rules.ask(("values", frozenset(unlike)), lambda: self._branches(wanted))
        self._about.setdefault(ref.name, ("", wanted))
        return ref

    def _branches(self, goal: Goal) -> Iterator[Alternative]:
        for branch in self._facts.splitter.branches(goal):
            mark = frozenset(id(plain.node) for plain in branch)
            constants = self._facts.constants(branch)
            if constants is not None:
                yield from ((self._constant(value),) for value in constants)
                continue
            for kind in sorted(kinds(branch)):
                ref = self._rules.ask((kind, mark), partial(self._kind, kind, branch, mark))
                self._about.setdefault(ref.name, (kind, tuple(plain.node for plain in branch)))
                yield (ref,)

    def _kind(self, kind: str, branch: Branch, mark: object) -> Iterator[Alternative]:
        facts, rules = self._facts, self._rules
        if kind in ("null", "boolean"):
            barred = facts.excluded(branch, kind)
            values = (None,) if kind == "null" else (True, False)
            yield from ((literal(json.dumps(value)),) for value in values if value not in barred)
        elif kind == "string":
            least, most, texts = facts.string(branch)
            if len(texts.final) > _STATES:
                nodes = [plain.node for plain in branch]
                word, node = next(
                    (w, n)
                    for w in ("maxLength", "pattern", "format", "minLength", "not", "\0notIn", "enum")
                    for n in nodes
                    if w in n
                )
                raise node.refused(word, "needs too large a grammar: have smaller bounds, or fewer alternatives")
            if not texts.empty and (most is None or least <= most):
                yield string(rules, least, most, texts)
        elif kind == "number":
            yield from self._number(branch)
        else:
            barred = [value for value in facts.excluded(branch, kind) if value]
            if barred:
                node = next(plain.node for plain in branch if "\0notIn" in plain.node)
                raise node.refused("not", f"cannot exclude {kind}s: say what may come, with anyOf")
            if facts.excluded(branch, kind):
                more = self._tree.made({"minItems" if kind == "array" else "minProperties": 1}, branch[0].node)
                branch = (*branch, Plain(more, (more,)))
            if kind == "array":
                yield from arrays(rules, facts, branch, self._values, mark, self._constant)
            else:
                yield from objects(rules, facts, branch, self._values, mark)

    def _number(self, branch: Branch) -> Iterator[Alternative]:
        intervals, whole, steps = self._facts.number(branch)
        try:
            for within in intervals:
                yield from number(self._rules, within, whole, steps)
        except TooLarge:
            words = ("multipleOf", "\0notMultiple")
            node: Node = next(plain.node for plain in branch if any(word in plain.node for word in words))
            raise node.refused("multipleOf", "is too large or too fine to follow: leave it out, or have enum") from None

    def _constant(self, value: Any) -> Ref:
        texts = dict.fromkeys(json.dumps(value, ensure_ascii=ascii) for ascii in (False, True))
        return self._rules.ask(("constant", *texts), lambda: [tuple(_spaced(text)) for text in texts])


def _spaced(text: str) -> Iterator[str]:
    """JSON with or without its spaces."""
    start, inside, escaped = 0, False, False
    for i, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = inside
        elif char == '"':
            inside = not inside
        elif char == " " and not inside:
            yield literal(text[start:i])
            yield '" "?'
            start = i + 1
    yield literal(text[start:])
