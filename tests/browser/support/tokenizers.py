"""Tokenizers of each kind, built by the compiler, and llama.cpp's ids for odd texts: JSON for tokenizer.spec.js."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from inpage.json_schema import compile_schema
from inpage_compile.tokenizers.pre_tokenizers import PRE_TOKENIZERS
from support.vocabularies import SPM, ids_of, small, stored, tokenizer_of

names = [*{pre: name for name, pre in PRE_TOKENIZERS.items()}.values(), *SPM]
with tempfile.TemporaryDirectory() as folder:
    built = {name: tokenizer_of(small(name, Path(folder))) for name in names}
plain = {name: {**t.json, "added_tokens": [a for a in t.json["added_tokens"] if a["content"] not in t.special]}
         for name, t in built.items()}  # fmt: skip
spm = built["spm"]
data = json.dumps(spm.json)
entry = {"file": "tokenizer.json", "bytes": len(data), "sha256": hashlib.sha256(data.encode()).hexdigest(),
         "bos": spm.bos, "eos": spm.eos, "add_bos": spm.add_bos, "special": spm.special}  # fmt: skip
tokenizers = [{"name": name, "description": json.dumps(plain[name]), "ids": ids_of(name, "plain")} for name in names]
size = len(spm.json["model"]["vocab"])
properties = {"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer"}, "mood": {"enum": ["été ▁", "ok"]}}
schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
grammar = compile_schema(schema, "schema")
guided = {"tokenizer": data, "manifest": {"tokenizer": entry}, "size": size, "grammar": grammar}
json.dump({"texts": stored()["texts"], "tokenizers": tokenizers, "guided": guided}, sys.stdout)
