#!/usr/bin/env bash
# Gathers what an image runs: bundle.sh cpu|cuda FOLDER. The two programs, and of libtorch the libraries that they load; no
# headers, no Python, nothing for compiling. The folders of the wheels are kept, because the libraries find each other by them.
set -euo pipefail
cd "$(dirname "$0")/../.."

device=${1:?say for which device, cpu or cuda}
out=${2:?say into which folder}
libtorch=$(realpath "${LIBTORCH:-.libtorch/torch}")
root=$(dirname "$libtorch")

mkdir -p "$out"
for program in syncdiffusion syncdiffusion-worker; do
    install -m 755 "target/release/$program" "$out/$program"
    # What a panic prints is in the text already; lines in backtraces are 100 MB.
    strip --strip-debug "$out/$program"
done
install -m 755 deploy/image/healthcheck.sh "$out/healthcheck"
install -m 644 LICENSE NOTICE "$out"

# The libraries that a program or library is linked to, itself included, by the names they are asked for. One that is not found
# is a bare name.
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
        # What cuDNN and the code generator of libtorch open by name, when they are first needed.
        while read -r library; do
            libraries+=$'\n'$(linked "$library")
        done < <(find "$root" -name 'libcudnn_*.so*' -o -name 'libnvrtc*.so*' -o -name 'libcaffe2_nvrtc.so' -o -name 'libnvJitLink*.so*')
        ;;
    *) echo "bundle: \`$device\` is no device; use \`cpu\` or \`cuda\`" >&2; exit 2 ;;
esac

while read -r library; do
    case "$library" in
        "$root"/*)
            place=$out/libtorch/${library#"$root"/}
            mkdir -p "$(dirname "$place")"
            cp --dereference "$library" "$place"
            ;;
        # The driver's own library comes from the host. What is gathered is loaded before what asks for it without saying where.
        libcuda.so.1 | */*) ;;
        *) grep -q "/$library\$" <<<"$libraries" || missing+=("$library") ;;
    esac
done < <(sort -u <<<"$libraries")
if [ "${#missing[@]}" -gt 0 ]; then
    echo "bundle: not in \`$root\`: ${missing[*]}; \`DEVICE=$device make libtorch\` fetches what is pinned" >&2
    exit 1
fi
# Where the worker looks; `torch` is the name in the wheels, and any other that a libtorch of your own has.
ln -sfn "libtorch/$(basename "$libtorch")/lib" "$out/lib"
# What was left out would be found here, and nowhere else.
if ldd "$out/syncdiffusion-worker" | grep -F "$root/"; then
    echo "bundle: the worker uses these libraries and they were not gathered" >&2
    exit 1
fi
