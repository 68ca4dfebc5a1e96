"""Folders of encoders as transformers and sentence-transformers write them: what config.json and the files for pooling,
prompts and classifiers say, and which of our tensors each of theirs is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inpage.errors import SourceInvalid, brief, quoted
from inpage.format.limits import FILE_BYTES
from inpage.format.schema import Architecture, EmbeddingRef
from inpage.text.tokenizer import ITEMS

from ..checkpoints.config import PREFIX
from ..checkpoints.files import ModelFolder
from ..checkpoints.safetensors import Stored, read_weights
from ..families.encoder import EncoderFamily, Names, Pooled, activation_of
from ..families.family import DENSE, embedder, folded
from ..quantize.tensor import SourceTensor

MODULES, PROMPTS, LIMITS = "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"
_FORMATS = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
_SETTINGS = "config.json"  # of a module
_LISTED = 3
_KINDS = {"weight": "", "bias": ".bias", "gamma": "", "beta": ".bias"}
# A classifier's: BERT's behind its pooler, RoBERTa's own.
_HEADS = (
    {"pooler.dense": "cls", "classifier": "cls.output"},
    {"classifier.dense": "cls", "classifier.out_proj": "cls.output"},
)
# Of pre-training, and of what no vector is made of.
_UNUSED = re.compile(r"embeddings\.position_ids|pooler\.dense\.(weight|bias)|(cls|lm_head)\..*")
_MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}


def encoder_of(
    folder: ModelFolder, family: EncoderFamily, config: Mapping[str, Any], stored: Mapping[str, Stored]
) -> tuple[Any, EmbeddingRef]:
    """What `folder.model_of` gives of a decoder, and what is to be said of texts. Raises `SourceInvalid`."""
    keys = family.config_keys(config)
    named = config.get("architectures")
    classifies = isinstance(named, list) and any("ForSequenceClassification" in str(name) for name in named)
    tensors = family.adapt(keys, _tensors(family, stored, classifies))
    labels = tensors["cls.output"].shape[0] if classifies and "cls.output" in tensors else 0
    pooled = Pooled("cls", False, labels) if labels else _pooled(folder)
    longest, notes = _longest(folder)
    architecture, rope = family.architecture(keys, tensors, pooled, activation_of(keys), longest)
    wrong = list(family.misplaced(architecture, tensors))
    if wrong:
        listed = "; ".join(f"tensor {brief(name)} {what}" for name, what in wrong[:_LISTED])
        more = f"; and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
        raise SourceInvalid(listed + more, field=brief(wrong[0][0]))
    return (architecture, tensors, rope, [*keys.notes, *notes]), _texts(folder, config, family.texts())


_BIDIRECTIONAL = "use_bidirectional_attention"


def said_of_embedder(config: Mapping[str, Any]) -> dict[str, Any]:
    """A decoder's config.json in the words of one that writes: the head is not asked, and need not be there; a window
    lies half before a token and half behind it where it sees those."""
    said = {**config, "tie_word_embeddings": True}
    if config.get(_BIDIRECTIONAL) is True:
        said[_BIDIRECTIONAL] = None
        if type(window := config.get("sliding_window")) is int:
            said["sliding_window"] = window // 2 + 1
    return said


def embedder_of(
    folder: ModelFolder, a: Architecture, tensors: dict[str, SourceTensor], config: Mapping[str, Any]
) -> tuple[Architecture, EmbeddingRef, list[str]]:
    """What ``a``, a decoder's, is by the folder's list of modules, what is to be said of texts, and notes. A matrix
    behind the pooling joins ``tensors``."""
    dense: list[str] = []
    pooled = _pooled(folder, dense)
    if dense:
        tensors[DENSE] = folded([_dense(folder, path) for path in dense])
        if tensors[DENSE].shape != (a.hidden, a.hidden):
            raise SourceInvalid(
                f"{dense[-1]}: vectors of {tensors[DENSE].shape[0]} numbers, not {a.hidden}, are not supported",
                field=MODULES,
            )
    longest, notes = _longest(folder)
    a = replace(a, context=min(a.context, longest or a.context), projected=bool(dense))
    made = embedder(a, config.get(_BIDIRECTIONAL) is not True, pooled.pooling, pooled.normalized)
    return made, _texts(folder, config, EmbeddingRef({})), notes


def _dense(folder: ModelFolder, path: str) -> SourceTensor:
    """The matrix of a module that does nothing else."""
    below, file = folder.below(path), f"{path}/{_SETTINGS}"
    found = below.json(_SETTINGS)
    activation = str(found.get("activation_function") or "").rpartition(".")[2]
    if activation != "Identity" or found.get("bias") is not False:
        raise SourceInvalid(f"{file}: only a Dense without bias, with activation Identity, is supported", field=file)
    stored = read_weights(below)
    matrix = stored.get("linear.weight")
    if matrix is None or len(stored) != 1 or len(matrix.shape) != 2 or matrix.dtype not in _FORMATS:
        raise SourceInvalid(f"{path}: must hold linear.weight alone, a matrix of floats", field=path)
    return SourceTensor(f"{path}.linear", matrix.shape, _FORMATS[matrix.dtype], matrix.data)


def _tensors(family: EncoderFamily, stored: Mapping[str, Stored], classifies: bool) -> dict[str, SourceTensor]:
    out: dict[str, SourceTensor] = {}
    heads = _HEADS[any(name.startswith("classifier.dense") for name in stored)]
    for each in stored.values():
        name = _name(family.names, each.name.removeprefix(family.prefix), heads if classifies else {})
        if name is None:
            continue
        if each.dtype not in _FORMATS:
            raise SourceInvalid(
                f"{brief(each.name)}: type {each.dtype} is not supported; supported are {', '.join(_FORMATS)}",
                field=brief(each.name),
            )
        if len(each.shape) not in (1, 2) or 0 in each.shape:
            raise SourceInvalid(
                f"{brief(each.name)}: shape {list(each.shape)}, expected 1 or 2", field=brief(each.name)
            )
        if name in out:
            raise SourceInvalid(f"tensor {brief(each.name)} stands twice", field=brief(each.name))
        out[name] = SourceTensor(name, each.shape, _FORMATS[each.dtype], each.data)
    return out


def _name(names: Names, theirs: str, heads: Mapping[str, str]) -> str | None:
    """Ours; None for what no vector is made of, and the name itself where it is not known."""
    if theirs in names.top:
        return names.top[theirs]
    part, _, kind = theirs.rpartition(".")
    if part in heads and kind in _KINDS:
        return heads[part] + _KINDS[kind]
    match = re.fullmatch(rf"{re.escape(names.layers)}\.(0|[1-9]\d{{0,4}})\.(.{{1,100}})", part)
    ours = names.block.get(match[2]) if match else None
    if match and ours and kind in _KINDS:
        return f"blk.{match[1]}.{ours}{_KINDS[kind]}"
    return None if _UNUSED.fullmatch(theirs) else f"{theirs} of the file"


def _pooled(folder: ModelFolder, dense: list[str] | None = None) -> Pooled:
    """By sentence-transformers' list of modules; without one the mean, as it does then. ``dense``: gets the paths of
    matrices behind the pooling, where the model may have any."""
    if not folder.has(MODULES):
        return Pooled("mean", False)
    modules = folder.json_list(MODULES)
    pooled: Pooled | None = None
    for i, module in enumerate(modules):
        kind = str(module.get("type", "")).rpartition(".")[2] if isinstance(module, Mapping) else ""
        if i == 0 and kind == "Transformer":
            continue
        if kind == "Pooling" and pooled is None:
            pooled = Pooled(_mode(folder, str(module.get("path", ""))), False)
        elif kind == "Dense" and dense is not None and pooled is not None and not pooled.normalized:
            dense.append(str(module.get("path", "")))
        elif kind == "Normalize" and pooled is not None:
            pooled = Pooled(pooled.pooling, True)
        else:
            known = "Transformer, Pooling, " + ("Normalize" if dense is None else "Dense, Normalize")
            raise SourceInvalid(
                f"{MODULES}: module {i}, {quoted(kind)}, is not supported there; supported, in this order: {known}",
                field=MODULES,
            )
    return pooled or Pooled("mean", False)


def module_files(folder: ModelFolder) -> list[str]:
    """The settings and weights of each module that has some in a folder of its own."""
    modules = folder.json_list(MODULES) if folder.has(MODULES) else []
    paths = {module.get("path") for module in modules if isinstance(module, Mapping)}
    known = [(path, folder.below(path)) for path in paths if isinstance(path, str) and folder.has(path)]
    settings = [f"{path}/{_SETTINGS}" for path, below in known if below.has(_SETTINGS)]
    return settings + [
        f"{path}/{file}" for path, below in known for file in below.names if file.endswith(".safetensors")
    ]


def _longest(folder: ModelFolder) -> tuple[int | None, list[str]]:
    """Tokens of a text at most, as sentence-transformers counts them, and notes."""
    limits = folder.json(LIMITS)
    lower = limits.get("do_lower_case")
    if lower not in (None, False, True):
        raise SourceInvalid(f"{LIMITS}: do_lower_case: {quoted(lower)} is not true or false", field=LIMITS)
    if lower:
        normalizer = folder.json("tokenizer.json", FILE_BYTES["tokenizer"], ITEMS).get("normalizer")
        if not isinstance(normalizer, Mapping) or normalizer.get("lowercase") is not True:
            raise SourceInvalid(
                f"{LIMITS}: do_lower_case is not supported where the tokenizer keeps capital letters: set lowercase in "
                "tokenizer.json's normalizer instead",
                field=LIMITS,
            )
    notes = [
        f"what {LIMITS}'s {quoted(key)} says is not known here and left out"
        for key in limits
        if key not in ("max_seq_length", "do_lower_case")
    ]
    longest = limits.get("max_seq_length")
    if longest is not None and (type(longest) is not int or longest < 1):
        raise SourceInvalid(f"{LIMITS}: max_seq_length: {quoted(longest)} is no number of tokens", field=LIMITS)
    if longest is None:
        said = folder.json("tokenizer_config.json").get("model_max_length")
        longest = said if type(said) is int and said > 0 else None
    return longest, notes


def _mode(folder: ModelFolder, path: str) -> str:
    file = f"{path}/{_SETTINGS}"
    found = folder.below(path).json(_SETTINGS)
    modes = [
        name.removeprefix("pooling_mode_") for name, on in found.items() if name.startswith("pooling_mode_") and on
    ]
    if isinstance(found.get("pooling_mode"), str):
        modes = [found["pooling_mode"]]
    known = {name.removeprefix("pooling_mode_"): mode for name, mode in _MODES.items()} | {
        mode: mode for mode in _MODES.values()
    }
    if len(modes) != 1 or modes[0] not in known:
        raise SourceInvalid(
            f"{file}: pooling by {', '.join(map(quoted, modes)) or 'nothing'} is not supported; by the mean, CLS or "
            "the last token is",
            field=file,
        )
    if found.get("include_prompt") is False:
        raise SourceInvalid(f"{file}: include_prompt false is not supported", field=file)
    return known[modes[0]]


def _texts(folder: ModelFolder, config: Mapping[str, Any], usual: EmbeddingRef) -> EmbeddingRef:
    """``usual``: what the family says where the folder does not."""
    found = folder.json(PROMPTS)
    prompts = found.get("prompts") or {}
    if not isinstance(prompts, Mapping) or not all(isinstance(text, str) for text in prompts.values()):
        raise SourceInvalid(f"{PROMPTS}: prompts must be texts by name", field=PROMPTS)
    default = found.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise SourceInvalid(f"{PROMPTS}: default_prompt_name: {quoted(default)} is not one of prompts", field=PROMPTS)
    own = config.get("sentence_transformers")
    said = (own.get("activation_fn") if isinstance(own, Mapping) else None) or config.get(
        "sbert_ce_default_activation_function"
    )
    name = str(said or "Sigmoid").rpartition(".")[2]
    if name not in ("Sigmoid", "Identity"):
        raise SourceInvalid(
            f"{PREFIX}: scores by {quoted(name)} are not supported; Sigmoid and Identity are", field=PREFIX
        )
    named = {str(name): text for name, text in prompts.items()} or usual.prompts
    return replace(usual, prompts=named, default_prompt=default, scores="sigmoid" if name == "Sigmoid" else "logit")
