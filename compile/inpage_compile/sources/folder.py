"""Folders as Hugging Face's tools write them: safetensors, config.json, tokenizer.json and what lies beside them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from inpage.errors import SourceInvalid, brief, quoted
from inpage.format.limits import FILE_BYTES
from inpage.format.schema import ARCHITECTURE_LIMITS, Architecture, EmbeddingRef, SamplingDefaults, SourceRef
from inpage.format.structure import one_line
from inpage.text.tokenizer import ITEMS

from ..checkpoints.files import ModelFolder
from ..checkpoints.safetensors import INDEX, Stored, read_weights, weight_files
from ..families import EncoderFamily, Family, family_of_checkpoint
from ..families.checkpoint import HEAD, Checkpoint
from ..families.family import expected_tensors
from ..families.rope import Rope
from ..quantize.tensor import SourceTensor, dequantize
from ..tokenizers.checkpoint import TokenizerFiles, chat_template, read_tokenizer
from ..tokenizers.tokenizer import Tokenizer
from .base import LicenseInfo, Source
from .encoder_folder import LIMITS, MODULES, PROMPTS, embedder_of, encoder_of, module_files, said_of_embedder
from .model_card import license_of
from .problems import Problems
from .sampling import from_generation_config

CONFIG = "config.json"
_FORMATS = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
_TEMPLATE, _TEMPLATE_BYTES = "chat_template.jinja", 1 << 20
_LISTED = 3  # of tensors in one error


def open_folder(
    path: Path, *, sha256: str | None = None, licensed: Callable[[LicenseInfo], object] = lambda _: None
) -> Source:
    """Open a model's folder. Parameters and errors as `open_gguf`'s; ``sha256``: see `ModelFolder.sha256`."""
    folder, problems = ModelFolder(path), Problems("this folder")
    config = problems.of(lambda: _config(folder))
    stored = problems.of(lambda: read_weights(folder))
    family = (
        None if config is None else problems.of(lambda: family_of_checkpoint(_type(config), f"{CONFIG}.model_type"))
    )
    beside = read_beside(folder, problems)
    model, embedding = None, None
    if isinstance(family, EncoderFamily) and config is not None and stored is not None:
        found = problems.of(lambda: encoder_of(folder, family, config, stored))
        model, embedding = found or (None, None)
    elif config is not None and stored is not None and family is not None:
        embeds = folder.has(MODULES)
        said = said_of_embedder(config) if embeds else config
        model = problems.of(lambda: model_of(family, said, tensors_of(_checkpoint(family), stored), CONFIG))
        if embeds and model is not None:
            decoder = model
            found = problems.of(lambda: _embedder(folder, decoder, config))
            model, embedding = found or (None, None)
    rows = model[0].vocab if model else _rows(stored or {})
    embeds = embedding is not None
    tokenizer = problems.of(lambda: tokenizer_of(folder, config or {}, beside, rows, embeds)) if rows else None
    template, terms = template_and_terms(folder, beside, problems, licensed)
    assert model is not None and config is not None and tokenizer is not None
    sampling, more = from_generation_config(beside["generation_config.json"])
    return source_of(
        path, folder, SourceRef("safetensors", "", "model.safetensors", folder.sha256(_deciding(folder, embedding))),
        sha256, model, tokenizer, template, terms, sampling, more, embedding,
    )  # fmt: skip


def _embedder(folder: ModelFolder, model: Opened, config: Mapping[str, Any]) -> tuple[Opened, EmbeddingRef]:
    a, tensors, rope, notes = model
    architecture, embedding, more = embedder_of(folder, a, tensors, config)
    return (architecture, tensors, rope, [*notes, *more]), embedding


def read_beside(folder: ModelFolder, problems: Problems) -> dict[str, dict[str, Any]]:
    """The files in `BESIDE`; nothing in place of one that is not there or is damaged."""
    return {name: problems.of(lambda name=name: folder.json(name)) or {} for name in BESIDE}  # type: ignore[misc]


def template_and_terms(
    folder: ModelFolder, beside: Mapping[str, Any], problems: Problems, licensed: Callable[[LicenseInfo], object]
) -> tuple[tuple[str | None, list[str]], LicenseInfo]:
    """What is read last of a folder of any layout, as `template_of` gives it, and the licence. Raises `SourceInvalid`
    where there are ``problems``, with a refused licence among them."""
    template = problems.of(lambda: template_of(folder, beside["tokenizer_config.json"]))
    terms = license_of(folder)
    if problems.found:
        problems.of(lambda: licensed(terms))
    problems.check()
    assert template is not None
    return template, terms


def source_of(
    path: Path, folder: ModelFolder, origin: SourceRef, sha256: str | None, model: Opened,
    tokenizer: tuple[Tokenizer, list[str]], template: tuple[str | None, list[str]], terms: LicenseInfo,
    sampling: SamplingDefaults | None, more: list[str], embedding: EmbeddingRef | None = None,
) -> Source:  # fmt: skip
    """A folder of any layout, read, under the folder's name. ``sha256``: what ``origin``'s must be; ``more``: notes
    beside those of the parts."""
    if sha256 is not None and origin.sha256 != sha256.lower():
        raise SourceInvalid(f"{path.name} has sha256 {origin.sha256}, expected {sha256}", field="sha256")
    architecture, tensors, rope, notes = model
    name = one_line(folder.path.name) or "model"
    return Source(
        id=re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("._-") or "model",
        name=name,
        origin=replace(origin, ref=name),
        architecture=architecture,
        tensors=tensors,
        tokenizer=tokenizer[0],
        chat_template=template[0],
        license=terms,
        rope=rope,
        sampling=sampling,
        embedding=embedding,
        warnings=tuple(f"{name}: {note}" for note in (*notes, *tokenizer[1], *template[1], *more)),
    )


def is_model_folder(path: Path) -> bool:
    return path.is_dir() and (path / CONFIG).exists()


def _config(folder: ModelFolder) -> dict[str, Any]:
    folder.file(CONFIG)
    return folder.json(CONFIG)


def _type(config: Mapping[str, Any]) -> str:
    found = config.get("model_type")
    if not isinstance(found, str):
        raise SourceInvalid(f"{CONFIG}.model_type: must be a text, is {quoted(found)}", field=f"{CONFIG}.model_type")
    return found


def _deciding(folder: ModelFolder, embedding: EmbeddingRef | None) -> list[str]:
    """The files that decide what the model answers. ``embedding``: of an encoder."""
    names = [CONFIG, "tokenizer.json", *BESIDE, _TEMPLATE, INDEX, MODULES, PROMPTS, LIMITS]
    modules = [] if embedding is None else module_files(folder)
    return [*(name for name in names if folder.has(name)), *modules, *weight_files(folder)]


def _rows(stored: Mapping[str, Stored]) -> int:
    """Of the token embedding."""
    named = (each for each in stored.values() if each.name.endswith(("embed_tokens.weight", "word_embeddings.weight")))
    embedding = next(named, None)
    return embedding.shape[0] if embedding and embedding.shape else 0


Opened = tuple[Architecture, dict[str, SourceTensor], Rope, list[str]]


def without_tensors(architecture: Architecture) -> Opened:
    """Of a model that is carried as it is: positions are its graph's own business."""
    return architecture, {}, Rope(np.ones(0)), []


def model_of(
    family: Family, config: Mapping[str, Any], tensors: dict[str, SourceTensor], where: str,
    norm_offset: float | None = None,
) -> Opened:  # fmt: skip
    """Architecture, the artifact's tensors, rotary positions and notes, by a config.json's keys and
    ``tensors`` by our names. ``where``: the file that has those keys; ``norm_offset``: what norms' weights lack, where
    it is not what the family's checkpoints leave out."""
    checkpoint = _checkpoint(family)
    keys = checkpoint.keys(config)
    tied = config.get("tie_word_embeddings")
    tied = checkpoint.tied or "output" not in tensors if tied is None else tied
    if not isinstance(tied, bool):
        key = f"{CONFIG}.tie_word_embeddings"
        raise SourceInvalid(f"{key}: must be true or false, is {quoted(tied)}", field=key)
    if tied:
        tensors.pop("output", None)  # a copy of the embedding, which is taken in its place
    elif "output" not in tensors:
        raise SourceInvalid(f"tensor {HEAD} is missing, and {where} ties no embeddings", field=HEAD)
    tensors = family.adapt(keys, tensors)
    if "token_embd" not in tensors:
        raise SourceInvalid("tensor model.embed_tokens.weight is missing", field="model.embed_tokens.weight")
    head_dim = keys.size("head_dim", max(keys.size("hidden") // keys.size("heads"), 1))
    factors = keys.rope_factors(head_dim, keys.number("rope_theta", 10000.0))
    architecture, rope = family.read(keys, tensors, factors)
    _check(checkpoint, architecture, tensors)
    keys.check_plain(architecture.layers, architecture.plain_layers)
    offset = checkpoint.norm_offset if norm_offset is None else norm_offset
    if offset:
        tensors |= {n: _added(t, offset) for n, t in tensors.items() if n.endswith("norm")}
    if not family.half_rotation:  # such a family's rows lie in GGUF files as kernels want them
        turned = np.arange(rope.turning).reshape(2, -1).T.reshape(-1)
        order = np.concatenate([turned, np.arange(rope.turning, head_dim)])
        for name, tensor in tensors.items():
            if name.endswith((".attn_q", ".attn_k")):
                starts = np.arange(0, tensor.shape[0], head_dim)
                tensors[name] = replace(tensor, order=(starts[:, None] + order).reshape(-1))
    notes = [f"what {where}'s {quoted(key)} says is not known here and left out" for key in keys.unread()]
    return architecture, tensors, rope, [*keys.notes, *notes]


def _checkpoint(family: Family) -> Checkpoint:
    assert family.checkpoint is not None  # it was found by it
    return family.checkpoint


def tensors_of(checkpoint: Checkpoint, stored: Mapping[str, Stored]) -> dict[str, SourceTensor]:
    """By our names, as views of the files."""
    out: dict[str, SourceTensor] = {}
    refused: dict[str, list[str]] = {}
    for each in stored.values():
        name = checkpoint.name_of(each.name)
        if name is None:
            continue
        if name in out:
            raise SourceInvalid(f"tensor {brief(each.name)} stands twice", field=brief(each.name))
        if each.dtype not in _FORMATS:
            refused.setdefault(each.dtype, []).append(each.name)
            continue
        # A convolution that keeps channels apart has one in the middle.
        shape = (each.shape[0], each.shape[2]) if len(each.shape) == 3 and each.shape[1] == 1 else each.shape
        if len(shape) not in (1, 2) or 0 in shape:
            raise SourceInvalid(
                f"{brief(each.name)}: shape {list(each.shape)}, expected 1 or 2", field=brief(each.name)
            )
        out[name] = SourceTensor(name, shape, _FORMATS[each.dtype], each.data)
    if refused:
        kind, names = next(iter(refused.items()))
        counts = ", ".join(f"{len(found)} of {kind}" for kind, found in refused.items())
        raise SourceInvalid(
            f"{brief(names[0])}: type {kind} is not supported; supported are {', '.join(_FORMATS)} (in all {counts})",
            field=brief(names[0]),
        )
    return out


def _check(checkpoint: Checkpoint, a: Architecture, tensors: Mapping[str, SourceTensor]) -> None:
    """As `check_tensors`, by the names in the file, and with all that is wrong."""
    expected, named = expected_tensors(a), checkpoint.file_names()
    wrong: list[tuple[str, str]] = []

    def written(name: str) -> str:
        blk, layer, rest = (*name.split(".", 2), "", "")[:3]
        return f"model.layers.{layer}.{named.get(rest, rest)}" if blk == "blk" else named.get(name, name)

    for name, shape in expected.items():
        if name not in tensors:
            wrong.append((written(name), "is missing"))
        elif tensors[name].shape != shape:
            wrong.append((written(name), f"has shape {list(tensors[name].shape)}, expected {list(shape)}"))
    wrong += [(name, f"has no place in a {a.family} model") for name in tensors if name not in expected]
    if wrong:
        listed = "; ".join(f"tensor {brief(name)} {what}" for name, what in wrong[:_LISTED])
        more = f"; and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
        raise SourceInvalid(listed + more, field=brief(wrong[0][0]))


def _added(tensor: SourceTensor, offset: float) -> SourceTensor:
    values = dequantize(tensor) + np.float32(offset)
    assert values.size <= ARCHITECTURE_LIMITS["hidden"]  # its shape was checked
    return replace(tensor, format="f32", data=values.view(np.uint8))


def tokenizer_of(
    folder: ModelFolder, config: Mapping[str, Any], beside: Mapping[str, Any], rows: int, embeds: bool = False
) -> Any:
    """``embeds``: of a model that answers with vectors."""
    if not folder.has("tokenizer.json"):
        raise SourceInvalid(
            "tokenizer.json is missing; transformers makes it: AutoTokenizer.from_pretrained(FOLDER).save_pretrained("
            "FOLDER)",
            field="tokenizer.json",
        )
    found = folder.json("tokenizer.json", FILE_BYTES["tokenizer"], ITEMS)
    files = TokenizerFiles(
        found,
        beside["tokenizer_config.json"],
        beside["special_tokens_map.json"],
        config,
        beside["generation_config.json"],
    )
    return read_tokenizer(files, rows, embeds)


def template_of(folder: ModelFolder, tokenizer_config: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    text = folder.text(_TEMPLATE, _TEMPLATE_BYTES) if folder.has(_TEMPLATE) else None
    more = ["others"] if folder.has("additional_chat_templates") else []
    return chat_template(tokenizer_config, text, more)
