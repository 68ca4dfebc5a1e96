"""Fuzzing of every reader of untrusted input: mutated documents, and one rule for what may come of them."""
