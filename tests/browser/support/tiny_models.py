"""Compile tiny models and write what numpy says of them: ``python tiny_models.py OUT MODEL=VARIANT,VARIANT…``.

``OUT/tiny-<model>`` is the artifact; ``OUT/<model>.json`` holds a text, what each of its tokens costs in nats, and the
logits after each of the last `STEPS` tokens, keys and values being halves. An unchanged artifact is left as it is.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from inpage_compile.artifact.writer import load_manifest
from inpage_compile.families.layers import layout_of
from inpage_compile.pipeline import compile_model
from support.llama_reference import logits
from support.models import first_ways, shares_of_page, tiny_file
from support.tiny import K_MODELS, MODELS

WITNESS = Path(__file__).parents[2] / "reference" / "tiny.json"
STEPS = 32


def main(out: Path, models: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    witness = json.loads(WITNESS.read_text("utf-8"))["models"]
    for name, _, variants in (model.partition("=") for model in models):
        with tiny_file(name) as path, first_ways():
            longer = {"prefill_rows": 256} if "webgpu" in variants else {}
            compile_model(
                str(path), out / f"tiny-{name}", variants=tuple(variants.split(",")), levels=("source",), **longer
            )
        tiny = (MODELS | K_MODELS)[name]
        if name in MODELS:
            prompt = witness[name]["prompts"][-1]
            ids = [*prompt["ids"], *prompt["greedy"]]
        else:
            ids = [int(i) for i in np.random.default_rng(tiny.seed).integers(0, tiny.vocab, 64)]
        wanted = logits(tiny, ids, halves=True)
        shifted = wanted - wanted.max(axis=1, keepdims=True)
        nll = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(ids)), np.roll(ids, -1)]
        text = {"ids": ids, "nll": nll[:-1].tolist(), "logits": wanted[-STEPS:].astype(np.float32).tolist()}
        text["shares"] = shares_of_page(layout_of(load_manifest(out / f"tiny-{name}").architecture).groups)
        (out / f"{name}.json").write_text(json.dumps(text))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
