"""The structure of an artifact's documents, for `inpage.format.structure`.

Made by format/generate.py from format/plan.toml and manifest.toml; change that.
"""

from __future__ import annotations

from typing import Final

from .structure import Schema

MANIFEST: Final[Schema] = {
    "manifest": {
        "schema": {"is": "int", "low": 1, "high": 1, "why": "compile the model again"},
        "id": {"is": "text", "of": "name"},
        "name": {"is": "text", "of": "line"},
        "revision": {"is": "text", "of": "hash"},
        "license": {"is": "object", "of": "license"},
        "source": {"is": "object", "of": "source"},
        "architecture": {"is": "object", "of": "architecture"},
        "tokenizer": {"is": "object", "of": "tokenizer"},
        "chat_template": {"is": "text", "of": "any", "optional": True, "null": True},
        "formats": {"is": "map", "of": {"is": "object", "of": "format"}, "keys": "name"},
        "tensors": {"is": "list", "of": {"is": "object", "of": "tensor"}, "low": 0, "high": 65536},
        "weights": {"is": "object", "of": "weights"},
        "variants": {"is": "list", "of": {"is": "object", "of": "variant"}, "low": 0, "high": 256},
        "level": {"is": "text", "of": "name", "optional": True},
        "levels": {"is": "list", "of": {"is": "object", "of": "level"}, "low": 0, "high": 64, "optional": True},
    },
    "license": {
        "id": {"is": "text", "of": "line"},
        "notices": {"is": "text", "of": "path"},
        "bytes": {"is": "int", "low": 1, "high": 1099511627776, "optional": True},
        "sha256": {"is": "text", "of": "hash", "optional": True},
    },
    "source": {
        "kind": {"is": "choice", "of": ["gguf", "pypi", "shape"]},
        "ref": {"is": "text", "of": "line"},
        "file": {"is": "text", "of": "line"},
        "sha256": {"is": "text", "of": "hash"},
    },
    "architecture": {
        "family": {"is": "text", "of": "name"},
        "layers": {"is": "int", "low": 1, "high": 4096},
        "hidden": {"is": "int", "low": 1, "high": 1048576},
        "heads": {"is": "int", "low": 1, "high": 4096},
        "kv_heads": {"is": "int", "low": 1, "high": 4096},
        "head_dim": {"is": "int", "low": 1, "high": 4096},
        "ffn": {"is": "int", "low": 1, "high": 4194304},
        "vocab": {"is": "int", "low": 1, "high": 16777216},
        "rope_theta": {"is": "number"},
        "norm_eps": {"is": "number"},
        "tied": {"is": "flag"},
        "context": {"is": "int", "low": 1, "high": 16777216},
        "qkv_bias": {"is": "flag", "optional": True},
        "qk_norm": {"is": "flag", "optional": True},
        "rope_scale": {"is": "number", "optional": True},
    },
    "tokenizer": {
        "file": {"is": "text", "of": "path"},
        "bytes": {"is": "int", "low": 1, "high": 67108864},
        "sha256": {"is": "text", "of": "hash"},
        "bos": {"is": "int", "low": 0, "high": 16777216, "optional": True, "null": True},
        "eos": {"is": "list", "of": {"is": "int", "low": 0, "high": 16777216}, "low": 0, "high": 65536},
        "add_bos": {"is": "flag"},
        "special": {"is": "map", "of": {"is": "int", "low": 0, "high": 16777216}, "keys": "any"},
    },
    "format": {
        "type": {"is": "choice", "of": ["float", "uint", "int"]},
        "bits": {"is": "int", "low": 1, "high": 32},
        "group": {"is": "int", "low": 1, "high": 256},
        "scale": {"is": "text", "of": "any", "optional": True, "null": True},
        "min": {"is": "text", "of": "any", "optional": True, "null": True},
        "zero": {"is": "int", "low": 0, "high": 255, "optional": True},
        "super": {"is": "object", "of": "super", "optional": True, "null": True},
    },
    "super": {
        "size": {"is": "int", "low": 32, "high": 1024},
        "scale_bits": {"is": "int", "low": 1, "high": 8},
        "min_bits": {"is": "int", "low": 0, "high": 8},
        "scale": {"is": "choice", "of": ["f16"]},
        "min": {"is": "choice", "of": ["f16"], "optional": True, "null": True},
    },
    "tensor": {
        "name": {"is": "text", "of": "name"},
        "shape": {"is": "list", "of": {"is": "int", "low": 1, "high": 2147483648}, "low": 0, "high": 8},
        "format": {"is": "text", "of": "name"},
        "layout": {"is": "choice", "of": ["raw", "rows16"]},
        "offset": {"is": "int", "low": 0, "high": 1099511627776},
        "bytes": {"is": "int", "low": 1, "high": 1099511627776},
    },
    "weights": {
        "bytes": {"is": "int", "low": 1, "high": 1099511627776},
        "shards": {"is": "list", "of": {"is": "object", "of": "shard"}, "low": 0, "high": 65536},
    },
    "shard": {
        "file": {"is": "text", "of": "path"},
        "offset": {"is": "int", "low": 0, "high": 1099511627776},
        "bytes": {"is": "int", "low": 1, "high": 16777216},
        "sha256": {"is": "text", "of": "hash"},
    },
    "variant": {
        "name": {"is": "text", "of": "name"},
        "backend": {"is": "text", "of": "name"},
        "requires": {"is": "list", "of": {"is": "text", "of": "line"}, "low": 0, "high": 64},
        "plan": {"is": "object", "of": "plan_file", "optional": True},
        "kernels": {"is": "object", "of": "file", "optional": True},
        "*": {"is": "object", "of": "file"},
    },
    "file": {
        "file": {"is": "text", "of": "path"},
        "bytes": {"is": "int", "low": 1, "high": 67108864},
        "sha256": {"is": "text", "of": "hash"},
    },
    "plan_file": {
        "file": {"is": "text", "of": "path"},
        "bytes": {"is": "int", "low": 1, "high": 33554432},
        "sha256": {"is": "text", "of": "hash"},
    },
    "level": {
        "name": {"is": "text", "of": "name"},
        "bytes": {"is": "int", "low": 1, "high": 1099511627776},
        "variants": {"is": "list", "of": {"is": "text", "of": "name"}, "low": 0, "high": 64},
        "manifest": {"is": "object", "of": "manifest_file", "optional": True},
    },
    "manifest_file": {
        "file": {"is": "text", "of": "path"},
        "bytes": {"is": "int", "low": 1, "high": 16777216},
        "sha256": {"is": "text", "of": "hash"},
    },
}

PLAN: Final[Schema] = {
    "plan": {
        "version": {"is": "int", "low": 2, "high": 2, "why": "compile the model again"},
        "target": {"is": "text", "of": "name"},
        "page_tokens": {"is": "int", "low": 1, "high": 4096},
        "maxima": {"is": "object", "of": "maxima"},
        "blocks_per_sequence": {"is": "int", "low": 1, "high": 1048576},
        "variables": {"is": "exactly", "of": ["rows", "sequences", "logit_rows"]},
        "arenas": {"is": "list", "of": {"is": "int", "low": 0, "high": 1099511627776}, "low": 1, "high": 2},
        "vocab": {"is": "int", "low": 1, "high": 16777216},
        "buffers": {"is": "list", "of": {"is": "object", "of": "buffer"}, "low": 1, "high": 65536},
        "io": {"is": "object", "of": "io"},
        "kernels": {"is": "list", "of": {"is": "object", "of": "kernel"}, "low": 0, "high": 4096},
        "alternatives": {
            "is": "list",
            "of": {"is": "list", "of": {"is": "int", "low": 0, "high": 4096}, "low": 2, "high": 16},
            "low": 0,
            "high": 4096,
            "optional": True,
        },
        "functions": {"is": "list", "of": {"is": "object", "of": "function"}, "low": 1, "high": 16},
    },
    "maxima": {
        "rows": {"is": "int", "low": 1, "high": 65536},
        "sequences": {"is": "int", "low": 1, "high": 4096},
        "logit_rows": {"is": "int", "low": 1, "high": 65536},
        "context": {"is": "int", "low": 1, "high": 16777216},
    },
    "buffer.input": {
        "name": {"is": "text", "of": "label"},
        "kind": {"is": "choice", "of": ["input", "weight", "arena", "kv", "output"]},
        "bytes": {"is": "int", "low": 1, "high": 1099511627776},
        "dtype": {"is": "choice", "of": ["int32", "float32"]},
        "shape": {
            "is": "list",
            "of": {"is": "int", "low": 1, "high": 16777216, "or": ["rows", "sequences", "logit_rows"]},
            "low": 0,
            "high": 8,
        },
    },
    "buffer.weight": {
        "name": {"is": "text", "of": "label"},
        "kind": {"is": "choice", "of": ["input", "weight", "arena", "kv", "output"]},
        "bytes": {"is": "int", "low": 1, "high": 1099511627776},
        "tensor": {"is": "text", "of": "name"},
        "start": {"is": "int", "low": 0, "high": 1099511627776, "optional": True},
    },
    "buffer.arena": {
        "name": {"is": "text", "of": "label"},
        "kind": {"is": "choice", "of": ["input", "weight", "arena", "kv", "output"]},
        "bytes": {"is": "int", "low": 1, "high": 1099511627776},
        "arena": {"is": "int", "low": 0, "high": 1},
        "offset": {"is": "int", "low": 0, "high": 1099511627776},
    },
    "buffer.kv": {
        "name": {"is": "text", "of": "label"},
        "kind": {"is": "choice", "of": ["input", "weight", "arena", "kv", "output"]},
        "page_bytes": {"is": "int", "low": 1, "high": 1099511627776},
    },
    "buffer.output": {
        "name": {"is": "text", "of": "label"},
        "kind": {"is": "choice", "of": ["input", "weight", "arena", "kv", "output"]},
        "bytes": {"is": "int", "low": 1, "high": 1099511627776},
    },
    "buffer": {
        "name": {"is": "text", "of": "label"},
        "kind": {"is": "choice", "of": ["input", "weight", "arena", "kv", "output"], "kind": True},
    },
    "io": {
        "token_ids": {"is": "int", "low": 0, "high": 65536},
        "positions": {"is": "int", "low": 0, "high": 65536},
        "row_sequence": {"is": "int", "low": 0, "high": 65536},
        "block_tables": {"is": "int", "low": 0, "high": 65536},
        "logit_rows": {"is": "int", "low": 0, "high": 65536},
        "logits": {"is": "int", "low": 0, "high": 65536},
    },
    "kernel": {
        "name": {"is": "text", "of": "name"},
        "buffers": {"is": "int", "low": 0, "high": 64},
        "scalars": {"is": "int", "low": 0, "high": 16},
        "access": {"is": "text", "of": "access"},
        "workgroup": {"is": "list", "of": {"is": "int", "low": 1, "high": 256}, "low": 3, "high": 3, "optional": True},
    },
    "function": {
        "name": {"is": "text", "of": "name"},
        "max_rows": {"is": "int", "low": 1, "high": 65536},
        "launches": {"is": "list", "of": {"is": "object", "of": "launch"}, "low": 0, "high": 65536},
    },
    "launch": {
        "kernel": {"is": "int", "low": 0, "high": 4096},
        "buffers": {"is": "list", "of": {"is": "int", "low": 0, "high": 65536}, "low": 0, "high": 64},
        "scalars": {
            "is": "list",
            "of": {"is": "int", "low": -2147483648, "high": 2147483647, "or": ["rows", "sequences", "logit_rows"]},
            "low": 0,
            "high": 16,
        },
        "grid": {
            "is": "list",
            "of": {"is": "extent", "high": 16777216, "depth": 4, "or": ["rows", "sequences", "logit_rows"]},
            "low": 3,
            "high": 3,
            "optional": True,
        },
    },
}
