"""`inpage_bench.prompts` by its old name."""

from inpage_bench.prompts import prompt

__all__ = ["prompt"]
