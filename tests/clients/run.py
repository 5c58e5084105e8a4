#!/usr/bin/env python3
"""Runs official clients, unchanged, against the server: once without tokens and once with two.

    run.py --server PATH --worker PATH [NAME ...]

A client is a script beside this file, named FAMILY_WHAT.py or FAMILY_WHAT.mjs. A Python script runs in the environment of the folder
of its name (scripts/venv.sh), the others with Node and the packages of package.json. It finds in its environment:

    URL           address of the server
    TOKEN, OTHER  two API tokens; empty where the server has none
    MODEL         OWNER/NAME of the model
    SCRATCH       an empty folder, which the stand-in worker sees, too

and ends with another status than 0 if anything is wrong. The worker is the stand-in; tests/src/bin/stand_in_worker.rs lists the words
of a prompt that it obeys. Without Node its clients are not run, which the last line says.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOKENS = ("first-token-of-the-clients", "other-token-of-the-clients")
# After this time a client counts as hanging.
MAX_SECONDS = 300


def clients(names):
    """Name and command of every client, or of those that are named; the command is `None` where it cannot run here."""
    found = {}
    for script in sorted(HERE.glob("*_*.py")):
        found[script.stem] = [HERE / script.stem / ".venv/bin/python", script]
    for script in sorted(HERE.glob("*_*.mjs")):
        found[script.stem] = ["node", script] if shutil.which("node") else None
    unknown = set(names) - set(found)
    if unknown:
        sys.exit(f"there is no client `{'`, `'.join(sorted(unknown))}`; there are `{'`, `'.join(found)}`")
    return {name: command for name, command in found.items() if not names or name in names}


class Server:
    """A server with the stand-in worker, ended on leaving."""

    def __init__(self, options, folder, tokens):
        self.tokens, self.folder, self.log = tokens, folder, open(f"{folder}/log", "w+")
        command = [options.server, "serve", "--host", "127.0.0.1", "--port", "0", "--data-dir", f"{folder}/data",
                   "--worker", options.worker, "--show-webhook-secret"]
        environment = os.environ | ({"SYNCDIFFUSION_API_TOKEN": ",".join(tokens)} if tokens else {})
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment)
        self.url = "http://" + self.process.stdout.readline().removeprefix("Listening on ").split(". ")[0]

    def __enter__(self):
        end = time.time() + 60
        while json.load(urllib.request.urlopen(f"{self.url}/health-check"))["status"] != "READY":
            assert time.time() < end, "the server does not become ready"
            time.sleep(0.02)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def environment(self):
        token, other = self.tokens or ("", "")
        scratch = tempfile.mkdtemp(dir=self.folder)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("REPLICATE_", "OPENAI_"))}
        return clean | {"URL": self.url, "TOKEN": token, "OTHER": other, "MODEL": "syncdiffusion/panorama", "SCRATCH": scratch,
                        "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}


def run(name, command, server):
    """Whether a client finds nothing wrong."""
    try:
        done = subprocess.run(command, cwd=HERE, env=server.environment(), timeout=MAX_SECONDS, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        code, text = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        code, text = "none", f"{(late.stdout or b'').decode()}\nit hangs"
    where = "with tokens" if server.tokens else "without tokens"
    last = text.strip().splitlines()[-1:] or ["it printed nothing"]
    print(f"{'passed' if code == 0 else 'FAILED'}  {name} {where}: {last[0]}")
    if code != 0:
        server.log.seek(0)
        print(text, "--- log of the server", *server.log.read().splitlines()[-40:], sep="\n")
    return code == 0


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--server", required=True, help="our server")
    arguments.add_argument("--worker", required=True, help="the stand-in worker")
    arguments.add_argument("names", nargs="*", metavar="NAME", help="only these clients")
    options = arguments.parse_args()
    chosen = clients(options.names)
    results, missing = [], [name for name, command in chosen.items() if command is None]
    for tokens in ((), TOKENS):
        for name, command in chosen.items():
            if command is not None:
                with tempfile.TemporaryDirectory() as folder, Server(options, folder, tokens) as server:
                    results.append(run(name, command, server))
    if missing:
        print(f"NOT RUN  `{'`, `'.join(missing)}`: Node is missing; install Node 20 or newer")
    sys.exit(not results or not all(results))


if __name__ == "__main__":
    main()
