"""One kept answer, what it depends on, and the key it is kept under."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..engines.protocol import Sampling
from ..format import bounded
from ..format.limits import FILE_BYTES
from ..format.schema import Manifest

_FORMAT = 2
_LARGEST_ID = 1 << 31
_REASONS = ("stop", "length")


@dataclass(frozen=True, slots=True)
class Answer:
    """``token_ids`` and ``finish_reason`` as a `Completion` has them. ``tags``: what it depends on, e.g.
    ``model:smollm2`` or a caller's own; ``expires``: Unix time in seconds, None for never."""

    token_ids: tuple[int, ...]
    finish_reason: str
    tags: tuple[str, ...] = ()
    expires: float | None = None

    def pack(self, key: str = "") -> bytes:
        """As stored under ``key``: compressed, self-describing, and with a SHA-256 over the key and the rest."""
        fields = [_FORMAT, self.token_ids, self.finish_reason, self.tags, _digest(key, self), self.expires]
        return zlib.compress(json.dumps(fields, separators=(",", ":")).encode(), 6)

    @staticmethod
    def unpack(data: bytes, key: str = "") -> Answer | None:
        """The inverse; None for what is damaged, was stored under another key, or was left by another version or by
        something else: whatever is read is within the bounds of what an answer can be."""
        try:
            inflate = zlib.decompressobj()
            text = inflate.decompress(data, FILE_BYTES["answer"])
            if not inflate.eof or inflate.unused_data:
                return None
            version, ids, reason, tags, digest, expires = bounded.read(text)
        except (ValueError, TypeError, zlib.error):
            return None
        if version != _FORMAT or reason not in _REASONS or not isinstance(ids, list) or not isinstance(tags, list):
            return None
        if not all(type(i) is int and 0 <= i < _LARGEST_ID for i in ids) or not all(isinstance(t, str) for t in tags):
            return None
        if expires is not None and not (bounded.finite(expires) and expires >= 0):
            return None
        answer = Answer(tuple(ids), reason, tuple(tags), None if expires is None else float(expires))
        return answer if digest == _digest(key, answer) else None


def _digest(key: str, answer: Answer) -> str:
    expires = None if answer.expires is None else float(answer.expires)
    parts = [_FORMAT, key, answer.token_ids, answer.finish_reason, answer.tags, expires]
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def answer_key(
    weights: str, prompt: Sequence[int], sampling: Sampling, max_tokens: int, stop_ids: Sequence[int], **more: Any
) -> str:
    """SHA-256 of everything that changes an answer. ``weights`` identifies the model's numbers; ``more`` are further
    conditions (stop strings, a grammar). Which engine computes it is left out on purpose: an answer made ahead of time
    on one machine serves another. A greedy answer does not depend on the seed and its companions."""
    how: Mapping[str, Any] = asdict(sampling)
    if sampling.temperature == 0:
        unused = ("temperature", "top_k", "top_p", "min_p", "seed")
        how = {name: value for name, value in how.items() if name not in unused}
    if sampling.presence_penalty or sampling.frequency_penalty:
        more["counted"] = "answer"  # answers are kept that earlier versions made, which counted the prompt too
    parts = [_FORMAT, weights, list(prompt), how, max_tokens, sorted(stop_ids), sorted(more.items())]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def weights_digest(manifest: Manifest) -> str:
    """Identifies a model's numbers: where they come from, and the hash of each of their shards."""
    parts = [manifest.id, manifest.revision, *(shard.sha256 for shard in manifest.weights.shards)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
