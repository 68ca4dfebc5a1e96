"""KV pages in storage by what they hold, so that a prompt need not be read again after a reload.

A page's key is a hash over all tokens up to its end and over everything that its bytes depend on: weights, plan and
kernels of the variant, browser and device. What another engine, version or device computed has other keys, so it is
never found. The tree's rule holds here too: only full pages, each reached through those before it.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

from ..errors import InvalidRequest
from ..format.limits import FILE_BYTES
from ..format.schema import Manifest
from ..host.capability import Device
from ..responses import weights_digest
from .manager import KvManager
from .storage import PageStorage

_FORMAT = 1
_LONGEST = 8  # digits of a prompt's length
_CHUNK = 32  # pages that cross at once: some megabytes, so that decoding goes on in between


def pages_digest(manifest: Manifest, variant: str, device: Device) -> str:
    """Identifies whatever changes the bytes of a KV page, besides its tokens."""
    files = manifest.variant(variant).files
    parts = [str(_FORMAT), weights_digest(manifest), variant, device.fingerprint]
    parts += [f"{role} {files[role].sha256}" for role in sorted(files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class SavedPages:
    """``engine``: the digest of what computes them. ``kind`` keeps apart what is stored for different ends."""

    def __init__(self, storage: PageStorage, engine: str, kind: str = "page") -> None:
        self.storage = storage
        self._engine, self._kind = engine, kind

    def keys(self, tokens: Sequence[int], page_tokens: int) -> list[str]:
        """One a full page of ``tokens``."""
        digest = bytes.fromhex(self._engine)
        keys = []
        for end in range(page_tokens, len(tokens) + 1, page_tokens):
            digest = hashlib.sha256(digest + _packed(tokens[end - page_tokens : end])).digest()
            keys.append(f"{self._kind}-{digest.hex()}")
        return keys

    async def save(self, kv: KvManager, tokens: Sequence[int]) -> int:
        """Store the pages that the tree has of these tokens, and remember the tokens; gives how many. Raises
        `InvalidRequest` where the bound is less than they need, `StorageFull`."""
        size, bytes_each = kv.page_tokens, kv.engine.info.page_bytes
        pages = kv.prefix.take(tokens, len(tokens))
        try:
            if len(pages) * bytes_each > self.storage.bytes:
                raise InvalidRequest(
                    f"{len(pages)} KV pages need {len(pages) * bytes_each} bytes of storage: "
                    f"raise kv.storage_bytes, which is {self.storage.bytes}",
                    field="kv.storage_bytes",
                )
            kept = tokens[: len(pages) * size]
            keys = self.keys(kept, size)
            for at in range(0, len(pages), _CHUNK):
                data = await kv.engine.read_pages(pages[at : at + _CHUNK])
                await self.storage.put(keys[at : at + _CHUNK], data, bytes_each)
            if pages:  # last, so that what is listed was there whole
                packed = _packed(kept)
                await self.storage.put([f"{self._listed}{len(kept)}-{keys[-1]}"], packed, len(packed))
            return len(kept)
        finally:
            kv.pool.give(pages)

    async def load(self, kv: KvManager, tokens: Sequence[int]) -> int:
        """Bring what is stored of these tokens into the tree, as far as there is memory; gives how many of them the
        tree has now."""
        size, bytes_each = kv.page_tokens, kv.engine.info.page_bytes
        keys = self.keys(tokens, size)
        branch, tree = kv.prefix.branch(), kv.prefix
        pages = tree.descend(branch, tree.keys(tokens, len(tokens)))
        try:
            while wanted := keys[len(pages) : len(pages) + _CHUNK]:
                count, data = await self.storage.get(wanted, bytes_each)
                fresh = await kv.obtain(count) if count else None
                if not fresh:
                    break
                pages += fresh
                await kv.engine.write_pages(fresh, data)
                tree.append(branch, tree.keys(tokens[branch.depth * size : len(pages) * size], len(tokens)), pages)
                if count < len(wanted):
                    break
            return len(pages) * size
        finally:
            tree.leave(branch)
            kv.pool.give(pages)
            tree.trim()

    async def listed(self) -> list[list[int]]:
        """The prompts that `save` stored on this engine, the most recently used first."""
        found = []
        for name in await self.storage.names(self._listed):
            length = name.removeprefix(self._listed).partition("-")[0]
            known = length.isascii() and length.isdecimal() and len(length) < _LONGEST
            if not known or 4 * int(length) > FILE_BYTES["prefix"]:
                continue  # not written here
            count, data = await self.storage.get([name], 4 * int(length))
            if count:
                found.append(array("i", bytes(data if isinstance(data, bytes) else data.to_bytes())).tolist())
        return found

    @property
    def _listed(self) -> str:
        return f"list-{self._kind}-{self._engine[:16]}-"


def _packed(tokens: Sequence[int]) -> bytes:
    return array("i", tokens).tobytes()
