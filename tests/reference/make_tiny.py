"""Makes tiny.json: what float32 PyTorch computes with the tiny models' dequantized weights.

The witness for graphs, plans and engines on models that are no SmolLM2: untied, unfused, odd head counts and widths,
every kind of rotary positions, other families. Hugging Face's models run the same numbers with their own code. Run it
by hand, in an environment of its own:

    python -m venv /tmp/witness && /tmp/witness/bin/pip install torch==2.13.0 transformers==5.24.0 gguf==0.19.0 numpy
    /tmp/witness/bin/python tests/reference/make_tiny.py [MODEL…]

Models that are not named stay as they were.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from support.tiny import MODELS, Tiny  # noqa: E402  # after the path is set

PROMPT_LENGTHS = (1, 7, 40)
GREEDY, LONGER = 24, 32  # tokens that follow a prompt; more of them for families and kinds of rotary positions


def torch_model(tiny: Tiny) -> Any:
    """Hugging Face's model of the family with the tiny model's weights, float32."""
    prefix = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[tiny.family]
    config = getattr(transformers, f"{prefix}Config")(
        vocab_size=tiny.vocab,
        hidden_size=tiny.hidden,
        intermediate_size=tiny.ffn,
        num_hidden_layers=tiny.layers,
        num_attention_heads=tiny.heads,
        num_key_value_heads=tiny.kv_heads,
        head_dim=tiny.head_dim,
        max_position_embeddings=tiny.context,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": tiny.rope_theta} | dict(tiny.rope),
        tie_word_embeddings=tiny.tied,
        attn_implementation="eager",
    )
    model = getattr(transformers, f"{prefix}ForCausalLM")(config).eval().float()
    weights = tiny.dequantized()
    names = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_output": "self_attn.o_proj"}
    names |= {f"attn_{x}": f"self_attn.{x}_proj" for x in "qkv"} | {
        f"ffn_{x}": f"mlp.{x}_proj" for x in ("gate", "up", "down")
    }
    state = {"model.embed_tokens.weight": weights["token_embd"], "model.norm.weight": weights["output_norm"]}
    state["lm_head.weight"] = weights["token_embd" if tiny.tied else "output"]
    for i in range(tiny.layers):
        for ours, theirs in names.items():
            w = weights[f"blk.{i}.{ours}"]
            if (
                ours in ("attn_q", "attn_k") and tiny.family == "llama"
            ):  # GGUF rotates neighbours, Hugging Face the two halves of a head
                w = w.reshape(-1, tiny.head_dim // 2, 2, tiny.hidden).swapaxes(1, 2).reshape(w.shape)
            state[f"model.layers.{i}.{theirs}.weight"] = w
        for x in "qkv" if tiny.family == "qwen2" else "":
            state[f"model.layers.{i}.self_attn.{x}_proj.bias"] = weights[f"blk.{i}.attn_{x}.bias"]
        for x in "qk" if tiny.family == "qwen3" else "":
            state[f"model.layers.{i}.self_attn.{x}_norm.weight"] = weights[f"blk.{i}.attn_{x}_norm"]
    model.load_state_dict({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in state.items()})
    return model


def run(model: Any, ids: list[int]) -> np.ndarray[Any, Any]:
    """Logits [len(ids), vocab]."""
    with torch.no_grad():
        return np.asarray(model(torch.tensor([ids]), use_cache=False).logits[0])


def margin(row: np.ndarray[Any, Any]) -> float:
    top = np.sort(row)[-2:]
    return round(float(top[1] - top[0]), 4)


def witness(tiny: Tiny, seed: int) -> dict[str, Any]:
    """Three random prompts: argmax and margin everywhere, the last position's logits, and a greedy continuation."""
    model = torch_model(tiny)
    rng = np.random.default_rng(seed)
    prompts = []
    for length in PROMPT_LENGTHS:
        ids = [int(i) for i in rng.integers(0, tiny.vocab, length)]
        logits = run(model, ids)
        entry: dict[str, Any] = {
            "ids": ids,
            "argmax": [int(i) for i in logits.argmax(1)],
            "margin": [margin(row) for row in logits],
            "logits": [float(f"{x:.7g}") for x in logits[-1]],
            "greedy": [],
            "greedy_margin": [],
        }
        for _ in range(LONGER if tiny.rope or tiny.family != "llama" else GREEDY):
            row = run(model, ids + entry["greedy"])[-1]
            entry["greedy"].append(int(row.argmax()))
            entry["greedy_margin"].append(margin(row))
        prompts.append(entry)
    return {"weights_sha256": tiny.digest(), "prompts": prompts}


def main(names: list[str]) -> None:
    file = HERE / "tiny.json"
    kept = json.loads(file.read_text())["models"] if names else {}
    out = {
        "made_by": f"PyTorch {torch.__version__}, transformers {transformers.__version__}, float32, make_tiny.py",
        "models": {
            name: kept[name] if names and name not in names else witness(tiny, 1000 + i)
            for i, (name, tiny) in enumerate(MODELS.items())
        },
    }
    file.write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
