"""Makes onnx/*.onnx, graphs of the tiny model "f32" of `tests/support/folder.py` in the layout of onnxruntime-genai and
of transformers.js, and onnx.json: what ONNX Runtime in Python makes of them. Their numbers are not stored:
`tests/support/onnx_folder.py` writes them.

fp32    as the model builder of onnxruntime-genai has a Llama: positions from the mask, float32 cache.
q4f16   as transformers.js's exports: positions as an input, how many logits to keep as an input, 4-bit weights, float16
        cache and logits.

The first must compute what PyTorch does (tiny.json). Run it by hand, in an environment of its own:

    python -m venv /tmp/ort && /tmp/ort/bin/pip install onnx==1.23.2 onnxruntime==1.32.0 numpy gguf==0.19.0
    PYTHONPATH=compile:py /tmp/ort/bin/python tests/reference/make_onnx.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from support.folder import FOLDERS  # noqa: E402  # after the path is set
from support.onnx_folder import GROUP, NAME, SUFFIX, arrays, data_file, write_onnx_folder  # noqa: E402
from support.tiny import Tiny  # noqa: E402

GREEDY = 24
MICROSOFT = "com.microsoft"


class Graph:
    def __init__(self, precision: str, tiny: Tiny) -> None:
        self.precision, self.tiny = precision, tiny
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.half = precision == "q4f16"
        at = 0
        for name, values in arrays(precision).items():
            tensor = TensorProto(name=name, dims=values.shape, data_location=TensorProto.EXTERNAL)
            tensor.data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
            for key, value in (("location", data_file(precision)), ("offset", at), ("length", values.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            self.initializers.append(tensor)
            at += values.nbytes

    def add(self, op: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: Any) -> str:
        name = f"/{outputs[0]}/{op}"
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, domain=domain, **attributes))
        return outputs[0]

    def constant(self, name: str, values: Any) -> str:
        self.initializers.append(onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def linear(self, x: str, name: str, out: str, rows: int, columns: int) -> str:
        if not self.half:
            return self.add("MatMul", [x, f"{name}.weight"], [out])
        inputs = [x, f"{name}.weight.quants", f"{name}.weight.scales"]
        return self.add("MatMulNBits", inputs, [out], MICROSOFT, K=columns, N=rows, bits=4, block_size=GROUP)

    def norm(self, name: str, x: str) -> str:
        how = {"axis": -1, "epsilon": 1e-5, "stash_type": 1}
        return self.add("SimplifiedLayerNormalization", [x, f"{name}.weight"], [f"{name}.normed"], **how)

    def cast(self, x: str, out: str, to: int) -> str:
        return self.add("Cast", [x], [out], to=to)

    def attention(self, i: int, x: str) -> str:
        tiny, at = self.tiny, f"model.layers.{i}.self_attn"
        q, kv = tiny.heads * tiny.head_dim, tiny.kv_heads * tiny.head_dim
        parts = [self.linear(x, f"{at}.{part}_proj", f"{at}.{part}", rows, tiny.hidden)
                 for part, rows in (("q", q), ("k", kv), ("v", kv))]  # fmt: skip
        past = [f"past_key_values.{i}.{part}" for part in ("key", "value")]
        present = [f"present.{i}.{part}" for part in ("key", "value")]
        rotary = ["cos", "sin"]
        if self.half:
            parts = [self.cast(part, f"{part}.half", TensorProto.FLOAT16) for part in parts]
            parts[:2] = [self.add("RotaryEmbedding", [part, "position_ids", *rotary], [f"{part}.turned"], MICROSOFT,
                                  num_heads=heads, rotary_embedding_dim=tiny.head_dim)
                         for part, heads in zip(parts[:2], (tiny.heads, tiny.kv_heads), strict=True)]  # fmt: skip
            rotary = []
        self.add(
            "GroupQueryAttention", [*parts, *past, "last", "total", *rotary], [f"{at}.attended", *present], MICROSOFT,
            num_heads=tiny.heads, kv_num_heads=tiny.kv_heads, do_rotary=int(not self.half), rotary_interleaved=0,
        )  # fmt: skip
        attended = f"{at}.attended"
        if self.half:
            attended = self.cast(attended, f"{attended}.float", TensorProto.FLOAT)
        return self.linear(attended, f"{at}.o_proj", f"{at}.out", tiny.hidden, q)

    def write(self) -> bytes:
        tiny = self.tiny
        one = self.constant("one", np.array(1, np.int64))
        axes = self.constant("axes", np.array([1], np.int64))
        length = self.add("ReduceSum", ["attention_mask", axes], ["length"], keepdims=0)
        self.cast(self.add("Sub", [length, one], ["last64"]), "last", TensorProto.INT32)
        shape = self.add("Shape", ["attention_mask"], ["mask_shape"])
        self.cast(self.add("Gather", [shape, one], ["total64"], axis=0), "total", TensorProto.INT32)
        rates = tiny.rope_theta ** -(np.arange(0, tiny.head_dim, 2, dtype=np.float64) / tiny.head_dim)
        angles = np.arange(tiny.context, dtype=np.float64)[:, None] * rates
        kind = np.float16 if self.half else np.float32
        self.constant("cos", np.cos(angles).astype(kind))
        self.constant("sin", np.sin(angles).astype(kind))
        hidden = self.add("Gather", ["model.embed_tokens.weight", "input_ids"], ["embedded"])
        if self.half:
            hidden = self.cast(hidden, "embedded.float", TensorProto.FLOAT)
        for i in range(tiny.layers):
            at = f"model.layers.{i}"
            out = self.attention(i, self.norm(f"{at}.input_layernorm", hidden))
            hidden = self.add("Add", [hidden, out], [f"{at}.attended"])
            x = self.norm(f"{at}.post_attention_layernorm", hidden)
            gate, up = (self.linear(x, f"{at}.mlp.{part}_proj", f"{at}.{part}", tiny.ffn, tiny.hidden)
                        for part in ("gate", "up"))  # fmt: skip
            silu = self.add("Mul", [gate, self.add("Sigmoid", [gate], [f"{at}.sigmoid"])], [f"{at}.silu"])
            x = self.add("Mul", [silu, up], [f"{at}.product"])
            out = self.linear(x, f"{at}.mlp.down_proj", f"{at}.down", tiny.hidden, tiny.ffn)
            hidden = self.add("Add", [hidden, out], [f"{at}.out"])
        x = self.norm("model.norm", hidden)
        table = "model.embed_tokens.weight"
        if self.half:
            start = self.add("Neg", ["num_logits_to_keep"], ["negative"])
            start = self.add("Reshape", [start, axes], ["start"])
            end = self.constant("end", np.array([2**62], np.int64))
            x = self.add("Slice", [x, start, end, axes], ["kept"])
            table = self.cast(table, "table", TensorProto.FLOAT)
        head = self.add("Transpose", [table], ["head"], perm=[1, 0])
        logits = self.add("MatMul", [x, head], ["logits.float" if self.half else "logits"])
        if self.half:
            self.cast(logits, "logits", TensorProto.FLOAT16)
        return self.model().SerializeToString()

    def model(self) -> Any:
        tiny, value = self.tiny, helper.make_tensor_value_info
        kind = TensorProto.FLOAT16 if self.half else TensorProto.FLOAT
        inputs = [
            value("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"]),
            value("attention_mask", TensorProto.INT64, ["batch_size", "total_sequence_length"]),
        ]
        if self.half:
            inputs.append(value("position_ids", TensorProto.INT64, ["batch_size", "sequence_length"]))
            inputs.append(value("num_logits_to_keep", TensorProto.INT64, []))
        outputs = [value("logits", kind, ["batch_size", "kept" if self.half else "sequence_length", tiny.vocab])]
        for i in range(tiny.layers):
            for part in ("key", "value"):
                shape: list[Any] = ["batch_size", tiny.kv_heads, "past", tiny.head_dim]
                inputs.append(value(f"past_key_values.{i}.{part}", kind, shape))
                outputs.append(value(f"present.{i}.{part}", kind, [*shape[:2], "total_sequence_length", shape[3]]))
        graph = helper.make_graph(self.nodes, "tiny", inputs, outputs, self.initializers)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="make_onnx.py")


def greedy(folder: Path, precision: str, prompt: list[int], tiny: Tiny) -> tuple[list[int], list[float]]:
    """Token by token behind the prompt, and how far each was ahead of the second."""
    session = onnxruntime.InferenceSession(folder / "onnx" / f"model{SUFFIX[precision]}.onnx")
    kind = np.float16 if precision == "q4f16" else np.float32
    names = [f"{i}.{part}" for i in range(tiny.layers) for part in ("key", "value")]
    cache = [np.zeros((1, tiny.kv_heads, 0, tiny.head_dim), kind) for _ in names]
    ids, tokens, margins, length = prompt, [], [], 0
    wanted = {each.name for each in session.get_inputs()}
    for _ in range(GREEDY):
        length += len(ids)
        feeds = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, length), np.int64),
            "position_ids": np.arange(length - len(ids), length, dtype=np.int64)[None],
            "num_logits_to_keep": np.array(1, np.int64),
        }
        feeds = {name: feed for name, feed in feeds.items() if name in wanted}
        feeds |= {f"past_key_values.{name}": kept for name, kept in zip(names, cache, strict=True)}
        logits, *cache = session.run(["logits", *(f"present.{name}" for name in names)], feeds)
        row = logits[0, -1].astype(np.float32)
        second, first = np.sort(row)[-2:]
        tokens.append(int(row.argmax()))
        margins.append(round(float(first - second), 4))
        ids = [tokens[-1]]
    return tokens, margins


def main() -> None:
    tiny = FOLDERS[NAME]
    witness = json.loads((HERE / "tiny.json").read_text())["models"][NAME]
    for precision, suffix in SUFFIX.items():
        (HERE / "onnx" / f"model{suffix}.onnx").write_bytes(Graph(precision, tiny).write())
    out: dict[str, Any] = {"made_by": f"onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__}"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_onnx_folder(Path(scratch) / "tiny", *SUFFIX)
        for precision in SUFFIX:
            out[precision] = []
            for prompt in witness["prompts"]:
                tokens, margins = greedy(folder, precision, prompt["ids"], tiny)
                if precision == "fp32":
                    assert tokens == prompt["greedy"][:GREEDY], "not what PyTorch computes"
                out[precision].append({"ids": prompt["ids"], "greedy": tokens, "margin": margins})
    (HERE / "onnx" / "onnx.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
