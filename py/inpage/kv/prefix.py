"""The prefix tree: full KV pages by the tokens that they and all pages before them hold.

A page's content depends only on those tokens (engines are deterministic, bit for bit), so a sequence that begins with
the same tokens can read the page instead of computing it. The tree is an owner of its pages like any sequence: a
sequence that ends leaves them to the tree, and the tree drops the least recently used ones that nobody else owns.
Only full pages are kept: no sequence will ever write them again, so sharing needs no copies.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from .pages import PagePool

Key: TypeAlias = tuple[int, ...]  # the tokens of a page


class _Node:
    __slots__ = ("children", "depth", "key", "page", "parent")

    def __init__(self, parent: _Node | None, key: Key, page: int) -> None:
        self.parent = parent
        self.depth: int = 0 if parent is None else parent.depth + 1  # pages up to here, this one included
        self.key = key
        self.page = page
        self.children: dict[Key, _Node] = {}


class Branch:
    """Where a sequence's pages end in the tree, so that each chunk of its prompt goes on there instead of at the root.
    Its nodes stay in the tree while the sequence owns their pages; before it gives them up, it must `leave`."""

    __slots__ = ("node",)

    def __init__(self, root: _Node) -> None:
        self.node = root

    @property
    def depth(self) -> int:
        """Pages of the sequence that are in the tree."""
        return self.node.depth


class PrefixTree:
    """``page_tokens``: tokens in a page. ``budget``: pages that the tree may keep alive on its own; pages that a
    sequence reads as well cost nothing and do not count."""

    def __init__(self, pool: PagePool, page_tokens: int, budget: int) -> None:
        self.pool = pool
        self.page_tokens = page_tokens
        self.budget = budget
        self.visited = 0  # nodes walked over so far: what the tree costs
        self._root = _Node(None, (), -1)
        # Least recently used first. Giving pages up touches the whole path, a node before its parent, so among
        # idle pages no parent is older than its children.
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
        branch = self.branch()
        pages = self.descend(branch, self.keys(tokens, most))
        self.leave(branch)
        return pages

    def peek(self, tokens: Sequence[int]) -> int:
        """How many of ``tokens`` stand in kept pages."""
        branch = self.branch()
        self._walk(branch, self.keys(tokens, len(tokens)))
        return branch.depth * self.page_tokens

    def put(self, tokens: Sequence[int], pages: list[int]) -> None:
        """Keep the full pages of a sequence: ``pages[i]`` holds the i-th ``page_tokens`` of ``tokens``; see
        `append`."""
        branch = self.branch()
        self.append(branch, self.keys(tokens, len(tokens)), pages)
        self.leave(branch)

    def keys(self, tokens: Sequence[int], most: int) -> Iterator[Key]:
        """Of the full pages of the first ``most`` tokens."""
        size = self.page_tokens
        for start in range(0, min(most, len(tokens)) - size + 1, size):
            yield tuple(tokens[start : start + size])

    def branch(self) -> Branch:
        """At the root: of a sequence that has nothing in the tree yet."""
        return Branch(self._root)

    def descend(self, branch: Branch, keys: Iterable[Key]) -> list[int]:
        """Move the branch along the kept pages with these keys, which the caller owns too from now on."""
        pages = self._walk(branch, keys)
        self.pool.share(pages)
        return pages

    def append(self, branch: Branch, keys: Iterable[Key], pages: list[int]) -> None:
        """Keep further full pages of a sequence, those of ``pages``, which are all of it, from ``branch.depth`` on.

        Where the tree has a page with the same content already, ``pages`` is changed to name that one and the
        sequence's own is given back: two callers who computed the same prefix at once end up sharing it."""
        for key in keys:
            node, i = branch.node, branch.depth
            child = node.children.get(key)
            if child is None:
                child = node.children[key] = _Node(node, key, pages[i])
                self._recent[child] = None
                self.pool.share(pages[i : i + 1])
            elif child.page != pages[i]:
                self.pool.share([child.page])
                self.pool.give(pages[i : i + 1])
                pages[i] = child.page
            branch.node = child
            self.visited += 1

    def leave(self, branch: Branch) -> None:
        """The sequence is about to give up its pages: they were used just now."""
        node = branch.node
        while node.parent is not None:
            self._recent.move_to_end(node)
            node = node.parent
            self.visited += 1

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

    def _walk(self, branch: Branch, keys: Iterable[Key]) -> list[int]:
        """The pages passed."""
        pages = []
        for key in keys:
            child = branch.node.children.get(key)
            if child is None:
                break
            pages.append(child.page)
            branch.node = child
            self.visited += 1
        return pages

    def _remove(self, node: _Node) -> None:
        assert node.parent is not None
        del node.parent.children[node.key]
        del self._recent[node]
        self.pool.give([node.page])
