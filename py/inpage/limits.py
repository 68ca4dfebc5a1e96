"""How much of each kind of file, message and text is read before it is refused: what is beyond is an attack or damage,
and memory must stay flat. web/engine/limits.js has the same numbers; a test compares them."""

from __future__ import annotations

from pathlib import Path

from .errors import InpageError

_MB = 1 << 20
# Bytes of each kind of file.
FILE_BYTES = {
    "manifest": 16 * _MB,
    "plan": 32 * _MB,
    "tokenizer": 64 * _MB,
    "kernels": 64 * _MB,
    "shard": 16 * _MB,
    "answers": 64 * _MB,  # the bundle that ships with a site
    "answer": 4 * _MB,  # one kept answer, unpacked
    "prefix": 64 * _MB,  # one value of an exported prefix: a KV page, or a list of tokens
    "note": 1 * _MB,
    "settings": 1 * _MB,
    "package": 16 * _MB,
    "python": 64 * _MB,  # each file of Pyodide
    "site": 1 * _MB,
}
REQUEST_CHARS = 8 * _MB  # of one request, its prompt or messages included
# What a chat template may do: its own share, and more for each message. A step is a node of the template evaluated.
RENDER_CHARS = 16 * _MB
RENDER_STEPS = 200_000
RENDER_STEPS_PER_MESSAGE = 1_000
RENDER_ITEMS = 1_000_000  # of one list that it makes
# Prompts larger than this are rendered and tokenized beside the loop, so that other requests go on meanwhile.
ASIDE_CHARS = 16_384
ASIDE_MESSAGES = 200


def read_bounded(path: Path, kind: str, error: type[InpageError], field: str) -> bytes:
    """A file's bytes, at most as many as its kind may have; one more is not read. Raises ``error``, and `OSError` where
    the file cannot be read."""
    limit = FILE_BYTES[kind]
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise error(f"{path} is larger than {limit} bytes, the most that such a file may have", field=field)
    return data
