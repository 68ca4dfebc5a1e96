"""The page pool: every page has one owner, and nothing leaks or is handed out twice."""

import random

import pytest

from inpage.kv import PagePool


def test_take_is_all_or_nothing() -> None:
    pool = PagePool(4)
    assert pool.take(1) is None
    pool.grow_to(3)
    assert pool.take(4) is None
    assert pool.take(3) == [0, 1, 2]
    assert (pool.free, pool.used, pool.available) == (0, 3, 1)


def test_growth_stops_at_the_limit() -> None:
    with pytest.raises(ValueError, match="limit"):
        PagePool(4).grow_to(5)


def test_a_page_cannot_be_given_back_twice() -> None:
    pool = PagePool(2)
    pool.grow_to(2)
    pages = pool.take(2)
    assert pages is not None
    pool.give(pages)
    with pytest.raises(ValueError, match="not handed out"):
        pool.give(pages[:1])


def test_random_use_never_shares_a_page() -> None:
    rng, pool, held = random.Random(0), PagePool(40), []
    for _ in range(2000):
        if pool.reserved < 40 and rng.random() < 0.05:
            pool.grow_to(min(40, pool.reserved + rng.randint(1, 5)))
        if rng.random() < 0.5:
            pages = pool.take(rng.randint(0, 6))
            if pages is not None:
                held.append(pages)
        elif held:
            pool.give(held.pop(rng.randrange(len(held))))
        flat = [page for pages in held for page in pages]
        assert len(flat) == len(set(flat)) == pool.used
        assert pool.used + pool.free == pool.reserved
