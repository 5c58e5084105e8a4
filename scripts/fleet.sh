#!/usr/bin/env bash
# A fleet to try on this machine: scripts/fleet.sh [flags of serve]
# Starts a private PostgreSQL, a server without workers on PORT (5000) and two with one on the next ports, prints what to
# try, and ends everything at Ctrl-C. SERVER and WORKER name other programs: WORKER=target/release/stand-in-worker has no
# model and draws at once.
set -euo pipefail
cd "$(dirname "$0")/.."

server=${SERVER:-target/release/syncdiffusion}
port=${PORT:-5000}
worker=()
[ -z "${WORKER:-}" ] || worker=(--worker "$WORKER")
[ -x "$server" ] || { echo "\`$server\` does not exist; \`make programs\` builds it" >&2; exit 1; }
scripts/postgres.sh find >/dev/null

logs=$(mktemp -d)
pids=()
finish() {
    trap - EXIT INT TERM HUP
    echo "ending"
    [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    # It ends with its standard input.
    [ -z "${POSTGRES_PID:-}" ] || { eval "exec ${POSTGRES[1]}>&-"; wait "$POSTGRES_PID" 2>/dev/null || true; }
    rm -rf "$logs"
}
trap finish EXIT
trap 'exit 0' INT TERM HUP

# Ctrl-C must not reach the database before the servers have ended, so nothing is in the group of this script.
coproc POSTGRES { exec setsid scripts/postgres.sh; }
read -r _ folder <&"${POSTGRES[0]}" || { echo "PostgreSQL does not start" >&2; exit 1; }
database=postgres://postgres@${folder//\//%2F}/postgres

start() { # PORT NAME FLAGS...
    local at=$1 log=$logs/$2
    shift 2
    setsid "$server" serve --database "$database" --host 127.0.0.1 --port "$at" --grace 5s "$@" >"$log" 2>&1 </dev/null &
    pids+=($!)
}

ready() { # PORT
    local line
    { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
    printf 'GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
    read -r line <&3 || line=
    exec 3>&-
    [[ $line == *" 200 "* ]]
}

start "$port" without-workers --workers 0 "$@"
for n in 1 2; do start $((port + n)) worker-$n "${worker[@]}" "$@"; done
for n in 0 1 2; do
    until ready $((port + n)); do
        kill -0 "${pids[n]}" 2>/dev/null || { cat "$logs"/*; exit 1; }
        sleep 0.2
    done
done

cat <<TEXT
Three servers share a private PostgreSQL. Ctrl-C ends everything and leaves nothing.

  http://localhost:$port    accepts and answers, has no workers  (process ${pids[0]})
  http://localhost:$((port + 1))    has a worker                         (process ${pids[1]})
  http://localhost:$((port + 2))    has a worker                         (process ${pids[2]})

One accepts, another computes, a third answers:
  curl -X PUT localhost:$port/predictions/lake -H 'content-type: application/json' -H 'prefer: respond-async' \\
    -d '{"input":{"prompt":"a photo of a mountain lake at dawn","guidance_scale":5,"num_inference_steps":25}}'
  curl -N localhost:$((port + 2))/predictions/lake/stream
  curl -o lake.png localhost:$((port + 1))/predictions/lake/output
Cancel on any of them:
  curl -X POST localhost:$((port + 1))/predictions/lake/cancel
Kill one while it computes, and the other begins again within 15 seconds (--lease); then start another one:
  kill -9 ${pids[1]}
  $server serve --database '$database' --port $((port + 1))
What is in the database:
  psql -h $folder -U postgres -c 'SELECT id, status, node, attempts FROM syncdiffusion.predictions'
  psql -h $folder -U postgres -c 'SELECT node, beat, about FROM syncdiffusion.nodes'
Logs of the servers: $logs
TEXT

for _ in "${pids[@]}"; do
    wait -n -p ended || true
    echo "the process $ended has ended"
done
