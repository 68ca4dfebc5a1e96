"""The third tier: answers computed ahead of time and shipped with a site, as one read-only JSON file.

{"version": 1, "answers": {key: base64 of a packed answer}}
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping

from ..errors import ArtifactInvalid
from ..format.limits import FILE_BYTES
from ..format.structure import read_json
from .answer import Answer

VERSION = 1
BUNDLE_BYTES = FILE_BYTES["answers"]  # a larger one is refused unread


class Bundle:
    """``text``: the file's content. Raises `ArtifactInvalid` for what is no bundle."""

    name = "bundle"

    def __init__(self, text: str) -> None:
        data = read_json(text, BUNDLE_BYTES, "the answers are", "answers")
        if not isinstance(data, dict) or data.get("version") != VERSION or not isinstance(data.get("answers"), dict):
            raise ArtifactInvalid(f"the answers are no bundle of version {VERSION}: build them again", field="answers")
        self._answers: Mapping[str, object] = data["answers"]

    def __len__(self) -> int:
        return len(self._answers)

    async def get(self, key: str) -> Answer | None:
        packed = self._answers.get(key)
        if not isinstance(packed, str):
            return None
        try:
            return Answer.unpack(base64.b64decode(packed, validate=True), key)
        except (binascii.Error, ValueError):
            return None


def pack_bundle(answers: Iterable[tuple[str, Answer]]) -> str:
    """The file's content; the same answers give the same text."""
    packed = {key: base64.b64encode(answer.pack(key)).decode() for key, answer in answers}
    return json.dumps({"version": VERSION, "answers": packed}, indent=0, sort_keys=True)
