"""A model whose token embedding has fewer bits. Where the head is the same matrix, it has them too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from inpage.errors import InvalidRequest, Unsupported

from ..artifact.levels import rounded
from ..quantize import FORMATS
from ..sources import Source

FIELD = "embedding"
CHOICES = ("q4_0", "q6_k")
_NAME = "token_embd"


def check_embedding(source: Source, format: str) -> None:
    """Raises `InvalidRequest` for a format that is none of `CHOICES`, or takes more numbers at a time than rows are
    multiples of; `Unsupported` for a model that answers with vectors."""
    if source.architecture.encoder:
        raise Unsupported("the embedding of a model that answers with vectors is not compressed", field=FIELD)
    if format not in CHOICES:
        raise InvalidRequest(f"no format {format!r} of embeddings; there are {', '.join(CHOICES)}", field=FIELD)
    tensor, wanted = source.tensors[_NAME], FORMATS[format]
    if tensor.shape[1] % wanted.span:
        raise InvalidRequest(
            f"{format} takes {wanted.span} numbers at a time, which {tensor.shape[1]} of a row are no multiple of; "
            f"take {CHOICES[0]}",
            field=FIELD,
        )


def check_saving(levels: Mapping[str, Source], format: str) -> None:
    """Raises `InvalidRequest` where `with_embedding` changes none of a model's levels."""
    found = {name: level.tensors[_NAME].format for name, level in levels.items()}
    if all(FORMATS[own].bits <= FORMATS[format].bits for own in found.values()):
        each = ", ".join(f"{own} at level {name}" for name, own in found.items())
        raise InvalidRequest(f"the embedding is in {each} already: {format} saves nothing", field=FIELD)


def with_embedding(level: Source, source: Source, format: str) -> Source:
    """A level of ``source`` with the embedding in ``format``, rounded from the source's; as it is where it has no more
    bits than that, or ``format`` is empty."""
    tensor = source.tensors[_NAME]
    if not format or FORMATS[level.tensors[_NAME].format].bits <= FORMATS[format].bits:
        return level
    return replace(level, tensors={**level.tensors, _NAME: rounded(tensor, format)})
