"""Make the synthetic model (synthetic.py) whole: ``python whole.py SYNTHETIC OUT``.

Adds what the router needs beside the engine: a revision, a template, and a tokenizer of 64 tokens, one for each
character that the tests write. Also ``manifest-window.json``, whose plan says that all layers see a window of tokens,
and what the page's Python is: ``inpage.zip``, the package as it imports it, with the snapshot and ``python.json``, and
``python-none.json``, which says that there is no snapshot.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from inpage.cli import snapshot
from inpage.cli.site import package_zip
from inpage.format.manifest import parse_manifest, revision_of

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Byte-level BPE's names of newline and space; the last two characters are the tokens that misbehave (kernels.c).
LETTERS = [*"ĊĠabcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ0123456789<>|_", "~", "^"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer() -> bytes:
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    vocab = {text: i for i, text in enumerate([*CONTROL, *LETTERS])}
    assert len(vocab) == 64
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [{"id": i, "content": text, **flags} for i, text in enumerate(CONTROL)],
            "normalizer": None,
            "pre_tokenizer": level,
            "post_processor": None,
            "decoder": level,
            "model": {"type": "BPE", "vocab": vocab, "merges": []},
        }
    ).encode()


def main(synthetic: Path, out: Path) -> None:
    shutil.copytree(synthetic, out, dirs_exist_ok=True)
    data = tokenizer()
    (out / "tokenizer.json").write_bytes(data)
    (out / "NOTICES.txt").write_text("made for tests\n", "utf-8")
    package = package_zip()
    (out / "inpage.zip").write_bytes(package)
    for name, content in snapshot.files(package).items():
        (out / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    (out / "python-none.json").write_text(json.dumps({"file": None, "why": "the test has none"}), "utf-8")
    for name in ("manifest.json", "manifest-webgpu.json", *(f"manifest-choice{i}.json" for i in range(3))):
        manifest = in_full(json.loads((synthetic / name).read_text("utf-8")), data)
        (out / name).write_text(json.dumps(manifest), "utf-8")
    manifest = json.loads((synthetic / "manifest.json").read_text("utf-8"))
    (out / "manifest-window.json").write_text(json.dumps(in_full(with_window(manifest, out), data)), "utf-8")


def with_window(manifest: dict[str, Any], out: Path) -> dict[str, Any]:
    """Of 100 tokens, of which the kernels know nothing: answers of a longer context are wrong."""
    entry = manifest["variants"][0]["plan"]
    plan = json.loads((out / entry["file"]).read_text("utf-8"))
    plan["kv_groups"] = [{"layers": [0], "page_tokens": plan["page_tokens"], "window": 100}]
    content = json.dumps(plan).encode()
    (out / "plan-window.json").write_bytes(content)
    entry |= {"file": "plan-window.json", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return manifest


def in_full(manifest: dict[str, Any], data: bytes) -> dict[str, Any]:
    """``data``: of the tokenizer."""
    manifest["tokenizer"] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest["tokenizer"]["special"] = {text: i for i, text in enumerate(CONTROL)}
    manifest["chat_template"] = TEMPLATE
    manifest["revision"] = revision_of(manifest)
    parse_manifest(manifest)
    return manifest


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
