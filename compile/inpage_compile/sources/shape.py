"""Models by shape: as large as a real one, with random weights, to measure how fast such a model runs where its weights
cannot be had. What such a model answers means nothing.

A matrix is some random rows, quantized once and repeated, so that gigabytes are made in seconds and held nowhere. The
tokenizer is another model's, cut or filled up to the shape's vocabulary; nothing ends an answer before its length.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_type_hints

import numpy as np

from inpage.errors import SourceInvalid
from inpage.format.schema import ARCHITECTURE_LIMITS, Architecture, SourceRef
from inpage.format.structure import canonical_json

from ..checkpoints.config import PREFIX, Config
from ..families import FAMILIES, EncoderFamily
from ..families.family import expected_tensors
from ..families.keys import Keys
from ..families.rope import Rope
from ..quantize import FORMATS as NUMBER_FORMATS
from ..quantize.mixtures import Model, format_in
from ..quantize.noise import noise
from ..quantize.tensor import SourceTensor
from ..tokenizers.tokenizer import Tokenizer
from .base import LicenseInfo, Source

KIND = "shape"
FORMATS = tuple(name for name in NUMBER_FORMATS if name != "f32")
MIXTURES = ("q5_k_m", "q4_k_m", "q3_k_m")  # of several formats: see `quantize.mixtures`
_EMBEDDING = "q6_k"  # of a mixture
_ROWS = 64  # random ones of a matrix at most: as many as are drawn and quantized in an instant
_REVISION = 1  # of how weights are made


@dataclass(frozen=True, slots=True)
class Shape:
    """``family``: of `FAMILIES`, whose facts hold (which layers have a ``window``, which norms there are, what turns).
    ``matrices``, ``embedding``, ``head``: number formats (``head`` of an untied one: as ``matrices`` where it is not
    given). ``tokenizer``: the model, as `open_source` takes it, whose tokenizer and template are borrowed."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int
    tied: bool
    tokenizer: str
    family: str = "llama"
    window: int = 0
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    matrices: str = "q4_0"
    embedding: str = "q8_0"
    head: str = ""
    seed: int = 1

    @property
    def sha256(self) -> str:
        """Of everything that decides the weights."""
        return hashlib.sha256(canonical_json({"revision": _REVISION, **asdict(self)})).hexdigest()

    @property
    def architecture(self) -> Architecture:
        return self.read()[0]

    def read(self) -> tuple[Architecture, Rope]:
        """As of a file that says these sizes under the family's keys."""
        family = FAMILIES[self.family]
        said = {key: getattr(self, name) for name, key in family.gguf.items() if hasattr(self, name)}
        ends = {"token_embd": (self.vocab, self.hidden)} | ({} if self.tied else {"output": (self.vocab, self.hidden)})
        tensors = {name: SourceTensor(name, size, self.format_of(name), np.empty(0)) for name, size in ends.items()}
        return family.read(Keys(Config(said), PREFIX, family.gguf), tensors)

    def format_of(self, tensor: str) -> str:
        if tensor.endswith(("norm", ".bias")):
            return "f32"
        if tensor == "token_embd" or (tensor == "output" and self.head):
            return self.embedding if tensor == "token_embd" else self.head
        if self.matrices not in MIXTURES:
            return self.matrices
        return format_in(
            self.matrices, tensor, Model(self.layers, range(self.layers), self.heads // self.kv_heads, self.tied)
        )

    def with_matrices(self, form: str) -> Shape:
        """The same in another number format or mixture; with a mixture's embedding, where it is one. Raises
        `SourceInvalid` for what is none, and where rows are no whole super-blocks."""
        if form not in (*FORMATS, *MIXTURES):
            known = ", ".join((*FORMATS, *MIXTURES))
            raise SourceInvalid(f"{form!r} is no number format of matrices; there are {known}", field="source")
        embedding = _EMBEDDING if form in MIXTURES else self.embedding
        other = replace(self, matrices=form, embedding=embedding)
        other.check_columns("source")
        return other

    def check_columns(self, where: str) -> None:
        """Raises `SourceInvalid` naming the width whose format needs it to be a multiple of something else."""
        widths = {"hidden": self.hidden, "ffn": self.ffn, "head_dim": self.heads * self.head_dim}
        for tensor, size in expected_tensors(self.architecture).items():
            span = NUMBER_FORMATS[self.format_of(tensor)].span
            if len(size) == 2 and size[1] % span:
                name = next(name for name, width in widths.items() if width == size[1])
                message = (
                    f"{where}: {tensor} in {self.format_of(tensor)} needs columns in multiples of {span}, not {size[1]}"
                )
                raise SourceInvalid(message, field=f"shape.{name}")


def read_shape(table: Any, where: str) -> Shape:
    """A recipe's table ``[shape]``. Raises `SourceInvalid` naming the key at fault."""
    kinds = get_type_hints(Shape)
    if not isinstance(table, dict):
        raise SourceInvalid(f"{where}: shape must be a table", field="shape")
    for key in table:
        if key not in kinds:
            raise SourceInvalid(f"{where}: unknown key {key!r} in shape", field=f"shape.{key}")
    for f in fields(Shape):
        name, kind = f.name, kinds[f.name]
        if name not in table:
            if f.default is f.default_factory:  # both are dataclasses.MISSING: it has no default
                raise SourceInvalid(f"{where}: shape needs {name}", field=f"shape.{name}")
            continue
        value = table[name]
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise SourceInvalid(f"{where}: {name} is {value!r}; it must be {kind.__name__}", field=f"shape.{name}")
        most = ARCHITECTURE_LIMITS.get(name)
        if most is not None and not 1 <= value <= most:
            raise SourceInvalid(f"{where}: {name} {value} is outside 1..{most}", field=f"shape.{name}")
        if name in ("matrices", "embedding", "head") and value not in (
            *FORMATS,
            *(MIXTURES if name == "matrices" else ()),
        ):
            raise SourceInvalid(f"{where}: {name} {value!r} is none of {', '.join(FORMATS)}", field=f"shape.{name}")
    shape = Shape(**table)
    decoders = {name: family for name, family in FAMILIES.items() if not isinstance(family, EncoderFamily)}
    if shape.family not in decoders:
        raise SourceInvalid(f"{where}: family {shape.family!r} is none of {', '.join(decoders)}", field="shape.family")
    if "conv_taps" in decoders[shape.family].gguf:
        why = "which layers are convolutions is nothing that a shape says"
        raise SourceInvalid(f"{where}: family {shape.family} has no shapes: {why}", field="shape.family")
    if decoders[shape.family].whole_every and not shape.window:
        raise SourceInvalid(f"{where}: family {shape.family} needs a window", field="shape.window")
    if shape.head_dim % 2:
        raise SourceInvalid(f"{where}: head_dim must be even, is {shape.head_dim}", field="shape.head_dim")
    if shape.heads % shape.kv_heads:
        message = f"{where}: {shape.heads} heads do not divide among {shape.kv_heads} key/value heads"
        raise SourceInvalid(message, field="shape.kv_heads")
    for name in ("hidden", "ffn"):
        if getattr(shape, name) % 32:
            raise SourceInvalid(f"{where}: {name} must be a multiple of 32", field=f"shape.{name}")
    if (
        NUMBER_FORMATS[shape.format_of("blk.0.attn_output")].span > 1 and shape.heads * shape.head_dim % 32
    ):  # columns of the matrix after attention
        message = f"{where}: heads times head_dim must be a multiple of 32 where matrices are {shape.matrices}"
        raise SourceInvalid(message, field="shape.head_dim")
    shape.check_columns(where)
    return shape


def open_shape(shape: Shape, ref: str, name: str, lender: Source) -> Source:
    """A model of this shape. ``ref``: what it is asked for by; ``name``: whose shape it is; ``lender``: whose tokenizer
    it has."""
    architecture, rope = shape.read()
    tensors = {
        tensor: _random(tensor, size, shape.format_of(tensor), shape.seed)
        for tensor, size in expected_tensors(architecture).items()
    }
    notice = (
        f"The weights are random numbers (seed {shape.seed}) in the shape of a model, made to measure speed: nobody "
        f"trained them, and what they answer means nothing.\nTokenizer and chat template are those of {lender.name}:\n"
        f"{(lender.license.notice or '').strip()}"
    )
    return Source(
        id=ref.removeprefix(f"{KIND}:"),
        name=f"{name} by shape, random weights",
        origin=SourceRef(KIND, ref, f"random weights, seed {shape.seed}", shape.sha256),
        architecture=architecture,
        tensors=tensors,
        tokenizer=fit(lender.tokenizer, shape.vocab),
        chat_template=lender.chat_template,
        license=LicenseInfo(lender.license.id, lender.license.text, notice),
        rope=rope,
    )


def _random(name: str, size: tuple[int, ...], form: str, seed: int) -> SourceTensor:
    """Norms of ones; matrices whose rows have about the length 1, so that activations stay as large as they are."""
    if len(size) == 1:
        return SourceTensor(name, size, form, np.ones(size, np.float32).view(np.uint8))
    rows, columns = size
    some = math.gcd(rows, _ROWS)
    rng = np.random.default_rng([seed, *name.encode()])
    data = noise(rng, form, some, columns, 1 / math.sqrt(columns))
    return SourceTensor(name, size, form, data, repeats=rows // some)


def fit(lent: Tokenizer, vocab: int) -> Tokenizer:
    """The tokenizer with exactly ``vocab`` tokens: without the last ones, whose merges come last as well, or with
    tokens behind them that no text becomes. Nothing ends an answer. Raises `SourceInvalid` where too few are left."""
    document = dict(lent.json)
    model = dict(document["model"])
    known: dict[str, int] = model["vocab"]
    least = 1 + max(i for t, i in known.items() if len(t) == 1 or t in lent.special)
    if vocab < least:
        raise SourceInvalid(
            f"a vocabulary of {vocab}: the tokenizer needs {least} tokens at least", field="shape.vocab"
        )
    kept = {token: i for token, i in known.items() if i < vocab}
    model["merges"] = [[left, right] for left, right in model["merges"] if left + right in kept]
    model["vocab"] = kept | {f"<unused-{i}>": i for i in range(len(known), vocab)}
    document["model"] = model
    return Tokenizer(document, lent.bos, (), lent.add_bos, lent.special)
