#!/usr/bin/env bash
# `pip install` into .venv with one short line a package, and all of pip's words when it fails.
set -u
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
.venv/bin/python -m pip install --no-input "$@" 2>&1 | tee "$log" |
  awk '/^Collecting /{printf "  %s\n", $2; fflush()} /^Installing collected/{print "  installing"; fflush()}'
status=${PIPESTATUS[0]}
[ "$status" = 0 ] || { grep -v '^WARNING: Location' "$log" | tail -n 25 >&2; exit "$status"; }
