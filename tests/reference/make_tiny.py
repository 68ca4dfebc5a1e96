"""Makes tiny.json: what float32 PyTorch computes with the tiny models' dequantized weights.

The witness for graphs, plans and engines on models that are no SmolLM2: untied, unfused, odd head counts and widths,
every kind of rotary positions, other families. Hugging Face's models run the same numbers with their own code. Run it
by hand, in an environment of its own:

    python -m venv /tmp/witness && /tmp/witness/bin/pip install torch==2.13.0 transformers==5.24.0 gguf==0.19.0 numpy
    PYTHONPATH=compile:py /tmp/witness/bin/python tests/reference/make_tiny.py [MODEL…]

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
from support.traits import NUMBERS  # noqa: E402

PROMPT_LENGTHS = (1, 7, 40)
GREEDY, LONGER = 24, 32  # tokens that follow a prompt; more of them for families and kinds of rotary positions


def torch_model(tiny: Tiny) -> Any:
    """Hugging Face's model of the family with the tiny model's weights, float32."""
    traits = tiny.traits
    own = getattr(transformers, f"{traits.hf}TextConfig", None)  # of families that see images too
    config = (own or getattr(transformers, f"{traits.hf}Config"))(
        vocab_size=tiny.vocab,
        hidden_size=tiny.hidden,
        intermediate_size=tiny.ffn,
        num_hidden_layers=tiny.layers,
        num_attention_heads=tiny.heads,
        num_key_value_heads=tiny.kv_heads,
        head_dim=tiny.head_dim,
        max_position_embeddings=tiny.context,
        **{traits.epsilon: 1e-5},
        rope_parameters=rope_parameters(tiny),
        tie_word_embeddings=tiny.tied,
        attn_implementation="eager",
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **special(tiny),
    )
    model = getattr(transformers, f"{traits.hf}ForCausalLM")(config).eval().float()
    weights = tiny.dequantized()
    names = traits.names()
    state = {f"model.{names[name]}.weight": weights[name] for name in ("token_embd", "output_norm")}
    state["lm_head.weight"] = weights["token_embd" if tiny.tied else "output"]
    for i in range(tiny.layers):
        for ours, theirs in names.items():
            if f"blk.{i}.{ours}" not in weights:
                continue
            w = weights[f"blk.{i}.{ours}"]
            if ours == "shortconv.conv":
                w = w[:, None]
            if (
                ours in ("attn_q", "attn_k") and not traits.halves
            ):  # GGUF rotates neighbours, Hugging Face the two halves of a head
                w = w.reshape(-1, tiny.head_dim // 2, 2, tiny.hidden).swapaxes(1, 2).reshape(w.shape)
            state[f"model.layers.{i}.{theirs}.weight"] = w
        for x in "qkv" if traits.bias else "":
            state[f"model.layers.{i}.self_attn.{x}_proj.bias"] = weights[f"blk.{i}.attn_{x}.bias"]
        for whole, parts in FUSED.items() if traits.fused else ():
            rows = [state.pop(f"model.layers.{i}.{part}.weight") for part in parts]
            state[f"model.layers.{i}.{whole}.weight"] = np.concatenate(rows)
    if traits.shifted:
        state |= {name: w - 1 for name, w in state.items() if "norm" in name}
    model.load_state_dict({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in state.items()})
    return model


FUSED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}


def rope_parameters(tiny: Tiny) -> dict[str, Any]:
    own = {"rope_type": "default", "rope_theta": tiny.rope_theta} | dict(tiny.rope)
    if tiny.turning:
        own["partial_rotary_factor"] = tiny.turning / tiny.head_dim
    if not tiny.traits.local_theta:
        return own
    return {"full_attention": own, "sliding_attention": {"rope_type": "default", "rope_theta": tiny.traits.local_theta}}


def special(tiny: Tiny) -> dict[str, Any]:
    """What the configurations of some families have."""
    out: dict[str, Any] = {NUMBERS[name][1]: value for name, value in tiny.numbers}
    if tiny.traits.attend_every:
        out |= {"conv_L_cache": int(tiny.number("conv_taps")), "block_auto_adjust_ff_dim": False}
        out["layer_types"] = ["conv" if tiny.convolves(i) else "full_attention" for i in range(tiny.layers)]
    if tiny.number("window"):
        out["sliding_window"] = int(tiny.number("window"))
        if tiny.traits.whole_every:
            windowed = map(tiny.windowed, range(tiny.layers))
            out["layer_types"] = ["sliding_attention" if one else "full_attention" for one in windowed]
    if tiny.traits.root_scaled:  # the Gemmas, whose scale has a name of its own
        out["query_pre_attn_scalar"] = tiny.head_dim
    if "original_max_position_embeddings" in dict(tiny.rope) and tiny.traits.hf == "Phi3":  # which has it at the top
        out["original_max_position_embeddings"] = dict(tiny.rope)["original_max_position_embeddings"]
    if tiny.traits.plain_every:
        out["no_rope_layers"] = [int((i + 1) % tiny.traits.plain_every != 0) for i in range(tiny.layers)]
    return out


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
            if not names or name in names or name in kept
        },
    }
    file.write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
