"""What a message of the page may look like, before any of it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidRequest, quoted

_TEXTS = ("model", "artifact", "backend")
_COUNTS = ("threads", "replicas")
_NEEDED = {"add": "artifact", "load": "artifact", "pin": "model"}  # by operation


def check_message(message: Mapping[str, Any], needed: str | None = None) -> None:
    """What is missing or null is left to the operation, but for what it cannot do without. Raises `InvalidRequest`."""
    needed = needed or _NEEDED.get(message.get("op", ""))
    if needed and message.get(needed) is None:
        raise InvalidRequest(f"{needed} is missing", field=needed)
    for name in _TEXTS:
        value = message.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(f"{name} must be a text, not {quoted(value)}", field=name)
    for name in _COUNTS:
        value = message.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise InvalidRequest(f"{name} must be a whole number of at least 1, not {quoted(value)}", field=name)
    models = message.get("models") or []
    if not isinstance(models, list) or not all(isinstance(each, dict) for each in models):
        raise InvalidRequest("models must be a list of objects, each with an artifact", field="models")
    for each in models:
        check_message({**each, "models": None}, "artifact")
