"""A free list of KV pages with reference counts. No device code: an index handed out here is the engine's page of that
number.

The pool starts small and grows towards ``limit`` only as pages are wanted, because an engine's page costs
memory from the moment that it is reserved (SmolLM2: 360 KiB for 16 tokens).
"""

from __future__ import annotations

from collections.abc import Iterable


class PagePool:
    """Pages ``0..reserved-1`` exist in the engine; each is free or has owners. Whoever has a page to itself may write
    it; a page with several owners is full, and only read. ``idle``: pages that are kept, and have no other owner."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.reserved = 0
        self._free: list[int] = []
        self._owners: dict[int, int] = {}
        self._kept: set[int] = set()
        self.idle = 0

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def used(self) -> int:
        """Pages that have an owner; a shared one counts once."""
        return len(self._owners)

    @property
    def available(self) -> int:
        """Pages that a caller could get now or by growing."""
        return self.limit - len(self._owners)

    def owners(self, page: int) -> int:
        return self._owners.get(page, 0)

    def grow_to(self, reserved: int) -> None:
        """The engine now has pages ``0..reserved-1``."""
        if reserved > self.limit:
            raise ValueError(f"{reserved} pages are beyond the limit of {self.limit}")
        # Lowest index last: it is popped first, so that small workloads stay at the front of memory.
        self._free[:0] = range(reserved - 1, self.reserved - 1, -1)
        self.reserved = max(reserved, self.reserved)

    def take(self, count: int) -> list[int] | None:
        """``count`` pages, or None (and nothing taken) when fewer are free."""
        if count > len(self._free):
            return None
        pages = [self._free.pop() for _ in range(count)]
        self._owners.update(dict.fromkeys(pages, 1))
        return pages

    def share(self, pages: Iterable[int]) -> None:
        """One owner more for each page. Sharing a free page is a bug in the caller, never ignored."""
        for page in pages:
            if page not in self._owners:
                raise ValueError(f"page {page} is not handed out")
            self.idle -= self._owners[page] == 1 and page in self._kept
            self._owners[page] += 1

    def give(self, pages: Iterable[int]) -> None:
        """One owner less for each page; without any it is free. Giving a free page is a bug, never ignored."""
        for page in pages:
            owners = self._owners.get(page)
            if owners is None:
                raise ValueError(f"page {page} is not handed out")
            if owners > 1:
                self._owners[page] = owners - 1
                self.idle += owners == 2 and page in self._kept
            else:
                del self._owners[page]
                self._free.append(page)

    def keep(self, pages: Iterable[int]) -> None:
        """As `share`, for the owner that keeps pages which may be had back."""
        for page in pages:
            self.share([page])
            self._kept.add(page)

    def give_up(self, pages: Iterable[int]) -> None:
        """As `give`, of that owner."""
        for page in pages:
            self._kept.remove(page)
            self.idle -= self._owners[page] == 1
            self.give([page])
