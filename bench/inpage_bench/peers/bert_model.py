"""A folder of BERT's family (safetensors) as an ONNX model, in two precisions; run as a program of its own, where
`onnx` is:

    python -m inpage_bench.peers.bert_model MODEL_FOLDER fp32|q8 OUT_FOLDER

The graph is what ONNX Runtime's optimizer makes of such a model where it recognizes all of it: attention of several
heads as one operator, sums with their layer norms, biases with GELU. The weights, by precision:

fp32  as stored.
q8    a scale a column, activations quantized on the fly to uint8 (dynamic quantization); embeddings in float32.

Raises nothing of its own: what is no such model ends in a KeyError or an assertion.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np

from .onnx_model import Array, Graph

REVISION = "1"  # of the models that this makes: part of the cached folder's name
SUFFIX = {"fp32": "", "q8": "_quantized"}  # of the file's name, as transformers.js looks for it
_BESIDE = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


class Exporter:
    """Writes one model: ``write``."""

    def __init__(self, source: Path, precision: str, folder: Path) -> None:
        from inpage_compile.checkpoints.safetensors import read_safetensors

        stored = read_safetensors(source / "model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} <= {"F32", "I64"}, "only weights in float32"
        self._stored = {name.removeprefix("bert."): tensor for name, tensor in stored.items()}
        self._config = json.loads((source / "config.json").read_text("utf-8"))
        kind = (self._config["model_type"], self._config["hidden_act"])
        assert kind == ("bert", "gelu"), "only models of BERT's family"
        self._precision = precision
        self._path = folder / "onnx" / f"model{SUFFIX[precision]}.onnx"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._graph = Graph(self._path.with_suffix(".onnx_data"))

    def write(self) -> None:
        graph, layers = self._graph, int(self._config["num_hidden_layers"])
        hidden = self._embedded()
        for i in range(layers):
            print(f"layer {i + 1} of {layers}", flush=True)
            at, inside = f"encoder.layer.{i}", f"encoder.layer.{i}.attention.self"
            parts = [f"{inside}.{part}" for part in ("query", "key", "value")]
            together = self._linear(hidden, f"{inside}.qkv", *parts)
            biased = graph.add("Add", [together, self._bias(f"{inside}.qkv", *parts)], [f"{inside}.biased"])
            graph.add("Split", [biased], parts, axis=-1, num_outputs=3)
            heads = int(self._config["num_attention_heads"])
            attended = graph.add(
                "MultiHeadAttention", [*parts, "", "mask"], [f"{inside}.attended"], "com.microsoft", num_heads=heads
            )
            hidden = self._sum(self._linear(attended, f"{at}.attention.output.dense"), hidden, f"{at}.attention.output")
            middle = self._linear(hidden, f"{at}.intermediate.dense")
            bias = self._bias(f"{at}.intermediate.dense")
            wide = graph.add("BiasGelu", [middle, bias], [f"{at}.gelu"], "com.microsoft")
            hidden = self._sum(self._linear(wide, f"{at}.output.dense"), hidden, f"{at}.output")
        graph.add("Identity", [hidden], ["last_hidden_state"])
        self._save()

    def _embedded(self) -> str:
        """Words, positions and segments, added and normed; and the mask as attention takes it."""
        graph, at = self._graph, "embeddings"
        graph.add("Cast", ["attention_mask"], ["mask"], to=graph.onnx.TensorProto.INT32)
        for name, ids in (("word", "input_ids"), ("token_type", "token_type_ids")):
            table = graph.constant(f"{at}.{name}", self._values(f"{at}.{name}_embeddings.weight"))
            graph.add("Gather", [table, ids], [f"{at}.{name}.rows"])
        for name, value in (("zero", 0), ("one", 1), ("two", 2)):
            graph.constant(name, np.array([value], np.int64))
        graph.add("Shape", ["input_ids"], ["shape"])
        graph.add("Slice", ["shape", "one", "two"], ["length"])
        places = graph.constant(f"{at}.position", self._values(f"{at}.position_embeddings.weight"))
        graph.add("Slice", [places, "zero", "length", "zero"], [f"{at}.position.rows"])
        graph.add("Add", [f"{at}.word.rows", f"{at}.token_type.rows"], [f"{at}.sum"])
        graph.add("Add", [f"{at}.sum", f"{at}.position.rows"], [f"{at}.all"])
        scale, shift = self._norm(at)
        return graph.add("LayerNormalization", [f"{at}.all", scale, shift], [at], axis=-1, epsilon=self._epsilon)

    @property
    def _epsilon(self) -> float:
        return float(self._config["layer_norm_eps"])

    def _sum(self, x: str, residual: str, at: str) -> str:
        """The norm of the sum of both and of the dense layer's bias."""
        scale, shift = self._norm(at)
        inputs = [x, residual, scale, shift, self._bias(f"{at}.dense")]
        return self._graph.add("SkipLayerNormalization", inputs, [at], "com.microsoft", epsilon=self._epsilon)

    def _norm(self, at: str) -> list[str]:
        names = (f"{at}.LayerNorm.weight", f"{at}.LayerNorm.bias")
        return [self._graph.constant(name, self._values(name)) for name in names]

    def _bias(self, out: str, *names: str) -> str:
        values = np.concatenate([self._values(f"{name}.bias") for name in names or (out,)])
        return self._graph.constant(f"{out}.bias", values)

    def _linear(self, x: str, out: str, *names: str) -> str:
        """``x`` times the rows of one or more matrices, side by side."""
        values = np.concatenate([self._values(f"{name}.weight") for name in names or (out,)]).T
        if self._precision == "q8":
            return self._graph.int8_linear(x, f"{out}.product", values)
        return self._graph.add("MatMul", [x, self._graph.constant(f"{out}.weight", values)], [f"{out}.product"])

    def _values(self, name: str) -> Array:
        tensor = self._stored[name]
        return tensor.data.view(np.float32).reshape(tensor.shape)

    def _save(self) -> None:
        proto, value = self._graph.onnx.TensorProto, self._graph.onnx.helper.make_tensor_value_info
        shape = ["batch_size", "sequence_length"]
        inputs = [value(name, proto.INT64, shape) for name in ("input_ids", "attention_mask", "token_type_ids")]
        outputs = [value("last_hidden_state", proto.FLOAT, [*shape, int(self._config["hidden_size"])])]
        self._graph.save(self._path, inputs, outputs, "bert")


def main(source: str, precision: str, folder: str) -> None:
    Exporter(Path(source), precision, Path(folder)).write()
    for name in _BESIDE:
        if (Path(source) / name).is_file():
            shutil.copyfile(Path(source) / name, Path(folder) / name)


if __name__ == "__main__":
    main(*sys.argv[1:])
