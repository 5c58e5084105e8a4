#!/usr/bin/env bash
# Makes the reference's virtual environment in tests/reference/.venv from requirements.txt. Does nothing when it is up to date.
# PYTHON names the Python 3.11 to use.
set -euo pipefail
cd "$(dirname "$0")"

want=$(cat requirements.txt cuda_standins.py | sha256sum | cut -d' ' -f1)
[ "$(cat .venv/complete 2>/dev/null || true)" != "$want" ] || exit 0

say() { printf 'reference: %s\n' "$*" >&2; }

python=${PYTHON:-}
for candidate in python3.11 python3 python; do
    [ -n "$python" ] && break
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then python=$candidate; fi
done
[ -n "$python" ] || { say "no Python 3.11 was found (requirements.txt pins wheels for it); install it, or set PYTHON"; exit 1; }

say "installing into tests/reference/.venv (700 MB of wheels)"
rm -rf .venv
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: -r requirements.txt
.venv/bin/python cuda_standins.py .venv/lib/python3.11/site-packages
printf '%s\n' "$want" >.venv/complete
say "ready"
