"""What ``not`` stands for: schemas of which a value follows one exactly where it does not follow the given one.

Keywords that begin with NUL are known here alone: "\\0notIn" (values), "\\0notPattern",
"\\0notFormat", "\\0notMultiple", "\\0absent" (names that an object has not).
"""

from __future__ import annotations

from typing import Any

from .tree import COUNTS, MAPS, TYPES, Node, Tree

_IGNORED = frozenset((*MAPS, "then", "else", "nullable"))  # handled beside others, or nothing to deny
_REFUSED = (
    "additionalProperties", "patternProperties", "propertyNames", "dependentRequired", "dependentSchemas",
    "unevaluatedProperties", "unevaluatedItems", "uniqueItems", "oneOf", "if", "minContains", "maxContains",
    "additionalItems",
)  # fmt: skip
_INVERSE = {
    "minimum": "exclusiveMaximum", "maximum": "exclusiveMinimum", "exclusiveMinimum": "maximum",
    "exclusiveMaximum": "minimum",
}  # fmt: skip
_OF = {"Length": "string", "Items": "array", "Properties": "object"}


def denied(tree: Tree, node: Node) -> list[Node]:
    """Raises `InvalidRequest` where that cannot be expressed."""
    if isinstance(node.schema, bool):
        return [] if node.schema else [tree.made({}, node)]
    schema: dict[str, Any] = node.schema
    for keyword in _REFUSED:
        # A schema that allows anything asks for nothing; uniqueItems is none.
        if keyword in schema and ((schema[keyword] is not True and schema[keyword] != {}) or keyword == "uniqueItems"):
            raise node.refused(keyword, "cannot be denied, as not, if or oneOf ask: say what may come, with anyOf")
    ways: list[dict[str, Any]] = []
    if "$ref" in schema:
        ways.append({"not": tree.target(node).schema})
    if "type" in schema:
        ways += _other_types(node)
    for keyword in ("enum", "const"):
        if keyword in schema:
            ways.append({"\0notIn": schema["enum"] if keyword == "enum" else [schema["const"]]})
    ways += [{"type": "number", _INVERSE[k]: schema[k]} for k in _INVERSE if k in schema]
    for keyword in (k for k in COUNTS if k in schema):
        bound, kind = keyword[:3], _OF.get(keyword[3:])
        if kind is None:
            continue
        if bound == "max":
            ways.append({"type": kind, "min" + keyword[3:]: schema[keyword] + 1})
        elif schema[keyword] > 0:
            ways.append({"type": kind, "max" + keyword[3:]: schema[keyword] - 1})
    for keyword, internal in (("pattern", "\0notPattern"), ("format", "\0notFormat")):
        if keyword in schema:
            ways.append({"type": "string", internal: schema[keyword]})
    for internal, keyword in (("\0notPattern", "pattern"), ("\0notFormat", "format")):
        if internal in schema:
            ways.append({"type": "string", keyword: schema[internal]})
    if "\0notIn" in schema:
        ways.append({"enum": schema["\0notIn"]})
    for name, inner in schema.get("properties", {}).items():
        ways.append({"type": "object", "required": [name], "properties": {name: {"not": inner}}})
    for keyword, internal in (("multipleOf", "\0notMultiple"), ("\0notMultiple", "multipleOf")):
        if keyword in schema:
            ways.append({"type": "number", internal: schema[keyword]})
    ways += [{"type": "object", "\0absent": [name]} for name in schema.get("required", ())]
    ways += [{"type": "object", "required": [name]} for name in schema.get("\0absent", ())]
    ways += _other_items(node)
    if "contains" in schema:
        ways.append({"type": "array", "items": {"not": schema["contains"]}})
    if "anyOf" in schema:
        ways.append({"allOf": [{"not": inner} for inner in schema["anyOf"]]})
    ways += [{"not": inner} for inner in schema.get("allOf", ())]
    if "not" in schema:
        ways.append({"allOf": [schema["not"]]})
    return [tree.made(way, node) for way in ways]


def _other_types(node: Node) -> list[dict[str, Any]]:
    types = node["type"] if isinstance(node["type"], list) else [node["type"]]
    others = [kind for kind in TYPES if kind not in types and kind != "integer"]
    if node.get("nullable"):
        others = [kind for kind in others if kind != "null"]
    ways: list[dict[str, Any]] = [{"type": others}] if others else []
    if "integer" in types and "number" not in types:
        ways = [{"type": [kind for kind in others if kind != "number"]}, {"type": "number", "\0notMultiple": 1}]
    return [way for way in ways if way["type"]]


def _other_items(node: Node) -> list[dict[str, Any]]:
    first = node.get("prefixItems", [])
    ways: list[dict[str, Any]] = [
        {"type": "array", "minItems": i + 1, "prefixItems": [*[True] * i, {"not": inner}]}
        for i, inner in enumerate(first)
    ]
    if "items" in node and node["items"] is not True and node["items"] != {}:
        if first or isinstance(node["items"], list):
            raise node.refused("items", "cannot be denied, as not, if or oneOf ask: say what may come, with anyOf")
        ways.append({"type": "array", "contains": {"not": node["items"]}})
    return ways
