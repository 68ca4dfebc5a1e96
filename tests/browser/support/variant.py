"""The whole synthetic model (whole.py) with another tokenizer or template: ``python variant.py WHOLE < {"template",
"pattern"}`` writes {"manifest", "tokenizer"}, both as texts."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from inpage.format.manifest import revision_of

folder = Path(sys.argv[1])
asked = json.load(sys.stdin)
manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
if "pattern" in asked:
    split = {"type": "Split", "pattern": {"Regex": asked["pattern"]}, "behavior": "Isolated", "invert": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, tokenizer["pre_tokenizer"]]}
if "template" in asked:
    manifest["chat_template"] = asked["template"] + manifest["chat_template"]
data = json.dumps(tokenizer).encode()
manifest["tokenizer"] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
manifest["revision"] = revision_of(manifest)
json.dump({"manifest": json.dumps(manifest), "tokenizer": data.decode()}, sys.stdout)
