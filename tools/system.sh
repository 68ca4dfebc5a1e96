#!/usr/bin/env bash
# What must be on the machine before anything of the project is: Python >= 3.11 with venv, and a Chromium. On Debian or
# Ubuntu as root, what is missing is installed; elsewhere this says what to install. (Node comes as a Python wheel
# where the machine has none that is new enough.) It takes a tenth of a second once all is there.
# `tools/system.sh python` prints the Python that the project uses; `tools/system.sh node` fails without a new Node;
# `tools/system.sh firefox` sees to Firefox ESR, whose tests are skipped where there is none.
set -u
cd "$(dirname "$0")/.."

find_python() {
  local name
  for name in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo "$name"; return; }
  done
  return 1
}
find_chromium() {
  local name
  for name in ${INPAGE_CHROMIUM:-} chromium chromium-browser google-chrome google-chrome-stable \
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" "/Applications/Chromium.app/Contents/MacOS/Chromium"; do
    command -v "$name" >/dev/null 2>&1 && return
  done
  return 1
}
node_is_new() {
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' \
    2>/dev/null && command -v npm >/dev/null 2>&1
}
python_has_venv() { local p; p=$(find_python) && "$p" -c 'import venv, ensurepip' 2>/dev/null; }

on_debian() { command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; }
install() {
  echo "setup: installing from Debian: $*"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}
firefox() {
  command -v "${INPAGE_FIREFOX:-firefox-esr}" >/dev/null 2>&1 && return
  on_debian && install firefox-esr && return
  echo "setup: without firefox-esr (or INPAGE_FIREFOX set to a Firefox) its tests are skipped" >&2
}

case "${1:-}" in python) find_python; exit ;; node) node_is_new; exit ;; firefox) firefox; exit 0 ;; esac

missing=()
find_python >/dev/null || missing+=(python3)
[ -x .venv/bin/python ] || python_has_venv || missing+=(python3-venv)
find_chromium || missing+=(chromium)
[ ${#missing[@]} -eq 0 ] && exit 0

if on_debian; then install "${missing[@]}" || exit 1; fi

status=0
need() { echo "setup: $1" >&2; status=1; }
find_python >/dev/null || need "Python 3.11, 3.12 or 3.13 is missing (Debian: apt-get install python3 python3-venv; macOS: brew install python@3.13)"
[ -x .venv/bin/python ] || python_has_venv || need "Python's venv module is missing (Debian: apt-get install python3-venv)"
find_chromium || need "Chromium is missing (Debian: apt-get install chromium; macOS: brew install --cask google-chrome; or set INPAGE_CHROMIUM to one)"
exit $status
