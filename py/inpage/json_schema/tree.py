"""A schema as a tree of nodes that know where they stand, checked once: what is malformed or unknown is refused by name
before anything is compiled."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from ..errors import InvalidRequest, brief, quoted

DEPTH = 64
NODES = 20_000
LENGTH = 4096  # of a bound on lengths, items or properties
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_ANNOTATIONS = frozenset((
    "title", "description", "default", "example", "examples", "$schema", "$id", "$comment", "$anchor", "$vocabulary",
    "deprecated", "readOnly", "writeOnly", "contentEncoding", "contentMediaType", "contentSchema",
))  # fmt: skip
MAPS = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")  # of schemas
LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
ONES = (
    "items", "additionalItems", "additionalProperties", "propertyNames", "unevaluatedProperties", "unevaluatedItems",
    "contains", "not", "if", "then", "else",
)  # fmt: skip
COUNTS = (
    "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains",
)  # fmt: skip
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_OTHERS = ("type", "enum", "const", "nullable", "$ref", "required", "dependentRequired", "uniqueItems", "pattern",
           "format")  # fmt: skip
KEYWORDS = frozenset((*MAPS, *LISTS, *ONES, *COUNTS, *BOUNDS, *_OTHERS))
# Instead of what is known elsewhere and not here.
_INSTEAD = {
    "$dynamicRef": "use $ref", "$recursiveRef": "use $ref", "dependencies": "use dependentRequired or dependentSchemas",
    "id": "use $id", "divisibleBy": "use multipleOf",
}  # fmt: skip
_PLAIN = re.compile(r"#(?:/.*)?", re.DOTALL)


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """``at``: the caller's name of it, as in ``schema.properties.a``; ``pointer``: its JSON pointer."""

    schema: Any
    at: str
    pointer: str
    made: bool = False  # here, of another one: the schema says nothing of what else an object may hold

    def __getitem__(self, keyword: str) -> Any:
        return self.schema[keyword]

    def __contains__(self, keyword: str) -> bool:
        return isinstance(self.schema, dict) and keyword in self.schema

    def get(self, keyword: str, default: Any = None) -> Any:
        return self.schema.get(keyword, default)

    def refused(self, keyword: str, why: str) -> InvalidRequest:
        """``why`` says what to do instead."""
        keyword = _WRITTEN.get(keyword, keyword)
        place = f"#{self.pointer}" if len(self.pointer) <= 60 else f"#…{self.pointer[-57:]}"
        field = f"{self.at}.{brief(keyword)}"
        return InvalidRequest(f"{self.at[:100]}: {quoted(keyword)} at {place} {why}", field=field)


# What negation.py's own keywords are in a schema.
_WRITTEN = {"\0notPattern": "pattern", "\0notFormat": "format", "\0notMultiple": "multipleOf"}


@dataclass(slots=True)
class Tree:
    """Nodes of one schema. A node stands for its schema object: equal ones at other places are others."""

    root: Node
    _nodes: dict[int, Node] = field(default_factory=dict)
    _anchors: dict[str, Node] = field(default_factory=dict)
    _kept: list[Any] = field(default_factory=list)  # so that no id is used again

    @classmethod
    def of(cls, schema: Any, name: str) -> Tree:
        root = Node(schema, name, "")
        tree = cls(root)
        tree._nodes[id(schema)] = root
        level, count = [root], 0
        for _ in range(DEPTH + 1):
            level = [inner for node in level for inner in tree._check(node)]
            count += len(level)
            if not level:
                return tree
            if count > NODES:
                raise InvalidRequest(f"{name} holds more than {NODES} schemas", field=name)
        raise InvalidRequest(f"{name} is nested more than {DEPTH} deep", field=name)

    def child(self, node: Node, keyword: str, key: str | int | None = None) -> Node:
        schema = node[keyword] if key is None else node[keyword][key]
        return self.node(schema, node, keyword, key)

    def children(self, node: Node, keyword: str) -> list[Node]:
        return [self.child(node, keyword, i) for i in range(len(node[keyword]))]

    def node(self, schema: Any, near: Node, keyword: str | None = None, key: str | int | None = None) -> Node:
        known = self._nodes.get(id(schema)) if isinstance(schema, dict) else None
        if known is None:
            at, pointer = near.at, near.pointer
            for step in (keyword, key):
                if step is not None:
                    at += f"[{step}]" if isinstance(step, int) else f".{brief(step)}"
                    pointer += "/" + str(step).replace("~", "~0").replace("/", "~1")
            known = Node(schema, at, pointer, near.made)
            if isinstance(schema, dict):
                self._nodes[id(schema)] = known
        return known

    def made(self, schema: dict[str, Any], near: Node) -> Node:
        """A schema that stands for part of ``near``."""
        self._kept.append(schema)
        known = self._nodes[id(schema)] = Node(schema, near.at, near.pointer, True)
        return known

    def target(self, node: Node) -> Node:
        """Where its ``$ref`` leads."""
        ref = node["$ref"]
        if ref.startswith("#") and ref[1:] in self._anchors:
            return self._anchors[ref[1:]]
        at = self.root
        found: Any = self.root.schema
        steps = unquote(ref).split("/")[1:] if _PLAIN.fullmatch(ref) else [""]
        for step in steps:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and name in found:
                found = found[name]
            elif isinstance(found, list) and re.fullmatch("[0-9]{1,5}", name) and int(name) < len(found):
                found = found[int(name)]
            else:
                raise node.refused("$ref", f"is {quoted(ref)}, which leads nowhere in this schema")
        if not isinstance(found, dict | bool) or (isinstance(found, dict) and steps and id(found) not in self._nodes):
            raise node.refused("$ref", f"is {quoted(ref)}, where no schema is: put it under $defs")
        return self.node(found, at)

    def _check(self, node: Node) -> Iterator[Node]:
        """Gives the schemas in it."""
        schema = node.schema
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict):
            why = f"{node.at[:100]} must be an object or a boolean, not {quoted(schema)}"
            raise InvalidRequest(why, field=node.at[:200])
        for keyword in schema:
            if keyword not in KEYWORDS and keyword not in _ANNOTATIONS:
                raise node.refused(keyword, f"cannot be followed; {_INSTEAD.get(keyword, 'leave it out')}")
        _check_values(node)
        if isinstance(schema.get("$anchor"), str):
            self._anchors[schema["$anchor"]] = node
        for keyword in (k for k in MAPS if k in schema):
            if not isinstance(schema[keyword], dict):
                raise node.refused(keyword, "must be an object of schemas")
            yield from (self.child(node, keyword, key) for key in schema[keyword])
        for keyword in LISTS:
            if keyword in schema and (not isinstance(schema[keyword], list) or not schema[keyword]):
                raise node.refused(keyword, "must be a list of schemas that is not empty")
        for keyword in (*LISTS, "items"):
            if isinstance(schema.get(keyword), list):
                yield from self.children(node, keyword)
        for keyword in (k for k in ONES if k in schema and not (k == "items" and isinstance(schema[k], list))):
            yield self.child(node, keyword)


def _check_values(node: Node) -> None:
    schema = node.schema
    types = schema.get("type", [])
    for kind in types if isinstance(types, list) else [types]:
        if kind not in TYPES:
            raise node.refused("type", f"is {quoted(kind)}; it must be one of {', '.join(TYPES)}")
    if types == [] and "type" in schema:
        raise node.refused("type", "is empty; name at least one")
    if "enum" in schema and (not isinstance(schema["enum"], list) or not schema["enum"]):
        raise node.refused("enum", "must be a list that is not empty")
    _check_names(node, "required", schema.get("required", []))
    dependent = schema.get("dependentRequired", {})
    if not isinstance(dependent, dict):
        raise node.refused("dependentRequired", "must be an object of lists of names")
    for names in dependent.values():
        _check_names(node, "dependentRequired", names)
    for keyword in ("$ref", "pattern", "format", "$anchor"):
        if not isinstance(schema.get(keyword, ""), str):
            raise node.refused(keyword, "must be a string")
    for keyword in ("uniqueItems", "nullable"):
        if not isinstance(schema.get(keyword, False), bool):
            raise node.refused(keyword, "must be true or false")
    for keyword in (k for k in COUNTS if k in schema):
        count = schema[keyword]
        if isinstance(count, float) and count.is_integer():
            count = int(count)
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise node.refused(keyword, "must be a whole number of at least 0")
        if count > LENGTH:
            raise node.refused(keyword, f"is more than {LENGTH}; have less, or leave it out")
        schema[keyword] = count
    for keyword in (k for k in BOUNDS if k in schema):
        value = schema[keyword]
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise node.refused(keyword, "must be a number")
        if keyword == "multipleOf" and value <= 0:
            raise node.refused(keyword, "must be above 0")


def _check_names(node: Node, keyword: str, names: Any) -> None:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise node.refused(keyword, "must be a list of names")
