"""All readers of untrusted input in Python; those in JavaScript: node/readers.mjs."""

from .agreement import READERS as AGREEMENT
from .answers import READERS as ANSWERS
from .artifacts import READERS as ARTIFACTS
from .requests import READERS as REQUESTS

READERS = [*REQUESTS, *ARTIFACTS, *AGREEMENT, *ANSWERS]
