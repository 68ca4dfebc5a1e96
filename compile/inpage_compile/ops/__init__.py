"""The operations that graphs are written in, their type and one implementation a target, and how much one step takes.

Imports `kernels` and below."""
