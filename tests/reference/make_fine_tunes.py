"""Makes fine_tunes.json: what llama.cpp goes on with, greedily, in the files of `support.fine_tunes`. Run it by hand;
it needs a folder with npm's node-llama-cpp (``npm i node-llama-cpp``):

    python tests/reference/make_fine_tunes.py FOLDER
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from support.fine_tunes import FINE_TUNES, STEPS  # noqa: E402  # after the path is set


def main(node: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            {"file": str(tune.write(Path(folder) / f"{name}.gguf")), "text": tune.text, "steps": STEPS}
            for name, tune in FINE_TUNES.items()
        ]
        asked, found = Path(folder) / "jobs.json", Path(folder) / "found.json"
        asked.write_text(json.dumps({"jobs": jobs}))
        subprocess.run(["node", HERE / "llama_greedy.mjs", asked, found], cwd=node, check=True)
        made = dict(zip(FINE_TUNES, json.loads(found.read_text()), strict=True))
    version = json.loads((node / "node_modules/node-llama-cpp/package.json").read_text())["version"]
    for name, tune in FINE_TUNES.items():
        made[name]["weights_sha256"] = tune.tiny.digest()
    out = {"made_by": f"llama.cpp, by node-llama-cpp {version}, make_fine_tunes.py", "files": made}
    (HERE / "fine_tunes.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
