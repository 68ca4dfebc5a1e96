"""Makes control.json: which tokens llama.cpp takes for control tokens and ends of answers, whatever a file declares.

npm install --ignore-scripts node-llama-cpp@3.21.1 @node-llama-cpp/linux-x64@3.21.1    # in a folder NODE
PYTHONPATH=tests python tests/reference/make_control.py NODE
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from make_tokenizers import llama

from support.control_tokens import STORED, TEXTS, names, write


def main(node: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = llama(node, [write(name, Path(folder)) for name in names()], list(TEXTS), [])
    kept = ("ends", "control", "plain", "parsed")
    files = {name: {key: one[key] for key in kept} for name, one in zip(names(), found, strict=True)}
    whole = {"made_by": "llama.cpp (npm node-llama-cpp 3.21.1), make_control.py", "files": files}
    STORED.write_text(json.dumps(whole, separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
