"""The artifact's format and how untrusted files are read: schema, manifest, launch plan, limits, bounded JSON.

The floor of everything: imports `inpage.errors` only, so that the compiler can share it."""
