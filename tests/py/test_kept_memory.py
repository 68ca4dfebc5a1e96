"""When Python's memory is kept: see `inpage.worker.kept_memory`."""

from __future__ import annotations

import sys

import pytest

from inpage.worker.kept_memory import KeptMemory
from inpage.worker.messages import RouterWorker


async def test_memory_is_kept_when_the_first_load_has_ended_and_renewed_after_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "inpage.json_schema", raising=False)  # there is something to renew it for
    done: list[str] = []
    memory = KeptMemory(lambda: done.append("kept"), lambda: done.append("renewed"))
    worker = RouterWorker(lambda _: None, memory)
    memory.idle()  # a request that was refused meanwhile
    assert done == []
    await worker._run({"id": 1, "op": "load", "artifact": "/nowhere", "model": "a"})
    assert done == ["kept"]
    memory.loaded()
    memory.idle()
    memory.idle()
    assert done == ["kept", "renewed"]
