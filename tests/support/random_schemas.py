"""Schemas at random, and documents that follow them as `jsonschema` sees it."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from jsonschema import Draft202012Validator

# Patterns that Python's `re` reads as ECMAScript does, each with texts that may match.
PATTERNS = {
    "^a+$": ["a", "aaa"],
    "^[a-c]{2,4}$": ["ab", "cab", "abca"],
    "a|b": ["a", "xb", "a\n"],
    "^\\w+\\W?$": ["ab", "a_1-"],
    "^[^\\w]*\\S\\s$": ["-x ", "é\t"],
    "^(foo|ba[rz])(-[0-9]+)?$": ["foo", "bar-12", "baz"],
    "^[ぁ-ん]+$": ["あ", "あいん"],
    "^[^a-y]": ["z", "éa", "😀"],
    "é{2}": ["éé", "aéé", "ééé"],
    "^\\$[0-9]{1,3}(\\.[0-9]{2})?$": ["$1", "$10.50"],
    "^$|^x": ["", "x", "xyz"],
    '[\\\\"/]': ['"', "a/b", "\\"],
    "^.{0,3}$": ["", "ab", "é😀a"],
    "\\t|\\n": ["\t", "a\n"],
}
FORMATS = {
    "date": ["2024-02-29", "1999-12-31"],
    "ipv4": ["127.0.0.1", "10.0.0.255"],
    "ipv6": ["::1", "fe80::1:2"],
    "uuid": ["123e4567-e89b-12d3-a456-426614174000"],
    "email": ["a@b.co", "x.y@example.com"],
}
_NAMES = ["a", "b", "ab", "é", 'q"q', "a\\b", "t\tt", "long name", "x1"]
_TEXTS = ["", "a", "b", "ab", "é", "😀", "a\nb", '"', "\\", "あい", "hello there", "x" * 9]
_TYPES = ["string", "integer", "number", "boolean", "null", "object", "array"]


class SchemaMaker:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def schema(self, depth: int = 3) -> Any:
        r = self.random
        schema = self._any(depth)
        if r.random() < 0.15:
            schema = {"$ref": "#/$defs/it", "$defs": {"it": schema}}
        elif r.random() < 0.05:
            node = {"type": "object", "properties": {"v": schema, "next": {"$ref": "#/$defs/node"}}}
            return {"$ref": "#/$defs/node", "$defs": {"node": node}}
        return schema

    def _any(self, depth: int) -> Any:
        r, chance = self.random, self.random.random()
        if chance < 0.06:
            return r.choice([True, {}, {"enum": self._values(4)}, {"const": r.choice(self._values(1))}])
        if depth and chance < 0.24:
            return self._combined(depth - 1)
        kind = r.choice(_TYPES if depth else _TYPES[:5])
        schema: dict[str, Any] = getattr(self, f"_{kind}")(depth)
        if r.random() < 0.8:
            schema["type"] = [kind, r.choice([t for t in _TYPES[:5] if t != kind])] if r.random() < 0.1 else kind
            if r.random() < 0.05 and isinstance(schema["type"], str):
                schema["nullable"] = False
        return schema

    def _combined(self, depth: int) -> Any:
        r = self.random
        word = r.choice(["anyOf", "oneOf", "allOf", "not", "if", "enum"])
        some = [self._any(depth) for _ in range(r.randint(1, 3))]
        if word == "not":
            return {**_dict(self._any(0)), "not": self._any(0)}
        if word == "if":
            return {"if": self._any(0), "then": self._any(depth), "else": self._any(depth)}
        if word == "enum":
            return {**_dict(self._any(depth)), "enum": self._values(6)}
        return {**(_dict(self._any(0)) if r.random() < 0.3 else {}), word: some}

    def _values(self, count: int) -> list[Any]:
        r = self.random
        pool = [None, True, False, 0, 1, -3, 2.5, "", "a", "é", 'q"', [], [1, "a"], {}, {"a": 1}, {"b": [None]}]
        return r.sample(pool, min(count, len(pool)))

    def _null(self, depth: int) -> dict[str, Any]:
        return {}

    def _boolean(self, depth: int) -> dict[str, Any]:
        return {}

    def _string(self, depth: int) -> dict[str, Any]:
        r = self.random
        schema: dict[str, Any] = {}
        if r.random() < 0.4:
            schema["pattern"] = r.choice(list(PATTERNS))
        elif r.random() < 0.3:
            schema["format"] = r.choice(list(FORMATS))
        if r.random() < 0.4:
            schema["minLength"] = r.randint(0, 3)
        if r.random() < 0.4:
            schema["maxLength"] = r.choice([2, 4, 12, 90])
        return schema

    def _integer(self, depth: int) -> dict[str, Any]:
        return {k: (int(v) or 1) if k == "multipleOf" else v for k, v in self._number(depth).items()}

    def _number(self, depth: int) -> dict[str, Any]:
        r = self.random
        schema: dict[str, Any] = {}
        bound = r.choice([r.randint(-120, 120), r.randint(-9, 9) / 4, 0])
        if r.random() < 0.5:
            schema[r.choice(["minimum", "exclusiveMinimum"])] = bound
        if r.random() < 0.5:
            schema[r.choice(["maximum", "exclusiveMaximum"])] = bound + r.choice([0, 0.25, 1, 7, 300])
        if r.random() < 0.15:
            schema["multipleOf"] = r.choice([1, 2, 3, 7, 0.5, 0.25, 2.5])
        return schema

    def _array(self, depth: int) -> dict[str, Any]:
        r = self.random
        schema: dict[str, Any] = {}
        if r.random() < 0.7:
            schema["items"] = self._any(depth - 1) if r.random() < 0.9 else False
        if r.random() < 0.3:
            schema["prefixItems"] = [self._any(depth - 1) for _ in range(r.randint(1, 3))]
        if r.random() < 0.4:
            schema["minItems"] = r.randint(0, 3)
        if r.random() < 0.4:
            schema["maxItems"] = r.choice([0, 1, 3, 30])
        if r.random() < 0.1:
            schema["contains"] = self._any(0)
            if r.random() < 0.4:
                schema["minContains"] = r.randint(0, 2)
        if r.random() < 0.1:
            schema.update(items={"enum": self._values(4)}, uniqueItems=True)
            schema.pop("prefixItems", None)
            schema.pop("contains", None)
        return schema

    def _object(self, depth: int) -> dict[str, Any]:
        r = self.random
        schema: dict[str, Any] = {}
        if r.random() < 0.8:
            schema["properties"] = {n: self._any(depth - 1) for n in r.sample(_NAMES, r.randint(0, 4))}
        if r.random() < 0.5:
            schema["required"] = r.sample([*schema.get("properties", {}), r.choice(_NAMES)], 1)
        if r.random() < 0.5:
            schema["additionalProperties"] = r.choice([True, False, False, self._any(depth - 1)])
        elif r.random() < 0.1:
            schema["unevaluatedProperties"] = r.choice([False, self._any(0)])
        if r.random() < 0.15:
            schema["patternProperties"] = {r.choice(["^x", "a|b", "^é+$"]): self._any(depth - 1)}
        if r.random() < 0.1:
            schema["propertyNames"] = r.choice([{"maxLength": 2}, {"pattern": "^[a-x]"}, {"enum": ["a", "b", "zz"]}])
        if r.random() < 0.15:
            schema["minProperties"] = r.randint(0, 2)
        if r.random() < 0.15:
            schema["maxProperties"] = r.randint(1, 3)
        if r.random() < 0.1:
            schema["dependentRequired"] = {r.choice(_NAMES): [r.choice(_NAMES)]}
        return schema


def documents(schema: Any, validator: Draft202012Validator, seed: int, count: int) -> list[str]:
    """Documents that follow the schema, written as the grammar has them: one line, properties in the schema's order and
    no others than it names where it says nothing of others, whole numbers without a fraction."""
    sampler = _Sampler(schema, seed)
    found: dict[str, None] = {}
    for _ in range(count * 12):
        try:
            value = sampler.value(schema, 0)
        except _Nothing:
            continue
        if validator.is_valid(value):
            text = json.dumps(value, ensure_ascii=sampler.random.random() < 0.3)
            found[text] = None
        if len(found) == count:
            break
    return list(found)


class _Nothing(Exception):
    pass


class _Sampler:
    def __init__(self, root: Any, seed: int) -> None:
        self.root = root
        self.random = random.Random(seed)

    def value(self, schema: Any, depth: int) -> Any:
        r = self.random
        if schema is False or depth > 9:
            raise _Nothing
        if schema is True or schema == {}:
            return r.choice([None, True, 0, 1.5, -2, "é", [], [1], {}])
        if "$ref" in schema:
            return self.value(self.root["$defs"][schema["$ref"].split("/")[-1]], depth + 1)
        if "const" in schema or "enum" in schema:
            return r.choice(schema.get("enum") or [schema["const"]])
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return self.value(r.choice(schema[word]), depth + 1)
        if "allOf" in schema:
            return self._joined(schema, depth)
        if "if" in schema:
            return self.value(schema[r.choice(["if", "then", "else"])], depth + 1)
        kinds = schema.get("type", _TYPES)
        return getattr(self, f"_{r.choice([kinds] if isinstance(kinds, str) else kinds)}")(schema, depth)

    def _joined(self, schema: Any, depth: int) -> Any:
        """Of one of ``allOf``, with the properties of all in their order and no others."""
        value = self.value(self.random.choice(schema["allOf"]), depth + 1)
        if not isinstance(value, dict):
            return value
        some = [schema, *(each for each in schema["allOf"] if isinstance(each, dict))]
        names = [name for each in some for name in each.get("properties", ())]
        names += [name for each in some for name in each.get("required", ())]
        return {name: value[name] for name in dict.fromkeys(names) if name in value}

    def _null(self, schema: Any, depth: int) -> Any:
        return None

    def _boolean(self, schema: Any, depth: int) -> Any:
        return self.random.random() < 0.5

    def _string(self, schema: Any, depth: int) -> Any:
        r = self.random
        pool = PATTERNS.get(schema.get("pattern", ""), []) + FORMATS.get(schema.get("format", ""), []) or _TEXTS
        text = r.choice(pool)
        return text * r.choice([1, 1, 2, 9]) if "format" not in schema and r.random() < 0.3 else text

    def _integer(self, schema: Any, depth: int) -> Any:
        return int(self._number(schema, depth))

    def _number(self, schema: Any, depth: int) -> Any:
        r = self.random
        near = [schema[k] for k in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum") if k in schema]
        start = r.choice(near or [0, 100, -5])
        step = schema.get("multipleOf")
        if step:
            return round(start / step + r.randint(-3, 3)) * step
        number = start + r.choice([0, 1, -1, 0.25, 0.125, -0.5, 17, 1000, -1000])
        return int(number) if number == int(number) else number

    def _array(self, schema: Any, depth: int) -> Any:
        r = self.random
        count = r.choice([schema.get("minItems", 0), schema.get("maxItems", 2), r.randint(0, 4), 1])
        first = schema.get("prefixItems", [])
        items = [
            self.value(first[i] if i < len(first) else schema.get("items", True), depth + 1)
            for i in range(min(count, 24))
        ]
        if "contains" in schema and r.random() < 0.7:
            items.insert(r.randint(0, len(items)), self.value(schema["contains"], depth + 1))
        return items

    def _object(self, schema: Any, depth: int) -> Any:
        r = self.random
        named = schema.get("properties", {})
        required = schema.get("required", [])
        out = {}
        silent = "additionalProperties" not in schema and "unevaluatedProperties" not in schema
        closed = silent and ("properties" in schema or "patternProperties" in schema)
        other = schema.get("additionalProperties", schema.get("unevaluatedProperties", True))
        patterns = schema.get("patternProperties", {})
        for name in dict.fromkeys([*named, *required]):
            if name in required or r.random() < 0.6:
                out[name] = self.value(named.get(name, other), depth + 1)
        for name in r.sample(["zz", "xé", "b", "éé", ""], 2):
            matched = [inner for pattern, inner in patterns.items() if re.search(pattern, name)]
            if name in out or name in named or (closed and not matched) or r.random() < 0.5:
                continue
            out[name] = self.value(matched[0] if matched else other, depth + 1)
        ordered = [name for name in out if name in named]
        for name in (n for n in out if n not in named):  # which have no place in the schema's order
            ordered.insert(r.randint(0, len(ordered)), name)
        return {name: out[name] for name in ordered}


def _dict(schema: Any) -> dict[str, Any]:
    return schema if isinstance(schema, dict) else {}
