#!/usr/bin/env bash
# Puts the weights of an image into a folder: weights.sh none|sd2 FOLDER. A token, if the hub wants one, is the secret `hf_token`.
set -euo pipefail

name=${1:?say which weights, none or sd2}
out=${2:?say into which folder}
mkdir -p "$out"
[ "$name" != none ] || exit 0
if [ -r /run/secrets/hf_token ]; then
    HF_TOKEN=$(cat /run/secrets/hf_token)
    export HF_TOKEN
fi
/opt/syncdiffusion/syncdiffusion weights fetch "$name" --to "$out/$name"
