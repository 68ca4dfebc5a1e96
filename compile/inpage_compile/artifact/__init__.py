"""The artifact folder: weights and levels of precision, manifest, licences, fingerprint; written whole or not at all.

Imports `sources` and below."""
