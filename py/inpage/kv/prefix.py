"""The prefix tree: full blocks of KV pages by the tokens that they and all blocks before them hold.

A page's content depends only on those tokens (engines are deterministic, bit for bit), so a sequence that begins with
the same tokens can read the page instead of computing it. The tree is an owner of its pages like any sequence: a
sequence that ends leaves them to the tree, and the tree drops the least recently used ones that nobody else owns.
Only full blocks are kept: no sequence will ever write them again, so sharing needs no copies.

Layers with a sliding window need only the last blocks of a prefix: a sequence can begin after those blocks whose
windows are there, and shares no more than that (as vLLM's hybrid KV cache manager does). What has fallen out of every
window stays as far as the budget allows, and goes first. A sequence that is longer than the budget leaves the deepest
block whose windows fit as its end. What no sequence can go on from any more is dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from .blocks import Blocks, Tables
from .pages import PagePool

Key: TypeAlias = tuple[int, ...]  # the tokens of a block


class _Kept:
    """The pages of a block in one part. ``spare``: they fell out of the window, and no sequence ended there."""

    __slots__ = ("node", "pages", "part", "spare")

    def __init__(self, node: Node, part: int, pages: list[int], spare: bool) -> None:
        self.node, self.part, self.pages, self.spare = node, part, pages, spare


class Node:
    """A block. ``depth``: blocks up to here, this one included. ``branches``: sequences that end here."""

    __slots__ = ("branches", "children", "depth", "key", "parent", "parts")

    def __init__(self, parent: Node | None, key: Key, parts: int) -> None:
        self.parent = parent
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.key = key
        self.parts: list[_Kept | None] = [None] * parts
        self.branches = 0
        self.children: dict[Key, Node] = {}

    def pages(self, part: int) -> list[int]:
        """None where they are not kept."""
        kept = self.parts[part]
        return [] if kept is None else kept.pages


class Branch:
    """Where a sequence's blocks end in the tree, so that each chunk of its prompt goes on there instead of at the root.
    Its nodes stay in the tree; before the sequence gives its pages up, it must `leave`."""

    __slots__ = ("node",)

    def __init__(self, root: Node) -> None:
        self.node = root

    @property
    def depth(self) -> int:
        """Blocks of the sequence that are in the tree."""
        return self.node.depth


class PrefixTree:
    """``budget``: pages that the tree may keep alive on its own; pages that a sequence reads as well cost nothing and
    do not count."""

    def __init__(self, pool: PagePool, blocks: Blocks, budget: int) -> None:
        self.pool = pool
        self.blocks = blocks
        self.budget = budget
        self.visited = 0  # nodes walked over so far: what the tree costs
        self._root = Node(None, (), len(blocks.parts))
        # Least recently used first. Giving pages up touches the whole path, a node before its parent, so among
        # idle pages that see everything no parent is older than its children.
        self._recent: OrderedDict[_Kept, None] = OrderedDict()

    def __len__(self) -> int:
        """Pages in the tree."""
        return sum(len(kept.pages) for kept in self._recent)

    @property
    def idle(self) -> int:
        """Pages that only the tree owns: memory that can be had back."""
        return self.pool.idle

    def peek(self, tokens: Sequence[int]) -> int:
        """How many of ``tokens`` a sequence that begins so need not compute."""
        return len(self._walk(self._root, self.keys(tokens, len(tokens)))) * self.blocks.tokens

    def keys(self, tokens: Sequence[int], most: int) -> Iterator[Key]:
        """Of the full blocks of the first ``most`` tokens."""
        size = self.blocks.tokens
        for start in range(0, min(most, len(tokens)) - size + 1, size):
            yield tuple(tokens[start : start + size])

    def branch(self) -> Branch:
        """At the root: of a sequence that has nothing in the tree yet."""
        return Branch(self._root)

    def descend(self, branch: Branch, keys: Iterable[Key], tables: Tables) -> int:
        """Move the branch along kept blocks with these keys to the last after which the sequence can go on, and name
        them in its ``tables`` from ``branch.depth`` on, in the place of its own. Gives how many."""
        first, nodes = branch.depth, self._walk(branch.node, keys)
        if not nodes:
            return 0
        for p, part in enumerate(self.blocks.parts):
            start = max(first, part.needed(first + len(nodes)))
            self.pool.give(tables.drop(p, start) if start > first else ())
            for node in nodes[start - first :]:
                self._take(node, p, tables)
                if part.reach is not None:
                    self._touch(node, p)
        self._move(branch, nodes[-1])
        return len(nodes)

    def hold(self, tokens: Sequence[int]) -> list[list[list[int]]]:
        """The pages of all kept blocks that ``tokens`` begin with, by block and part: none of a part that is not kept.
        The caller owns them too from now on, and gives them back to the pool like its own."""
        node, out = self._root, list[list[list[int]]]()
        for key in self.keys(tokens, len(tokens)):
            child = node.children.get(key)
            if child is None:
                break
            node = child
            out.append([list(node.pages(p)) for p in range(len(node.parts))])
            for pages in out[-1]:
                self.pool.share(pages)
        return out

    def append(self, branch: Branch, keys: Iterable[Key], tables: Tables) -> None:
        """Keep further full blocks of a sequence, those of ``tables`` from ``branch.depth`` on.

        Where the tree has the same block already, ``tables`` is changed to name that one and the sequence's own is
        given back: two callers who computed the same prefix at once end up sharing it."""
        node = branch.node
        for key in keys:
            child = node.children.get(key)
            if child is None:
                child = node.children[key] = Node(node, key, len(self.blocks.parts))
            node = child
            for p in range(len(node.parts)):
                own = tables.get(p, node.depth - 1)
                if own and node.parts[p] is None:
                    self._add(node, p, own)
                elif own and own != node.pages(p):
                    self._take(node, p, tables)
            self.visited += 1
        self._move(branch, node)

    def leave(self, branch: Branch) -> None:
        """The sequence is about to give up its pages: those that the next one would go on from were used just now, and
        those behind them go first."""
        node, path = branch.node, list[Node]()
        while node.parent is not None:
            path.append(node)
            node = node.parent
            self.visited += 1
        end = self._end(path)
        for node in path:
            for p, part in enumerate(self.blocks.parts):
                if part.needed(end) < node.depth <= end:
                    self._touch(node, p)
        for node in reversed(path[: len(path) - end]):  # the last block before its parent
            for p in range(len(node.parts)):
                self._touch(node, p, last=False)
        self._move(branch, self._root)

    def trim(self) -> None:
        """Drop what the budget has no room for. Call it when sequences end."""
        excess = self.idle - self.budget
        if excess > 0:
            self.evict(excess)

    def evict(self, count: int) -> int:
        """Give least recently used idle blocks back to the pool, ``count`` pages or a few more as far as there are so
        many, and what nothing can go on from without them; returns how many pages were."""
        before, broken = self.idle, False
        for kept in list(self._recent):
            if before - self.idle >= count:
                break
            node = kept.node
            if kept not in self._recent or not self._is_idle(kept):
                continue
            if kept.part or not self.blocks.whole:
                self._drop(kept)
            elif not node.children:
                # A block with readers stays, and with it every block before it: those have at least the same readers.
                for each in filter(None, node.parts):
                    self._drop(each)
            broken |= not kept.spare
            self._prune(node)
        if broken and self.blocks.windowed:
            self._shed()
        return before - self.idle

    def clear(self) -> None:
        """Forget everything, e.g. because the engine and its pages are gone."""
        for kept in self._recent:
            self.pool.give_up(kept.pages)
        self._recent.clear()
        self._root.children.clear()

    def _walk(self, node: Node, keys: Iterable[Key]) -> list[Node]:
        """The nodes passed, to the last after which a sequence that is at ``node`` can go on."""
        parts, whole = self.blocks.parts, self.blocks.whole
        # Blocks in a row of each part: what the sequence needs to be where it is, it has.
        run = [node.depth - part.needed(node.depth) for part in parts]
        nodes, good = list[Node](), 0
        for key in keys:
            child = node.children.get(key)
            if child is None or (whole and child.parts[0] is None):
                break
            node = child
            nodes.append(node)
            if self._goes_on(node, run):
                good = len(nodes)
            self.visited += 1
        return nodes[:good]

    def _goes_on(self, node: Node, run: list[int]) -> bool:
        """Whether a sequence can go on after this block. ``run``: kept blocks in a row of each part up to its parent,
        and then up to it."""
        good = True
        for p, part in enumerate(self.blocks.parts):
            run[p] = 0 if node.parts[p] is None else run[p] + 1
            good &= run[p] >= node.depth - part.needed(node.depth)
        return good

    def _end(self, path: Sequence[Node]) -> int:
        """Of a sequence with these blocks, the last one first: how many the next one would go on after. Not all of them
        where windows are at the end alone and the budget has no room for what comes before: cut there, it would be lost
        as a whole."""
        if not self.blocks.windowed or self.blocks.after(len(path)) <= self.budget:
            return len(path)
        run, end = [0] * len(self.blocks.parts), 0
        for node in reversed(path):
            if self._goes_on(node, run) and self.blocks.after(node.depth) <= self.budget:
                end = node.depth
        return end

    def _shed(self) -> None:
        """Drop blocks at the ends of the tree that no sequence can go on after."""
        blocks = list[tuple[Node, bool]]()  # a block before its children
        todo = [(self._root, [0] * len(self.blocks.parts))]
        while todo:
            node, run = todo.pop()
            for child in node.children.values():
                to_child = list(run)
                blocks.append((child, self._goes_on(child, to_child)))
                todo.append((child, to_child))
        for node, good in reversed(blocks):
            if any(node.parts) and not (good or node.children or node.branches):
                for kept in filter(None, node.parts):
                    self._drop(kept)
                self._prune(node)

    def _is_idle(self, kept: _Kept) -> bool:
        return self.pool.owners(kept.pages[0]) == 1

    def _add(self, node: Node, part: int, pages: list[int]) -> None:
        spare = self.blocks.parts[part].reach is not None
        node.parts[part] = kept = _Kept(node, part, pages, spare)
        self._recent[kept] = None
        if spare:
            self._recent.move_to_end(kept, last=False)  # it falls out of the window, unless the sequence ends before
        self.pool.keep(pages)

    def _take(self, node: Node, part: int, tables: Tables) -> None:
        """The sequence reads the tree's pages of this block instead of its own."""
        pages, block = node.pages(part), node.depth - 1
        self.pool.share(pages)
        self.pool.give(tables.get(part, block))
        tables.put(part, block, pages)

    def _touch(self, node: Node, part: int, *, last: bool = True) -> None:
        kept = node.parts[part]
        if kept is not None:
            kept.spare = False
            self._recent.move_to_end(kept, last=last)

    def _move(self, branch: Branch, node: Node) -> None:
        before, branch.node = branch.node, node
        node.branches += 1
        before.branches -= 1
        self._prune(before)

    def _drop(self, kept: _Kept) -> None:
        del self._recent[kept]
        kept.node.parts[kept.part] = None
        self.pool.give_up(kept.pages)

    def _prune(self, node: Node) -> None:
        """Where nothing is left of it, and of those before it."""
        while node.parent is not None and not (node.branches or node.children or any(node.parts)):
            del node.parent.children[node.key]
            node = node.parent
