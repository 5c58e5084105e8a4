#!/usr/bin/env bash
# Downloads libtorch into .libtorch/ of this project, unless it is there: wheels, pinned by hash, downloaded by pip and unpacked.
# `libtorch.sh cuda` adds the libraries for GPUs. Nothing is installed outside the project. If LIBTORCH names your own libtorch,
# that one is used and nothing is downloaded.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'libtorch: %s\n' "$*" >&2; }

device=${1:-cpu}
case "$device" in
    cpu | cuda) ;;
    *) say "unknown device \`$device\`; use \`cpu\` or \`cuda\`"; exit 1 ;;
esac

if [ -n "${LIBTORCH:-}" ]; then
    [ -e "$LIBTORCH/lib/libtorch_cpu.so" ] || { say "LIBTORCH is \`$LIBTORCH\`, but \`$LIBTORCH/lib/libtorch_cpu.so\` does not exist; unset LIBTORCH to use the pinned wheels"; exit 1; }
    exit 0
fi

# The hash of a list is written as its stamp once everything in it is installed.
stamp() { sha256sum "scripts/$1.txt" | cut -d' ' -f1; }
complete() { [ "$(cat ".libtorch/$1" 2>/dev/null || true)" = "$(stamp "$2")" ]; }

if complete complete libtorch && { [ "$device" = cpu ] || complete complete-cuda libtorch-cuda; }; then exit 0; fi

case "$(uname -s)-$(uname -m)" in
    Linux-x86_64) ;;
    *) say "the pinned wheels are for Linux on x86-64; on $(uname -s) $(uname -m), unpack a libtorch 2.11 yourself and set LIBTORCH to it"; exit 1 ;;
esac
python=${PYTHON:-python3}
"$python" -m pip --version >/dev/null 2>&1 || { say "\`$python -m pip\` does not run; install Python 3 with pip, or set PYTHON"; exit 1; }

# Everything is unpacked beside the final folder, so that an interrupted run leaves nothing that looks complete.
part=.libtorch.part
trap 'rm -rf "$part"' EXIT

# Unpacks the wheels of a list into `$part`.
fetch() {
    rm -rf "$part"
    mkdir -p "$part/wheels"
    "$python" -m pip download --quiet --no-deps --require-hashes --only-binary=:all: \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_25_x86_64 \
        --platform manylinux_2_18_x86_64 --platform manylinux2014_x86_64 --platform manylinux2010_x86_64 \
        --python-version 3.11 --implementation cp --abi cp311 --abi none \
        -d "$part/wheels" -r "scripts/$1.txt"
    say "unpacking"
    for wheel in "$part"/wheels/*.whl; do
        "$python" -m zipfile -e "$wheel" "$part"
    done
    rm -rf "$part/wheels"
}

if ! complete complete libtorch; then
    say "downloading libtorch 2.11 (550 MB)"
    rm -rf .libtorch
    fetch libtorch
    # The build needs only the libraries and the headers.
    find "$part" -mindepth 1 -maxdepth 1 ! -name torch ! -name nvidia -exec rm -rf {} +
    find "$part/torch" -mindepth 1 -maxdepth 1 ! -name lib ! -name include ! -name share -exec rm -rf {} +
    stamp libtorch >"$part/complete"
    mv "$part" .libtorch
fi
if [ "$device" = cuda ] && ! complete complete-cuda libtorch-cuda; then
    say "downloading the CUDA libraries of libtorch 2.11 (about 2 GB)"
    fetch libtorch-cuda
    find "$part/nvidia" -type d -name include -exec rm -rf {} +
    cp -al "$part/nvidia/." .libtorch/nvidia/
    stamp libtorch-cuda >.libtorch/complete-cuda
fi
say "ready in .libtorch/"
