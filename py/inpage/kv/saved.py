"""KV pages in storage by what they hold, so that a prompt need not be read again after a reload.

A block's key is a hash over all tokens up to its end and over everything that its bytes depend on: weights, plan and
kernels of the variant, browser and device. What another engine, version or device computed has other keys, so it is
never found. The tree's rules hold here too: only full blocks, each reached through those before it, and of layers with
a window only those that whoever goes on sees; these have keys of their own.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InvalidRequest
from ..format.limits import FILE_BYTES
from ..format.schema import Manifest
from ..host.capability import Device
from ..responses import weights_digest
from .blocks import Blocks, Part, Tables
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


@dataclass(slots=True)
class _Found:
    """What there is of a prompt's blocks: by its ``keys`` in storage, or ``held`` in pages, by block and part."""

    blocks: Blocks
    keys: list[str]
    stored: set[str]
    held: list[list[list[int]]]

    def usable(self) -> int:
        """The most blocks after which a sequence can go on with what is there."""
        count, run = 0, [0] * len(self.blocks.parts)
        for i, (key, pages) in enumerate(zip(self.keys, self.held, strict=True)):
            for p, part in enumerate(self.blocks.parts):
                run[p] = run[p] + 1 if pages[p] or _name(key, part) in self.stored else 0
            if all(n >= i + 1 - part.needed(i + 1) for n, part in zip(run, self.blocks.parts, strict=True)):
                count = i + 1
        return count

    def missing(self) -> tuple[int, Sequence[int]] | None:
        """A part, and which of its blocks to fetch next for what is usable."""
        count = self.usable()
        for p, part in enumerate(self.blocks.parts):
            wanted = [block for block in range(part.needed(count), count) if not self.held[block][p]]
            if wanted:
                return p, _chunks(part, wanted)[0]
        return None


class SavedPages:
    """``engine``: the digest of what computes them. ``kind`` keeps apart what is stored for different ends."""

    def __init__(self, storage: PageStorage, engine: str, kind: str = "page") -> None:
        self.storage = storage
        self._engine, self._kind = engine, kind

    def keys(self, tokens: Sequence[int], block_tokens: int) -> list[str]:
        """One a full block of ``tokens``."""
        digest = bytes.fromhex(self._engine)
        keys = []
        for end in range(block_tokens, len(tokens) + 1, block_tokens):
            digest = hashlib.sha256(digest + _packed(tokens[end - block_tokens : end])).digest()
            keys.append(f"{self._kind}-{digest.hex()}")
        return keys

    async def save(self, kv: KvManager, tokens: Sequence[int]) -> int:
        """Store what the tree has of these tokens, as far as a sequence can go on from it, and remember the tokens;
        gives how many. Raises `InvalidRequest` where the bound is less than they need, `StorageFull`."""
        blocks, bytes_each = kv.blocks, kv.engine.info.page_bytes
        kept = tokens[: kv.prefix.peek(tokens)]
        count, held = len(kept) // blocks.tokens, kv.prefix.hold(kept)
        try:
            pages = sum((count - part.needed(count)) * part.pages for part in blocks.parts)
            if pages * bytes_each > self.storage.bytes:
                raise InvalidRequest(
                    f"{pages} KV pages need {pages * bytes_each} bytes of storage: "
                    f"raise kv.storage_bytes, which is {self.storage.bytes}",
                    field="kv.storage_bytes",
                )
            keys = self.keys(kept, blocks.tokens)
            for p, part in enumerate(blocks.parts):
                for at in _chunks(part, range(part.needed(count), count)):
                    data = await kv.engine.read_pages([page for block in at for page in held[block][p]])
                    names = [_name(keys[block], part) for block in at]
                    await self.storage.put(names, data, part.pages * bytes_each)
            if count:  # last, so that what is listed was there whole
                packed = _packed(kept)
                await self.storage.put([f"{self._listed}{len(kept)}-{keys[-1]}"], packed, len(packed))
            return len(kept)
        finally:
            _give(kv, held)

    async def load(self, kv: KvManager, tokens: Sequence[int]) -> int:
        """Bring what is stored of these tokens into the tree, as far as there is memory; gives how many of them a
        sequence that begins so need not compute now."""
        blocks, tree = kv.blocks, kv.prefix
        keys = self.keys(tokens, blocks.tokens)
        stored = set(await self.storage.names(f"{self._kind}-"))
        held = tree.hold(tokens)
        found = _Found(blocks, keys, stored, held + [[[] for _ in blocks.parts] for _ in keys[len(held) :]])
        try:
            while (missing := found.missing()) is not None:
                await self._fetch(kv, found, *missing)
            count, tables = found.usable(), Tables(blocks)
            for p, part in enumerate(blocks.parts):
                first = part.needed(count)
                tables.drop(p, first)
                tables.extend(p, [page for block in found.held[first:count] for page in block[p]])
            branch = tree.branch()
            kv.pool.share(tables.pages())
            tree.append(branch, tree.keys(tokens, count * blocks.tokens), tables)
            tree.leave(branch)
            kv.pool.give(tables.pages())
            return count * blocks.tokens
        finally:
            _give(kv, found.held)
            tree.trim()

    async def _fetch(self, kv: KvManager, found: _Found, p: int, wanted: Sequence[int]) -> None:
        """These blocks of a part, into pages of their own. What does not come is not stored any more; nothing is, where
        there is no memory for it."""
        part = kv.blocks.parts[p]
        names = [_name(found.keys[block], part) for block in wanted]
        count, data = await self.storage.get(names, part.pages * kv.engine.info.page_bytes)
        found.stored.difference_update(names[count : count + 1])
        fresh = await kv.obtain(count * part.pages) if count else []
        if fresh is None:
            found.stored.clear()
            return
        for i, block in enumerate(wanted[:count]):
            found.held[block][p] = fresh[i * part.pages : (i + 1) * part.pages]
        if count:
            await kv.engine.write_pages(fresh, data)

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


def _name(key: str, part: Part) -> str:
    return key if part.window is None else f"{key}-{part.window}"


def _chunks(part: Part, blocks: Sequence[int]) -> list[Sequence[int]]:
    size = max(1, _CHUNK // part.pages)
    return [blocks[at : at + size] for at in range(0, len(blocks), size)]


def _give(kv: KvManager, held: Sequence[Sequence[list[int]]]) -> None:
    kv.pool.give(page for one in held for pages in one for page in pages)
