"""Metrics in Prometheus' format, health, memory by operation, Chrome traces.

Imports `requests` and below."""
