#!/usr/bin/env bash
# run.sh [FILE...]: tests the pages of the built server in Chromium, with the stand-in worker. Pictures of every state are
# in target/page, to be looked at. CHROMIUM names another browser. On CI a missing Chromium is installed.
set -euo pipefail
cd "$(dirname "$0")"

say() { printf 'page: %s\n' "$*" >&2; }

command -v npm >/dev/null || { say "Node 20 or newer and npm were not found; install them"; exit 1; }

browser() {
    local candidate
    for candidate in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
        [ -n "$candidate" ] && command -v "$candidate" && return
    done
    return 1
}

if [ -n "${CI:-}" ] && ! browser >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing Chromium"
    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
fi
CHROMIUM=$(browser) || { say "Chromium was not found; install it (Debian: \`apt install chromium\`), or set CHROMIUM"; exit 1; }
export CHROMIUM

npm ci --silent --no-fund --no-audit
[ $# -gt 0 ] || set -- *.test.mjs
exec node --test --test-concurrency=1 "$@"
