"""Which variant of a model runs here: capability and measurement, selection, loading, faults and failover.

Imports `engines`, `kv` and below; no scheduler."""
