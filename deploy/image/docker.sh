#!/usr/bin/env bash
# Builds the image with the labels of Cog: docker.sh TAG [FLAGS of docker build]. DOCKER names another builder, such as `podman`.
set -euo pipefail
cd "$(dirname "$0")/../.."

tag=${1:?name the image, such as syncdiffusion:cuda}
shift
scripts/tools.sh
mapfile -d '' labels < <(.tools/python/bin/python deploy/image/labels.py)
flags=()
for label in "${labels[@]}"; do flags+=(--label "$label"); done
if revision=$(git rev-parse HEAD 2>/dev/null); then flags+=(--label "org.opencontainers.image.revision=$revision"); fi
exec "${DOCKER:-docker}" build --tag "$tag" "${flags[@]}" "$@" .
