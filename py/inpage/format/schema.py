"""The artifact's schema: the dataclasses of manifest.json and the size of a tensor in the weight space.

This is the one place where the format stands; `inpage.format.manifest` parses and checks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ArtifactInvalid, brief, quoted
from .limits import BLOCK_ROWS, FILE_BYTES
from .schemas import MANIFEST

SCHEMA: int = MANIFEST["manifest"]["schema"]["low"]
SHARD_BYTES = FILE_BYTES["shard"]
MANIFEST_BYTES = FILE_BYTES["manifest"]  # a manifest larger than this is refused unread
# Largest believable value of each whole number of an architecture: what is beyond is damage, and is not allocated.
ARCHITECTURE_LIMITS: dict[str, int] = {
    name: rule["high"] for name, rule in MANIFEST["architecture"].items() if rule["is"] == "int"
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """What the graph needs. Widths are in elements, ``context`` in tokens; q has heads * head_dim rows."""

    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    rope_theta: float
    norm_eps: float
    tied: bool  # the output head is the token embedding
    context: int
    qkv_bias: bool = False  # queries, keys and values have a bias
    qk_norm: bool = False  # each head of queries and keys goes through an RMS norm, with ``norm_eps``
    rope_scale: float = 1.0  # rotary positions' cos and sin are multiplied by it (YaRN's attention factor)
    turning: int = 0  # so many elements of a head have rotary positions, the first ones; 0: all
    window: int = 0  # tokens that a layer sees, the own one included; 0: all before it
    whole_layers: tuple[int, ...] = ()  # layers that see everything in spite of it
    local_rope: bool = False  # layers with a window have rotary frequencies of their own
    plain_layers: tuple[int, ...] = ()  # layers without rotary positions
    post_norms: bool = False  # what attention and feed-forward make goes through a norm before it is added
    conv_taps: int = 0  # tokens that a short convolution sees, the own one included
    conv_layers: tuple[int, ...] = ()  # layers that have one in the place of attention
    activation: str = "silu"  # of the gate: silu, gelu (by tanh) or gelu_erf
    embedding_scale: float = 1.0  # embeddings are multiplied by it
    attention_scale: float = 0.0  # queries are multiplied by it; 0: 1/√head_dim
    attention_cap: float = 0.0  # scores become cap · tanh(score / cap); 0: they stay
    logit_cap: float = 0.0  # and logits
    encoder: bool = False  # a step computes whole sequences, and gives a vector or scores for each: no KV cache
    causal: bool = (
        False  # tokens of an encoder's sequence see those before them and themselves alone, as a decoder's do
    )
    token_types: int = 0  # rows of the table of token types (segments); 0: there is none
    pooling: str = ""  # how a sequence's hidden states become one vector: mean, cls (the first) or last
    normalized: bool = False  # that vector has length 1
    projected: bool = False  # a matrix turns it before that
    labels: int = 0  # scores of a classifier behind the first token's hidden state; 0: the vector itself


@dataclass(frozen=True, slots=True)
class SuperBlock:
    """A K-quant's second level: ``size`` columns share one ``scale`` (d) and ``min`` (dmin) float.

    Each group within has whole sub-scales of these widths: its scale is d * (sub-scale - ``zero``), its minimum
    -dmin * sub-minimum. ``signed``: the sub-scale is two's complement."""

    size: int
    scale_bits: int
    min_bits: int  # 0: no minimum
    scale: str
    min: str | None
    zero: int = 0
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """One number format. ``type``: "float", "bfloat" (the upper half of a float32; neither has groups), or "uint" or
    "int" (signed) quants of ``bits`` bits.

    Value = scale * (q - zero) + min, one scale (and minimum) for ``group`` consecutive columns of a row. With
    ``table``, 16 whole numbers, table[q] stands for q - zero. ``scale``: "f16", or "e8m0": a byte e, which is
    2^(e - 128), half of what OCP's formats mean by it, so that the table's numbers are twice theirs and whole."""

    type: str
    bits: int
    group: int = 1
    scale: str | None = None
    min: str | None = None
    zero: int = 0
    super: SuperBlock | None = None
    table: tuple[int, ...] | None = None

    @property
    def is_float(self) -> bool:
        return self.type in ("float", "bfloat")

    @property
    def span(self) -> int:
        """Columns that belong together: a row is a multiple of them."""
        return self.super.size if self.super else self.group

    @property
    def planes(self) -> tuple[int, ...]:
        """Widths of the planes that layout rows16 stores quants in, the lowest bits first."""
        return (8,) if self.bits == 8 else tuple(width for width in (4, 2, 1) if self.bits & width)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor in the weight space: ``shape`` is [n] (raw) or [rows, columns] = [out, in] (rows16)."""

    name: str
    shape: tuple[int, ...]
    format: str
    layout: str
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file of the artifact, path relative to the manifest."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Shard:
    """A consecutive slice of the weight space."""

    file: str
    offset: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Weights:
    bytes: int
    shards: tuple[Shard, ...]


@dataclass(frozen=True, slots=True)
class TokenizerRef:
    """``eos``: every id that ends an answer, the model's own first. ``special``: control tokens by text. ``tables``:
    the same tokenizer in the form that the page reads, where it has one (inpage_compile.tokenizers.tables).
    ``add_eos``: a text to embed ends with the first of ``eos``."""

    file: str
    bytes: int
    sha256: str
    bos: int | None
    eos: tuple[int, ...]
    add_bos: bool
    special: Mapping[str, int]
    tables: FileRef | None = None
    add_eos: bool = False


@dataclass(frozen=True, slots=True)
class EmbeddingRef:
    """What a model that answers with vectors or scores says of its texts. ``prompts``: what stands before a text, by
    the kind of text ("query", "document"); ``default_prompt``: which of them where none is named. ``scores``: how a
    classifier's single output becomes a score, "sigmoid" or "logit" (as it is). ``separators``: how many stand between
    the two texts of a pair."""

    prompts: Mapping[str, str]
    default_prompt: str | None = None
    scores: str = "sigmoid"
    separators: int = 1


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """How the model's makers mean it to be sampled; None: they say nothing. Names and ranges are those of requests."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class License:
    """``notices``: a file; its size and hash where the compiler wrote them."""

    id: str
    notices: str
    bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class SourceRef:
    """Where the weights came from: ``sha256`` is that of the source file; of kind "shape" they are random numbers, and
    it is that of the shape and the seed."""

    kind: str
    ref: str
    file: str
    sha256: str

    @property
    def random(self) -> bool:
        """Nobody trained these weights: they measure speed, and what they answer means nothing."""
        return self.kind == "shape"


@dataclass(frozen=True, slots=True)
class Variant:
    """One compiled form of the model: ``files`` by role ("plan", "kernels")."""

    name: str
    backend: str
    requires: tuple[str, ...]
    files: Mapping[str, FileRef]


@dataclass(frozen=True, slots=True)
class GraphFile:
    """A file of tensors that a graph or a library names by ``path``, as a slice of the weight space."""

    path: str
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class GraphCache:
    """An input that takes what a layer keeps (keys or values, [1, kv_heads, tokens, head_dim]), and the output that
    gives it with the new tokens behind."""

    past: str
    present: str


@dataclass(frozen=True, slots=True)
class GraphRef:
    """A model that ONNX Runtime computes: the first ``bytes`` of the weight space are the .onnx file, ``files`` lie
    behind. ``inputs``: what it takes beside ``cache``, keys and values of each layer in turn, whose numbers are
    ``cache_type``; ``logits``: the output that has them. ``weights``: its own space, where the model's is that of
    engines of ours."""

    bytes: int
    files: tuple[GraphFile, ...]
    inputs: tuple[str, ...]
    cache: tuple[GraphCache, ...]
    cache_type: str
    logits: str
    weights: Weights | None = None


@dataclass(frozen=True, slots=True)
class MlcRef:
    """A model that a library of MLC's computes: the first ``bytes`` of the weight space are tensor-cache.json, the
    ``files`` that it names lie behind. ``weights``: see `GraphRef`."""

    bytes: int
    files: tuple[GraphFile, ...]
    weights: Weights | None = None


@dataclass(frozen=True, slots=True)
class LevelRef:
    """One precision of an artifact that carries several. ``bytes``: of its weights; ``variants``: their names;
    ``manifest``: the file that describes it alone, None for the best, which the artifact's own manifest describes;
    ``perplexity``: see `Perplexity.value`, where it was measured."""

    name: str
    bytes: int
    variants: tuple[str, ...]
    manifest: FileRef | None = None
    perplexity: float | None = None


@dataclass(frozen=True, slots=True)
class Perplexity:
    """What a level costs, measured when it was compiled: its perplexity (``value``) and that of the model as its source
    holds it, over so many positions of ``text``, in independent windows of ``window`` tokens. Positions are the
    source's: where fewer tokens were left, ``value`` is for as many as the source's tokenizer makes of the text."""

    value: float
    source: float
    positions: int
    window: int
    text: str

    @property
    def cost(self) -> float:
        """How much larger it is than the source's: 0.02 for 2 %."""
        return self.value / self.source - 1


@dataclass(frozen=True, slots=True)
class Pruning:
    """One step by which the model is smaller than its source. ``kind``: "vocabulary" (``tokens`` stay), "layers"
    (``layers`` of the source are left out) or "embedding" (it is in ``format``). ``saved_bytes``: of weights and
    tokenizer, at the best level; ``perplexity``: on ``text`` (its name), after the step, for as many tokens as the text
    had before it, so that the two can be compared where the tokenizer became another one."""

    kind: str
    saved_bytes: int
    perplexity_before: float
    perplexity: float
    text: str | None = None
    tokens: int | None = None
    layers: tuple[int, ...] = ()
    format: str | None = None

    @property
    def sentence(self) -> str:
        """For people."""
        made = f"embedding in {self.format}"
        if self.kind == "vocabulary":
            made = f"vocabulary of {self.tokens} tokens"
        elif self.kind == "layers":
            made = f"without layer{'s' * (len(self.layers) > 1)} {', '.join(map(str, self.layers))}"
        change = 100 * (self.perplexity / self.perplexity_before - 1)
        return (
            f"{made}: {self.saved_bytes / 1e6:.1f} MB less, perplexity {self.perplexity_before:.4f} to "
            f"{self.perplexity:.4f} ({change:+.2f} %)" + (f" on {self.text}" if self.text else "")
        )


@dataclass(frozen=True, slots=True)
class ExamAnswer:
    """What float32 on a CPU says at one place: the likeliest token, its logit's lead over the next one's, and the
    negative logarithm (nats) of the probability of the token that follows."""

    argmax: int
    margin: float
    nll: float


@dataclass(frozen=True, slots=True)
class Exam:
    """What a GPU has to get right before its variant is trusted: ``ids`` are read as they stand, the last ``answers``
    are of the tokens before each of the last ids."""

    ids: tuple[int, ...]
    answers: tuple[ExamAnswer, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """``level``: which precision this describes, and ``levels`` in the artifact's own: all that it carries, the best
    first; empty where there is but one. ``pruning``: what was left out of the source, step by step."""

    id: str
    name: str
    revision: str
    license: License
    source: SourceRef
    architecture: Architecture
    tokenizer: TokenizerRef
    chat_template: str | None
    formats: Mapping[str, Format]
    tensors: tuple[Tensor, ...]
    weights: Weights
    variants: tuple[Variant, ...]
    sampling: SamplingDefaults | None = None
    embedding: EmbeddingRef | None = None
    graph: GraphRef | None = None
    mlc: MlcRef | None = None
    level: str = ""
    levels: tuple[LevelRef, ...] = ()
    perplexity: Perplexity | None = None
    pruning: tuple[Pruning, ...] = ()
    exam: Exam | None = None

    def listed(self, file: FileRef | None = None) -> LevelRef:
        """Itself as an artifact's list of levels has it. ``file``: its own, where it is not the first."""
        measured = None if self.perplexity is None else self.perplexity.value
        return LevelRef(self.level, self.weights.bytes, tuple(v.name for v in self.variants), file, measured)

    @property
    def every_shard(self) -> tuple[tuple[str, Shard], ...]:
        """With the field that names each: the weights', and those apart."""
        spaces = {"weights": self.weights}
        for name, part in (("graph", self.graph), ("mlc", self.mlc)):
            if part and part.weights:
                spaces[f"{name}.weights"] = part.weights
        return tuple(
            (f"{at}.shards[{i}]", shard) for at, space in spaces.items() for i, shard in enumerate(space.shards)
        )

    def weights_of(self, variant: Variant) -> Weights:
        """What an engine of this variant loads: those apart, where there are, for one that replays no plan."""
        part = self.mlc if "library" in variant.files else None if "plan" in variant.files else self.graph
        return part.weights if part and part.weights else self.weights

    @property
    def width(self) -> int:
        """Numbers that the model gives for a row: logits, or an encoder's vector or scores."""
        a = self.architecture
        return (a.labels or a.hidden) if a.encoder else a.vocab

    def tensor(self, name: str) -> Tensor:
        """The tensor called ``name``; `ArtifactInvalid` where there is none."""
        for t in self.tensors:
            if t.name == name:
                return t
        raise ArtifactInvalid(f"the artifact has no tensor {quoted(name)}", field=f"tensors.{brief(name)}")

    def variant(self, name: str) -> Variant:
        """The variant called ``name``; `ArtifactInvalid` where there is none."""
        for v in self.variants:
            if v.name == name:
                return v
        have = ", ".join(v.name for v in self.variants) or "none"
        raise ArtifactInvalid(f"the artifact has no variant {quoted(name)}; it has: {have}", field="variants")


def tensor_bytes(fmt: Format, layout: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor in the weight space.

    rows16 pads the rows to a multiple of 16; the columns must be whole groups (super-blocks). ValueError
    for a combination that the format cannot hold."""
    if layout == "raw":
        if len(shape) != 1 or not fmt.is_float:
            raise ValueError("layout raw holds one dimension of floats")
        return shape[0] * fmt.bits // 8
    if len(shape) != 2:
        raise ValueError("layout rows16 holds two dimensions")
    rows, columns = shape
    blocks = -(-rows // BLOCK_ROWS)
    if columns % fmt.span:
        raise ValueError(f"{columns} columns are not a multiple of {fmt.span}")
    bits = fmt.bits * fmt.span  # of one row in one record
    if fmt.super:
        bits += fmt.span // fmt.group * (fmt.super.scale_bits + fmt.super.min_bits)
        bits += 16 if fmt.super.min is None else 32
    elif not fmt.is_float:
        bits += (8 if fmt.scale == "e8m0" else 16) + (0 if fmt.min is None else 16)
    return blocks * (columns // fmt.span) * (BLOCK_ROWS * bits // 8)
