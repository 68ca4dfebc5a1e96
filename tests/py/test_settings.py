"""Settings from files: what is known is read, everything else is refused by its full name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from inpage.errors import InvalidRequest
from inpage.settings import Settings, read_settings, settings_from

TOML = """
[scheduler]
queue_size = 5
timeout = 2
[answers]
enabled = true
[engine]
backend = "wasm"
threads = 2
"""


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_file_sets_what_it_names_and_leaves_the_rest(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"inpage{suffix}"
    nested = {
        "scheduler": {"queue_size": 5, "timeout": 2},
        "answers": {"enabled": True},
        "engine": {"backend": "wasm", "threads": 2},
    }
    path.write_text(TOML if suffix == ".toml" else json.dumps(nested), "utf-8")
    settings = read_settings(path)
    assert (settings.scheduler.queue_size, settings.scheduler.timeout, settings.scheduler.batch_size) == (5, 2.0, 32)
    assert settings.answers.enabled and settings.engine.threads == 2
    assert settings.kv == Settings().kv


def test_the_defaults_are_those_that_are_promised() -> None:
    scheduler = Settings().scheduler
    assert (scheduler.max_concurrent, scheduler.batch_size, scheduler.queue_size, scheduler.timeout) == (
        100,
        32,
        1000,
        30,
    )


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().scheduler.queue_size = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"sheduler": {}}, "sheduler"),
        ({"scheduler": {"queue": 1}}, "scheduler.queue"),
        ({"scheduler": 3}, "scheduler"),
        ({"scheduler": {"queue_size": "many"}}, "scheduler.queue_size"),
        ({"scheduler": {"queue_size": True}}, "scheduler.queue_size"),
        ({"scheduler": {"queue_size": None}}, "scheduler.queue_size"),
        ({"scheduler": {"max_concurrent": 0}}, "scheduler.max_concurrent"),
        ({"scheduler": {"timeout": float("nan")}}, "scheduler.timeout"),
        ({"kv": {"prefix_bytes": -1}}, "kv.prefix_bytes"),
        ({"engine": {"threads": 0}}, "engine.threads"),
        ({"wasm": {"memory_initial": 3 << 20, "memory_maximum": 2 << 20}}, "wasm.memory_maximum"),
        ({"wasm": {"shared": 1}}, "wasm.shared"),
        ({"webgpu": {"power_preference": "low"}}, "webgpu.power_preference"),
        ([], "settings"),
    ],
)
def test_a_bad_setting_is_named(data: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        settings_from(data)
    assert caught.value.field == field
    assert field.rpartition(".")[2] in str(caught.value)


def test_a_setting_may_be_null_where_it_says_so() -> None:
    assert settings_from({"scheduler": {"timeout": None}}).scheduler.timeout is None


@pytest.mark.parametrize(("name", "text"), [("a.toml", "["), ("a.json", "{"), ("none.toml", None)])
def test_a_file_that_cannot_be_read_is_a_typed_error(tmp_path: Path, name: str, text: str | None) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(InvalidRequest, match=name):
        read_settings(tmp_path / name)
