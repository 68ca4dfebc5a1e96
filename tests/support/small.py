"""A small tokenizer and manifest, for tests of the router that need no weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inpage.backends.selection import choose
from inpage.format.schema import Architecture, License, Manifest, SourceRef, TokenizerRef, Variant, Weights
from inpage.host.capability import Device
from inpage.kv.storage import PageStorage
from inpage.responses import AnswerCache
from inpage.router import Router
from inpage.settings import settings_from
from inpage.text.tokenizer import Tokenizer

from .paged_double import PagedDouble
from .tiny import CONTROL, TEMPLATE, VOCAB, vocabulary


def small_tokenizer_json(**added: Any) -> str:
    """The tiny models' byte-level BPE as a tokenizer.json. ``added``: more fields for every control token."""
    tokens, merges = vocabulary()
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True} | added
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [{"id": i, "content": text} | flags for i, text in enumerate(CONTROL)],
            "normalizer": None,
            "pre_tokenizer": level,
            "post_processor": None,
            "decoder": level,
            "model": {
                "type": "BPE",
                "vocab": {token: i for i, token in enumerate(tokens)},
                "merges": [merge.split(" ") for merge in merges],
            },
        }
    )


def small_manifest(*, add_bos: bool = False, chat_template: str | None = TEMPLATE) -> Manifest:
    """What the router reads of a manifest; it names no weights and one native variant."""
    zeros = "0" * 64
    return Manifest(
        id="small",
        name="Small",
        revision=zeros,
        license=License("Apache-2.0", "NOTICES.txt"),
        source=SourceRef("gguf", "small", "small.gguf", zeros),
        architecture=Architecture("llama", 1, 16, 1, 1, 16, 16, VOCAB, 10000.0, 1e-5, True, 256),
        tokenizer=TokenizerRef("tokenizer.json", 1, zeros, 1, (2,), add_bos, dict(zip(CONTROL, range(3), strict=True))),
        chat_template=chat_template,
        formats={},
        tensors=(),
        weights=Weights(0, ()),
        variants=(Variant("native", "native", (), {}),),
    )


def small_router(
    tokenizer: Tokenizer,
    *,
    manifest: dict[str, Any] | None = None,
    answers: AnswerCache | None = None,
    engine: PagedDouble | None = None,
    pages: PageStorage | None = None,
    settings: Mapping[str, Any] | None = None,
    **sizes: Any,
) -> Router:
    """A router on the strict double: ``engine``, or one of ``sizes``."""
    loaded = small_manifest(**manifest or {})
    choice = choose(loaded.variants, Device("host", frozenset(), cores=2, threads=2))
    chosen = settings_from({"scheduler": {"queue_size": 4}, **(settings or {})})
    engine = engine or PagedDouble(vocab=VOCAB, **sizes)
    engine.info = replace(engine.info, variant="native")
    return Router(loaded, choice, engine, tokenizer, load_ms=12.0, settings=chosen, answers=answers, pages=pages)
