"""Any crowd on the strict double, which refuses a page that is written while it is shared: whoever comes, leaves, takes
whose place, and whenever an engine dies, nobody is lost, no page is, and each answer is what it is alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from inpage.backends.failover import Backends
from inpage.backends.selection import Candidate
from inpage.engines.protocol import Sampling, SequenceInput
from inpage.errors import DeviceLost, InpageError
from inpage.format.schema import Variant
from inpage.requests.request import Request
from inpage.scheduling.scheduler import Scheduler
from support.examples import some
from support.mortal import Mortal
from support.paged_double import PagedDouble


@dataclass
class Visit:
    prompt: list[int]
    answer: int
    client: str
    priority: int
    comes: int  # so many turns of the loop after the one before
    leaves: int  # after so many pieces; 0: it stays

    def request(self) -> Request:
        sampling = Sampling(temperature=1.0, seed=7)
        return Request(self.prompt, self.answer, sampling, client=self.client, priority=self.priority, stop_ids=(2,))


VISITS = st.lists(
    st.builds(
        Visit,
        prompt=st.lists(st.integers(3, 5), min_size=1, max_size=30),
        answer=st.integers(1, 40),
        client=st.sampled_from("abc"),
        priority=st.integers(-1, 1),
        comes=st.integers(0, 12),
        leaves=st.integers(0, 5),
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=some(60), deadline=None)
@given(VISITS, st.integers(1, 4), st.integers(20, 60), st.integers(0, 30), st.booleans())
def test_nobody_is_lost(visits: list[Visit], places: int, memory: int, death: int, late: bool) -> None:
    asyncio.run(_crowd(visits, places, memory, death, late))


async def _crowd(visits: list[Visit], places: int, memory: int, death: int, late: bool) -> None:
    calls = 0

    def fate(kind: str, feeds: Sequence[SequenceInput]) -> InpageError | None:
        nonlocal calls
        calls += 1
        return DeviceLost("gone") if calls == death else None

    async def load(candidate: Candidate) -> Mortal:
        return Mortal(PagedDouble(max_sequences=places, memory_pages=memory, stop_every=50), fate, late=late)

    backends = Backends([Candidate(Variant("double", "double", (), {}), True, "made for tests")], load)
    scheduler = Scheduler(await backends.first(), backends=backends)

    async def read(visit: Visit, request: Request) -> str:
        pieces, tokens = 0, list[int]()
        while True:
            event = await request.events.get()
            assert not isinstance(event, BaseException), event
            tokens += event.tokens
            pieces += 1
            if event.finish:
                assert tokens == request.tokens and request.events.empty(), "it ended once"
                return event.finish
            if pieces == visit.leaves:
                scheduler.cancel(request)

    readers, requests = [], []
    for visit in visits:
        for _ in range(visit.comes):
            await asyncio.sleep(0)
        request = visit.request()
        scheduler.submit(request)
        requests.append(request)
        readers.append(asyncio.ensure_future(read(visit, request)))
    ends = await asyncio.gather(*readers)
    for visit, request, end in zip(visits, requests, ends, strict=True):
        alone, fresh = visit.request(), Scheduler(PagedDouble(stop_every=50))
        fresh.submit(alone)
        await read(Visit([], 0, "", 0, 0, 0), alone)
        if end == "cancelled":
            assert visit.leaves and request.tokens == alone.tokens[: len(request.tokens)]
        else:
            assert request.tokens == alone.tokens
    while not scheduler.idle:
        await asyncio.sleep(0)
    kv = scheduler.kv
    assert kv.pool.used == len(kv.prefix) == kv.prefix.idle
    assert kv.pool.free + kv.pool.used == kv.pool.reserved


@settings(max_examples=some(40), deadline=None)
@given(st.lists(st.sampled_from("ab"), min_size=2, max_size=16), st.integers(1, 4))
def test_order_is_fair(clients: list[str], places: int) -> None:
    """Alike in all but their client, each client's are answered as they came, and neither client falls behind by more
    than what can run at once while both wait."""

    async def crowd() -> list[str]:
        scheduler, done = Scheduler(PagedDouble(max_sequences=places)), list[str]()

        async def read(request: Request, place: int) -> None:
            while True:
                event = await request.events.get()
                assert not isinstance(event, BaseException)
                if event.finish:
                    done.append(f"{request.client}{place}")
                    return

        requests = [Request([3, 4, 5 + i], 6, client=client) for i, client in enumerate(clients)]
        for request in requests:
            scheduler.submit(request)
        await asyncio.gather(*(read(request, i) for i, request in enumerate(requests)))
        return done

    done = asyncio.run(crowd())
    for client in "ab":
        own = [int(name[1:]) for name in done if name[0] == client]
        assert own == sorted(own)
    for end in range(1, len(done)):
        left = {name[0] for name in done[end:]}
        served = [sum(name[0] == client for name in done[:end]) for client in "ab"]
        assert left != {"a", "b"} or abs(served[0] - served[1]) <= places + 1, done
