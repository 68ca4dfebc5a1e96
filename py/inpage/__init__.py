"""LLM inference inside the web page, in Python.

from inpage import Router

router = await Router.load("models/smollm2-135m-instruct/")
answer = await router.chat("What is gravity?")
"""

from .errors import InpageError
from .router import Completion, Delta, Router, Score, Stream

__all__ = ["Completion", "Delta", "InpageError", "Router", "Score", "Stream"]
