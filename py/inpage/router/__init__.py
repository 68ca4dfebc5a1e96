"""One loaded model with everything around it: `Router` is the face of inpage. Imports all of the floors below."""

from ..responses.stream import Completion, Delta, Stream
from ..scheduling.scoring import Score
from .router import Router

__all__ = ["Completion", "Delta", "Router", "Score", "Stream"]
