"""What every source of a model yields: its architecture, tensors, tokenizer, template and licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from inpage.errors import InvalidRequest
from inpage.format.schema import Architecture, EmbeddingRef, SamplingDefaults, SourceRef

from ..families.rope import Rope
from ..quantize.tensor import SourceTensor
from ..tokenizers.tokenizer import Tokenizer

TEXT = 2048  # tokens of a text that an encoder takes, unless --context says otherwise


@dataclass(frozen=True, slots=True)
class LicenseInfo:
    """``id``: an SPDX id, or None where the source names none. ``text``: the licence file that came along, if any;
    ``notice``: who made the model and what must be said about it."""

    id: str | None
    text: str | None = None
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """An opened model. ``rope``: its rotary positions. ``sampling``: how its makers mean it to be sampled.
    ``embedding``: what one says of texts that answers with vectors or scores. ``warnings``: what the file says and
    nothing here follows, a line each."""

    id: str
    name: str
    origin: SourceRef
    architecture: Architecture
    tensors: Mapping[str, SourceTensor] = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    chat_template: str | None = field(repr=False)
    license: LicenseInfo = field(repr=False)
    rope: Rope = field(repr=False)
    sampling: SamplingDefaults | None = None
    embedding: EmbeddingRef | None = None
    warnings: tuple[str, ...] = ()

    @property
    def tokenizer_json(self) -> dict[str, Any]:
        return self.tokenizer.json


def limit_context(model: Source, context: int | None) -> Source:
    """With at most so many tokens of ``context``. Without, a language model has its own, whose pages come as they are
    needed. A step of an encoder has room for its longest text, which then has `TEXT` tokens at most. Raises
    `InvalidRequest`."""
    most = model.architecture.context
    if context is None:
        if not model.architecture.encoder or most <= TEXT:
            return model
        note = f"{model.name}: texts of up to {TEXT} tokens are taken; --context allows as many as {most}, for memory"
        context, model = TEXT, replace(model, warnings=(*model.warnings, note))
    if not 1 <= context <= most:
        raise InvalidRequest(f"context {context} is not within 1 to the model's {most}", field="context")
    return replace(model, architecture=replace(model.architecture, context=context))
