#!/usr/bin/env bash
# weights.sh none|sd2 FOLDER: fetches the weights of an image. The secret `hf_token` is the token of the hub, if it needs one.
set -euo pipefail

name=${1:?name the weights, none or sd2}
out=${2:?name the folder to write to}
mkdir -p "$out"
[ "$name" != none ] || exit 0
if [ -r /run/secrets/hf_token ]; then
    HF_TOKEN=$(cat /run/secrets/hf_token)
    export HF_TOKEN
fi
/opt/syncdiffusion/syncdiffusion weights fetch "$name" --to "$out/$name"
