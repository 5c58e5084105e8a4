"""Runs nginx with deploy/nginx/syncdiffusion.conf in front of a small upstream or (--server) the built server.

Events must pass one by one: the upstream sends the second only when the client has the first, so a proxy that buffers them
never gets further. The time limits only end a run that hangs.
"""

import contextlib
import http.client
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = "panorama.example.com"
LIMIT = 60


class Upstream(http.server.BaseHTTPRequestHandler):
    """Sends one event, and another once `first_seen` is set; sets `left` when its client disconnects."""

    protocol_version = "HTTP/1.1"
    first_seen = threading.Event()
    left = threading.Event()

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.chunk(f"data: {self.path} {self.headers['x-forwarded-proto']}\n\n")
        if self.path == "/endless":
            self.connection.settimeout(LIMIT)
            if self.connection.recv(1) == b"":
                self.left.set()
            self.close_connection = True
        elif self.first_seen.wait(LIMIT):
            self.chunk("data: second\n\n")
            self.chunk("")

    def chunk(self, text):
        self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def stop(process):
    process.terminate()
    process.wait(LIMIT)


@contextlib.contextmanager
def nginx(folder, upstream):
    """A running nginx; yields its HTTP and HTTPS ports and its certificate."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    plain, secure = free_port(), free_port()
    text = (ROOT / "deploy/nginx/syncdiffusion.conf").read_text()
    for old, new in [
        ("server 127.0.0.1:5000;", f"server 127.0.0.1:{upstream};"),
        ("listen 80;", f"listen 127.0.0.1:{plain};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{secure} ssl;"),
        (f"/etc/nginx/tls/{NAME}.pem", str(certificate)),
        (f"/etc/nginx/tls/{NAME}.key", str(key)),
    ]:
        assert text.count(old) == 1, f"`{old}` is not in the example once"
        text = text.replace(old, new)
    temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    main = folder / "nginx.conf"
    main.write_text(f"daemon off; pid {folder}/pid; error_log stderr; events {{}} http {{ access_log off; {temporary}\n{text}\n}}")
    command = ["nginx", "-e", "stderr", "-p", folder, "-c", main]
    subprocess.run([*command, "-t"], check=True)
    process = subprocess.Popen(command)
    try:
        for port in (plain, secure):
            reachable(port, process)
        yield plain, secure, certificate
    finally:
        stop(process)


def reachable(port, process):
    """Waits until the process listens on the port."""
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
    sys.exit("the process ended before it listened")


def secured(port, certificate):
    """A TLS connection that trusts the certificate and checks the name."""
    context = ssl.create_default_context(cafile=certificate)
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=LIMIT)
    raw = socket.create_connection(("127.0.0.1", port), LIMIT)
    connection.sock = context.wrap_socket(raw, server_hostname=NAME)
    return connection


def ask(connection, method, path, body=None, **headers):
    connection.request(method, path, body, {"host": NAME, **headers})
    return connection.getresponse()


def event(response):
    """The lines of the next event."""
    lines = []
    while (line := response.readline()) not in (b"\n", b""):
        lines.append(line.decode().strip())
    return lines


def with_upstream(folder):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with nginx(folder, server.server_port) as (plain, secure, certificate):
        response = ask(http.client.HTTPConnection("127.0.0.1", plain), "GET", "/predictions")
        assert (response.status, response.headers["location"]) == (301, f"https://{NAME}/predictions"), response.status
        for path in ("/shutdown", "/metrics"):
            assert ask(secured(secure, certificate), "GET", path).status == 403, path

        # A body larger than the default limit and the buffers of nginx.
        response = ask(secured(secure, certificate), "POST", "/predictions", b"x" * (8 << 20))
        assert event(response) == ["data: /predictions https"]
        Upstream.first_seen.set()
        assert event(response) == ["data: second"]

        connection = secured(secure, certificate)
        assert event(ask(connection, "GET", "/endless")) == ["data: /endless https"]
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        assert Upstream.left.wait(LIMIT), "the upstream did not notice that the client disconnected"
    server.shutdown()


def with_server(folder):
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [target / kind for kind in ("release", "debug") if (target / kind / "syncdiffusion").exists() and (target / kind / "stand-in-worker").exists()]
    if not built:
        print("the server and the stand-in worker are not built; run `cargo build -p server -p tests`")
        sys.exit(77)
    port = free_port()
    command = [built[0] / "syncdiffusion", "serve", "--host", "127.0.0.1", "--port", str(port), "--data-dir", folder / "data", "--public-url", f"https://{NAME}"]
    process = subprocess.Popen([*command, "--worker", built[0] / "stand-in-worker"], stdout=subprocess.DEVNULL)
    try:
        reachable(port, process)
        with nginx(folder, port) as (_, secure, certificate):
            while ask(secured(secure, certificate), "GET", "/ready").status != 200:
                assert process.poll() is None, "the server ended"
            body = json.dumps({"input": {"prompt": "a harbour"}})
            headers = {"content-type": "application/json", "accept": "text/event-stream"}
            response = ask(secured(secure, certificate), "PUT", "/predictions/behind-nginx", body, **headers)
            assert response.status == 200 and response.headers["content-type"].startswith("text/event-stream"), response.status
            seen = []
            while lines := event(response):
                seen += [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
            assert seen[0] == "start" and seen[-1] == "completed" and "progress" in seen, seen
            prediction = json.load(ask(secured(secure, certificate), "GET", "/predictions/behind-nginx"))
            assert prediction["status"] == "succeeded", prediction
            assert prediction["urls"]["get"] == f"https://{NAME}/predictions/behind-nginx", prediction["urls"]
    finally:
        stop(process)


def main():
    version = shutil.which("nginx") and subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr
    if not version or tuple(map(int, re.search(r"/(\d+)\.(\d+)\.(\d+)", version).groups())) < (1, 25, 1):
        print("nginx 1.25.1 or newer is not installed")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        # A master process that runs as root has workers that do not.
        os.chmod(folder, 0o711)
        (with_server if "--server" in sys.argv else with_upstream)(pathlib.Path(folder))


if __name__ == "__main__":
    main()
