"""Continuous batching on one engine: the queue, slots, batches, preemption, and what runs while it is idle.

Imports `backends`, `kv` and below."""
