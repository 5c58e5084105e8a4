#!/usr/bin/env python3
"""Sends requests that schemathesis generates from our OpenAPI document, and checks every response against the document.

    run.py --server PATH --worker PATH [--examples N] [--seed N]

The server runs with the stand-in worker, once without tokens and once with one. Each response must have a status, type and body
that the document names for its operation; so no response may be a 5xx except those that it names (503, and 500 of a failed job).
"""

import argparse
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "token-of-the-schema-test"

# The checks: no crash, and documented statuses, types, headers and bodies.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance"


# Whether a 5xx may come from an operation is for the document to say, which the check of statuses reads.
CONFIG = """[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "500", "503"]
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until_ready(url, server):
    end = time.time() + 60
    while time.time() < end:
        assert server.poll() is None, "the server has ended"
        try:
            urllib.request.urlopen(url + "/ready", timeout=5)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise AssertionError("the server does not become ready")


def run(options, token):
    """One run against a fresh server: true if nothing was found and the server still works."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        command = [options.server, "serve", "--host", "127.0.0.1", "--port", str(port), "--worker", options.worker,
                   "--data-dir", f"{folder}/data", "--max-predict-seconds", "1"]
        log = open(f"{folder}/log", "w+")
        server = subprocess.Popen(command + (["--api-token", TOKEN] if token else []), stdout=log, stderr=log)
        try:
            until_ready(url, server)
            Path(folder, "schemathesis.toml").write_text(CONFIG)
            # A shutdown would end the test; tests/tests/service covers it.
            ask = [Path(sys.executable).parent / "schemathesis", "run", ROOT / "openapi.yaml", "--url", url, "--checks", CHECKS,
                   "--max-examples", str(options.examples), "--exclude-path", "/shutdown", "--request-timeout", "30", "--no-color"]
            if options.seed is not None:
                ask += ["--seed", str(options.seed)]
            if token:
                ask += ["--header", f"Authorization: Bearer {TOKEN}"]
            found = subprocess.run(ask, cwd=folder).returncode
            alive = server.poll() is None
            with urllib.request.urlopen(url + "/ready", timeout=10) as answer:
                ready = answer.status == 200
            log.seek(0)
            text = log.read()
            panics = [line for line in text.splitlines() if "panic" in line]
            print(f"schemathesis: {found}, server alive: {alive}, ready: {ready}, panics: {len(panics)}")
            for line in panics:
                print(line)
            if TOKEN in text:
                print("the token is in the log")
            return found == 0 and alive and ready and not panics and TOKEN not in text
        finally:
            server.kill()
            server.wait()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--server", required=True, help="our server")
    arguments.add_argument("--worker", required=True, help="the stand-in worker")
    arguments.add_argument("--examples", type=int, default=100, help="requests for each operation")
    arguments.add_argument("--seed", type=int, help="repeat a run")
    options = arguments.parse_args()
    results = [run(options, token) for token in (False, True)]
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
