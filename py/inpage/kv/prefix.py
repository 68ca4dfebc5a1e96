"""The prefix tree: full KV pages by the tokens that they and all pages before them hold.

A page's content depends only on those tokens (engines are deterministic, bit for bit), so a sequence that begins with
the same tokens can read the page instead of computing it. The tree is an owner of its pages like any sequence: a
sequence that ends leaves them to the tree, and the tree drops the least recently used ones that nobody else owns.
Only full pages are kept: no sequence will ever write them again, so sharing needs no copies.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from .pages import PagePool


class _Node:
    __slots__ = ("children", "key", "page", "parent")

    def __init__(self, parent: _Node | None, key: tuple[int, ...], page: int) -> None:
        self.parent = parent
        self.key = key  # the tokens of this page
        self.page = page
        self.children: dict[tuple[int, ...], _Node] = {}


class PrefixTree:
    """``page_tokens``: tokens in a page. ``budget``: pages that the tree may keep alive on its own; pages that a
    sequence reads as well cost nothing and do not count."""

    def __init__(self, pool: PagePool, page_tokens: int, budget: int) -> None:
        self.pool = pool
        self.page_tokens = page_tokens
        self.budget = budget
        self._root = _Node(None, (), -1)
        # Least recently used first. A node is touched before its parent, so no parent is older than its children.
        self._recent: OrderedDict[_Node, None] = OrderedDict()

    def __len__(self) -> int:
        """Pages in the tree."""
        return len(self._recent)

    @property
    def idle(self) -> int:
        """Pages that only the tree owns: memory that can be had back."""
        return sum(self.pool.owners(node.page) == 1 for node in self._recent)

    def take(self, tokens: Sequence[int], most: int) -> list[int]:
        """The longest kept run of pages that ``tokens`` begin with, at most ``most`` tokens of them. The caller owns
        the pages too from now on, and gives them back to the pool like its own."""
        path = self._match(tokens, most)
        self._touch(path)
        pages = [node.page for node in path]
        self.pool.share(pages)
        return pages

    def peek(self, tokens: Sequence[int]) -> int:
        """How many of ``tokens`` stand in kept pages."""
        return len(self._match(tokens, len(tokens))) * self.page_tokens

    def put(self, tokens: Sequence[int], pages: list[int]) -> None:
        """Keep the full pages of a sequence: ``pages[i]`` holds the i-th ``page_tokens`` of ``tokens``.

        Where the tree has a page with the same content already, ``pages`` is changed to name that one and the
        sequence's own is given back: two callers who computed the same prefix at once end up sharing it."""
        node, path = self._root, list[_Node]()
        for i, key in enumerate(self._keys(tokens, len(tokens))):
            child = node.children.get(key)
            if child is None:
                child = node.children[key] = _Node(node, key, pages[i])
                self.pool.share(pages[i : i + 1])
            elif child.page != pages[i]:
                self.pool.share([child.page])
                self.pool.give(pages[i : i + 1])
                pages[i] = child.page
            path.append(child)
            node = child
        self._touch(path)

    def trim(self) -> None:
        """Drop what the budget has no room for. Call it when sequences end."""
        excess = self.idle - self.budget
        if excess > 0:
            self.evict(excess)

    def evict(self, count: int) -> int:
        """Give up to ``count`` least recently used idle pages back to the pool; returns how many were."""
        gone = 0
        for node in list(self._recent):
            if gone == count:
                break
            # A page with readers stays, and with it every page before it: those have at least the same readers.
            if not node.children and self.pool.owners(node.page) == 1:
                self._remove(node)
                gone += 1
        return gone

    def clear(self) -> None:
        """Forget everything, e.g. because the engine and its pages are gone."""
        for node in self._recent:
            self.pool.give([node.page])
        self._recent.clear()
        self._root.children.clear()

    def _match(self, tokens: Sequence[int], most: int) -> list[_Node]:
        node, path = self._root, list[_Node]()
        for key in self._keys(tokens, min(most, len(tokens))):
            child = node.children.get(key)
            if child is None:
                break
            path.append(child)
            node = child
        return path

    def _keys(self, tokens: Sequence[int], most: int) -> Iterator[tuple[int, ...]]:
        size = self.page_tokens
        for start in range(0, most - size + 1, size):
            yield tuple(tokens[start : start + size])

    def _touch(self, path: list[_Node]) -> None:
        for node in reversed(path):
            self._recent[node] = None
            self._recent.move_to_end(node)

    def _remove(self, node: _Node) -> None:
        assert node.parent is not None
        del node.parent.children[node.key]
        del self._recent[node]
        self.pool.give([node.page])
