"""fleet.py: a private PostgreSQL and servers that share it; both can be killed, and servers frozen."""

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

from .client import REFUSED, ask

POSTGRES = Path(__file__).resolve().parents[1] / "postgres.sh"
# Refuses to change what has ended.
GUARD = POSTGRES.with_name("guard.sql").read_text()
OPEN = "status IN ('starting', 'processing')"
PATIENCE = 60


class Database:
    """A PostgreSQL that ends with this process."""

    def __init__(self):
        found = subprocess.run([POSTGRES, "find"], capture_output=True, text=True)
        if found.returncode:
            raise SystemExit(found.stderr.strip())
        self.bin = Path(found.stdout.strip())
        self.script = subprocess.Popen([POSTGRES, "", "max_connections=200"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lock = threading.Lock()
        said = self.script.stdout.readline().split()
        if said[:1] != ["ready"]:
            raise SystemExit("PostgreSQL does not start")
        self.folder = said[1]
        self.url = f"postgres://postgres@{urllib.parse.quote(self.folder, safe='')}/postgres"
        self.sql(GUARD)

    def tell(self, word):
        """`kill` ends the server as a crash does, `start` starts it again."""
        with self.lock:
            print(word, file=self.script.stdin, flush=True)
            if self.script.stdout.readline() != "done\n":
                raise SystemExit(f"`{word}`: PostgreSQL does not obey")

    def sql(self, text):
        """The rows of a statement, as text."""
        command = [self.bin / "psql", "-h", self.folder, "-U", "postgres", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-qAt", "-c", text]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{text}: {done.stderr}")
        return done.stdout.splitlines()

    def count(self, condition):
        return int(self.sql(f"SELECT count(*) FROM syncdiffusion.predictions WHERE {condition}")[0])

    def log(self):
        return Path(self.folder, "log").read_text(errors="replace")

    def close(self):
        self.script.stdin.close()
        self.script.wait(PATIENCE)


class Pooler:
    """PgBouncer before the database, in transaction mode."""

    def __init__(self, program, database):
        self.folder = tempfile.mkdtemp(prefix="pooler.")
        # It refuses to be root, and only the user of the database may enter its folder.
        user = ["--user", pwd.getpwuid(os.stat(database.folder).st_uid).pw_name] if os.getuid() == 0 else []
        os.chmod(self.folder, 0o777)
        settings = Path(self.folder, "pgbouncer.ini")
        settings.write_text(
            f"[databases]\npostgres = host={database.folder} user=postgres\n[pgbouncer]\nlisten_addr =\nlisten_port = 6432\nauth_type = any\n"
            f"unix_socket_dir = {self.folder}\npool_mode = transaction\ndefault_pool_size = 20\nmax_client_conn = 500\nserver_login_retry = 1\n"
        )
        with open(Path(self.folder, "log"), "wb") as log:
            self.process = subprocess.Popen([program, *user, settings], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while not Path(self.folder, ".s.PGSQL.6432").exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"PgBouncer does not start: {Path(self.folder, 'log').read_text()}")
            time.sleep(0.05)
        self.url = f"postgres://postgres@{urllib.parse.quote(self.folder, safe='')}:6432/postgres"

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)


class Node:
    """A server, on a port of its own that it has again after a restart."""

    def __init__(self, name, arguments, log):
        self.name, self.arguments, self.log = name, arguments, log
        self.port = free_port()
        self.process = None
        # Killed, frozen or not started yet, by us.
        self.down = True

    def start(self):
        with open(self.log, "ab") as log:
            command = [*self.arguments, "--port", str(self.port)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
        self.down = False

    def kill(self):
        self.down = True
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Asks it to end, as an upgrade does."""
        self.down = True
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
            return
        raise SystemExit(f"{self.name} does not end after SIGTERM")

    def freeze(self):
        self.down = True
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)
        self.down = False

    def ended(self):
        """The status with which it has ended by itself, if so."""
        return None if self.down else self.process.poll()

    def health(self):
        try:
            return ask(self.port, "GET", "/health-check")[1]["status"]
        except REFUSED:
            return None

    def running(self):
        """How many predictions its workers have."""
        for line in ask(self.port, "GET", "/metrics")[1].splitlines():
            if line.startswith("syncdiffusion_predictions_running "):
                return int(float(line.split()[1]))
        raise SystemExit(f"{self.name} does not say what runs")


class Fleet:
    """Servers without workers (`doors`) and servers with one each (`workers`)."""

    def __init__(self, database, url, server, worker, folder, doors, workers, lease):
        self.database, self.lease = database, lease
        serve = [server, "serve", "--host", "127.0.0.1", "--database", url, "--lease", f"{lease}s", "--queue-size", "5000"]
        self.doors = [Node(f"door{n}", [*serve, "--workers", "0"], Path(folder, f"door{n}.log")) for n in range(doors)]
        self.workers = [Node(f"worker{n}", [*serve, "--worker", worker], Path(folder, f"worker{n}.log")) for n in range(workers)]
        self.nodes = [*self.doors, *self.workers]

    def start(self):
        for node in self.nodes:
            node.start()
        self.until_ready()

    def until_ready(self, meanwhile=lambda: None):
        """Waits until every server has workers of its own or of others, and no other node counts as alive."""
        deadline = time.monotonic() + PATIENCE
        while any(node.health() not in ("READY", "BUSY") for node in self.nodes) or self.known() != len(self.nodes):
            if time.monotonic() > deadline:
                raise SystemExit(f"not ready: {({node.name: node.health() for node in self.nodes})}, {self.known()} nodes are known")
            meanwhile()
            time.sleep(0.05)

    def known(self):
        return int(self.database.sql("SELECT count(*) FROM syncdiffusion.nodes")[0])

    def any(self, dice=random):
        """A server that is up, as far as is known."""
        return dice.choice([node for node in self.nodes if not node.down] or self.nodes)

    def close(self):
        for node in self.nodes:
            if node.process and node.process.poll() is None:
                node.process.kill()
                node.process.wait()


# Below those that connections are given.
PORTS = iter(range(20000 + os.getpid() % 100 * 100, 32000))


def free_port():
    for port in PORTS:
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            return port
    raise SystemExit("no port is free")
