"""How much of everything is read, and how large it may be, before it is refused: what is beyond is an attack
or damage, and memory must stay flat.

Made by format/generate.py from format/limits.toml; change that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Bytes of each kind of file.
FILE_BYTES: Final[Mapping[str, int]] = {
    "manifest": 16777216,
    "plan": 33554432,
    "tokenizer": 67108864,
    "kernels": 67108864,
    "shard": 16777216,
    "answers": 67108864,
    "answer": 4194304,
    "prefix": 67108864,
    "note": 1048576,
    "settings": 1048576,
    "package": 16777216,
    "python": 67108864,
    "site": 1048576,
}
REQUEST_CHARS: Final = 8388608  # of one request, its prompt or messages included
RENDER_CHARS: Final = 16777216  # that a chat template may make
RENDER_STEPS: Final = 200000  # nodes of a chat template that are evaluated: its own share,
RENDER_STEPS_PER_MESSAGE: Final = 1000  # and more for each message
RENDER_ITEMS: Final = 1000000  # of one list that it makes
ASIDE_CHARS: Final = 16384  # of a prompt that is rendered and tokenized at once; a larger one beside the loop
ASIDE_MESSAGES: Final = 200  # likewise
BYTES: Final = 1099511627776  # nothing in an artifact is larger, and every sum of such stays exact in a float64
ALIGN: Final = 256  # offsets of tensors, shards and arena buffers are multiples of it
BLOCK_ROWS: Final = 16  # rows interleaved in one block of layout rows16
LINE: Final = 500  # characters of a text that is shown in one line
ENTRIES: Final = 65536  # of any list of an artifact
TOKENIZER_TABLES: Final = 1  # version of a tokenizer's tables
UNIGRAM_BYTES: Final = (
    256  # of a token with a score: from each place of a text as many are looked up; SentencePiece makes 16 characters
)
LAYERS: Final = 4096
KERNELS: Final = 4096
KERNEL_BUFFERS: Final = 64
ALTERNATIVES: Final = 16  # kernels of one list
ROWS: Final = 65536
SEQUENCES: Final = 4096
CONTEXT: Final = 16777216  # tokens
VOCAB: Final = 16777216
PAGE_TOKENS: Final = 4096
KV_GROUPS: Final = 64
BLOCKS: Final = 1048576  # columns of the block table
EXTENT: Final = 16777216  # a number in a grid
EXTENT_DEPTH: Final = 4  # operators nested in one another in a grid
WORKGROUPS: Final = 65535  # of a dispatch, along one axis
INVOCATIONS: Final = 256  # of a workgroup
WORKGROUP_Z: Final = 64
STORAGE_BUFFERS: Final = 8  # of a stage
BINDING_BYTES: Final = 134217728
