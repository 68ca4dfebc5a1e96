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

    def usable(self, room: int, budget: int, most: int) -> int:
        """The most blocks, of ``most``, after which a sequence can go on with what is there: with what is held, or with
        what there is room to fetch and a ``budget`` to keep, in pages."""
        parts = self.blocks.parts
        count, run, absent = 0, [0] * len(parts), [[0] for _ in parts]  # pages not held, of the blocks up to each
        for i, (key, pages) in enumerate(zip(self.keys[:most], self.held[:most], strict=True)):
            firsts = [part.needed(i + 1) for part in parts]
            for p, part in enumerate(parts):
                run[p] = run[p] + 1 if pages[p] or _name(key, part) in self.stored else 0
                absent[p].append(absent[p][-1] + (0 if pages[p] else part.pages))
            there = all(n >= i + 1 - first for n, first in zip(run, firsts, strict=True))
            fetched = sum(pages[-1] - pages[first] for pages, first in zip(absent, firsts, strict=True))
            if there and (not fetched or (fetched <= room and self.blocks.after(i + 1) <= budget)):
                count = i + 1
        return count

    def missing(self, count: int) -> list[tuple[int, Sequence[int]]]:
        """What to fetch for the first ``count`` blocks: a part and some blocks of it at a time."""
        return [
            (p, chunk)
            for p, part in enumerate(self.blocks.parts)
            for chunk in _chunks(part, [at for at in range(part.needed(count), count) if not self.held[at][p]])
        ]


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
        count, held = len(kept) // blocks.tokens, kv.lend(kept)
        try:
            pages = blocks.after(count)
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
            kv.take_back(_flat(held))

    async def load(self, kv: KvManager, tokens: Sequence[int]) -> int:
        """Bring what is stored of these tokens into the tree, as far as there is memory and the tree may keep it; gives
        how many of them a sequence that begins so need not compute now."""
        blocks, tree = kv.blocks, kv.prefix
        keys = self.keys(tokens, blocks.tokens)
        stored = set(await self.storage.names(f"{self._kind}-"))
        held = kv.lend(tokens)
        found = _Found(blocks, keys, stored, held + [[[] for _ in blocks.parts] for _ in keys[len(held) :]])
        fresh = list[int]()  # pages for what is to be fetched
        try:
            count = await self._fetch(kv, found, fresh)
            tables = Tables(blocks)
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
            kv.take_back([*fresh, *_flat(found.held)])

    async def _fetch(self, kv: KvManager, found: _Found, fresh: list[int]) -> int:
        """What is missing; gives of how many blocks. Where something does not come, or memory that seemed to be there
        is not, it is done for fewer."""
        parts, most = kv.blocks.parts, len(found.keys)
        while True:
            room = kv.pool.available + kv.prefix.idle + len(fresh)
            count = found.usable(room, kv.prefix.budget, most)
            missing = found.missing(count)
            more = sum(len(chunk) * parts[p].pages for p, chunk in missing) - len(fresh)
            taken = await kv.obtain(max(0, more))
            if taken is None:
                most = count - 1
                continue
            fresh += taken
            for p, chunk in missing:
                if not await self._fetch_chunk(kv, found, p, chunk, fresh):
                    break
            else:
                return count

    async def _fetch_chunk(self, kv: KvManager, found: _Found, p: int, wanted: Sequence[int], fresh: list[int]) -> bool:
        """These blocks of a part, into pages of ``fresh``. What does not come is not stored any more: False."""
        part = kv.blocks.parts[p]
        names = [_name(found.keys[block], part) for block in wanted]
        count, data = await self.storage.get(names, part.pages * kv.engine.info.page_bytes)
        found.stored.difference_update(names[count : count + 1])
        pages, fresh[:] = fresh[: count * part.pages], fresh[count * part.pages :]
        for i, block in enumerate(wanted[:count]):
            found.held[block][p] = pages[i * part.pages : (i + 1) * part.pages]
        if count:
            await kv.engine.write_pages(pages, data)
        return count == len(wanted)

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


def _flat(held: Sequence[Sequence[list[int]]]) -> list[int]:
    return [page for one in held for pages in one for page in pages]
