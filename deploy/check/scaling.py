"""Runs the query that KEDA scales a fleet by (manifests on standard input) on a private PostgreSQL with the tables of the program."""

import pathlib
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
POSTGRES = ROOT / "scripts/postgres.sh"
SCHEMA = ROOT / "crates/prediction/src/store/postgres/schema.sql"
# Names of columns are those of the tables; every other column has a default or is not looked at here.
SETUP = """
CREATE FUNCTION node(n bigint, said text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO syncdiffusion.nodes (node, about) VALUES (n, said::jsonb) $$;
CREATE FUNCTION job(n bigint, cost double precision, at bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO syncdiffusion.predictions (seq, id, tenant, units, rank, wire, record, status, node)
        VALUES (n, n::text, '', cost, n, 1, '{}', CASE WHEN at IS NULL THEN 'starting' ELSE 'processing' END, at) $$;
"""
# What is in the database, and the seconds that the query must find.
CASES = [
    ("an empty database", "", 0),
    ("a server that answers", """SELECT node(1, '{"ready": 0, "free": 0}')""", 0),
    ("waiting, and no speed is known", "SELECT job(1, 1000, NULL), job(2, 1000, NULL)", 60),
    ("a server that draws 10 a second", """SELECT node(2, '{"ready": 1, "units_per_second": 10}')""", 200),
    ("another that draws 30", """SELECT node(3, '{"ready": 1, "units_per_second": 30}')""", 100),
    ("one that loads again counts for nothing", """SELECT node(4, '{"ready": 0, "units_per_second": 1000}')""", 100),
    ("two that are busy count as full", "SELECT job(3, 1, 2), job(4, 1, 2), job(5, 1, 3)", 120),
    ("what waits for the model of the fleet counts", """INSERT INTO syncdiffusion.settings VALUES ('last_model', '{"model": {"version": "a"}}');
        SELECT job(6, 1000, NULL); UPDATE syncdiffusion.predictions SET version = 'a' WHERE seq = 6""", 150),
    ("what waits for another one does not", "UPDATE syncdiffusion.predictions SET version = 'b' WHERE seq = 6", 120),
    ("no server is left", """UPDATE syncdiffusion.predictions SET status = 'starting', node = NULL WHERE status = 'processing';
        DELETE FROM syncdiffusion.nodes""", 60),
    ("what has ended does not count", "UPDATE syncdiffusion.predictions SET status = 'canceled', node = NULL, completed_at = 0", 0),
]


def main():
    [query] = [
        trigger["metadata"]["query"]
        for manifest in yaml.safe_load_all(sys.stdin)
        if manifest["kind"] == "ScaledObject"
        for trigger in manifest["spec"]["triggers"]
    ]
    found = subprocess.run([POSTGRES, "find"], capture_output=True, text=True)
    if found.returncode:
        print(found.stderr.strip())
        sys.exit(77)
    psql = pathlib.Path(found.stdout.strip(), "psql")
    database = subprocess.Popen([POSTGRES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    folder = database.stdout.readline().split()[1]

    def sql(text):
        command = [psql, "-h", folder, "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-qAt", "-f", "-"]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{text}: {done.stderr}")
        return done.stdout

    try:
        sql(SCHEMA.read_text())
        sql(SETUP)
        # As KEDA's role does.
        sql("CREATE ROLE scaler LOGIN IN ROLE pg_read_all_data")
        for what, change, wanted in CASES:
            sql(change)
            seconds = float(sql(f"SET ROLE scaler; {query}"))
            if seconds != wanted:
                sys.exit(f"{what}: {seconds} seconds instead of {wanted}")
    finally:
        database.stdin.close()
        database.wait()


if __name__ == "__main__":
    main()
