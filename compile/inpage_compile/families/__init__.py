"""Model families, a file each: `Family` says which tensors there are and how they become the artifact's. `graph` is the
decoder that they share, in `tvm.relax.frontend.nn`.

Imports `ops` and below; sources and tokenizers read `family`, so what they need does not import TVM."""

from __future__ import annotations

import importlib
import pkgutil

from inpage.errors import SourceInvalid

from .encoder import EncoderFamily
from .family import Family
from .others import OTHERS

_SHARED = (
    "blocks",
    "checkpoint",
    "embedder_graph",
    "encoder",
    "encoder_graph",
    "family",
    "graph",
    "keys",
    "layers",
    "others",
    "rope",
)


def _families() -> dict[str, Family]:
    names = sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name not in _SHARED)
    found = [importlib.import_module(f"{__name__}.{name}").FAMILY for name in names]
    return {family.name: family for family in found}


FAMILIES = _families()


def family_of(name: str, field: str) -> Family:
    """Raises `SourceInvalid` naming ``field`` for an unknown family."""
    if name not in FAMILIES:
        if name in OTHERS:
            what, instead = OTHERS[name]
            raise SourceInvalid(f"architecture {name!r}: {what} is not supported; {instead} run", field=field)
        known = ", ".join(FAMILIES)
        raise SourceInvalid(f"architecture {name[:80]!r} is not supported; supported: {known}", field=field)
    return FAMILIES[name]


def family_of_checkpoint(model_type: str, field: str) -> Family:
    """By what config.json calls it. Raises `SourceInvalid` naming ``field`` for an unknown one."""
    types = {kind: family for family in FAMILIES.values() for kind in _types(family)}
    if model_type not in types:
        known = ", ".join(types)
        raise SourceInvalid(f"{field}: {model_type[:80]!r} is not supported; supported: {known}", field=field)
    return types[model_type]


def _types(family: Family) -> tuple[str, ...]:
    if isinstance(family, EncoderFamily):
        return family.types
    return family.checkpoint.types if family.checkpoint else ()


__all__ = ["FAMILIES", "EncoderFamily", "Family", "family_of", "family_of_checkpoint"]
