#!/usr/bin/env bash
# Builds the image without Docker: the scripts of the Dockerfile, in the same order, in clean roots of Debian. Run it as root.
#
#   clean-root.sh FOLDER STEP...     steps: roots, build, image, run; all four if none is named
#
# FOLDER/build is the root that builds, FOLDER/image becomes the image; `run` starts it as its user. Needs debootstrap, curl, and a
# Rust toolchain, which is mounted into the build in place of the image `rust`.
#
#   DEVICE=cpu|cuda    as the build argument; cpu if unset
#   CRATES=FOLDER      a registry of cargo (~/.cargo/registry) to mount, which saves the downloads
#   CERTIFICATES=FILE  certificates to trust while building, where a proxy needs its own
#   PORT=N             where `run` listens; 5055 if unset
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=$(realpath -m "${1:?name the folder to create the roots in}")
shift
device=${DEVICE:-cpu}
port=${PORT:-5055}
release=$(sed -n 's/^ARG DEBIAN=//p' Dockerfile)
build=$folder/build image=$folder/image

say() { printf 'clean-root: %s\n' "$*" >&2; }

mounted=()
# Unmounts in reverse order, however the script ends.
undo() { for ((i = ${#mounted[@]} - 1; i >= 0; i--)); do umount "${mounted[i]}"; done; mounted=(); }
trap undo EXIT
lend() { # FROM TO [OPTION]: mounts a file or folder into a root
    if [ -d "$1" ]; then mkdir -p "$2"; else mkdir -p "$(dirname "$2")" && touch "$2"; fi
    mount --bind "$1" "$2"
    mounted+=("$2")
    [ -z "${3:-}" ] || mount -o "remount,bind,$3" "$2"
}

# Runs a command in a root with an empty environment, as in an image.
enter() { # ROOT ENVIRONMENT... COMMAND...
    local root=$1 code=0
    shift
    lend /proc "$root/proc"
    lend /dev "$root/dev"
    lend /etc/resolv.conf "$root/etc/resolv.conf" ro
    local trust=()
    if [ -n "${CERTIFICATES:-}" ]; then
        lend "$CERTIFICATES" "$root/tmp/certificates.pem" ro
        trust=(PIP_CERT=/tmp/certificates.pem CARGO_HTTP_CAINFO=/tmp/certificates.pem SSL_CERT_FILE=/tmp/certificates.pem)
    fi
    chroot "$root" env -i HOME=/root PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${trust[@]}" "$@" || code=$?
    undo
    return "$code"
}

roots() {
    say "creating a root of Debian $release"
    rm -rf "$folder"
    mkdir -p "$folder"
    debootstrap --variant=minbase "$release" "$image" >"$folder/debootstrap.log"
    cp -a "$image" "$build"
    # What `COPY . .` copies: the files of the repository only.
    mkdir -p "$build/src"
    git ls-files --cached --others --exclude-standard -z | tar --null -cT - | tar -xC "$build/src"
    install -D -t "$image/tmp/image" deploy/image/packages.sh deploy/image/account.sh
    enter "$image" /tmp/image/packages.sh run
    enter "$image" /tmp/image/account.sh
    rm -r "$image/tmp/image"
    enter "$build" /src/deploy/image/packages.sh build
}

build() {
    say "building for $device"
    cp "$image/var/lib/dpkg/status" "$build/tmp/status"
    cat >"$build/tmp/build" <<-'SCRIPT'
		set -euo pipefail
		cd /src
		scripts/libtorch.sh "$1"
		make programs
		deploy/image/bundle.sh "$1" /opt/syncdiffusion
		deploy/image/sbom.py "$1" /tmp/status >/opt/syncdiffusion/sbom.cdx.json
	SCRIPT
    lend "$(rustc --print sysroot)" "$build/usr/local/rust" ro
    if [ -n "${CRATES:-}" ]; then lend "$CRATES" "$build/opt/cargo/registry"; fi
    enter "$build" CARGO_HOME=/opt/cargo bash /tmp/build "$device"
}

image() {
    say "assembling the image"
    rm -rf "$image/opt/syncdiffusion"
    cp -a "$build/opt/syncdiffusion" "$image/opt/syncdiffusion"
    install -m 755 deploy/image/weights.sh "$image/tmp/weights.sh"
    enter "$image" /tmp/weights.sh none /opt/models
    rm "$image/tmp/weights.sh"
    for tool in cc g++ python3 pip make cargo; do
        if enter "$image" sh -c "command -v $tool" >/dev/null 2>&1; then say "\`$tool\` must not be in the image"; exit 1; fi
    done
    du -sh "$image" "$image/opt/syncdiffusion" >&2
}

run() {
    say "starting the image as its user"
    local home=/var/lib/syncdiffusion server
    lend /proc "$image/proc"
    lend /dev "$image/dev"
    chroot --userspec=10001:10001 "$image" env -i PATH=/usr/bin:/bin PORT="$port" SYNCDIFFUSION_MODEL=demo \
        SYNCDIFFUSION_HOME=$home SYNCDIFFUSION_DATA_DIR=$home/data /opt/syncdiffusion/syncdiffusion serve --host 127.0.0.1 &
    server=$!
    # This is the process of the server itself, which is stopped as Docker stops it.
    trap 'kill "$server" 2>/dev/null || true; wait "$server" || true; undo' EXIT
    until chroot --userspec=10001:10001 "$image" env -i PORT="$port" /opt/syncdiffusion/healthcheck 2>/dev/null; do
        kill -0 "$server" || { say "the server exited"; exit 1; }
        sleep 1
    done
    curl --silent --show-error --fail "http://127.0.0.1:$port/predictions" -H 'content-type: application/json' \
        -d '{"input":{"prompt":"a beach with palms at sunset","width":512,"guidance_scale":5,"num_inference_steps":10}}' >"$folder/prediction.json"
    sed 's/"output":"\(.\{40\}\)[^"]*"/"output":"\1..."/; s/"logs":"[^"]*"/"logs":"..."/' "$folder/prediction.json" >&2
    echo >&2
    grep -q '"status":"succeeded"' "$folder/prediction.json"
    ps -o pid,user,args --ppid "$server" -p "$server" >&2
    say "stopping it with SIGTERM"
    kill -TERM "$server"
    wait "$server"
    trap undo EXIT
    undo
    say "the server exited cleanly"
}

[ $# -gt 0 ] || set -- roots build image run
for step; do
    case "$step" in
        roots | build | image | run) "$step" ;;
        *) say "unknown step \`$step\`; use roots, build, image or run"; exit 2 ;;
    esac
done
