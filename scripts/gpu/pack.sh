#!/usr/bin/env bash
# pack.sh ARCHIVE: packs what run.sh needs on a machine with a GPU into one archive: the worker and the example `gpu`, stripped, the
# fixtures, and the Python reference with its packages for Python 3.12. Both programs must be built; `make gpu-pack` does that.
# pack.sh --folder FOLDER: the same as a folder, without the Python packages, as tests need it; PROGRAMS is where the programs are.
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { printf 'pack: %s\n' "$*" >&2; }

# The oldest glibc on which it has to start, that of Debian 12.
max_glibc=2.36
max_bytes=38000000
programs=${PROGRAMS:-target/release}

fill() { # FOLDER
    mkdir -p "$1/bin" "$1/reference" "$1/fixtures/bundles"
    install -m 755 "$programs/syncdiffusion-worker" "$programs/examples/gpu" "$1/bin"
    strip --strip-all "$1"/bin/*
    cp scripts/gpu/run.sh scripts/gpu/table.py scripts/gpu/model.py scripts/gpu/reference.py "$1"
    cp tests/reference/syncdiffusion_reference.py tests/reference/perceptual.py "$1/reference"
    for bundle in epsilon v sharded; do
        mkdir "$1/fixtures/$bundle"
        cp tests/fixtures/$bundle/cases.* "$1/fixtures/$bundle"
        cp -r "tests/fixtures/bundles/$bundle" "$1/fixtures/bundles"
    done
    cp -r models/demo/tokenizer "$1/tokenizer"
    cp LICENSE NOTICE "$1"
}

# The newest version of a symbol of glibc that a program asks for.
glibc() { objdump -T "$1" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1 | cut -d_ -f2; }

if [ "${1:?name the archive}" = --folder ]; then
    fill "${2:?name the folder}"
    exit
fi

part=$(mktemp -d)
trap 'rm -rf "$part"' EXIT
folder=$part/gpu
fill "$folder"
for program in "$folder"/bin/*; do
    newest=$(glibc "$program")
    say "$(basename "$program") needs glibc $newest"
    [ "$(printf '%s\n' "$newest" $max_glibc | sort -V | tail -n 1)" = $max_glibc ] || { say "that is newer than $max_glibc; build on an older system"; exit 1; }
done

site=$folder/site
python=${PYTHON:-python3}
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none -d "$part/wheels" -r scripts/gpu/site.txt
for wheel in "$part"/wheels/*.whl; do "$python" -m zipfile -e "$wheel" "$site"; done
# What diffusers does not import: tests, types, and the formats of pictures.
find "$site" \( -name tests -path '*/numpy/*' -o -name '*.pyi' -o -name '*.a' \) -prune -exec rm -rf {} +
rm -rf "$site"/numpy/f2py "$site"/PIL/_{avif,imagingft,imagingcms,imagingtk,imagingmath,imagingmorph,webp}.*
rm -f "$site"/pillow.libs/lib{avif,freetype,harfbuzz,lcms2,webpmux,webpdemux,brotli,png}*

mkdir -p "$(dirname "$1")"
# Programs and texts compress as one; the order of names keeps alike things together.
tar -C "$part" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf - gpu | xz -9e -T1 --memlimit-compress=2GiB >"$1"
bytes=$(stat -c %s "$1")
say "$1 has $bytes bytes; unpack it with \`python3 -m tarfile -e $(basename "$1")\` and run \`gpu/run.sh\`"
[ "$bytes" -le $max_bytes ] || { say "that is more than $max_bytes"; exit 1; }
