"""All readers of untrusted input in Python."""

from .answers import READERS as ANSWERS
from .artifacts import READERS as ARTIFACTS
from .requests import READERS as REQUESTS

READERS = [*REQUESTS, *ARTIFACTS, *ANSWERS]
