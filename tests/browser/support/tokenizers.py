"""Tokenizers of each kind, built by the compiler, and llama.cpp's ids for odd texts: JSON for tokenizer.spec.js."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from inpage.json_schema import compile_schema
from inpage_compile.tokenizers.pre_tokenizers import PRE_TOKENIZERS
from inpage_compile.tokenizers.tables import tables_of
from support.vocabularies import SPM, ids_of, small, stored, tokenizer_of

names = [*{pre: name for name, pre in PRE_TOKENIZERS.items()}.values(), *SPM]
with tempfile.TemporaryDirectory() as folder:
    built = {name: tokenizer_of(small(name, Path(folder))) for name in names}
plain = {name: {**t.json, "added_tokens": [a for a in t.json["added_tokens"] if a["content"] not in t.special]}
         for name, t in built.items()}  # fmt: skip


def tables(description: dict[str, Any]) -> bytes:
    found = tables_of(description)
    assert found is not None
    return found


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def file(name: str, content: bytes) -> dict[str, Any]:
    return {"file": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


spm = built["spm"]
data, packed = json.dumps(spm.json).encode(), tables(spm.json)
entry = {**file("tokenizer.json", data), "bos": spm.bos, "eos": spm.eos, "add_bos": spm.add_bos,
         "special": spm.special, "tables": file("tokenizer.bin", packed)}  # fmt: skip
tokenizers = [{"name": name, "description": json.dumps(plain[name]), "tables": text(tables(plain[name])),
               "ids": ids_of(name, "plain")} for name in names]  # fmt: skip
size = len(spm.json["model"]["vocab"])
properties = {"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer"}, "mood": {"enum": ["été ▁", "ok"]}}
schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
grammar = compile_schema(schema, "schema")
guided = {"tokenizer": data.decode(), "tables": text(packed), "manifest": {"tokenizer": entry}, "size": size,
          "grammar": grammar}  # fmt: skip
json.dump({"texts": stored()["texts"], "tokenizers": tokenizers, "guided": guided}, sys.stdout)
