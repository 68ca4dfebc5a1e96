"""JSON schemas as EBNF grammars, which XGrammar compiles well: its own reading of schemas passes over much of them.

`compile_schema` follows each keyword or refuses it by name (docs/json-schema.md has the table). Whatever the grammar
allows follows the schema; of what follows the schema it leaves out other orders of properties, other white space and
some spellings of numbers. Imports `format` and below."""

from __future__ import annotations

from .compiler import compile_schema

__all__ = ["compile_schema"]
