#!/usr/bin/env bash
# bundle.sh cpu|cuda FOLDER: collects what an image runs, which is the two programs and the libraries of libtorch that they load;
# no headers, no Python, no compiler. The folders of the wheels are kept, because the libraries find each other by them.
set -euo pipefail
cd "$(dirname "$0")/../.."

device=${1:?name the device, cpu or cuda}
out=${2:?name the folder to write to}
libtorch=$(realpath "${LIBTORCH:-.libtorch/torch}")
root=$(dirname "$libtorch")

mkdir -p "$out"
for program in syncdiffusion syncdiffusion-worker; do
    install -m 755 "target/release/$program" "$out/$program"
    # The debug information, 100 MB, only adds line numbers to backtraces.
    strip --strip-debug "$out/$program"
done
install -m 755 deploy/image/healthcheck.sh "$out/healthcheck"
install -m 644 LICENSE NOTICE "$out"

# Lists the libraries that a program or library is linked to, itself included, under the names by which they are requested. A
# library that is not found is listed by its bare name.
linked() {
    local library
    { echo "$1"; ldd "$1" | awk '$2 == "=>" { print $3 == "not" ? $1 : $3 }'; } | while read -r library; do
        case "$library" in
            */*) printf '%s/%s\n' "$(realpath "$(dirname "$library")")" "$(basename "$library")" ;;
            *) echo "$library" ;;
        esac
    done
}

missing=()
libraries=$(linked target/release/syncdiffusion-worker)
case "$device" in
    cpu) ;;
    cuda)
        libraries+=$'\n'$(linked "$libtorch/lib/libtorch_cuda.so")
        # The libraries that cuDNN and the code generator of libtorch open by name on first use.
        while read -r library; do
            libraries+=$'\n'$(linked "$library")
        done < <(find "$root" -name 'libcudnn_*.so*' -o -name 'libnvrtc*.so*' -o -name 'libcaffe2_nvrtc.so' -o -name 'libnvJitLink*.so*')
        ;;
    *) echo "bundle: unknown device \`$device\`; use \`cpu\` or \`cuda\`" >&2; exit 2 ;;
esac

while read -r library; do
    case "$library" in
        "$root"/*)
            place=$out/libtorch/${library#"$root"/}
            mkdir -p "$(dirname "$place")"
            cp --dereference "$library" "$place"
            ;;
        # The library of the driver comes from the host. A bare name that was collected under its path is loaded from there first.
        libcuda.so.1 | */*) ;;
        *) grep -q "/$library\$" <<<"$libraries" || missing+=("$library") ;;
    esac
done < <(sort -u <<<"$libraries")
if [ "${#missing[@]}" -gt 0 ]; then
    echo "bundle: \`$root\` lacks ${missing[*]}; download the pinned libraries with \`DEVICE=$device make libtorch\`" >&2
    exit 1
fi
# The folder in which the worker looks. It is called `torch` in the wheels; your own libtorch may have another name.
ln -sfn "libtorch/$(basename "$libtorch")/lib" "$out/lib"
# A library that was left out would still be found in the folder of the build.
if ldd "$out/syncdiffusion-worker" | grep -F "$root/"; then
    echo "bundle: the worker uses these libraries, but they were not collected" >&2
    exit 1
fi
