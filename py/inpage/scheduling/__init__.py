"""Continuous batching on one engine: the queue, slots, batches, preemption, and what runs while nobody waits.

Imports `backends`, `kv` and below."""
