#!/usr/bin/env bash
# Makes sure of libtorch in .libtorch/ of this project: three wheels, pinned by hash, downloaded by pip and unpacked.
# Nothing is installed outside the project. A libtorch of your own (LIBTORCH is set) is left alone and used.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'libtorch: %s\n' "$*" >&2; }

if [ -n "${LIBTORCH:-}" ]; then
    [ -e "$LIBTORCH/lib/libtorch_cpu.so" ] || { say "LIBTORCH is \`$LIBTORCH\`, but \`$LIBTORCH/lib/libtorch_cpu.so\` does not exist; unset it to use the project's own"; exit 1; }
    exit 0
fi

want=$(sha256sum scripts/libtorch.txt | cut -d' ' -f1)
[ "$(cat .libtorch/complete 2>/dev/null || true)" != "$want" ] || exit 0

case "$(uname -s)-$(uname -m)" in
    Linux-x86_64) ;;
    *) say "the pinned wheels are for Linux on x86-64; on $(uname -s) $(uname -m), unpack a libtorch 2.11 yourself and set LIBTORCH to it"; exit 1 ;;
esac
python=${PYTHON:-python3}
"$python" -m pip --version >/dev/null 2>&1 || { say "\`$python -m pip\` does not run; install Python 3 with pip, or set PYTHON"; exit 1; }

# Everything happens in a folder beside the final one, so that an interrupted run leaves nothing that looks complete.
part=.libtorch.part
rm -rf "$part" .libtorch
mkdir -p "$part/wheels"
trap 'rm -rf "$part"' EXIT
say "downloading libtorch 2.11 (550 MB)"
"$python" -m pip download --quiet --no-deps --require-hashes --only-binary=:all: \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux2014_x86_64 \
    --python-version 3.11 --implementation cp --abi cp311 --abi none \
    -d "$part/wheels" -r scripts/libtorch.txt
say "unpacking"
for wheel in "$part"/wheels/*.whl; do
    "$python" -m zipfile -e "$wheel" "$part"
done
rm -rf "$part/wheels"
# The build needs the libraries and the headers only.
find "$part" -mindepth 1 -maxdepth 1 ! -name torch ! -name nvidia -exec rm -rf {} +
find "$part/torch" -mindepth 1 -maxdepth 1 ! -name lib ! -name include ! -name share -exec rm -rf {} +
printf '%s\n' "$want" >"$part/complete"
mv "$part" .libtorch
say "ready in .libtorch/"
