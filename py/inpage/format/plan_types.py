"""A checked launch plan as dataclasses. What each field means stands in `inpage.format.plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

# A number, a variable's name, or (operator, a, b).
Extent: TypeAlias = "int | str | tuple[str, Extent, Extent]"


@dataclass(frozen=True, slots=True)
class KvGroup:
    """Layers whose KV lies in the same pages, ``page_tokens`` tokens of all of them each, by one block table a
    sequence. ``window``: a token sees so many, itself included; None for all before it. Pages of all groups are of one
    size in bytes and from one pool, whatever a layer keeps of a token: keys and values, or what a short convolution
    reads of the tokens before."""

    layers: tuple[int, ...]
    page_tokens: int
    window: int | None = None


def page_sizes(page_tokens: int, groups: Sequence[KvGroup]) -> list[int]:
    """Tokens of a page, for each of a sequence's block tables."""
    return [group.page_tokens for group in groups] or [page_tokens]


def sequence_pages(tokens: int, page_tokens: int, groups: Sequence[KvGroup]) -> int:
    """Pages that so many tokens of a sequence take at most, those of all groups together."""
    return sum(-(-tokens // size) for size in page_sizes(page_tokens, groups))


@dataclass(frozen=True, slots=True)
class Maxima:
    """What one step, and the model, can take: the sizes that every buffer is planned for."""

    rows: int
    sequences: int
    logit_rows: int
    context: int


@dataclass(frozen=True, slots=True)
class Buffer:
    """One entry of the address table. ``offset`` lies in the ``arena``, or in the weight space; ``bytes`` of kv is 0:
    it grows by pages of ``page_bytes``. Inputs have a ``dtype`` and a ``shape`` of numbers and variables."""

    name: str
    kind: str
    bytes: int = 0
    offset: int = 0
    tensor: str | None = None
    dtype: str | None = None
    shape: tuple[int | str, ...] = ()
    arena: int = 0
    page_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Kernel:
    """``access`` has a letter a buffer: r reads, w writes, x both (in place). ``requires``: features of a WebGPU
    device, without which it cannot run in another's place."""

    name: str
    buffers: int
    scalars: int
    access: str
    workgroup: tuple[int, ...] = ()
    requires: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Launch:
    """``buffers``: ids, in the kernel's order. ``scalars``: constants, or names of variables. ``grid``: workgroups;
    ``others``: those of each kernel that may run in its place. ``serial``: done by one thread, while the others wait at
    the barrier before it."""

    kernel: int
    buffers: tuple[int, ...]
    scalars: tuple[int | str, ...]
    grid: tuple[Extent, ...] = ()
    others: tuple[tuple[Extent, ...], ...] = ()
    serial: bool = False


@dataclass(frozen=True, slots=True)
class Function:
    """The launches of a step of up to ``max_rows`` rows that does not fit the function before it."""

    name: str
    max_rows: int
    launches: tuple[Launch, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    target: str
    page_tokens: int
    maxima: Maxima
    blocks_per_sequence: int
    arenas: tuple[int, ...]
    vocab: int
    buffers: tuple[Buffer, ...]
    io: Mapping[str, int]
    kernels: tuple[Kernel, ...]
    functions: tuple[Function, ...]
    alternatives: tuple[tuple[int, ...], ...] = ()
    kv_groups: tuple[KvGroup, ...] = ()  # where they are several, or have a window; else all layers are one
    width: int = 0  # columns of the logits: the vocabulary's, or an encoder's outputs

    @property
    def paged(self) -> bool:
        """Whether it has a KV cache. Without, a step computes whole sequences."""
        return any(b.kind == "kv" for b in self.buffers)

    @property
    def arena_bytes(self) -> int:
        return sum(self.arenas)

    @property
    def page_bytes(self) -> int:
        """Bytes of a KV page, all layers together."""
        return sum(b.page_bytes for b in self.buffers)


def extent(value: Extent, variables: Mapping[str, int]) -> int:
    """The number that a grid's extent is for these values of the variables."""
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        return variables[value]
    a, b = extent(value[1], variables), extent(value[2], variables)
    return a * b if value[0] == "*" else a + b if value[0] == "+" else -(-a // b)
