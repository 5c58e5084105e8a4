#!/usr/bin/env bash
# Makes the account that the server runs as, and the folders it writes to.
set -euo pipefail

groupadd --gid 10001 syncdiffusion
useradd --uid 10001 --gid syncdiffusion --home-dir /var/lib/syncdiffusion --no-create-home --shell /usr/sbin/nologin syncdiffusion
# The second is where probes made for Cog look for a file.
install -d -o syncdiffusion -g syncdiffusion -m 755 /var/lib/syncdiffusion /var/run/cog
