"""A model without the tokens that a corpus never needs: rows of the embedding and of the head leave with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from inpage.errors import InpageError, Unsupported
from inpage.text.chat_template import ChatTemplate
from inpage.text.tokenizer import Tokenizer, load_tokenizer

from ..quantize.tensor import SourceTensor
from ..sources import Source
from ..tokenizers.prune import FIELD, prune

_ROWS = ("token_embd", "output")
_PIECE = 1 << 15  # characters of a corpus that are encoded at once
_CONVERSATION = (("system", "You are a helpful assistant."), ("user", "Hello!"), ("assistant", "Hello."), ("user", "?"))


def prune_vocabulary(source: Source, corpus: str) -> Source:
    """Without the tokens that neither ``corpus`` nor the chat template needs. Raises what `prune` does, and
    `Unsupported` for a model that answers with vectors."""
    if source.architecture.encoder:
        raise Unsupported("the vocabulary of a model that answers with vectors is not pruned", field=FIELD)
    tokenizer = loaded(source)
    needed = {token for piece in _pieces(corpus) for token in tokenizer.encode(piece)}
    pruned = prune(source.tokenizer, needed | _of_template(source, tokenizer))
    kept = np.array(pruned.kept)
    tensors = {name: _rows(t, kept) if name in _ROWS else t for name, t in source.tensors.items()}
    architecture = replace(source.architecture, vocab=len(kept))
    return replace(source, tokenizer=pruned.tokenizer, tensors=tensors, architecture=architecture)


def loaded(source: Source) -> Tokenizer:
    """The tokenizer as an artifact would have it. Raises as `load_tokenizer` does."""
    text = json.dumps(source.tokenizer.json, ensure_ascii=False)
    return load_tokenizer(text, source.tokenizer.special, source.architecture.vocab)


def _pieces(corpus: str) -> Iterator[str]:
    """Whole lines, so that words stay whole."""
    lines: list[str] = []
    size = 0
    for line in corpus.splitlines(keepends=True):
        lines.append(line)
        size += len(line)
        if size >= _PIECE:
            yield "".join(lines)
            lines, size = [], 0
    yield "".join(lines)


def _of_template(source: Source, tokenizer: Tokenizer) -> set[int]:
    """What the template writes around any conversation, and what stands in it for others."""
    if not source.chat_template:
        return set()
    needed = set(tokenizer.encode(source.chat_template))
    try:
        eos = source.tokenizer.eos[0] if source.tokenizer.eos else None
        template = ChatTemplate(source.chat_template, tokenizer, bos=source.tokenizer.bos, eos=eos)
        messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in _CONVERSATION]
        return needed | set(template.encode(messages)) | set(template.encode(messages[1:]))
    except InpageError:  # a template that knows no such roles, or that nothing here can render
        return needed


def _rows(tensor: SourceTensor, kept: npt.NDArray[np.intp]) -> SourceTensor:
    rows = kept if tensor.order is None else tensor.order[kept]
    return tensor.rows(rows % tensor.stored_rows)
