#!/usr/bin/env bash
# Installs the Debian packages of a stage: `build` (the prerequisites of README.md except Rust) or `run` (what the programs need).
set -euo pipefail

case "${1:-}" in
    build) packages=(g++ make python3 python3-pip ca-certificates) ;;
    run) packages=(libstdc++6 ca-certificates) ;;
    *) echo "usage: packages.sh build|run" >&2; exit 2 ;;
esac
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${packages[@]}"
apt-get clean
rm -rf /var/lib/apt/lists/*
