#!/usr/bin/env bash
# Creates the account that the server runs as, and the folders that it writes to.
set -euo pipefail

groupadd --gid 10001 syncdiffusion
useradd --uid 10001 --gid syncdiffusion --home-dir /var/lib/syncdiffusion --no-create-home --shell /usr/sbin/nologin syncdiffusion
# Probes made for Cog look for a file in the second folder.
# Any user of group 0 can write to them, as on platforms that choose the user.
install -d -o syncdiffusion -g 0 -m 2775 /var/lib/syncdiffusion /var/run/cog
