"""How a model's makers mean it to be sampled: out of generation_config.json or a GGUF file's ``general.sampling``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inpage.errors import SourceInvalid, quoted
from inpage.format import bounded
from inpage.format.schema import SamplingDefaults

from ..gguf.metadata import Metadata

# Our names to theirs, and the range within which a number is taken: that of requests.
_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 2), "top_p": (0, 1), "top_k": (0, 1 << 20), "min_p": (0, 1), "repetition_penalty": (0, 10),
}  # fmt: skip
_GGUF = {
    "temperature": "temp", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p", "repetition_penalty": "penalty_repeat",
}  # fmt: skip
_DRAWN = ("temperature", "top_p", "top_k", "min_p")


def from_generation_config(values: Mapping[str, Any]) -> tuple[SamplingDefaults | None, list[str]]:
    """Beside the defaults what was left out, a line each. Where nothing is drawn (``do_sample`` is false) what it would
    be drawn by means nothing."""
    drawn = values.get("do_sample") is not False
    given = {name: values[name] for name in _RANGES if values.get(name) is not None and (drawn or name not in _DRAWN)}
    return _defaults(given if drawn else given | {"temperature": 0}, "generation_config.json: ")


def from_gguf(meta: Metadata) -> tuple[SamplingDefaults | None, list[str]]:
    keys = {name: f"general.sampling.{key}" for name, key in _GGUF.items()}
    given = {name: meta.get(key) for name, key in keys.items() if meta.get(key) is not None}
    return _defaults(given, "general.sampling.")


def from_recipe(table: Any, where: str) -> SamplingDefaults:
    """Raises `SourceInvalid` naming the key at fault."""
    if not isinstance(table, Mapping):
        raise SourceInvalid(f"{where}: sampling must be a table", field="sampling")
    for key in table:
        if key not in _RANGES:
            known = ", ".join(_RANGES)
            raise SourceInvalid(f"{where}: unknown key {quoted(key)} in sampling; there are {known}", field="sampling")
    made, notes = _defaults(table, f"{where}: sampling.")
    if notes or made is None:
        raise SourceInvalid(notes[0] if notes else f"{where}: sampling says nothing", field="sampling")
    return made


def _defaults(given: Mapping[str, Any], where: str) -> tuple[SamplingDefaults | None, list[str]]:
    """Zeros and -1 say that there is none, so they are left out silently; but a temperature of 0 says that nothing is
    drawn."""
    taken: dict[str, Any] = {}
    notes = []
    if bounded.finite(given.get("temperature")) and given["temperature"] == 0:
        taken["top_k"] = 1
        given = {name: value for name, value in given.items() if name not in _DRAWN}
    for name, value in given.items():
        low, high = _RANGES[name]
        number = bounded.finite(value) and (name != "top_k" or int(value) == value)
        if number and low < value <= high:
            taken[name] = int(value) if name == "top_k" else float(value)
        elif not number or (value not in (0, -1)):
            notes.append(f"{where}{name}: {quoted(value)} is left out: it must be above {low} and at most {high}")
    return (SamplingDefaults(**taken) if taken else None), notes
