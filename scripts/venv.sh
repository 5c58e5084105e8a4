#!/usr/bin/env bash
# venv.sh FOLDER: creates the virtual environment FOLDER/.venv from the hash-pinned FOLDER/requirements.txt, unless it is up to
# date. torch is installed without its CUDA libraries; DEVICE=cuda adds them. PYTHON names the Python 3.11 to use.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$1"

say() { printf 'venv: %s\n' "$*" >&2; }

device=${DEVICE:-cpu}
case "$device" in
    cpu) more=$here/cuda_standins.py ;;
    cuda) more=$here/libtorch-cuda.txt ;;
    *) say "DEVICE is \`$device\`; use \`cpu\` or \`cuda\`"; exit 1 ;;
esac
grep -q '^torch==' requirements.txt || more=''
want=$(cat requirements.txt ${more:+"$more"} | sha256sum | cut -d' ' -f1)
[ "$(cat .venv/complete 2>/dev/null || true)" != "$want" ] || exit 0

python=${PYTHON:-}
for candidate in python3.11 python3 python; do
    [ -n "$python" ] && break
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then python=$candidate; fi
done
[ -n "$python" ] || { say "Python 3.11, for which requirements.txt pins wheels, was not found; install it, or set PYTHON"; exit 1; }

say "installing into $1/.venv${more:+ (700 MB of wheels)}"
rm -rf .venv
"$python" -m venv .venv
install() { .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: "$@"; }
install -r requirements.txt
case "$more" in
    *.txt) install -r "$more" ;;
    *.py) .venv/bin/python "$more" .venv/lib/python3.11/site-packages ;;
esac
printf '%s\n' "$want" >.venv/complete
say "ready"
