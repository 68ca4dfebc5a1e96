"""Makes folders.json: the files that transformers writes beside the weights of the tiny models, and what it calls their
tensors. Run it by hand, in the environment of make_tiny.py:

    /tmp/witness/bin/python tests/reference/make_folders.py

The weights themselves are functions of a seed (`support.tiny`), which the tests write under these names.
"""

from __future__ import annotations

import json
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

from make_tiny import torch_model  # noqa: E402  # after the paths are set

from support.folder import FOLDERS  # noqa: E402
from support.tiny import CONTROL, TEMPLATE, vocabulary  # noqa: E402


def saved_model(name: str) -> dict[str, Any]:
    """What `save_pretrained` writes: config.json, generation_config.json, and the tensors' names, types and shapes."""
    with tempfile.TemporaryDirectory() as folder:
        model = torch_model(FOLDERS[name])
        model.generation_config.eos_token_id = [2, 0]
        model.save_pretrained(folder)
        files = {p.name: json.loads(p.read_text()) for p in sorted(Path(folder).glob("*.json"))}
        data = (Path(folder) / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    tensors = {key: entry["shape"] for key, entry in header.items() if key != "__metadata__"}
    return {"files": files, "tensors": tensors}


def saved_tokenizer() -> dict[str, Any]:
    """As SmolLM2's: byte-level, digits apart. The template goes into chat_template.jinja."""
    tokens, merges = vocabulary()
    pairs = [tuple(line.split(" ")) for line in merges]
    library = Tokenizer(models.BPE({text: i for i, text in enumerate(tokens)}, pairs))
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROL])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=library, bos_token=CONTROL[1], eos_token=CONTROL[2], pad_token=CONTROL[2], unk_token=CONTROL[0]
    )
    fast.chat_template = TEMPLATE
    with tempfile.TemporaryDirectory() as folder:
        fast.save_pretrained(folder)
        return {p.name: p.read_text() for p in sorted(Path(folder).iterdir())}


def main() -> None:
    out = {
        "made_by": f"transformers {transformers.__version__}, make_folders.py",
        "tokenizer": saved_tokenizer(),
        "models": {name: saved_model(name) for name in FOLDERS},
    }
    (HERE / "folders.json").write_text(json.dumps(out, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
