"""One loaded model with everything around it: `Router` is the face of inpage. Imports all of the floors below."""

from ..responses.stream import Completion, Delta, Stream
from ..scheduling.scoring import Score
from .embedding import Embeddings, Rank, Ranking
from .router import Router

__all__ = ["Completion", "Delta", "Embeddings", "Rank", "Ranking", "Router", "Score", "Stream"]
