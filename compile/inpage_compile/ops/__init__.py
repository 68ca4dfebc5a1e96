"""The operations that graphs are written in, one implementation a target, and how much one step takes.

Imports `kernels` and below."""
