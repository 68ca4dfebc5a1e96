"""The page's tokenizer in Node.js, by its tables: see tables_in_node.mjs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NODE = Path(__file__).with_suffix(".mjs")


def in_node(file: Path, content: bytes, texts: Sequence[str], *more: str) -> dict[str, Any]:
    file.write_bytes(content)
    command = ["node", "--expose-gc", str(NODE), str(file), *more]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
