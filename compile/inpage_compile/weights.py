"""`inpage_compile.artifact.weights` by its old name."""

from .artifact.weights import plan

__all__ = ["plan"]
