"""Where tensors between kernels lie: apart where WebGPU needs it, together where nobody lives at the same time."""

from __future__ import annotations

from itertools import pairwise

import pytest

from inpage_compile.lowering.arenas import Use, arenas_of, place


def uses(*launches: str) -> list[Use]:
    """Each launch as "r0 w1": how it accesses which tensor."""
    return [Use(tuple((int(word[1:]), word[0]) for word in launch.split())) for launch in launches]


def test_what_a_launch_reads_and_writes_falls_apart() -> None:
    arena = arenas_of(uses("w0", "r0 w1", "x1 w2", "r2 x0", "r0 w3"))
    assert arena[0] != arena[1] == arena[2] == arena[3]


def test_what_cannot_fall_apart_is_refused() -> None:
    with pytest.raises(ValueError, match="two arenas"):
        arenas_of(uses("w0", "r0 w1", "r0 r1 w2"))


def test_bytes_are_used_again_and_never_by_two() -> None:
    launches = uses("w0", "r0 w1", "r1 w2", "r2 w3", "r3 w4")
    sizes = {0: 1000, 1: 300, 2: 900, 3: 10, 4: 256}
    offsets, totals = place(launches, sizes, dict.fromkeys(sizes, 0))
    lives = {0: (0, 1), 1: (1, 2), 2: (2, 3), 3: (3, 4), 4: (4, 4)}
    for a in sizes:
        assert offsets[a] % 256 == 0 and offsets[a] + sizes[a] <= totals[0]
        for b in range(a):
            together = lives[a][0] <= lives[b][1] and lives[b][0] <= lives[a][1]
            disjoint = offsets[a] + sizes[a] <= offsets[b] or offsets[b] + sizes[b] <= offsets[a]
            assert disjoint or not together, (a, b)
    assert totals == [1024 + 512]  # the two largest never live at once


@pytest.mark.parametrize("access", ["r0 w1", "x0 w1", "r0 w1 w2"])
def test_what_a_launch_writes_lies_beside_what_it_reads(access: str) -> None:
    """Even where that is read for the last time: the launch's threads do not begin and end together."""
    sizes = {0: 512, 1: 512, 2: 256}
    offsets, totals = place(uses("w0", access), sizes, dict.fromkeys(sizes, 0))
    taken = sorted((at, at + sizes[tensor]) for tensor, at in offsets.items())
    assert all(end <= start for (_, end), (start, _) in pairwise(taken))
    assert totals == [sum(sizes[tensor] for tensor in offsets)]
