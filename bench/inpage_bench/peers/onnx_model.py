"""A GGUF of the Llama family as an ONNX model, in three precisions; run as a program of its own, where `onnx` is:

    python -m inpage_bench.peers.onnx_model SOURCE.gguf fp32|int8|q4 OUT_FOLDER

The graph is what ONNX Runtime's own model builder makes of a Llama: fused norms, grouped-query attention with rotary
embedding and KV cache as one operator, logits of the last position only. The weights, by precision:

fp32  dequantized.
int8  a scale a column, activations quantized on the fly to uint8 (dynamic quantization).
q4    the GGUF's own 4-bit groups with their minima, in MatMulNBits: the same numbers as published.

int8 and q4 keep the embedding in the GGUF's 8-bit groups. q4's last projection is in float32: onnxruntime-web has no
MatMulNBits of 8 bits.
Raises nothing of its own: what is no such model ends in a KeyError or an assertion with the tensor's name.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

REVISION = "2"  # of the models that this makes: part of the cached folder's name
PRECISIONS = ("fp32", "int8", "q4")
SUFFIX = {"fp32": "", "int8": "_int8", "q4": "_q4"}  # of the file's name, as transformers.js looks for it
_GROUP = 32


class Weights:
    """The GGUF's tensors by name, in float32 or as stored, rows of q and k in Hugging Face's order of rotary pairs."""

    def __init__(self, path: Path) -> None:
        import gguf

        reader = gguf.GGUFReader(path)
        self._quants = gguf.quants
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self._fields = reader.fields
        assert self.field("general.architecture") == "llama", "only models of the Llama family"

    def field(self, name: str) -> Any:
        return self._fields[name].contents()

    def order(self, name: str) -> Array | None:
        """GGUF interleaves the two halves of each rotary pair; this puts rows back where the operator expects them."""
        heads = {"attn_q": "head_count", "attn_k": "head_count_kv"}.get(name.split(".")[-2])
        if heads is None:
            return None
        count = self.field(f"llama.attention.{heads}")
        rows = np.arange(int(self._tensors[name].shape[1]))
        return rows.reshape(count, -1, 2).swapaxes(1, 2).reshape(-1)

    def float32(self, name: str) -> Array:
        tensor = self._tensors[name]
        values: Array = self._quants.dequantize(tensor.data, tensor.tensor_type)
        order = self.order(name)
        return values if order is None else values[order]

    def groups(self, name: str) -> tuple[str, Array]:
        """The format's name and the stored bytes, [rows, groups, bytes a group]."""
        tensor = self._tensors[name]
        rows = tensor.data.reshape(tensor.data.shape[0], int(tensor.shape[0]) // _GROUP, -1)
        order = self.order(name)
        return tensor.tensor_type.name, rows if order is None else rows[order]


class Graph:
    """ONNX nodes and initializers under construction; initializers go to a data file beside the model."""

    def __init__(self, data: Path) -> None:
        import onnx

        self.onnx = onnx
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._data = data.open("wb")
        self._name = data.name
        self._quantized: dict[str, tuple[str, str, str]] = {}

    def add(self, op: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: Any) -> str:
        self.nodes.append(
            self.onnx.helper.make_node(op, inputs, outputs, name=outputs[0] + "/" + op, domain=domain, **attributes)
        )
        return outputs[0]

    def constant(self, name: str, values: Array) -> str:
        onnx = self.onnx
        tensor = onnx.TensorProto(name=name, dims=values.shape)
        tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
        if values.nbytes < 1024:
            tensor.raw_data = values.tobytes()
        else:
            self._data.write(b"\0" * (-self._data.tell() % 64))
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", self._name), ("offset", self._data.tell()), ("length", values.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            self._data.write(np.ascontiguousarray(values).data)
        self.initializers.append(tensor)
        return name

    def int8_linear(self, x: str, out: str, values: Array) -> str:
        """``x`` times ``values`` [inputs, outputs], with a scale a column; ``x`` is quantized on the fly, once."""
        if x not in self._quantized:
            self._quantized[x] = (f"{x}.int", f"{x}.scale", f"{x}.zero")
            self.add("DynamicQuantizeLinear", [x], list(self._quantized[x]))
        quants, scale, zero = self._quantized[x]
        scales = np.abs(values).max(axis=0) / np.float32(127)
        weight = self.constant(f"{out}.weight", np.rint(values / scales).astype(np.int8))
        column = self.constant(f"{out}.weight_scale", scales.astype(np.float32))
        return self.add("MatMulIntegerToFloat", [quants, weight, scale, column, zero], [out], "com.microsoft")

    def save(self, path: Path, inputs: list[Any], outputs: list[Any], name: str = "llama") -> None:
        helper = self.onnx.helper
        self._data.close()
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.initializers)
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
        path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


class Exporter:
    """Writes one model: ``write``."""

    def __init__(self, source: Path, precision: str, folder: Path) -> None:
        self.weights, self.precision = Weights(source), precision
        self.path = folder / "onnx" / f"model{SUFFIX[precision]}.onnx"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.graph = Graph(self.path.with_suffix(".onnx_data"))
        field = self.weights.field
        self.layers = int(field("llama.block_count"))
        self.width = int(field("llama.embedding_length"))
        self.heads = int(field("llama.attention.head_count"))
        self.kv_heads = int(field("llama.attention.head_count_kv"))
        self.context = int(field("llama.context_length"))
        self.head = self.width // self.heads
        self.epsilon = float(field("llama.attention.layer_norm_rms_epsilon"))
        self.theta = float(field("llama.rope.freq_base"))

    def write(self) -> None:
        graph, norm = self.graph, self.norm
        self.shared()
        hidden, added = self.embedding(), ""
        for i in range(self.layers):
            print(f"layer {i + 1} of {self.layers}", flush=True)
            at = f"blk.{i}"
            x, hidden = norm(f"{at}.attn_norm", hidden, added)
            qkv = self.linear(x, f"{at}.qkv", *(f"{at}.attn_{part}.weight" for part in "qkv"))
            past, present = f"past_key_values.{i}", f"present.{i}"
            graph.add(
                "GroupQueryAttention",
                [qkv, "", "", f"{past}.key", f"{past}.value", "last", "total", "cos", "sin"],
                [f"{at}.attention", f"{present}.key", f"{present}.value"],
                "com.microsoft",
                num_heads=self.heads,
                kv_num_heads=self.kv_heads,
                do_rotary=1,
                rotary_interleaved=0,
            )
            added = self.linear(f"{at}.attention", f"{at}.output", f"{at}.attn_output.weight")
            x, hidden = norm(f"{at}.ffn_norm", hidden, added)
            gate, up = (self.linear(x, f"{at}.{part}", f"{at}.ffn_{part}.weight") for part in ("gate", "up"))
            graph.add("QuickGelu", [gate], [f"{at}.silu"], "com.microsoft", alpha=1.0)
            graph.add("Mul", [f"{at}.silu", up], [f"{at}.product"])
            added = self.linear(f"{at}.product", f"{at}.down", f"{at}.ffn_down.weight")
        print("last projection", flush=True)
        x, _ = norm("output_norm", hidden, added)
        for name, value in (("from", -1), ("to", 1 << 31), ("axis", 1)):
            graph.constant(name, np.array([value], np.int64))
        self.linear(graph.add("Slice", [x, "from", "to", "axis"], ["last_hidden"]), "logits", "token_embd.weight")
        self.save()

    def shared(self) -> None:
        """What every layer's attention reads: positions, from the mask's shape alone, and the rotary table."""
        graph = self.graph
        graph.constant("one", np.array(1, np.int64))
        graph.constant("axes", np.array([1], np.int64))
        graph.add("ReduceSum", ["attention_mask", "axes"], ["length"], keepdims=0)
        graph.add("Sub", ["length", "one"], ["last64"])
        graph.add("Cast", ["last64"], ["last"], to=self.graph.onnx.TensorProto.INT32)
        graph.add("Shape", ["attention_mask"], ["shape"])
        graph.add("Gather", ["shape", "one"], ["total64"], axis=0)
        graph.add("Cast", ["total64"], ["total"], to=self.graph.onnx.TensorProto.INT32)
        rates = self.theta ** -(np.arange(0, self.head, 2, dtype=np.float64) / self.head)
        angles = np.arange(self.context, dtype=np.float64)[:, None] * rates
        graph.constant("cos", np.cos(angles).astype(np.float32))
        graph.constant("sin", np.sin(angles).astype(np.float32))

    def embedding(self) -> str:
        graph, name = self.graph, "token_embd.weight"
        if self.precision == "fp32":
            graph.constant("embedding", self.weights.float32(name))
            return graph.add("Gather", ["embedding", "input_ids"], ["embedded"])
        kind, groups = self.weights.groups(name)
        assert kind == "Q8_0", f"{name} is {kind}"
        graph.constant("embedding", np.ascontiguousarray(groups[:, :, 2:]).view(np.int8))
        graph.constant("embedding_scale", _half(groups, 0)[:, :, None])
        graph.constant("flat", np.array([0, 0, self.width], np.int64))
        graph.add("Gather", ["embedding", "input_ids"], ["embedded_int"])
        graph.add("Cast", ["embedded_int"], ["embedded_float"], to=graph.onnx.TensorProto.FLOAT)
        graph.add("Gather", ["embedding_scale", "input_ids"], ["embedded_scale"])
        graph.add("Mul", ["embedded_float", "embedded_scale"], ["embedded_groups"])
        return graph.add("Reshape", ["embedded_groups", "flat"], ["embedded"])

    def norm(self, name: str, hidden: str, added: str) -> tuple[str, str]:
        """The normed sum of ``hidden`` and ``added``, and the sum."""
        scale = self.graph.constant(f"{name}.weight", self.weights.float32(f"{name}.weight"))
        if not added:
            self.graph.add(
                "SimplifiedLayerNormalization", [hidden, scale], [name], axis=-1, epsilon=self.epsilon, stash_type=1
            )
            return name, hidden
        self.graph.add(
            "SkipSimplifiedLayerNormalization",
            [hidden, added, scale],
            [name, "", "", f"{name}.sum"],
            "com.microsoft",
            epsilon=self.epsilon,
        )
        return name, f"{name}.sum"

    def linear(self, x: str, out: str, *names: str) -> str:
        """``x`` times the rows of one or more matrices, side by side."""
        graph = self.graph
        if self.precision == "q4" and out != "logits":
            return self._groups(x, out, names)
        values = np.concatenate([self.weights.float32(name) for name in names]).T
        if self.precision != "int8":
            return graph.add("MatMul", [x, graph.constant(f"{out}.weight", values)], [out])
        return graph.int8_linear(x, out, values)

    def _groups(self, x: str, out: str, names: tuple[str, ...]) -> str:
        kinds, parts = zip(*(self.weights.groups(name) for name in names), strict=True)
        groups = np.concatenate(parts)
        rows, count = groups.shape[:2]
        assert set(kinds) == {"Q4_1"}, f"{names[0]} is {kinds[0]}"
        scales, minima = _half(groups, 0), _half(groups, 2)
        quants = np.concatenate([groups[:, :, 4:] & 15, groups[:, :, 4:] >> 4], axis=2)
        packed = quants[:, :, 0::2] | quants[:, :, 1::2] << 4
        # The value d * quant + m is d * (quant - zero) where zero = -m / d.
        zeros = np.divide(-minima, scales, out=np.zeros_like(minima), where=scales != 0)
        inputs = [
            x,
            self.graph.constant(f"{out}.weight", packed),
            self.graph.constant(f"{out}.scale", scales.reshape(-1)),
            self.graph.constant(f"{out}.zero", zeros.reshape(rows, count)),
        ]
        sizes = {"K": count * _GROUP, "N": rows, "bits": 4, "block_size": _GROUP}
        return self.graph.add("MatMulNBits", inputs, [out], "com.microsoft", **sizes)

    def save(self) -> None:
        helper, proto = self.graph.onnx.helper, self.graph.onnx.TensorProto
        value = helper.make_tensor_value_info
        inputs = [
            value("input_ids", proto.INT64, ["batch_size", "new"]),
            value("attention_mask", proto.INT64, ["batch_size", "all"]),
        ]
        outputs = [value("logits", proto.FLOAT, ["batch_size", 1, "vocabulary"])]
        for i in range(self.layers):
            for part in ("key", "value"):
                for values, prefix, length in ((inputs, "past_key_values", "past"), (outputs, "present", "all")):
                    shape = ["batch_size", self.kv_heads, length, self.head]
                    values.append(value(f"{prefix}.{i}.{part}", proto.FLOAT, shape))
        self.graph.save(self.path, inputs, outputs)


def config(weights: Weights) -> dict[str, Any]:
    """config.json, as far as transformers.js reads it; it names no end token, so that answers are as long as asked."""
    field = weights.field
    heads, width = int(field("llama.attention.head_count")), int(field("llama.embedding_length"))
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": int(field("llama.feed_forward_length")),
        "num_hidden_layers": int(field("llama.block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(field("llama.attention.head_count_kv")),
        "head_dim": width // heads,
        "max_position_embeddings": int(field("llama.context_length")),
        "rope_theta": float(field("llama.rope.freq_base")),
        "rms_norm_eps": float(field("llama.attention.layer_norm_rms_epsilon")),
        "vocab_size": len(field("tokenizer.ggml.tokens")),
        "tie_word_embeddings": True,
    }


def _half(groups: Array, at: int) -> Array:
    """The float16 at byte ``at`` of each group, as float32."""
    return np.ascontiguousarray(groups[:, :, at : at + 2]).view(np.float16)[:, :, 0].astype(np.float32)


def main(source: str, precision: str, folder: str) -> None:
    exporter = Exporter(Path(source), precision, Path(folder))
    exporter.write()
    (Path(folder) / "config.json").write_text(json.dumps(config(exporter.weights), indent=1), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
