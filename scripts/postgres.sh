#!/bin/sh
# A private PostgreSQL for tests and for trying a fleet: scripts/postgres.sh [PORT [setting=value]...]
# It listens on a socket in a folder of its own and, if a port is given, on 127.0.0.1. Says `ready FOLDER` when it can
# be used (user `postgres`, no password), and ends, without a trace, when its standard input is closed. Lines there:
# `kill` ends the server as a crash does, `start` starts it again, `standby` makes a synchronous standby with a socket in
# FOLDER/standby, `pause` has that one stand still, `resume` lets it go on, `promote` makes it the primary; each is
# answered with `done`.
# The setting `pgbouncer=on` puts a PgBouncer in transaction mode before it, with a socket in the folder FOLDER/pool.
# Ends with status 69 where no PostgreSQL is found; POSTGRES_BIN names the folder of another one.
# `scripts/postgres.sh find` only says where it is.
set -eu

port=${1:-}
[ $# -eq 0 ] || shift

for bin in "${POSTGRES_BIN:-}" /usr/lib/postgresql/*/bin /usr/local/bin /usr/bin; do
    [ -x "$bin/initdb" ] && [ -x "$bin/postgres" ] && break
    bin=
done
if [ -z "$bin" ]; then
    echo "no PostgreSQL was found: install Debian's package \`postgresql\`, or name a folder in POSTGRES_BIN" >&2
    exit 69
fi

if [ "$port" = find ]; then
    echo "$bin"
    exit
fi

# initdb refuses to be root.
as() { "$@"; }
if [ "$(id -u)" -eq 0 ]; then
    user=postgres
    id "$user" >/dev/null 2>&1 || user=nobody
    as() { setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups env HOME=/tmp "$@"; }
fi

# In memory where there is such a folder, unless POSTGRES_IN names another: what is tested is not the disk.
folder=$(as mktemp -d "${POSTGRES_IN:-$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)}/postgres.XXXXXX")
child=
standby=
pooler=
end() {
    trap - EXIT INT TERM HUP
    [ -z "$pooler" ] || kill -QUIT "$pooler" 2>/dev/null || true
    signal_standby CONT
    for server in $child $standby; do
        kill -QUIT "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    done
    rm -rf "$folder"
}
[ "$(id -u)" -ne 0 ] || chown "$user" "$folder"
trap end EXIT
trap 'exit 1' INT TERM HUP

as "$bin/initdb" --pgdata="$folder/data" --username=postgres --auth=trust --encoding=UTF8 --locale=C --no-sync \
    >"$folder/log" 2>&1 </dev/null || { cat "$folder/log" >&2; exit 1; }
set -- "$@" listen_addresses="${port:+127.0.0.1}" port="${port:-5432}"
pgbouncer=off
for setting; do
    case $setting in
        pgbouncer=*)
            pgbouncer=${setting#*=}
            continue
            ;;
        ssl_*_file=*)
            # The server reads only what is its user's.
            own=$folder/${setting%%=*}
            install -m 600 "${setting#*=}" "$own"
            [ "$(id -u)" -ne 0 ] || chown "$user" "$own"
            setting=${setting%%=*}=$own
            ;;
    esac
    echo "$(echo "$setting" | sed "s/=/ = '/")'" >>"$folder/data/postgresql.conf"
done

# Starts the server of a folder of data, with a socket in another folder. Its process is `launched`.
launch() {
    # What a killed server has left may hold its memory for a moment.
    tries=0
    until
        if [ "$(id -u)" -eq 0 ]; then
            setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups \
                "$bin/postgres" -D "$1" -c unix_socket_directories="$2" >>"$folder/log" 2>&1 </dev/null &
        else
            "$bin/postgres" -D "$1" -c unix_socket_directories="$2" >>"$folder/log" 2>&1 </dev/null &
        fi
        launched=$!
        until as "$bin/pg_isready" --quiet --host="$2" --port="${port:-5432}" </dev/null; do
            kill -0 "$launched" 2>/dev/null || break
            sleep 0.05
        done
        kill -0 "$launched" 2>/dev/null
    do
        tries=$((tries + 1))
        [ "$tries" -lt 20 ] || { cat "$folder/log" >&2; exit 1; }
        sleep 0.2
    done
}

start() {
    launch "$folder/data" "$folder"
    child=$launched
}

sql() {
    as "$bin/psql" --host="$folder" --port="${port:-5432}" --username=postgres --dbname=postgres -qAtc "$1" </dev/null
}

# Sends a signal to all processes of the standby, if there is one.
signal_standby() {
    # shellcheck disable=SC2046 # Each is a word.
    [ -z "$standby" ] || kill "-$1" "$standby" $(pgrep -P "$standby") 2>/dev/null || true
}

standby() {
    as mkdir "$folder/standby"
    as "$bin/pg_basebackup" --host="$folder" --port="${port:-5432}" --username=postgres --checkpoint=fast --no-sync \
        --pgdata="$folder/standby/data" --write-recovery-conf >>"$folder/log" 2>&1 </dev/null ||
        { cat "$folder/log" >&2; exit 1; }
    echo "listen_addresses = ''" >>"$folder/standby/data/postgresql.conf"
    launch "$folder/standby/data" "$folder/standby"
    standby=$launched
    sql "ALTER SYSTEM SET synchronous_standby_names = '*'"
    sql "SELECT pg_reload_conf()" >/dev/null
    until [ "$(sql "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")" = 1 ]; do
        kill -0 "$standby" 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
        sleep 0.05
    done
}

start
if [ "$pgbouncer" = on ]; then
    as mkdir "$folder/pool"
    cat >"$folder/pgbouncer.ini" <<INI
[databases]
* = host=$folder port=${port:-5432} user=postgres
[pgbouncer]
unix_socket_dir = $folder/pool
listen_port = 5432
auth_type = any
pool_mode = transaction
default_pool_size = 2
max_client_conn = 2000
server_idle_timeout = 2
INI
    PATH=$PATH:/usr/sbin
    if [ "$(id -u)" -eq 0 ]; then
        setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups pgbouncer "$folder/pgbouncer.ini" \
            >>"$folder/log" 2>&1 </dev/null &
    else
        pgbouncer "$folder/pgbouncer.ini" >>"$folder/log" 2>&1 </dev/null &
    fi
    pooler=$!
    until [ -S "$folder/pool/.s.PGSQL.5432" ]; do
        kill -0 "$pooler" 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
        sleep 0.05
    done
fi
echo "ready $folder"
# Until whoever started this is gone.
while read -r word; do
    case $word in
        kill) kill -KILL "$child"; wait "$child" 2>/dev/null || true; child= ;;
        start) start ;;
        standby) standby ;;
        pause) signal_standby STOP ;;
        resume) signal_standby CONT ;;
        promote) as "$bin/pg_ctl" promote --silent --pgdata="$folder/standby/data" </dev/null >>"$folder/log" ;;
    esac
    echo "done"
done
