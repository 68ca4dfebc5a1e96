"""What the synthetic model (synthetic.py) says with penalties, in numpy: ``python penalties.py ARTIFACT`` prints a list
of ``{params, prompt, tokens, logprobs}``. Penalties for presence and frequency count the answer alone, that for
repetition the prompt as well; ``logprobs`` are those of prompt and answer, null for the first token."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

from inpage.engines.protocol import Sampling
from support.runtime import Floats
from support.sampler_reference import modified

TOKENS = 12
BIAS = {0: -100, 1: -100, 2: -100}  # no control token
LETTERS = range(3, 56)
PENALTIES: list[dict[str, Any]] = [
    {},
    {"presence_penalty": 2.0},
    {"frequency_penalty": 1.5},
    {"presence_penalty": -1.5, "frequency_penalty": 2.0},
    {"repetition_penalty": 1.4},
]


class Model:
    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        space = b"".join((folder / shard["file"]).read_bytes() for shard in manifest["weights"]["shards"])
        found = {t["name"]: np.frombuffer(space, "<f4", t["bytes"] // 4, t["offset"]) for t in manifest["tensors"]}
        self._bias = found["bias"].astype(np.float64)
        self._table = found["table"].reshape(self._bias.size, -1).astype(np.float64)

    def logits(self, tokens: list[int]) -> Floats:
        factors = (7 * np.arange(len(tokens)) + np.array(tokens)) % 5
        return (self._table[tokens] * factors[:, None]).sum(0) + self._bias

    def says(self, prompt: list[int], params: dict[str, Any], whole: bool) -> list[int]:
        """``whole``: penalties count the prompt."""
        sampling = Sampling(temperature=0, logit_bias=tuple(BIAS.items()), **params)
        answer: list[int] = []
        for _ in range(TOKENS):
            row = self.logits([*prompt, *answer]).astype(np.float32)
            answer.append(int(modified(row, sampling, [*prompt, *answer] if whole else answer, None).argmax()))
        return answer

    def logprobs(self, tokens: list[int]) -> list[float | None]:
        rows = [self.logits(tokens[:n]) for n in range(1, len(tokens))]
        sums = [float(row.max() + np.log(np.exp(row - row.max()).sum())) for row in rows]
        return [None, *(float(row[t]) - s for row, s, t in zip(rows, sums, tokens[1:], strict=True))]


def main(folder: Path) -> None:
    model, cases, rng = Model(folder), [], random.Random(15)
    for params in PENALTIES:
        whole = "repetition_penalty" in params
        while True:  # until it makes a difference what is counted
            prompt = rng.choices(LETTERS, k=4)
            tokens, other = (model.says(prompt, params, each) for each in (whole, not whole))
            if not params or other != tokens:
                break
        asked = {**params, "max_tokens": TOKENS, "logit_bias": BIAS}
        logprobs = model.logprobs([*prompt, *tokens])
        cases.append({"params": asked, "prompt": prompt, "tokens": tokens, "logprobs": logprobs})
    json.dump(cases, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
