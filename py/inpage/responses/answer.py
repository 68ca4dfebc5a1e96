"""One kept answer, what it depends on, and the key it is kept under."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..engines.protocol import Sampling
from ..limits import FILE_BYTES
from ..schema import Manifest

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """``token_ids`` and ``finish_reason`` as a `Completion` has them. ``tags``: what it depends on, e.g.
    ``model:smollm2`` or a caller's own; ``expires``: Unix time in seconds, None for never."""

    token_ids: tuple[int, ...]
    finish_reason: str
    tags: tuple[str, ...] = ()
    expires: float | None = None

    def pack(self) -> bytes:
        """As stored: compressed, and self-describing."""
        fields = [_FORMAT, self.token_ids, self.finish_reason, self.tags, self.expires]
        return zlib.compress(json.dumps(fields, separators=(",", ":")).encode(), 6)

    @staticmethod
    def unpack(data: bytes) -> Answer | None:
        """The inverse; None for what an older version, or something else, left in the storage."""
        try:
            unpacking = zlib.decompressobj()
            text = unpacking.decompress(data, FILE_BYTES["answer"])
            if not unpacking.eof:  # cut off, or one that unpacks to more than any answer has
                return None
            version, ids, reason, tags, expires = json.loads(text)
            if version != _FORMAT or not isinstance(reason, str):
                return None
            when = None if expires is None else float(expires)
            return Answer(tuple(int(i) for i in ids), reason, tuple(str(tag) for tag in tags), when)
        except (ValueError, TypeError, zlib.error):
            return None


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
    parts = [_FORMAT, weights, list(prompt), how, max_tokens, sorted(stop_ids), sorted(more.items())]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def weights_digest(manifest: Manifest) -> str:
    """Identifies a model's numbers: where they come from, and the hash of each of their shards."""
    parts = [manifest.id, manifest.revision, *(shard.sha256 for shard in manifest.weights.shards)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
