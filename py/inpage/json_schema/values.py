"""Whether a constant follows a schema: `enum` and `const` beside other keywords."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

from .automata import Dfa
from .numbers import NotFinite, exact
from .tree import Node, Tree

_KINDS: dict[str, Callable[[Any], bool]] = {
    "null": lambda v: v is None,
    "boolean": lambda v: isinstance(v, bool),
    "string": lambda v: isinstance(v, str),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "integer": lambda v: isinstance(v, int | float) and not isinstance(v, bool) and v == math.floor(v),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
}


def is_kind(value: Any, kind: str) -> bool:
    return _KINDS[kind](value)


def exact_in(node: Node, keyword: str, value: float | int) -> Fraction:
    """A number that a keyword holds. Raises `InvalidRequest` naming it for one of too many digits."""
    try:
        return exact(value)
    except NotFinite as error:
        raise node.refused(keyword, f"holds a number that {error}: have a rounder one") from None


def key(value: Any) -> str:
    """Equal for what JSON Schema calls equal: 1 and 1.0 are, 1 and true are not."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return {name: _plain(item) for name, item in value.items()} if isinstance(value, dict) else value


class Judge:
    """``texts``: the automaton of a node's ``pattern``, ``format`` or one of its patterns."""

    def __init__(self, tree: Tree, texts: Callable[[Node, str, str], Dfa]) -> None:
        self._tree = tree
        self._texts = texts

    def holds(self, value: Any, node: Node, refs: int = 0) -> bool:
        if isinstance(node.schema, bool):
            return node.schema
        if refs > 100:
            raise node.refused("$ref", "leads round in a circle: name what it stands for")
        tree, holds = self._tree, self.holds

        def every(keyword: str) -> list[bool]:
            return [holds(value, inner, refs) for inner in tree.children(node, keyword)]

        if "$ref" in node and not holds(value, tree.target(node), refs + 1):
            return False
        if "type" in node and not self._typed(value, node):
            return False
        if "enum" in node and key(value) not in map(key, node["enum"]):
            return False
        if "const" in node and key(value) != key(node["const"]):
            return False
        if "\0notIn" in node and key(value) in map(key, node["\0notIn"]):
            return False
        if "allOf" in node and not all(every("allOf")):
            return False
        if "anyOf" in node and not any(every("anyOf")):
            return False
        if "oneOf" in node and every("oneOf").count(True) != 1:
            return False
        if "not" in node and holds(value, tree.child(node, "not"), refs):
            return False
        if "if" in node:
            way = "then" if holds(value, tree.child(node, "if"), refs) else "else"
            if way in node and not holds(value, tree.child(node, way), refs):
                return False
        if isinstance(value, str):
            return self._string(value, node)
        if isinstance(value, list):
            return self._array(value, node, refs)
        if isinstance(value, dict):
            return self._object(value, node, refs)
        return not is_kind(value, "number") or self._number(value, node)

    def _typed(self, value: Any, node: Node) -> bool:
        types = node["type"] if isinstance(node["type"], list) else [node["type"]]
        return any(is_kind(value, kind) for kind in types) or (value is None and node.get("nullable", False))

    def _number(self, value: Any, node: Node) -> bool:
        number = exact_in(node, "enum" if "enum" in node else "const", value)

        def bound(keyword: str) -> Fraction:
            return exact_in(node, keyword, node[keyword])

        return (
            ("minimum" not in node or number >= bound("minimum"))
            and ("maximum" not in node or number <= bound("maximum"))
            and ("exclusiveMinimum" not in node or number > bound("exclusiveMinimum"))
            and ("exclusiveMaximum" not in node or number < bound("exclusiveMaximum"))
            and ("multipleOf" not in node or (number / bound("multipleOf")).denominator == 1)
            and ("\0notMultiple" not in node or (number / bound("\0notMultiple")).denominator > 1)
        )

    def _string(self, value: str, node: Node) -> bool:
        if not node.get("minLength", 0) <= len(value) <= node.get("maxLength", math.inf):
            return False
        for word in ("pattern", "format"):
            if word in node and not self._texts(node, word, node[word]).accepts(value):
                return False
            other = f"\0not{word.title()}"
            if other in node and self._texts(node, word, node[other]).accepts(value):
                return False
        return True

    def _array(self, value: list[Any], node: Node, refs: int) -> bool:
        if not node.get("minItems", 0) <= len(value) <= node.get("maxItems", math.inf):
            return False
        keys = sorted(map(key, value)) if node.get("uniqueItems") else []
        if any(a == b for a, b in pairwise(keys)):
            return False
        first, rest = prefix(self._tree, node)
        for i, item in enumerate(value):
            schema = first[i] if i < len(first) else rest
            if schema is not None and not self.holds(item, schema, refs):
                return False
        if "contains" in node:
            found = sum(self.holds(item, self._tree.child(node, "contains"), refs) for item in value)
            return bool(node.get("minContains", 1) <= found <= node.get("maxContains", math.inf))
        return True

    def _object(self, value: dict[str, Any], node: Node, refs: int) -> bool:
        if not node.get("minProperties", 0) <= len(value) <= node.get("maxProperties", math.inf):
            return False
        if not all(name in value for name in node.get("required", ())):
            return False
        if any(name in value for name in node.get("\0absent", ())):
            return False
        for name, names in node.get("dependentRequired", {}).items():
            if name in value and not all(each in value for each in names):
                return False
        for name in node.get("dependentSchemas", {}):
            if name in value and not self.holds(value, self._tree.child(node, "dependentSchemas", name), refs):
                return False
        return all(
            self.holds(item, schema, refs)
            for name, item in value.items()
            for schema in self.member(node, name)
        ) and ("propertyNames" not in node or all(
            self.holds(name, self._tree.child(node, "propertyNames"), refs) for name in value
        ))  # fmt: skip

    def member(self, node: Node, name: str) -> list[Node]:
        """The schemas that the keywords of ``node`` have for this property."""
        found = []
        if name in node.get("properties", {}):
            found.append(self._tree.child(node, "properties", name))
        for pattern in node.get("patternProperties", {}):
            if self._texts(node, "patternProperties", pattern).accepts(name):
                found.append(self._tree.child(node, "patternProperties", pattern))
        if not found and "additionalProperties" in node:
            found.append(self._tree.child(node, "additionalProperties"))
        return found


def prefix(tree: Tree, node: Node) -> tuple[list[Node], Node | None]:
    """The schemas of an array's first items, and that of all others."""
    if isinstance(node.get("items"), list):  # as it was written before 2020
        rest = tree.child(node, "additionalItems") if "additionalItems" in node else None
        return tree.children(node, "items"), rest
    first = tree.children(node, "prefixItems") if "prefixItems" in node else []
    return first, tree.child(node, "items") if "items" in node else None
